//! The one task that talks with ZooKeeper, from the first connection to the farewell.

mod exchange;

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use zookeeper_client::{
    AddWatchMode, Client, Error, EventType, PersistentWatcher, SessionState, WatchedEvent,
};

use super::counts::Counts;
use super::link::{Session, explain};
use super::tree::{Tree, TreeError};
use super::{Key, ZookeeperSettings, record};
use crate::adapters::clock;
use crate::engine::mesh::{Member, MemberState};
use crate::engine::random::Random;
use crate::engine::registry::{Announced, Record, Registry, RegistrySettings};
use crate::ports::{Discovered, DiscoveryError, LeftOut};

/// What the agent wants of it.
#[derive(Debug)]
pub(super) enum Order {
    /// This node is ready to be probed.
    Announce,
    /// Look at everything again.
    List,
    /// Say that this node will be back, and end.
    Suspend(oneshot::Sender<()>),
}

/// Where it says what it found.
pub(super) struct Outlets {
    pub found: watch::Sender<Option<Discovered>>,
    pub errors: mpsc::Sender<DiscoveryError>,
    pub counts: Arc<Counts>,
}

/// Why it does not go on as it was.
enum Halt {
    /// The agent ends.
    Stop(Option<oneshot::Sender<()>>),
    /// The session is lost; the next one may do better.
    Lost(String),
    /// Nothing can be done here by trying again.
    Refused(String),
}

#[expect(
    clippy::struct_excessive_bools,
    reason = "things that are due or not, in any combination"
)]
pub(super) struct Worker {
    settings: ZookeeperSettings,
    key: Key,
    tree: Tree,
    registry: Registry,
    outlets: Outlets,
    orders: mpsc::Receiver<Order>,
    random: Random,
    /// Name of this agent's node below the members' directory. Of this session: an earlier one's node is not ours to keep.
    own_node: String,
    announced: bool,
    /// The node is to be made, for the first time or again.
    register: bool,
    list: bool,
    /// The watch is to be set again.
    rewatch: bool,
    look_at_stop: bool,
    /// For how long a session is worth waiting for once it is disconnected.
    ends_after: Duration,
    give_up_at: Option<Instant>,
    changed: BTreeSet<String>,
    gone: BTreeSet<String>,
    /// When what changed is read.
    read_at: Option<Instant>,
    complaint: Option<String>,
}

impl Worker {
    pub fn new(
        settings: ZookeeperSettings,
        key: Key,
        outlets: Outlets,
        orders: mpsc::Receiver<Order>,
    ) -> Self {
        let registry = Registry::new(RegistrySettings {
            name: settings.own.name.clone(),
            identity: key.identity,
            grace_ns: nanos(settings.grace),
            keep_failed_ns: RegistrySettings::KEEP_FAILED_NS,
        });
        Self {
            tree: Tree::new(&settings.root),
            own_node: String::new(),
            random: Random::new(settings.seed.rotate_left(9)),
            settings,
            key,
            registry,
            outlets,
            orders,
            announced: false,
            register: false,
            list: false,
            rewatch: false,
            look_at_stop: false,
            ends_after: Duration::ZERO,
            give_up_at: None,
            changed: BTreeSet::new(),
            gone: BTreeSet::new(),
            read_at: None,
            complaint: None,
        }
    }

    /// Takes part until it is told to stop.
    pub async fn run(mut self) {
        loop {
            let halt = match self.connect().await {
                Ok(session) => {
                    let halt = match self.take_part(&session).await {
                        Ok(never) => match never {},
                        Err(halt) => halt,
                    };
                    if let Halt::Stop(Some(_)) = &halt {
                        self.say_farewell(&session.client).await;
                    }
                    self.give_up_at = None;
                    halt
                }
                Err(halt) => halt,
            };
            match halt {
                Halt::Stop(done) => {
                    if let Some(done) = done {
                        // An agent that waits no longer has ended already.
                        let _ = done.send(());
                    }
                    return;
                }
                Halt::Lost(reason) => {
                    self.registry.handle_away(clock::now());
                    self.complain(&reason);
                }
                Halt::Refused(reason) => {
                    let origin = self.settings.servers.clone();
                    let _ = self
                        .outlets
                        .errors
                        .send(DiscoveryError::Refused { origin, reason })
                        .await;
                    return;
                }
            }
        }
    }

