//! Which windows and probes somebody wants to see.

use std::convert::Infallible;
use std::str::FromStr;

use dt_feed::Histogram;
use dt_feed::proto::Counters;

use crate::merge::loss;
use crate::nodes::Node;

/// A name, in which `*` stands for any letters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern(String);

/// What has to hold of a window or probe. An empty list accepts everything; each other one at least one of its patterns.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Filter {
    /// Names of the node that measured.
    pub from: Vec<Pattern>,
    /// Names of the node that was measured.
    pub to: Vec<Pattern>,
    /// Names of either.
    pub nodes: Vec<Pattern>,
    /// Zone of either.
    pub zones: Vec<Pattern>,
    /// Rack of either.
    pub racks: Vec<Pattern>,
    /// Code point of the probes; one that is not said is none of these.
    pub dscps: Vec<u32>,
    /// Length of the probes from their IP header on, bytes.
    pub packet_bytes: Vec<u32>,
}

/// From which figures on something is worth a line.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Threshold {
    /// Least share of lost probes, 0 to 1. With 0 one lost probe suffices.
    pub loss: Option<f64>,
    /// Least round trip time in ns; of windows the P99.
    pub rtt_ns: Option<u64>,
}

impl Pattern {
    /// Whether the name is one of those that are meant.
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        let mut parts = self.0.split('*');
        // Split yields at least one part.
        let Some(mut rest) = name.strip_prefix(parts.next().unwrap_or_default()) else {
            return false;
        };
        let Some(last) = parts.next_back() else {
            return rest.is_empty();
        };
        for part in parts {
            // The first place is as good as any later one.
            let Some(place) = rest.find(part) else {
                return false;
            };
            rest = &rest[place + part.len()..];
        }
        rest.ends_with(last)
    }
}

impl FromStr for Pattern {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(Self(text.to_owned()))
    }
}

impl Filter {
    /// Whether what one node measured of another is wanted. A peer without a name has no labels either.
    #[must_use]
    pub fn accepts(&self, from: &Node, to: Option<&Node>) -> bool {
        let name = to.map(|node| &*node.name);
        let either = |patterns: &[Pattern], label: fn(&Node) -> &str| {
            any(patterns, Some(label(from))) || any(patterns, to.map(label))
        };
        any(&self.from, Some(&from.name))
            && any(&self.to, name)
            && either(&self.nodes, |node| &node.name)
            && either(&self.zones, |node| &node.labels.zone)
            && either_rack(&self.racks, from, to)
    }

    /// Whether probes of this kind are wanted.
    #[must_use]
    pub fn accepts_class(&self, dscp: Option<u32>, packet_bytes: u32) -> bool {
        let of_class = |wanted: &[u32], value: Option<u32>| {
            wanted.is_empty() || value.is_some_and(|value| wanted.contains(&value))
        };
        of_class(&self.dscps, dscp) && of_class(&self.packet_bytes, Some(packet_bytes))
    }

    /// Whether a node is one of those that were asked for, at either end.
    #[must_use]
    pub fn means(&self, node: &Node) -> bool {
        (any(&self.from, Some(&node.name)) || any(&self.to, Some(&node.name)))
            && any(&self.nodes, Some(&node.name))
            && any(&self.zones, Some(&node.labels.zone))
            && either_rack(&self.racks, node, None)
    }
}

impl Threshold {
    /// Whether a window's figures reach it: by loss or by time, when both are given.
    #[must_use]
    pub fn accepts(&self, counters: &Counters, rtt: &Histogram) -> bool {
        let is_lossy =
            |least| counters.lost() > 0 && loss(counters).is_some_and(|loss| loss >= least);
        let is_slow = |least| rtt.quantile(0.99).is_some_and(|ns| ns >= least);
        either_given(self.loss.map(is_lossy), self.rtt_ns.map(is_slow))
    }

    /// Whether a probe's end reaches it.
    #[must_use]
    pub fn accepts_probe(&self, is_lost: bool, rtt_ns: Option<u64>) -> bool {
        let by_rtt = self
            .rtt_ns
            .map(|least| rtt_ns.is_some_and(|ns| ns >= least));
        either_given(self.loss.map(|_| is_lost), by_rtt)
    }
}

fn either_given(left: Option<bool>, right: Option<bool>) -> bool {
    match (left, right) {
        (None, None) => true,
        (Some(given), None) | (None, Some(given)) => given,
        (Some(left), Some(right)) => left || right,
    }
}

fn any(patterns: &[Pattern], name: Option<&str>) -> bool {
    patterns.is_empty()
        || name.is_some_and(|name| patterns.iter().any(|pattern| pattern.matches(name)))
}

