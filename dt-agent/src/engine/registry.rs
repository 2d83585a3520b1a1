//! From the nodes that a coordination service holds to the membership of the mesh.
//!
//! An agent has a node there while its session lives. What that node says and how it vanished tell three ways of going apart:
//! *left* (said so: no member any more, at once), *restarting* (said so: a member until its hand-over time is over), *failed*
//! (went without a word: kept and probed for ten minutes, so that a dead host does not vanish from sight). The one hard fact:
//! when the service forgets everybody at once, everybody is failed and nobody is gone.

mod record;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use dt_common::time::MonoNanos;

use super::mesh::{LabelPool, Member, MemberState, Membership};

pub use record::{Announced, Identity, Record};

/// What is known of all agents, over time.
#[derive(Debug)]
pub struct Registry {
    settings: RegistrySettings,
    /// By path, what the service holds now.
    nodes: BTreeMap<String, Seen>,
    /// By member's name, the paths of its nodes.
    paths: BTreeMap<Arc<str>, BTreeSet<String>>,
    /// By name, members as last known: present ones and those that are kept after they vanished.
    members: BTreeMap<Arc<str>, Known>,
    /// Names of members that have a node.
    held: BTreeSet<Arc<str>>,
    labels: LabelPool,
    stop: bool,
    away_since: Option<MonoNanos>,
    /// The service was out of reach for the whole grace period, and still is.
    alone: bool,
    refused: BTreeMap<String, String>,
}

/// How members are judged.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RegistrySettings {
    /// Name of this node.
    pub name: String,
    /// Identity of this node.
    pub identity: Identity,
    /// For how long probing goes on without the service, ns.
    pub grace_ns: u64,
    /// For how long a member that failed is kept, ns.
    pub keep_failed_ns: u64,
}

impl RegistrySettings {
    /// Ten minutes, ns.
    pub const KEEP_FAILED_NS: u64 = 600_000_000_000;
}

/// A node of the service.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Sighting {
    /// Its name below the members' directory.
    pub path: String,
    /// Number of the transaction that made it: who was first.
    pub created: i64,
    /// What it says, or what is wrong with that.
    pub record: Result<Record, String>,
}

/// A node that is there.
#[derive(Clone, Debug)]
struct Seen {
    created: i64,
    record: Result<Record, String>,
}

/// A member as last known.
#[derive(Clone, Debug)]
struct Known {
    created: i64,
    record: Record,
    presence: Presence,
}

/// ```text
///            RESTARTING said            node vanished             hand-over is over
///   Alive ─────────────────> Restarting ───────────> Restarting ───────────────────> Failed ──10 min──> gone
///     └── node vanished without a word ─────────────────────────────────────────────^
/// ```
/// A node of the same identity leads back to `Alive` from anywhere; LEFT ends it at once.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Presence {
    Alive,
    Restarting { until: MonoNanos },
    Failed { until: MonoNanos },
}

impl Registry {
    /// A mesh of which nothing is known yet.
    #[must_use]
    pub fn new(settings: RegistrySettings) -> Self {
        Self {
            settings,
            nodes: BTreeMap::new(),
            paths: BTreeMap::new(),
            members: BTreeMap::new(),
            held: BTreeSet::new(),
            labels: LabelPool::default(),
            stop: false,
            away_since: None,
            alone: false,
            refused: BTreeMap::new(),
        }
    }

    /// Takes the whole of what the service holds: after a connection, changes in between are known only so.
    pub fn handle_listing(
        &mut self,
        listing: impl IntoIterator<Item = Sighting>,
        stop: bool,
        now: MonoNanos,
    ) {
        self.away_since = None;
        self.stop = stop;
        self.nodes.clear();
        self.refused.clear();
        self.paths.clear();
        // Also those that have no node any more.
        let mut touched: BTreeSet<_> = self.members.keys().cloned().collect();
        for sighting in listing {
            touched.extend(self.put(sighting));
        }
        self.judge(&touched, now);
    }

    /// Takes nodes that are new or changed, and paths of nodes that are gone.
    pub fn handle_changes(
        &mut self,
        seen: impl IntoIterator<Item = Sighting>,
        gone: impl IntoIterator<Item = String>,
        now: MonoNanos,
    ) {
        let mut touched = BTreeSet::new();
        for path in gone {
            touched.extend(self.take_away(&path));
        }
        for sighting in seen {
            touched.extend(self.take_away(&sighting.path));
            touched.extend(self.put(sighting));
        }
        self.judge(&touched, now);
    }

