//! The membership from a TOML file, read again when it changes.
//!
//! The file is looked at once a second: notifications of the kernel are lost on network file systems and on the symbolic
//! links by which containers exchange files. Reading and resolving block, so both happen on threads for that. A broken
//! file changes nothing but is said; a member that cannot be resolved is left out alone, and tried again.

mod look;
mod names;
mod peers;

use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::task::{JoinError, JoinSet};
use tokio::time::{Interval, MissedTickBehavior};

use crate::engine::mesh::{Member, MemberState};
use crate::ports::{Discovered, Discovery, DiscoveryError, LeftOut};

use look::{Fingerprint, Look};
use names::Names;
use peers::{Entry, Host, PeersFile};

pub use names::{Resolve, SystemResolver};

/// Members in a TOML file.
#[derive(Debug)]
pub struct FileDiscovery<R = SystemResolver> {
    path: Arc<Path>,
    default_port: u16,
    resolver: R,
    interval: Interval,
    work: JoinSet<Done>,
    looking: Looking,
    fingerprint: Fingerprint,
    /// Of the text that was understood or complained about last.
    text_hash: Option<u64>,
    file: Option<PeersFile>,
    names: Names,
    /// Something may be new since the last result.
    stale: bool,
    /// Names that are still unresolved are waited for no longer.
    impatient: bool,
    returned: Option<Discovered>,
    /// To be returned next.
    error: Option<DiscoveryError>,
    /// The last complaint about reading, while it holds.
    unreadable: Option<String>,
}

/// Whether a thread looks at the file.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Looking {
    No,
    Once,
    /// Asked to look while one was under way, which may have missed what it was asked for.
    Twice,
}

/// What a thread has done.
#[derive(Debug)]
enum Done {
    Looked(Look),
    Resolved(String, io::Result<Vec<IpAddr>>),
}

impl FileDiscovery {
    /// Members of this file; those that name no port answer on `default_port`.
    ///
    /// The file is read by the first [`Discovery::next_change`].
    ///
    /// # Panics
    ///
    /// Outside of a Tokio runtime with time.
    #[must_use]
    pub fn new(path: PathBuf, default_port: u16) -> Self {
        Self::with_resolver(path, default_port, SystemResolver, LOOK_EVERY)
    }
}