/// A rack may be named with its zone before it or without.
fn either_rack(patterns: &[Pattern], from: &Node, to: Option<&Node>) -> bool {
    let is_in = |node: &Node| {
        any(patterns, Some(&node.labels.rack)) || any(patterns, Some(node.labels.rack_in_zone()))
    };
    patterns.is_empty() || is_in(from) || to.is_some_and(is_in)
}

#[cfg(test)]
mod tests {
    use dt_feed::proto::Batch;

    use super::*;
    use crate::nodes::Nodes;

    fn patterns(list: &[&str]) -> Vec<Pattern> {
        list.iter()
            .map(|text| Pattern((*text).to_owned()))
            .collect()
    }

    #[test]
    fn a_star_stands_for_any_letters() {
        for (pattern, name, expected) in [
            ("n1", "n1", true),
            ("n1", "n10", false),
            ("n1", "an1", false),
            ("n*", "n10", true),
            ("*", "", true),
            ("*1", "n11", true),
            ("n*-*x", "n1-a-x", true),
            ("n*-*x", "n1x", false),
            ("a*a", "a", false),
            ("", "n1", false),
        ] {
            assert_eq!(
                Pattern(pattern.into()).matches(name),
                expected,
                "{pattern} on {name}"
            );
        }
    }

    #[test]
    fn lists_are_met_one_and_all() {
        let mut nodes = Nodes::default();
        let mut node = |name: &str, zone: &str, rack: &str| {
            let batch = Batch {
                source: name.into(),
                source_zone: zone.into(),
                source_rack: rack.into(),
                ..Batch::default()
            };
            let id = nodes.hear(&batch, 1).expect("there is room");
            nodes.get(id).cloned().expect("it was just made")
        };
        let (n1, n2) = (node("n1", "z1", "r1"), node("n2", "z2", "r2"));
        let filter = |change: fn(&mut Filter)| {
            let mut filter = Filter::default();
            change(&mut filter);
            filter
        };
        let table: [(Filter, bool, bool); 9] = [
            (Filter::default(), true, true),
            (filter(|f| f.from = patterns(&["n1"])), true, false),
            (filter(|f| f.to = patterns(&["n1", "n2"])), true, true),
            (filter(|f| f.nodes = patterns(&["n2"])), true, true),
            (filter(|f| f.nodes = patterns(&["n3"])), false, false),
            (filter(|f| f.zones = patterns(&["z1"])), true, true),
            (filter(|f| f.racks = patterns(&["z2/r2"])), true, true),
            (filter(|f| f.racks = patterns(&["z2/r1"])), false, false),
            (
                filter(|f| (f.from, f.zones) = (patterns(&["n1"]), patterns(&["z3"]))),
                false,
                false,
            ),
        ];
        for (filter, there, back) in table {
            assert_eq!(filter.accepts(&n1, Some(&n2)), there, "{filter:?}");
            assert_eq!(filter.accepts(&n2, Some(&n1)), back, "{filter:?}");
        }
        assert!(!filter(|f| f.to = patterns(&["*"])).accepts(&n1, None));
    }

    #[test]
    fn a_kind_of_probes_is_known_by_both_code_point_and_length() {
        let filter = Filter {
            dscps: vec![0, 46],
            packet_bytes: vec![1_500],
            ..Filter::default()
        };
        for (dscp, packet_bytes, expected) in [
            (Some(46), 1_500, true),
            (Some(46), 124, false),
            (Some(10), 1_500, false),
            (None, 1_500, false),
        ] {
            assert_eq!(filter.accepts_class(dscp, packet_bytes), expected);
            assert!(Filter::default().accepts_class(dscp, packet_bytes));
        }
    }

    #[test]
    fn a_threshold_takes_what_is_lossy_or_slow() {
        let counters = |lost| Counters {
            received: 1,
            lost_unknown: lost,
            ..Counters::default()
        };
        let of = |loss, rtt_ns| Threshold { loss, rtt_ns };
        for (threshold, lost, rtt_ns, expected) in [
            (of(None, None), 0, 5, true),
            (of(Some(0.0), None), 0, 5, false),
            (of(Some(0.0), None), 1, 5, true),
            (of(Some(0.6), None), 1, 5, false),
            (of(None, Some(6)), 1, 5, false),
            (of(None, Some(5)), 0, 5, true),
            (of(Some(0.0), Some(6)), 1, 5, true),
        ] {
            let found = threshold.accepts(&counters(lost), &Histogram::from_iter([rtt_ns]));
            assert_eq!(found, expected, "{threshold:?} on {lost} lost, {rtt_ns} ns");
        }
        assert!(of(Some(0.5), None).accepts_probe(true, None));
        assert!(!of(Some(0.5), None).accepts_probe(false, Some(9)));
        assert!(of(None, Some(9)).accepts_probe(false, Some(9)));
    }
}