    /// Tries until there is a session.
    async fn connect(&mut self) -> Result<Session, Halt> {
        loop {
            let (settings, key) = (self.settings.clone(), self.key.clone());
            let attempt = async move { Session::open(&settings, &key).await };
            match self.attend(attempt).await? {
                Ok(session) => {
                    let granted = session.client.session_timeout();
                    if granted != self.settings.session {
                        tracing::warn!(asked = ?self.settings.session, ?granted, "ZooKeeper grants another session timeout.");
                    }
                    return Ok(session);
                }
                Err(error) => {
                    self.registry.handle_away(clock::now());
                    let settings = self.settings.clone();
                    let explained = async move { explain(&settings, &error).await };
                    let reason = self.attend(explained).await?;
                    self.complain(&format!("no connection: {reason}"));
                }
            }
            let pause = self.jitter(Duration::from_millis(300), Duration::from_millis(1_200));
            self.attend(sleep(pause)).await?;
        }
    }

    async fn take_part(&mut self, session: &Session) -> Result<Infallible, Halt> {
        let client = &session.client;
        self.ends_after = session.ends_after();
        let (tree, auth) = (self.tree.clone(), self.settings.auth.clone());
        self.attend(tree.prepare(client, auth.as_ref()))
            .await?
            .map_err(|error| match error {
                TreeError::Open { .. } => Halt::Refused(error.to_string()),
                TreeError::Zookeeper(error) => lost(error),
            })?;
        let mut watcher = self.watch(client).await?.map_err(lost)?;
        self.note_reached();
        self.own_node = format!("{}:{:016x}", self.settings.own.name, client.session_id().0);
        self.register = self.announced;
        self.list = true;
        self.read_at = Some(Instant::now());
        loop {
            let read_at = self.read_at;
            let next = async {
                tokio::select! {
                    biased;
                    () = until(read_at) => None,
                    event = watcher.changed() => Some(event),
                }
            };
            match self.attend_or_wake(next, true).await?.flatten() {
                Some(event) => {
                    self.outlets.counts.add_event();
                    self.note(&event)?;
                }
                None if std::mem::take(&mut self.rewatch) => {
                    // Before all is listed, so that nothing falls in between. The old one goes when the new one is there.
                    match self.watch(client).await? {
                        Ok(again) => {
                            watcher = again;
                            self.read(client).await?;
                        }
                        Err(error) => self.note_failure(error)?,
                    }
                }
                None => self.read(client).await?,
            }
        }
    }

    async fn watch(&mut self, client: &Client) -> Result<Result<PersistentWatcher, Error>, Halt> {
        let root = self.tree.root().to_owned();
        let watching = client.watch(&root, AddWatchMode::PersistentRecursive);
        self.attend(watching).await
    }

    /// What an event means for what is to be read.
    fn note(&mut self, event: &WatchedEvent) -> Result<(), Halt> {
        if event.event_type == EventType::Session {
            return self.note_session(event.session_state);
        }
        if event.path == self.tree.stop_key() {
            self.look_at_stop = true;
        } else if let Some(name) = self.tree.member_name(&event.path) {
            let name = name.to_owned();
            if event.event_type == EventType::NodeDeleted {
                // Also by hand, while the session goes on: then it is made again.
                self.register |= self.announced && name == self.own_node;
                self.changed.remove(&name);
                self.gone.insert(name);
            } else {
                self.gone.remove(&name);
                self.changed.insert(name);
            }
        } else {
            return Ok(());
        }
        // The more there is, the more will come: a crowd is read in few requests, one change soon.
        let most = if self.changed.len() > CROWD { 900 } else { 120 };
        let wait = self.jitter(Duration::from_millis(20), Duration::from_millis(most));
        self.read_at.get_or_insert_with(|| Instant::now() + wait);
        Ok(())
    }

    fn note_session(&mut self, state: SessionState) -> Result<(), Halt> {
        match state {
            SessionState::Disconnected => {
                self.registry.handle_away(clock::now());
                let ends = Instant::now() + self.ends_after;
                self.give_up_at.get_or_insert(ends);
                self.complain("the connection is lost");
                Ok(())
            }
            SessionState::SyncConnected | SessionState::ConnectedReadOnly => {
                // Changes meanwhile were not told, and the library does not set persistent watches again.
                self.note_reached();
                self.rewatch = true;
                self.list = true;
                let wait = self.jitter(Duration::ZERO, Duration::from_millis(500));
                self.read_at = Some(Instant::now() + wait);
                Ok(())
            }
            SessionState::Expired => Err(Halt::Lost(String::from("the session has expired"))),
            SessionState::AuthFailed => Err(Halt::Refused(String::from(
                "ZooKeeper does not take the credentials",
            ))),
            SessionState::Closed => Err(Halt::Lost(String::from("the session is closed"))),
        }
    }

    /// Does `work` while listening to the agent and to time.
    async fn attend<T>(&mut self, work: impl Future<Output = T>) -> Result<T, Halt> {
        tokio::pin!(work);
        loop {
            if let Some(done) = self.attend_or_wake(&mut work, false).await? {
                return Ok(done);
            }
        }
    }

