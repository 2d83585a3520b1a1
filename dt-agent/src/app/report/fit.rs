//! Cuts what was measured in one window into batches that fit a Kafka message, before their numbers are given.

use dt_feed::batch;
use dt_feed::probes::{self, MAX_PROBES, ProbeRecord};
use dt_feed::proto::{Batch, Peer, Window};

/// What one peer adds to a batch.
#[derive(Clone, Debug)]
pub(super) struct Part {
    /// Its entry of the dictionary, if a reader has to be told.
    pub peer: Option<Peer>,
    /// Its window; none in what is left of a peer with very many probes.
    pub window: Option<Window>,
    /// Its probes.
    pub records: Vec<ProbeRecord>,
}

/// Batches of at most `limit` bytes with all `parts` in them, in this order; at least one, like `frame` but for its content.
///
/// A peer's entry comes no later than what names it. Only a part that cannot be cut may exceed the limit.
pub(super) fn batches(frame: &Batch, parts: Vec<Part>, limit: usize) -> Vec<Batch> {
    let mut batches = Vec::new();
    fit(frame, parts, limit, &mut batches);
    batches
}

fn fit(frame: &Batch, mut parts: Vec<Part>, limit: usize, batches: &mut Vec<Batch>) {
    let probes: usize = parts.iter().map(|part| part.records.len()).sum();
    if probes <= MAX_PROBES || !is_divisible(&parts) {
        let whole = assemble(frame, &parts);
        if batch::encoded_len(&whole) <= limit || !is_divisible(&parts) {
            batches.push(whole);
            return;
        }
    }
    let half = parts.len() / 2;
    let second = match parts.as_mut_slice() {
        // One peer alone: its window goes first, with as many of its probes as fit.
        [only] => vec![Part {
            peer: None,
            window: None,
            records: only.records.split_off(only.records.len() / 2),
        }],
        _ => parts.split_off(half),
    };
    fit(frame, parts, limit, batches);
    fit(frame, second, limit, batches);
}

fn is_divisible(parts: &[Part]) -> bool {
    match parts {
        [] => false,
        [only] => only.records.len() > 1,
        _ => true,
    }
}

fn assemble(frame: &Batch, parts: &[Part]) -> Batch {
    let records = parts.iter().flat_map(|part| part.records.iter().copied());
    let mut records: Vec<_> = records.collect();
    let probes = if records.is_empty() {
        None
    } else {
        probes::encode(&mut records)
            .inspect_err(
                |error| tracing::error!(%error, "The records of a window's probes are lost."),
            )
            .ok()
    };
    Batch {
        peers: parts.iter().filter_map(|part| part.peer.clone()).collect(),
        windows: parts
            .iter()
            .filter_map(|part| part.window.clone())
            .collect(),
        probes,
        ..frame.clone()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use dt_feed::probes::Outcome;
    use dt_feed::proto::{Method, ProbeClass};
    use proptest::prelude::*;

    use super::*;

    fn part(peer: u32, records: usize) -> Part {
        let record = |sequence| ProbeRecord {
            peer,
            sent_unix_us: 1_000_000 * u64::from(peer) + 17 * u64::from(sequence),
            sequence,
            outcome: Outcome::Received {
                rtt_ns: 40_000 + u64::from(sequence.wrapping_mul(2_654_435_761) >> 16),
            },
            source_port: 61_000,
            class: ProbeClass::default(),
            hops_forward: None,
            hops_return: None,
            method: Method::default(),
            suspect_reasons: 0,
        };
        Part {
            peer: Some(Peer::new(peer, "a-name", [10, 0, 0, 1].into(), "z", "r")),
            window: Some(Window {
                peer,
                ..Window::default()
            }),
            records: (0..records as u32).map(record).collect(),
        }
    }

    #[test]
    fn nothing_measured_is_a_batch_too() {
        assert_eq!(batches(&Batch::default(), Vec::new(), 10).len(), 1);
    }

    #[test]
    fn more_probes_than_a_block_may_have_are_several_blocks() {
        let cut = batches(&Batch::default(), vec![part(1, MAX_PROBES + 1)], usize::MAX);
        let counts: Vec<_> = cut
            .iter()
            .map(|batch| batch.probes.as_ref().map_or(0, |block| block.count))
            .collect();
        assert_eq!(counts, [MAX_PROBES as u32 / 2, MAX_PROBES as u32 / 2 + 1]);
    }

    proptest! {
        #[test]
        fn all_is_there_once_in_batches_that_fit(
            sizes in prop::collection::vec(0..300_usize, 1..40),
            limit in 400..5_000_usize,
        ) {
            let parts: Vec<_> = (1..).zip(&sizes).map(|(peer, size)| part(peer, *size)).collect();
            let frame = Batch { source: String::from("n1"), ..Batch::default() };
            let (mut told, mut windows, mut probes) = (BTreeSet::new(), Vec::new(), Vec::new());
            for batch in batches(&frame, parts.clone(), limit) {
                prop_assert!(batch::encoded_len(&batch) <= limit);
                prop_assert_eq!(&batch.source, "n1");
                told.extend(batch.peers.iter().map(|peer| peer.index));
                for window in batch.windows {
                    prop_assert!(told.contains(&window.peer));
                    windows.push(window);
                }
                for record in batch.probes.map_or_else(Vec::new, |block| probes::decode(&block).expect("whole")) {
                    prop_assert!(told.contains(&record.peer));
                    probes.push(record);
                }
            }
            let expected: Vec<_> = parts.iter().filter_map(|part| part.window.clone()).collect();
            prop_assert_eq!(windows, expected);
            let expected: Vec<_> = parts.iter().flat_map(|part| part.records.clone()).collect();
            prop_assert_eq!(probes, expected);
        }
    }
}
