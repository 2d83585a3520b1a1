//! From the nodes that a coordination service holds to the membership of the mesh.
//!
//! An agent has a node there while its session lives. What that node says and how it vanished tell three ways of going apart:
//! *left* (said so: no member any more, at once), *restarting* (said so: a member until its hand-over time is over), *failed*
//! (went without a word: kept and probed for ten minutes, so that a dead host does not vanish from sight). The one hard fact:
//! when the service forgets everybody at once, everybody is failed and nobody is gone.

mod record;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use dt_common::time::MonoNanos;

use super::mesh::{Member, MemberState, Membership};

pub use record::{Announced, Identity, Record};

/// What is known of all agents, over time.
#[derive(Debug)]
pub struct Registry {
    settings: RegistrySettings,
    /// By path, what the service holds now.
    nodes: BTreeMap<String, Seen>,
    /// By name, members as last known: present ones and those that are kept after they vanished.
    members: BTreeMap<String, Known>,
    /// Names of members that have a node.
    held: BTreeSet<String>,
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
            members: BTreeMap::new(),
            held: BTreeSet::new(),
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
        self.nodes = listing
            .into_iter()
            .map(
                |Sighting {
                     path,
                     created,
                     record,
                 }| (path, Seen { created, record }),
            )
            .collect();
        self.judge(now);
    }

    /// Takes nodes that are new or changed, and paths of nodes that are gone.
    pub fn handle_changes(
        &mut self,
        seen: impl IntoIterator<Item = Sighting>,
        gone: impl IntoIterator<Item = String>,
        now: MonoNanos,
    ) {
        for path in gone {
            self.nodes.remove(&path);
        }
        for Sighting {
            path,
            created,
            record,
        } in seen
        {
            self.nodes.insert(path, Seen { created, record });
        }
        self.judge(now);
    }

    /// Names of members that have no node now, and that are kept.
    #[must_use]
    pub fn missing(&self) -> Vec<String> {
        let names = self.members.keys();
        names
            .filter(|name| !self.held.contains(*name))
            .cloned()
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
        let before = self.membership();
        self.age(now);
        before != self.membership()
    }

    /// When [`Self::handle_timeout`] is due next; in the past if it is overdue.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<MonoNanos> {
        let end_of = |(name, known): (&String, &Known)| match known.presence {
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
        let known = self.members.get(&self.settings.name)?;
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

    /// Compares what is there with what was known.
    fn judge(&mut self, now: MonoNanos) {
        self.refused.clear();
        let present = self.present();
        self.held = present.keys().cloned().collect();
        for (name, (created, record)) in present {
            self.meet(name, created, record, now);
        }
        let keep_failed_ns = self.settings.keep_failed_ns;
        for (name, known) in &mut self.members {
            if !self.held.contains(name) && known.presence == Presence::Alive {
                let until = now.plus(keep_failed_ns);
                known.presence = Presence::Failed { until };
            }
        }
        self.age(now);
    }

    /// By name, the one node that speaks for it. Who says that it left takes its name out.
    fn present(&mut self) -> BTreeMap<String, (i64, Record)> {
        let mut by_age: Vec<_> = self.nodes.iter().collect();
        by_age.sort_by_key(|(_, seen)| seen.created);
        let mut present: BTreeMap<String, (i64, Record)> = BTreeMap::new();
        let mut left = Vec::new();
        for (path, seen) in by_age {
            let record = match &seen.record {
                Ok(record) if record.announced == Announced::Left => {
                    left.push((record.name.clone(), record.identity));
                    continue;
                }
                Ok(record) => record,
                Err(reason) => {
                    self.refused.insert(path.clone(), reason.clone());
                    continue;
                }
            };
            match present.get_mut(&record.name) {
                Some((_, first)) if first.identity != record.identity => {
                    let reason = format!("another host is called {} already", record.name);
                    self.refused.insert(path.clone(), reason);
                }
                // A later node of the same host: its agent was started anew. Its age stays that of the first.
                Some((_, first)) => first.clone_from(record),
                None => {
                    present.insert(record.name.clone(), (seen.created, record.clone()));
                }
            }
        }
        for (name, identity) in left {
            let is_back = present
                .get(&name)
                .is_some_and(|(_, record)| record.identity == identity);
            let known = self.members.get(&name);
            if !is_back && known.is_some_and(|known| known.record.identity == identity) {
                self.members.remove(&name);
            }
        }
        present
    }

    fn meet(&mut self, name: String, created: i64, record: Record, now: MonoNanos) {
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

    fn age(&mut self, now: MonoNanos) {
        self.alone = self.grace_ends().is_some_and(|end| end <= now);
        let keep_failed_ns = self.settings.keep_failed_ns;
        let held = &self.held;
        self.members.retain(|name, known| {
            if let Presence::Restarting { until } = known.presence
                && until <= now
            {
                let until = until.plus(keep_failed_ns);
                known.presence = Presence::Failed { until };
            }
            // Who said that it would be back, and whose session somehow lives on, is not forgotten and met anew.
            let is_over = matches!(known.presence, Presence::Failed { until } if until <= now);
            !is_over || held.contains(name)
        });
    }
}

impl Known {
    fn member(&self) -> Member {
        Member {
            name: self.record.name.clone(),
            addresses: self.record.addresses.clone(),
            port: self.record.port,
            labels: self.record.labels.clone(),
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