    /// The same; nothing when `wakes` and an order made something due.
    async fn attend_or_wake<T>(
        &mut self,
        work: impl Future<Output = T>,
        wakes: bool,
    ) -> Result<Option<T>, Halt> {
        tokio::pin!(work);
        loop {
            let now = clock::now();
            let due = self.registry.poll_timeout().map(|due| due.since(now));
            tokio::select! {
                biased;
                order = self.orders.recv() => match order {
                    Some(Order::Suspend(done)) => return Err(Halt::Stop(Some(done))),
                    None => return Err(Halt::Stop(None)),
                    Some(order) => {
                        self.list = true;
                        self.read_at = Some(Instant::now());
                        if matches!(order, Order::Announce) {
                            (self.announced, self.register) = (true, true);
                        }
                        if wakes {
                            return Ok(None);
                        }
                    }
                },
                done = &mut work => return Ok(Some(done)),
                () = until(self.give_up_at) => {
                    self.give_up_at = None;
                    return Err(Halt::Lost(String::from("no connection for as long as the session lasts")));
                }
                () = after(due) => if self.registry.handle_timeout(clock::now()) {
                    self.say();
                },
            }
        }
    }

    /// Gives the agent the membership, if it is news.
    fn say(&mut self) {
        let mut membership = self.registry.membership();
        let own = self.own_member();
        // What an earlier start of it said, or nothing before it is announced, is not how it is.
        match membership
            .members
            .iter_mut()
            .find(|member| member.name == own.name)
        {
            Some(held) => *held = own,
            None => membership.members.push(own),
        }
        let left_out = self.registry.refused().map(|(path, reason)| LeftOut {
            name: path.to_owned(),
            reason: reason.to_owned(),
        });
        let found = Discovered {
            membership,
            left_out: left_out.collect(),
            told_to_leave: self.registry.told_to_leave(&self.own_node),
        };
        self.outlets.found.send_if_modified(|held| {
            let news = held.as_ref() != Some(&found);
            if news {
                *held = Some(found);
            }
            news
        });
    }

    fn own_member(&self) -> Member {
        let own = &self.settings.own;
        Member {
            name: own.name.as_str().into(),
            addresses: own.addresses.as_slice().into(),
            port: own.port,
            labels: Arc::new(own.labels.clone()),
            state: MemberState::Alive,
        }
    }

    fn note_reached(&mut self) {
        self.give_up_at = None;
        if self.complaint.take().is_some() {
            tracing::info!(servers = %self.settings.servers, "ZooKeeper is reached again.");
        }
    }

    /// Says once what is wrong, until it is something else.
    fn complain(&mut self, reason: &str) {
        if self.complaint.as_deref() == Some(reason) {
            return;
        }
        self.complaint = Some(reason.to_owned());
        let error = DiscoveryError::Unreadable {
            origin: format!("ZooKeeper at {}", self.settings.servers),
            source: io::Error::other(reason.to_owned()),
        };
        // A full queue means that the agent hears enough already.
        let _ = self.outlets.errors.try_send(error);
    }

    async fn say_farewell(&mut self, client: &Client) {
        if !self.announced {
            return;
        }
        let data = self.own_data(Announced::Restarting);
        let path = self.tree.member(&self.own_node);
        let told = timeout(FAREWELL_LIMIT, client.set_data(&path, &data, None)).await;
        if !matches!(told, Ok(Ok(_))) {
            tracing::warn!(
                "ZooKeeper could not be told that this node will be back; peers will see it as failed."
            );
        }
    }

    fn own_data(&self, announced: Announced) -> Vec<u8> {
        let own = &self.settings.own;
        record::encode(&Record {
            name: own.name.as_str().into(),
            identity: self.key.identity,
            addresses: own.addresses.as_slice().into(),
            port: own.port,
            labels: Arc::new(own.labels.clone()),
            announced,
            handover_ns: nanos(own.handover),
        })
    }

    fn jitter(&mut self, least: Duration, most: Duration) -> Duration {
        let span = nanos(most.saturating_sub(least)).max(1);
        least + Duration::from_nanos(self.random.below(span))
    }
}

fn lost(error: Error) -> Halt {
    match error {
        Error::NoAuth => Halt::Refused(String::from(
            "ZooKeeper does not let this agent read or create there; see --zookeeper-auth-file and --zookeeper-sasl-file",
        )),
        Error::AuthFailed => Halt::Refused(String::from("ZooKeeper does not take the credentials")),
        other => Halt::Lost(other.to_string()),
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

async fn after(due_ns: Option<u64>) {
    match due_ns {
        Some(due_ns) => sleep(Duration::from_nanos(due_ns)).await,
        None => std::future::pending().await,
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// When it is tried again if nothing is told in between.
const RETRY: Duration = Duration::from_secs(1);
/// More changes than this at once are a crowd.
const CROWD: usize = 50;
const FAREWELL_LIMIT: Duration = Duration::from_millis(500);