    /// Names of members that have no node now, and that are kept.
    #[must_use]
    pub fn missing(&self) -> Vec<String> {
        let names = self.members.keys();
        names
            .filter(|name| !self.held.contains(*name))
            .map(ToString::to_string)
            .collect()
    }

    /// Takes that a host left for good while nobody listened; nothing if it is back, or is another one.
    pub fn handle_left(&mut self, record: &Record) {
        let known = self.members.get(&record.name);
        let is_it = known.is_some_and(|known| known.record.identity == record.identity);
        if record.announced == Announced::Left && is_it && !self.held.contains(&record.name) {
            self.members.remove(&record.name);
        }
    }

    /// Whether the mesh's stop key is there.
    pub fn handle_stop(&mut self, stop: bool) {
        self.stop = stop;
    }

    /// The service is out of reach.
    pub fn handle_away(&mut self, now: MonoNanos) {
        self.away_since.get_or_insert(now);
    }

    /// Lets time pass; whether that changed the membership.
    pub fn handle_timeout(&mut self, now: MonoNanos) -> bool {
        self.age(now)
    }

    /// When [`Self::handle_timeout`] is due next; in the past if it is overdue.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<MonoNanos> {
        let end_of = |(name, known): (&Arc<str>, &Known)| match known.presence {
            Presence::Alive => None,
            Presence::Restarting { until } => Some(until),
            // Kept for as long as its node is there.
            Presence::Failed { until } => (!self.held.contains(name)).then_some(until),
        };
        let ends = self.members.iter().filter_map(end_of);
        let grace_ends = self.grace_ends().filter(|_| !self.alone);
        ends.chain(grace_ends).min()
    }

    /// The mesh as it is to be probed, the oldest nodes first: who had an address first keeps it.
    #[must_use]
    pub fn membership(&self) -> Membership {
        let mut order: Vec<_> = self.members.values().collect();
        order.sort_by_key(|known| known.created);
        Membership {
            members: order.into_iter().map(Known::member).collect(),
            stop: self.stop || self.alone,
        }
    }

    /// Nodes that are not taken, by path, with the reason.
    pub fn refused(&self) -> impl Iterator<Item = (&str, &str)> {
        self.refused
            .iter()
            .map(|(path, reason)| (path.as_str(), reason.as_str()))
    }

    /// Whether another host holds this node's name: it was first.
    #[must_use]
    pub fn rival(&self) -> Option<Identity> {
        let known = self.members.get(self.settings.name.as_str())?;
        let is_present = !matches!(known.presence, Presence::Failed { .. });
        (is_present && known.record.identity != self.settings.identity)
            .then_some(known.record.identity)
    }

    /// Whether this node was told to leave.
    #[must_use]
    pub fn told_to_leave(&self, own_path: &str) -> bool {
        self.nodes.get(own_path).is_some_and(|seen| {
            seen.record
                .as_ref()
                .is_ok_and(|record| record.announced == Announced::Left)
        })
    }

    fn grace_ends(&self) -> Option<MonoNanos> {
        self.away_since
            .map(|since| since.plus(self.settings.grace_ns))
    }

    /// Notes a node, whose path is free; whose it is.
    fn put(&mut self, sighting: Sighting) -> Option<Arc<str>> {
        let Sighting {
            path,
            created,
            mut record,
        } = sighting;
        let name = match &mut record {
            Ok(record) => {
                record.labels = self.labels.share(Arc::clone(&record.labels));
                Some(Arc::clone(&record.name))
            }
            Err(reason) => {
                self.refused.insert(path.clone(), reason.clone());
                None
            }
        };
        if let Some(name) = &name {
            let paths = self.paths.entry(Arc::clone(name)).or_default();
            paths.insert(path.clone());
        }
        self.nodes.insert(path, Seen { created, record });
        name
    }

    /// Forgets a node; whose it was.
    fn take_away(&mut self, path: &str) -> Option<Arc<str>> {
        self.refused.remove(path);
        let name = self.nodes.remove(path)?.record.ok()?.name;
        if let Some(paths) = self.paths.get_mut(&name) {
            paths.remove(path);
            if paths.is_empty() {
                self.paths.remove(&name);
            }
        }
        Some(name)
    }

    /// Compares what is there under these names with what was known. Only these: of ten thousand members one changes.
    fn judge(&mut self, touched: &BTreeSet<Arc<str>>, now: MonoNanos) {
        for name in touched {
            match self.present(name) {
                Some((created, record)) => {
                    self.held.insert(Arc::clone(name));
                    self.meet(Arc::clone(name), created, record, now);
                }
                None => self.miss(name, now),
            }
        }
        self.age(now);
    }

    /// The one node that speaks for a name, and when the first of its host was made. Who says that it left takes its name out.
    fn present(&mut self, name: &str) -> Option<(i64, Record)> {
        let paths = self.paths.get(name)?;
        let mut by_age: Vec<_> = paths
            .iter()
            .filter_map(|path| Some((path, self.nodes.get(path)?)))
            .collect();
        by_age.sort_by_key(|(_, seen)| seen.created);
        let mut present: Option<(i64, Record)> = None;
        let mut left = Vec::new();
        for (path, seen) in by_age {
            let Ok(record) = &seen.record else {
                continue;
            };
            if record.announced == Announced::Left {
                left.push(record.identity);
                continue;
            }
            match &mut present {
                Some((_, first)) if first.identity != record.identity => {
                    let reason = format!("another host is called {name} already");
                    self.refused.insert(path.clone(), reason);
                    continue;
                }
                // A later node of the same host: its agent was started anew. Its age stays that of the first.
                Some((_, first)) => first.clone_from(record),
                None => present = Some((seen.created, record.clone())),
            }
            self.refused.remove(path);
        }
        let present_is = |identity| {
            present
                .as_ref()
                .is_some_and(|(_, record)| record.identity == identity)
        };
        let known = self.members.get(name).map(|known| known.record.identity);
        if known.is_some_and(|known| left.contains(&known) && !present_is(known)) {
            self.members.remove(name);
        }
        present
    }

    /// A name that has no node.
    fn miss(&mut self, name: &str, now: MonoNanos) {
        self.held.remove(name);
        if let Some(known) = self.members.get_mut(name)
            && known.presence == Presence::Alive
        {
            let until = now.plus(self.settings.keep_failed_ns);
            known.presence = Presence::Failed { until };
        }
    }

    fn meet(&mut self, name: Arc<str>, created: i64, record: Record, now: MonoNanos) {
        let before = self.members.get(&name);
        let same_host = before.filter(|known| known.record.identity == record.identity);
        let presence = match (record.announced, same_host.map(|known| known.presence)) {
            (
                Announced::Restarting,
                Some(going @ (Presence::Restarting { .. } | Presence::Failed { .. })),
            ) => going,
            (Announced::Restarting, Some(Presence::Alive) | None) => Presence::Restarting {
                until: now.plus(record.handover_ns),
            },
            (Announced::Alive | Announced::Left, _) => Presence::Alive,
        };
        // Who comes back keeps the place in the order that it had.
        let created = same_host.map_or(created, |known| known.created.min(created));
        self.members.insert(
            name,
            Known {
                created,
                record,
                presence,
            },
        );
    }

    /// Whether that changed anything.
    fn age(&mut self, now: MonoNanos) -> bool {
        let alone = self.grace_ends().is_some_and(|end| end <= now);
        let mut changed = std::mem::replace(&mut self.alone, alone) != alone;
        let before = self.members.len();
        let keep_failed_ns = self.settings.keep_failed_ns;
        let held = &self.held;
        self.members.retain(|name, known| {
            if let Presence::Restarting { until } = known.presence
                && until <= now
            {
                let until = until.plus(keep_failed_ns);
                known.presence = Presence::Failed { until };
                changed = true;
            }
            // Who said that it would be back, and whose session somehow lives on, is not forgotten and met anew.
            let is_over = matches!(known.presence, Presence::Failed { until } if until <= now);
            !is_over || held.contains(name)
        });
        changed || self.members.len() != before
    }
}

impl Known {
    fn member(&self) -> Member {
        Member {
            name: Arc::clone(&self.record.name),
            addresses: Arc::clone(&self.record.addresses),
            port: self.record.port,
            labels: Arc::clone(&self.record.labels),
            state: match self.presence {
                Presence::Alive => MemberState::Alive,
                Presence::Restarting { .. } => MemberState::Restarting,
                Presence::Failed { .. } => MemberState::Failed,
            },
        }
    }
}

/// Whether somebody may be probed there: within one of the prefixes.
#[must_use]
pub fn is_target(address: IpAddr, targets: &[ipnet::IpNet]) -> bool {
    let address = address.to_canonical();
    targets.iter().any(|target| target.contains(&address))
}

#[cfg(test)]
mod tests;
