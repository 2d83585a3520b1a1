//! Made-up feeds for the tests of this command.

use std::time::Duration;

use clap::Parser;
use dt_feed::Histogram;
use dt_feed::proto::{Batch, Counters, Method, Mode, Peer, Window};

use super::findings::Findings;
use super::options::Options;
use super::tally::{Span, Tally};

pub const SECOND_NS: u64 = 1_000_000_000;

/// A window of the second number `second` in which probes came back after these times.
pub fn window(peer: u32, second: u64, mode: Mode, rtt_ns: &[u64]) -> Window {
    let rtt: Histogram = rtt_ns.iter().copied().collect();
    let count = rtt.count();
    Window {
        peer,
        start_unix_ns: second * SECOND_NS,
        end_unix_ns: (second + 1) * SECOND_NS,
        method: Some(Method {
            mode: mode.into(),
            ..Method::default()
        }),
        counters: Some(Counters {
            asked: count,
            sent: count,
            received: count,
            ..Counters::default()
        }),
        rtt: Some((&rtt).into()),
        ..Window::default()
    }
}

/// The batch `sequence` of `source`, which names these peers from index 0 on.
pub fn batch(source: &str, sequence: u64, peers: &[&str], windows: Vec<Window>) -> Batch {
    let peer =
        |(index, name): (usize, &&str)| Peer::new(index as u32, name, [10, 0, 0, 1].into(), "", "");
    Batch {
        source: source.to_owned(),
        start_id: 7,
        sequence,
        peers: peers.iter().enumerate().map(peer).collect(),
        windows,
        ..Batch::default()
    }
}

/// What these flags ask for.
pub fn options(flags: &[&str]) -> Options {
    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }
    Line::parse_from(std::iter::once(&"demo").chain(flags)).options
}

/// Two hosts that measured each other for a second at 100 probes per second.
pub fn findings() -> Findings {
    let mut tally = Tally::default();
    let user_rtt: Histogram = [31_000; 10].into_iter().collect();
    let there = Window {
        user_rtt: Some((&user_rtt).into()),
        ..window(0, 0, Mode::Xdp, &[4_000; 100])
    };
    tally.add("n1", "n2", &there).expect("a sound window");
    tally
        .add("n2", "n1", &window(0, 0, Mode::Tc, &[9_000; 100]))
        .expect("a sound window");
    Findings {
        tally,
        measured: Span {
            start_unix_ns: 0,
            end_unix_ns: SECOND_NS,
        },
        built_after: Duration::from_millis(1_300),
        began_after: Some(Duration::from_millis(3_140)),
        ping_rtt: [40_000; 90].into_iter().collect(),
        cpu_ns: Some(2_000_000),
        feed_bytes: 500,
        faults: Vec::new(),
    }
}
