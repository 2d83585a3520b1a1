//! One agent's peers and probes, and the books that are kept beside them.

use std::collections::{BTreeMap, BTreeSet};

use dt_common::time::{MonoNanos, NANOS_PER_SEC};

use super::coverage::Town;
use super::world::{Happening, What};
use crate::engine::mesh::{Family, Membership, Mesh, MeshSettings, PeerChange, Slot};
use crate::engine::pinglist::Pinglist;
use crate::engine::random::Random;
use crate::engine::schedule::{Due, Schedule, ScheduleSettings};

/// An agent as the application drives it: what the mesh says goes into the schedule.
pub(super) struct Agent {
    name: String,
    limit: usize,
    rate: f64,
    mesh: Mesh,
    schedule: Schedule,
    /// By what the mesh said that changed, and nothing else.
    peers: BTreeMap<Slot, Probed>,
    now: MonoNanos,
    /// Until then probes may be late, because the host did not run.
    late_until: MonoNanos,
    /// The second of now, and how many probes were sent in it.
    second: (u64, u64),
    due: Vec<Due>,
    /// Probes to those who are not peers any more, and to all.
    sent: [u64; 2],
}

struct Probed {
    name: String,
    since: MonoNanos,
    sent: u64,
    skipped: u64,
    last: Option<MonoNanos>,
}

impl Agent {
    pub fn new(name: String, limit: usize, rate: f64, now: MonoNanos) -> Self {
        Self {
            mesh: Mesh::new(MeshSettings {
                name: name.clone(),
                family: Family::Auto,
                peer_limit: limit,
            }),
            schedule: Schedule::new(ScheduleSettings::default(), Random::new(limit as u64)),
            name,
            limit,
            rate,
            peers: BTreeMap::new(),
            now,
            late_until: MonoNanos(0),
            second: (0, 0),
            due: Vec::new(),
            sent: [0; 2],
        }
    }

    /// Takes the membership of now; how many peers came and went.
    pub fn handle_membership(
        &mut self,
        membership: &Membership,
        town: &Town<'_>,
        now: MonoNanos,
    ) -> usize {
        let (before, mut changed) = (self.peers.len(), 0);
        let (mut came, mut went) = (0, 0);
        for change in self.mesh.handle_membership(membership) {
            match change {
                PeerChange::Leave { slot } => {
                    let gone = self.peers.remove(&slot).expect("it was a peer");
                    assert!(self.schedule.remove(slot), "{} was probed", gone.name);
                    self.settle(&gone, now);
                    went += 1;
                }
                PeerChange::Update { slot, peer } => {
                    assert_eq!(*self.peers[&slot].name, *peer.name);
                    changed += 1;
                }
                PeerChange::Join { slot, peer } => {
                    self.schedule.add(slot, self.rate, now);
                    let probed = Probed {
                        name: peer.name.to_string(),
                        since: now,
                        sent: 0,
                        skipped: 0,
                        last: None,
                    };
                    assert!(self.peers.insert(slot, probed).is_none(), "a free slot");
                    came += 1;
                }
            }
        }
        assert_eq!(before + came - went, self.peers.len());
        assert!(changed <= self.peers.len());
        assert_eq!(self.schedule.len(), self.peers.len());
        assert_eq!(self.mesh.problems(), []);
        self.assert_length(town);
        came + went
    }

    /// Sends all probes up to this moment, none to who is no peer, none too soon after another one, never many at once.
    pub fn run_until(&mut self, end: MonoNanos) {
        while let Some(at) = self.schedule.poll_timeout().filter(|at| *at <= end) {
            self.wake(at.max(self.now));
        }
        self.now = end;
    }

    /// The same, but for the last of it the host does not run, and then wakes up late.
    pub fn stall_until(&mut self, end: MonoNanos) {
        let start = MonoNanos(end.0 - STALL_NS).max(self.now);
        self.run_until(start);
        self.late_until = end.plus(STALL_NS);
        self.now = end;
        self.wake(end);
    }

    fn wake(&mut self, at: MonoNanos) {
        self.due.clear();
        self.schedule.handle_timeout(at, &mut self.due);
        let count = self.due.iter().map(|due| u64::from(due.count)).sum();
        self.assert_rate(at, count);
        let is_late = at <= self.late_until;
        for due in self.due.drain(..) {
            assert_eq!(due.count, 1, "nothing is made up at so low a rate");
            assert!(due.skipped == 0 || is_late, "nothing is left out in time");
            let probed = self.peers.get_mut(&due.peer);
            let probed = probed.expect("only peers are probed");
            if let Some(last) = probed.last {
                // A tenth of an interval sooner than its place, after one a tenth later; up to a tick is rounded.
                let least = 0.8 * NANOS_PER_SEC as f64 / self.rate - TICK_NS as f64;
                assert!(at.since(last) as f64 >= least, "{} too soon", probed.name);
            }
            // One that went late is no measure for the next one.
            probed.last = (!is_late).then_some(at);
            probed.sent += 1;
            probed.skipped += u64::from(due.skipped);
        }
    }

    /// That one host changed little; of mates it takes over at most all that they did.
    pub fn assert_little_changed(&self, happening: &Happening, changed: usize) {
        if happening.hosts.len() > 1 {
            return;
        }
        let most = match happening.what {
            What::Restarting | What::Restarted => 0,
            // The host itself, whom it replaces or who replaces it, and for the room that these take as many more.
            What::Joined | What::Left | What::Failed | What::Returned | What::Forgotten => 5,
        };
        assert!(changed <= most, "{}: {changed} by {happening:?}", self.name);
    }

