use dt_feed::Histogram;
use dt_feed::proto::{Losses, Peer, PeerState, Window};

use super::*;
use crate::rollup::{MAX_CELLS, Span};

const T0_MS: u64 = 1_800_000_000_000;

fn matrix(by: By, filter: Filter) -> Matrix {
    let span = Span::last_ns(60_000 * NS_PER_MS);
    Matrix::new(Intake::default(), Rollup::new(by, span, MAX_CELLS), filter)
}

/// A batch whose peers are all in rack r1.
fn batch(source: &str, rack: &str, peers: &[&str], windows: Vec<Window>) -> Batch {
    let peer = |(index, name): (usize, &&str)| {
        Peer::new(index as u32, name, [10, 0, 0, 1].into(), "", "r1")
    };
    Batch {
        source: source.into(),
        start_id: 7,
        source_rack: rack.into(),
        peers: peers.iter().enumerate().map(peer).collect(),
        windows,
        ..Batch::default()
    }
}

/// A window of a second about peer `index`, that ends at the batch's time.
fn window(index: u32, log_ms: u64, rtts: &[u64], lost: u64, state: PeerState) -> Window {
    Window {
        peer: index,
        start_unix_ns: (log_ms - 1_000) * NS_PER_MS,
        end_unix_ns: log_ms * NS_PER_MS,
        peer_state: state.into(),
        counters: Some(Counters {
            sent: rtts.len() as u64 + lost,
            received: rtts.len() as u64,
            lost_forward: lost,
            ..Counters::default()
        }),
        rtt: Some((&rtts.iter().copied().collect::<Histogram>()).into()),
        ..Window::default()
    }
}

#[test]
fn a_pair_has_the_figures_of_its_windows() {
    let mut matrix = matrix(By::Node, Filter::default());
    let window = window(0, T0_MS, &[4_000, 6_000, 9_000], 1, PeerState::Alive);
    matrix.handle_batch(&batch("n1", "r1", &["n2"], vec![window]), T0_MS, false);
    let picture = matrix.picture(T0_MS);
    let cell = picture.cell("n1", "n2").expect("it was measured");
    assert_eq!(
        (cell.figures.sent, cell.figures.received, cell.figures.lost),
        (4, 3, 1)
    );
    assert_eq!(cell.figures.loss, Some(0.25));
    assert_eq!(cell.figures.max_ns, Some(9_000));
    assert!(
        cell.figures
            .p50_ns
            .is_some_and(|ns| ns.abs_diff(6_000) <= 200)
    );
    assert_eq!(picture.total, cell.figures);
    assert!(picture.cell("n2", "n1").is_none());
}

#[test]
fn what_is_only_context_teaches_names_and_has_no_figures() {
    let mut matrix = matrix(By::Node, Filter::default());
    let before = window(0, T0_MS, &[4_000], 0, PeerState::Alive);
    matrix.handle_batch(&batch("n1", "", &["n2"], vec![before]), T0_MS, true);
    assert!(matrix.picture(T0_MS).cells.is_empty());
    let after = window(0, T0_MS + 1_000, &[5_000, 5_000], 0, PeerState::Alive);
    matrix.handle_batch(&batch("n1", "", &[], vec![after]), T0_MS + 1_000, false);
    let picture = matrix.picture(T0_MS + 1_000);
    assert_eq!(
        picture.cell("n1", "n2").map(|cell| cell.figures.received),
        Some(2)
    );
}

#[test]
fn a_rack_counts_its_nodes_by_state_and_shows_the_worst() {
    let mut matrix = matrix(By::Rack, Filter::default());
    for (source, rack) in [("n1", "r1"), ("n2", "r1"), ("n3", "r2")] {
        let said = |index, state| window(index, T0_MS, &[4_000], 0, state);
        let windows = vec![said(0, PeerState::Alive), said(1, PeerState::Failed)];
        matrix.handle_batch(&batch(source, rack, &["n1", "n2"], windows), T0_MS, false);
    }
    let picture = matrix.picture(T0_MS);
    let [first, second] = &picture.groups[..] else {
        panic!("{:?}", picture.groups);
    };
    assert_eq!((&*first.name, first.state), ("r1", State::Failed));
    assert_eq!(
        first.nodes,
        BTreeMap::from([(State::Alive, 1), (State::Failed, 1)])
    );
    assert_eq!((&*second.name, second.state), ("r2", State::Alive));
    assert_eq!(
        picture.cell("r2", "r1").map(|cell| cell.state),
        Some(State::Failed)
    );
    assert_eq!(
        picture.nodes(),
        BTreeMap::from([(State::Alive, 2), (State::Failed, 1)])
    );
}

#[test]
fn a_filter_leaves_out_others_but_not_a_silent_node_that_was_asked_for() {
    let filter = Filter {
        nodes: vec!["n2".parse().expect("any text is a pattern")],
        ..Filter::default()
    };
    let mut matrix = matrix(By::Node, filter);
    let windows = |log_ms| {
        vec![
            window(0, log_ms, &[4_000], 0, PeerState::Alive),
            window(1, log_ms, &[4_000], 0, PeerState::Alive),
        ]
    };
    matrix.handle_batch(
        &batch("n1", "", &["n2", "n3"], windows(T0_MS)),
        T0_MS,
        false,
    );
    let pairs: Vec<_> = matrix
        .picture(T0_MS)
        .cells
        .into_iter()
        .map(|cell| (cell.from, cell.to))
        .collect();
    assert_eq!(pairs, [("n1".to_owned(), "n2".to_owned())]);
    // n2 was named and never heard.
    let later_ms = T0_MS + 120_000;
    let mut later = batch("n1", "", &[], windows(later_ms));
    later.sequence = 1;
    matrix.handle_batch(&later, later_ms, true);
    let picture = matrix.picture(later_ms);
    let states: Vec<_> = picture
        .groups
        .iter()
        .map(|group| (&*group.name, group.state))
        .collect();
    assert_eq!(states, [("n2", State::Silent)]);
}

#[test]
fn what_the_feed_lacks_is_said() {
    let mut matrix = matrix(By::Node, Filter::default());
    let mut broken = window(0, T0_MS, &[4_000], 0, PeerState::Alive);
    broken.rtt = Some(dt_feed::proto::Histogram {
        count: 3,
        ..dt_feed::proto::Histogram::default()
    });
    let unnamed = window(9, T0_MS, &[4_000], 0, PeerState::Alive);
    let mut first = batch("n1", "", &["n2"], vec![broken, unnamed]);
    matrix.handle_batch(&first, T0_MS, false);
    first = batch("n1", "", &[], Vec::new());
    first.sequence = 3;
    first.losses = Some(Losses {
        batches_spool_full: 2,
        windows_unwritten: 4,
        windows_dropped: 1,
        probes_lost: 100,
        ..Losses::default()
    });
    matrix.handle_batch(&first, T0_MS, false);
    let picture = matrix.picture(T0_MS);
    assert_eq!(picture.missing_batches, 2);
    assert_eq!(picture.faults.broken_windows, 1);
    assert_eq!(picture.faults.unnamed_windows, 1);
    let expected = SourceLoss {
        batches: 2,
        windows: 5,
        probes: 100,
    };
    assert_eq!(
        picture.lost_by_source,
        BTreeMap::from([("n1".to_owned(), expected)])
    );
}
