//! What one agent did to each peer, and what it thought of it: every probe's send time, every window's state.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use dt_feed::probes;
use dt_feed::proto::{Batch, PeerState};
use dt_feed::segment::{Followed, Follower};
use dt_tests::{Agent, agent, wait};

/// The feed of one host with every probe, read as far as it was written.
#[derive(Debug)]
pub struct Diary {
    host: String,
    follower: Follower,
    names: BTreeMap<(u64, u32), String>,
    sent: BTreeMap<String, Vec<u64>>,
    states: BTreeMap<String, Vec<Opinion>>,
    read_to: u64,
}

/// What was thought of a peer during one window.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Opinion {
    /// First instant, ns unix.
    pub start_ns: u64,
    /// When it was said, ns unix.
    pub end_ns: u64,
    /// What.
    pub state: PeerState,
}

impl Diary {
    pub fn of(host: &str, agent: &Agent) -> Self {
        Self {
            host: host.to_owned(),
            follower: Follower::new(agent.feed_dir()),
            names: BTreeMap::new(),
            sent: BTreeMap::new(),
            states: BTreeMap::new(),
            read_to: 0,
        }
    }

    /// Waits until `found` finds something.
    pub fn wait<T>(&mut self, what: &str, mut found: impl FnMut(&Self) -> Option<T>) -> Result<T> {
        let result = wait::until(what, agent::LIMIT, || {
            self.read()?;
            Ok(found(self))
        });
        result.with_context(|| {
            let last = |states: &Vec<Opinion>| states.last().copied();
            let states: Vec<_> = self
                .states
                .iter()
                .map(|(peer, states)| (peer, last(states)))
                .collect();
            format!("{} thinks {states:?}", self.host)
        })
    }

    /// Waits until all that happened before this instant, ns unix, is in the feed.
    pub fn wait_past(&mut self, unix_ns: u64) -> Result<()> {
        self.wait("later batch", |diary| {
            (diary.read_to > unix_ns).then_some(())
        })
    }

    /// Waits until probes to a peer are in the feed that were sent after this instant, ns unix; when the first was.
    pub fn wait_probed(&mut self, peer: &str, after_ns: u64) -> Result<u64> {
        self.wait(&format!("probe to {peer}"), |diary| {
            diary.first_sent(peer, after_ns)
        })
    }

    /// Waits for a state of a peer in a window that began after this instant, ns unix; the first such window.
    pub fn wait_state(&mut self, peer: &str, state: PeerState, after_ns: u64) -> Result<Opinion> {
        self.wait(&format!("{state:?} of {peer}"), |diary| {
            let states = diary.states(peer, after_ns).into_iter();
            states.into_iter().find(|one| one.state == state)
        })
    }

    /// What was thought of a peer in all windows that ended after this instant, ns unix.
    pub fn states(&self, peer: &str, after_ns: u64) -> Vec<Opinion> {
        let states = self.states.get(peer).into_iter().flatten();
        states
            .copied()
            .filter(|one| one.end_ns > after_ns)
            .collect()
    }

    /// The first probe to a peer after this instant, ns unix.
    pub fn first_sent(&self, peer: &str, after_ns: u64) -> Option<u64> {
        let sent = self.sent.get(peer).into_iter().flatten();
        sent.copied().filter(|at| *at > after_ns).min()
    }

    /// The last probe to a peer, ns unix.
    pub fn last_sent(&self, peer: &str) -> Option<u64> {
        self.sent.get(peer)?.iter().copied().max()
    }

    /// The longest time without a probe to a peer since this instant, ns unix, in s; more than a second is an error.
    pub fn check_probing(&mut self, peer: &str, since_ns: u64) -> Result<f64> {
        self.wait_past(wait::unix_now_ns()?)?;
        let sent = self.sent.get(peer).context("it was probed")?;
        let mut times: Vec<_> = sent.iter().copied().filter(|at| *at >= since_ns).collect();
        times.sort_unstable();
        let gaps = times.windows(2).map(|pair| pair[1] - pair[0]);
        let gap_s = gaps.max().context("it was probed twice")? as f64 / 1e9;
        ensure!(
            gap_s < 1.0,
            "{} did not probe {peer} for {gap_s} s",
            self.host
        );
        Ok(gap_s)
    }

    fn read(&mut self) -> Result<()> {
        while let Some(followed) = self.follower.poll()? {
            match followed {
                Followed::Batch(batch) => self.take(&batch)?,
                Followed::Damaged { .. } => anyhow::bail!("damaged: {followed:?}"),
            }
        }
        Ok(())
    }

    fn take(&mut self, batch: &Batch) -> Result<()> {
        for peer in &batch.peers {
            let key = (batch.start_id, peer.index);
            self.names.insert(key, peer.name.clone());
        }
        let name = |index| {
            let name = self.names.get(&(batch.start_id, index));
            name.cloned().context("a peer that was never named")
        };
        for window in &batch.windows {
            let states = self.states.entry(name(window.peer)?).or_default();
            states.push(Opinion {
                start_ns: window.start_unix_ns,
                end_ns: window.end_unix_ns,
                state: window.peer_state(),
            });
        }
        if let Some(block) = &batch.probes {
            for record in probes::decode(block)? {
                let sent = self.sent.entry(name(record.peer)?).or_default();
                sent.push(record.sent_unix_us * 1_000);
            }
        }
        // Probes are reported when they have their outcome, up to this long after they were sent.
        self.read_to = batch.closed_unix_ns.saturating_sub(DECIDED_NS);
        Ok(())
    }
}

/// Deadline and settling are 1.2 s by default, and a window lasts a second.
const DECIDED_NS: u64 = 2_500_000_000;