    /// Makes the list from scratch: it must be who is probed now.
    pub fn audit(&self, town: &mut Town<'_>) {
        let own = town.position(&self.name);
        let list = town.list(&mut Pinglist::new(self.limit), own);
        let probed: BTreeSet<_> = self.peers.values().map(|peer| peer.name.as_str()).collect();
        assert_eq!(probed.len(), self.peers.len(), "each once");
        assert!(probed == town.names(&list.chosen), "{}", self.name);
        assert_eq!(self.mesh.shape(), list.shape);
        let told = self.mesh.peers().map(|(slot, peer)| (slot, &*peer.name));
        let told: BTreeMap<_, _> = told.collect();
        let booked = self
            .peers
            .iter()
            .map(|(slot, peer)| (*slot, peer.name.as_str()));
        assert!(told == booked.collect(), "{}", self.name);
        assert_eq!(
            self.mesh.admitted().count(),
            town.len() - 1,
            "all are answered"
        );
    }

    /// Ends the day: every probe was one of a peer's, as many as asked for.
    pub fn close(&mut self) {
        for peer in std::mem::take(&mut self.peers).into_values() {
            self.settle(&peer, self.now);
        }
        let [of_peers, all] = self.sent;
        assert_eq!(of_peers, all);
        assert!(all > 0, "{} probed nobody", self.name);
    }

    /// Closes the book of a peer: as many probes as its time is long, but for the intervals that begin and end it.
    fn settle(&mut self, peer: &Probed, now: MonoNanos) {
        let seconds = now.since(peer.since) as f64 / NANOS_PER_SEC as f64;
        let asked = seconds * self.rate;
        let booked = (peer.sent + peer.skipped) as f64;
        // Who is gone before its late probe went was asked for as many more as the stall was long.
        let is_late = now <= self.late_until;
        let late = 2 * STALL_NS / NANOS_PER_SEC * u64::from(is_late);
        let most = 1.1 + 1e-3 + late as f64 * self.rate;
        let off = (booked - asked).abs();
        assert!(off <= most, "{}: {booked} instead of {asked}", peer.name);
        self.sent[0] += peer.sent;
    }

    /// That nobody is probed more often than 20,000 times a second and not all at once, whatever rate is asked for.
    pub fn assert_no_rate_lifts_the_bounds(&self) {
        let settings = ScheduleSettings::default();
        let mut schedule = Schedule::new(settings, Random::new(self.limit as u64));
        for slot in self.peers.keys() {
            schedule.add(*slot, 1e9, self.now);
        }
        let span_ns = 50 * TICK_NS;
        let of_span = |ns: u64| (Schedule::MAX_RATE * ns as f64 / NANOS_PER_SEC as f64) as u64;
        let (mut sent, mut due) = (BTreeMap::new(), Vec::new());
        let mut wake = |at| {
            schedule.handle_timeout(at, &mut due);
            let (mut at_once, mut most_of_one) = (0, 0);
            for Due { peer, count, .. } in due.drain(..) {
                *sent.entry(peer).or_insert(0) += u64::from(count);
                at_once += u64::from(count);
                most_of_one = most_of_one.max(u64::from(count));
            }
            // The last one may take more than there is.
            let room = self.peers.len() as u64 * of_span(settings.catch_up_ns);
            assert!(at_once <= room + most_of_one, "{at_once} at once");
        };
        for tick in 0..=span_ns / TICK_NS {
            wake(self.now.plus(tick * TICK_NS));
        }
        // After a stall of as long again, which makes up some of it.
        wake(self.now.plus(2 * span_ns));
        let most = of_span(span_ns + settings.catch_up_ns) + 2;
        assert!(sent.values().all(|count| *count <= most), "{sent:?}");
        assert_eq!(sent.len(), self.peers.len());
    }

    /// No longer than the limit allows, and than the three graphs need where they leave room.
    fn assert_length(&self, town: &Town<'_>) {
        let others = town.len() - 1;
        assert!(others > self.limit, "else everybody is probed");
        let graphs = town.most_of_graphs(town.position(&self.name));
        let floor = (2 * self.limit).saturating_sub(others);
        let most = graphs.max(floor).min(self.limit);
        assert!(
            self.peers.len() <= most,
            "{}: {} of {most}",
            self.name,
            self.peers.len()
        );
        assert!(
            self.peers.len() >= floor,
            "{}: {}",
            self.name,
            self.peers.len()
        );
    }

    fn assert_rate(&mut self, at: MonoNanos, count: u64) {
        assert!(count <= MOST_AT_ONCE, "{}: {count} at once", self.name);
        let second = at.0 / NANOS_PER_SEC;
        if self.second.0 != second {
            self.second = (second, 0);
        }
        self.second.1 += count;
        self.sent[1] += count;
        let most = 2.0 * self.rate * self.peers.len() as f64 + MOST_AT_ONCE as f64;
        assert!(
            self.second.1 as f64 <= most,
            "{}: {:?}",
            self.name,
            self.second
        );
    }
}

/// How long a host stalls, and for how long it may then be late.
const STALL_NS: u64 = super::MINUTE;
/// What `engine/schedule/pacing.rs` lets a mesh of low rates send in one wake-up.
const MOST_AT_ONCE: u64 = 64;
const TICK_NS: u64 = 1_000_000;