impl<R: Resolve> FileDiscovery<R> {
    fn with_resolver(path: PathBuf, default_port: u16, resolver: R, look_every: Duration) -> Self {
        let mut interval = tokio::time::interval(look_every);
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            path: path.into(),
            default_port,
            resolver,
            interval,
            work: JoinSet::new(),
            looking: Looking::No,
            fingerprint: Fingerprint::default(),
            text_hash: None,
            file: None,
            names: Names::default(),
            stale: false,
            impatient: false,
            returned: None,
            error: None,
            unreadable: None,
        }
    }

    fn handle_tick(&mut self) {
        self.impatient = self.stale;
        self.names.tick();
        self.ask();
        self.look();
    }

    fn look(&mut self) {
        if self.looking != Looking::No {
            self.looking = Looking::Twice;
            return;
        }
        self.looking = Looking::Once;
        let (path, before) = (Arc::clone(&self.path), self.fingerprint.clone());
        self.work
            .spawn_blocking(move || Done::Looked(look::look(&path, &before)));
    }

    fn handle_done(&mut self, done: Result<Done, JoinError>) {
        match done {
            Ok(Done::Looked(look)) => {
                let again = std::mem::replace(&mut self.looking, Looking::No) == Looking::Twice;
                self.fingerprint = look.fingerprint;
                match look.found {
                    Ok(text) => self.handle_text(text.as_deref()),
                    Err(error) => self.handle_unreadable(error),
                }
                if again {
                    self.look();
                }
            }
            Ok(Done::Resolved(name, answer)) => {
                if self.names.handle(&name, answer) {
                    self.note_stale();
                }
                self.ask();
            }
            // A panic on a thread of ours, or the end of the runtime: look again rather than never.
            Err(_) => self.looking = Looking::No,
        }
    }

    fn handle_text(&mut self, text: Option<&str>) {
        self.unreadable = None;
        let Some(text) = text else {
            return;
        };
        let hash = hash_of(text);
        if self.text_hash.replace(hash) == Some(hash) {
            return;
        }
        match PeersFile::parse(text, self.default_port) {
            Ok(file) => {
                self.error = None;
                self.names.keep(file.names());
                self.file = Some(file);
                self.note_stale();
                self.ask();
            }
            Err(flaws) => {
                let lines: Vec<_> = flaws.iter().map(ToString::to_string).collect();
                self.error = Some(DiscoveryError::Malformed {
                    origin: self.origin(),
                    reason: lines.join("\n"),
                });
            }
        }
    }

    fn handle_unreadable(&mut self, source: io::Error) {
        let complaint = source.to_string();
        if self.unreadable.as_ref() != Some(&complaint) {
            self.unreadable = Some(complaint);
            self.error = Some(DiscoveryError::Unreadable {
                origin: self.origin(),
                source,
            });
        }
    }

    fn ask(&mut self) {
        for name in self.names.poll_questions() {
            let resolver = self.resolver.clone();
            self.work.spawn_blocking(move || {
                let answer = resolver.resolve(&name);
                Done::Resolved(name, answer)
            });
        }
    }

    fn note_stale(&mut self) {
        self.impatient &= self.stale;
        self.stale = true;
    }

    /// What is to be returned, if it is different from what was.
    ///
    /// Names are waited for until the next look, so that a start is not a row of small changes, and a name server that
    /// is down does not hold up those who need none.
    fn news(&mut self) -> Option<Discovered> {
        if !self.stale || !(self.impatient || self.names.is_settled()) {
            return None;
        }
        self.stale = false;
        let found = assemble(self.file.as_ref()?, &self.names);
        if self.returned.as_ref() == Some(&found) {
            return None;
        }
        self.returned = Some(found.clone());
        Some(found)
    }

    fn origin(&self) -> String {
        self.path.display().to_string()
    }
}

impl<R: Resolve + Sync> Discovery for FileDiscovery<R> {
    async fn next_change(&mut self) -> Result<Discovered, DiscoveryError> {
        loop {
            if let Some(error) = self.error.take() {
                return Err(error);
            }
            if let Some(found) = self.news() {
                return Ok(found);
            }
            // Cancel safe: both branches are, and all state is in `self`.
            tokio::select! {
                _ = self.interval.tick() => self.handle_tick(),
                Some(done) = self.work.join_next() => self.handle_done(done),
            }
        }
    }

    fn reload(&mut self) {
        self.fingerprint = Fingerprint::default();
        self.names.hurry();
        self.interval.reset_immediately();
    }
}

/// Members of which at least one address is known, and the others.
fn assemble(file: &PeersFile, names: &Names) -> Discovered {
    let mut found = Discovered::default();
    found.membership.stop = file.stop;
    for entry in &file.entries {
        match addresses_of(entry, names) {
            Ok(addresses) => found.membership.members.push(Member {
                name: Arc::clone(&entry.name),
                addresses: addresses.into(),
                port: entry.port,
                labels: Arc::clone(&entry.labels),
                state: MemberState::Unsaid,
            }),
            Err(reason) => found.left_out.push(LeftOut {
                name: entry.name.to_string(),
                reason,
            }),
        }
    }
    found
}

/// All addresses in the order of the entry; the first failure if there are none.
fn addresses_of(entry: &Entry, names: &Names) -> Result<Vec<IpAddr>, String> {
    let mut addresses = Vec::new();
    let mut failure = None;
    for host in &entry.hosts {
        match host {
            Host::Address(address) => addresses.push(*address),
            Host::Name(name) => match names.addresses(name) {
                Ok(resolved) => addresses.extend_from_slice(resolved),
                Err(reason) => failure = failure.or(Some(reason)),
            },
        }
    }
    match failure {
        Some(reason) if addresses.is_empty() => Err(reason),
        Some(_) | None => Ok(addresses),
    }
}

fn hash_of(text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}

const LOOK_EVERY: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests;
