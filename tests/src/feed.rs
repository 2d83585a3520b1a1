//! What an agent published, added up per peer.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, bail};
use dt_feed::proto::{Batch, Counters, Losses, Method, Mode, Window};
use dt_feed::segment::{Followed, Follower};

/// One feed directory, read as far as it was written.
#[derive(Debug)]
pub struct Feed {
    follower: Follower,
    /// By the start of the agent, in the order in which they came, and the peer's name.
    pairs: BTreeMap<(usize, String), Pair>,
    starts: Vec<u64>,
    names: BTreeMap<(usize, u32), String>,
    losses: Losses,
    batches: u64,
}

/// What one start of the agent said of one peer.
#[derive(Clone, Debug, Default)]
pub struct Pair {
    /// Sums over all windows; `in_flight` is that of the last one, of the last one of each kind where there are several.
    pub counters: Counters,
    /// Received probes by mode.
    pub modes: BTreeMap<String, u64>,
    /// Sums by kind of probes; `in_flight` is that of the last window of each.
    pub kinds: BTreeMap<Kind, Counters>,
    /// Each window by itself, in the order of time.
    pub history: Vec<Short>,
}

/// Code point and length from the IP header on.
pub type Kind = (u32, u32);

/// What is kept of one window.
#[derive(Clone, Copy, Debug)]
pub struct Short {
    /// First instant, ns unix.
    pub start_unix_ns: u64,
    /// Probes sent.
    pub sent: u64,
    /// Probes received in time.
    pub received: u64,
    /// See [`mode_name`].
    pub mode: &'static str,
    /// How its times were taken.
    pub method: Method,
}

impl Feed {
    /// Follows a directory, which need not exist yet.
    #[must_use]
    pub fn follow(directory: &Path) -> Self {
        Self {
            follower: Follower::new(directory),
            pairs: BTreeMap::new(),
            starts: Vec::new(),
            names: BTreeMap::new(),
            losses: Losses::default(),
            batches: 0,
        }
    }

    /// Adds what is new. A damaged segment is an error.
    pub fn read(&mut self) -> Result<()> {
        while let Some(followed) = self.follower.poll()? {
            match followed {
                Followed::Batch(batch) => self.take(&batch)?,
                Followed::Damaged {
                    path,
                    offset,
                    cause,
                } => {
                    bail!("{} is damaged at byte {offset}: {cause}", path.display())
                }
            }
        }
        Ok(())
    }

    /// What was said of a peer since the latest start of the agent.
    #[must_use]
    pub fn pair(&self, peer: &str) -> Option<&Pair> {
        let start = self.starts.len().checked_sub(1)?;
        self.pairs.get(&(start, peer.to_owned()))
    }

    /// Probes to a peer that were received, since the latest start.
    #[must_use]
    pub fn received(&self, peer: &str) -> u64 {
        self.pair(peer).map_or(0, |pair| pair.counters.received)
    }

    /// What was said of a peer by all starts together; `in_flight` is the sum of their last windows'.
    #[must_use]
    pub fn total(&self, peer: &str) -> Counters {
        let mut total = Counters::default();
        let of_peer = self.pairs.iter().filter(|((_, name), _)| name == peer);
        for (_, pair) in of_peer {
            total.merge(&pair.counters);
        }
        total
    }

    /// The names of all peers that were ever measured.
    #[must_use]
    pub fn peers(&self) -> Vec<&str> {
        let mut names: Vec<_> = self.pairs.keys().map(|(_, name)| name.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// How many starts of an agent wrote here.
    #[must_use]
    pub fn starts(&self) -> usize {
        self.starts.len()
    }

    /// How many batches were read.
    #[must_use]
    pub const fn batches(&self) -> u64 {
        self.batches
    }

    /// What the feed says that it lost.
    #[must_use]
    pub const fn losses(&self) -> &Losses {
        &self.losses
    }

    fn take(&mut self, batch: &Batch) -> Result<()> {
        let known = self.starts.iter().position(|id| *id == batch.start_id);
        let start = known.unwrap_or_else(|| {
            self.starts.push(batch.start_id);
            self.starts.len() - 1
        });
        self.losses = batch.losses.unwrap_or_default();
        self.batches += 1;
        for peer in &batch.peers {
            self.names.insert((start, peer.index), peer.name.clone());
        }
        for window in &batch.windows {
            let name = self
                .names
                .get(&(start, window.peer))
                .with_context(|| format!("a window for peer {}, never named", window.peer))?;
            let pair = self.pairs.entry((start, name.clone())).or_default();
            pair.add(window);
        }
        Ok(())
    }
}

impl Pair {
    /// Whether every probe that was sent has one outcome or is still on its way.
    #[must_use]
    pub fn adds_up(&self) -> bool {
        self.counters.sent == outcomes(&self.counters) + self.counters.in_flight
    }

    /// Whether all that was received was received in this mode.
    #[must_use]
    pub fn is_all(&self, mode: &str) -> bool {
        self.counters.received > 0 && self.modes.get(mode) == Some(&self.counters.received)
    }

    /// Probes received in each window that began after this instant, ns unix.
    #[must_use]
    pub fn received_after(&self, unix_ns: u64) -> Vec<u64> {
        let after = self
            .history
            .iter()
            .filter(|window| window.start_unix_ns > unix_ns);
        after.map(|window| window.received).collect()
    }

    fn add(&mut self, window: &Window) {
        let counters = window.counters.unwrap_or_default();
        self.counters.merge(&counters);
        let kind = (window.dscp.unwrap_or_default(), window.packet_bytes);
        let of_kind = self.kinds.entry(kind).or_default();
        of_kind.merge(&counters);
        of_kind.in_flight = counters.in_flight;
        self.counters.in_flight = self.kinds.values().map(|kind| kind.in_flight).sum();
        let mode = window
            .method
            .map_or(Mode::Unspecified, |method| method.mode());
        if counters.received > 0 {
            *self.modes.entry(mode_name(mode).to_owned()).or_default() += counters.received;
        }
        self.history.push(Short {
            start_unix_ns: window.start_unix_ns,
            sent: counters.sent,
            received: counters.received,
            mode: mode_name(mode),
            method: window.method.unwrap_or_default(),
        });
    }
}

/// Probes that got an outcome.
#[must_use]
pub const fn outcomes(counters: &Counters) -> u64 {
    counters.received + counters.late + unexplained(counters) + excused(counters)
}

/// Probes that the network lost or spoilt.
#[must_use]
pub const fn unexplained(counters: &Counters) -> u64 {
    counters.lost_forward
        + counters.lost_return
        + counters.lost_unknown
        + counters.corrupt_forward
        + counters.corrupt_return
}

/// Probes without an answer for which a host is the reason, not the network.
#[must_use]
pub const fn excused(counters: &Counters) -> u64 {
    counters.overrun
        + counters.refused
        + counters.not_admitted
        + counters.peer_restarted
        + counters.departed
}

/// A mode as `--mode` has it.
#[must_use]
pub const fn mode_name(mode: Mode) -> &'static str {
    match mode {
        Mode::Unspecified => "none",
        Mode::Xdp => "xdp",
        Mode::Tc => "tc",
        Mode::Socket => "socket",
    }
}
