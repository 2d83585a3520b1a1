//! The membership from ZooKeeper: an ephemeral node per agent, and a watch on all of them.
//!
//! Below `ROOT/members` each running agent has one ephemeral node, named after its node and its session. A persistent
//! recursive watch says which ones changed; those are read a moment later, many with one request, so that a crowd of
//! changes costs few reads. After each reconnection all are listed again, because changes meanwhile are not told. What it all
//! means is decided in `engine::registry`. The hard fact: a session cannot be resumed by another process with this client
//! library, so an agent that was started anew makes a new node beside its old one, and the identity in both says that they
//! are one host.

mod counts;
mod identity;
mod leave;
mod link;
mod record;
mod security;
mod tree;
mod worker;

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use tokio::sync::{mpsc, oneshot, watch};

use crate::engine::mesh::Labels;
use crate::ports::{Discovered, Discovery, DiscoveryError};

pub use counts::Tally;
pub use identity::{IdentityError, Key};
pub use leave::{LeaveError, leave};
pub use link::LinkError;
pub use security::{Credentials, Tls};

use counts::Counts;
use worker::{Order, Outlets, Worker};

/// How to take part in a mesh by ZooKeeper.
#[derive(Clone, Debug)]
pub struct ZookeeperSettings {
    /// Servers, `HOST:PORT,…`.
    pub servers: String,
    /// Path below which the mesh is kept.
    pub root: String,
    /// Session timeout that is asked for.
    pub session: Duration,
    /// For how long probing goes on without ZooKeeper.
    pub grace: Duration,
    /// Who the agents of this mesh are, if it is closed to others.
    pub auth: Option<Credentials>,
    /// TLS, if it is wanted.
    pub tls: Option<Tls>,
    /// Who may be probed.
    pub targets: Vec<IpNet>,
    /// Directory in which this host's identity is kept.
    pub state_dir: PathBuf,
    /// What this node says of itself.
    pub own: OwnMember,
    /// Where its jitter begins, drawn at each start.
    pub seed: u64,
}

/// What this node says of itself.
#[derive(Clone, Debug)]
pub struct OwnMember {
    /// Name.
    pub name: String,
    /// Addresses in order of preference.
    pub addresses: Vec<IpAddr>,
    /// UDP port on which it answers.
    pub port: u16,
    /// Where it stands.
    pub labels: Labels,
    /// For how long it may be away after a clean stop.
    pub handover: Duration,
}

/// Members in ZooKeeper. Dropping it ends the session's connection; the session itself ends by its timeout.
#[derive(Debug)]
pub struct ZookeeperDiscovery {
    found: watch::Receiver<Option<Discovered>>,
    errors: mpsc::Receiver<DiscoveryError>,
    orders: mpsc::Sender<Order>,
    counts: Arc<Counts>,
}

impl ZookeeperDiscovery {
    /// Begins to look for ZooKeeper, for ever if need be.
    ///
    /// # Errors
    ///
    /// This host's identity cannot be had.
    ///
    /// # Panics
    ///
    /// Outside of a Tokio runtime with time and input.
    pub fn start(settings: ZookeeperSettings) -> Result<Self, IdentityError> {
        let key = Key::load(&settings.state_dir)?;
        let (found_sender, found) = watch::channel(None);
        let (error_sender, errors) = mpsc::channel(ERRORS);
        let (orders, order_receiver) = mpsc::channel(ORDERS);
        let counts = Arc::new(Counts::default());
        let outlets = Outlets {
            found: found_sender,
            errors: error_sender,
            counts: Arc::clone(&counts),
        };
        let worker = Worker::new(settings, key, outlets, order_receiver);
        tokio::spawn(worker.run());
        Ok(Self {
            found,
            errors,
            orders,
            counts,
        })
    }

    /// What it cost ZooKeeper so far.
    #[must_use]
    pub fn tally(&self) -> Tally {
        self.counts.tally()
    }
}

impl Discovery for ZookeeperDiscovery {
    async fn next_change(&mut self) -> Result<Discovered, DiscoveryError> {
        loop {
            // Cancel safe: both branches are.
            tokio::select! {
                biased;
                Some(error) = self.errors.recv() => return Err(error),
                changed = self.found.changed() => match changed {
                    Ok(()) => {
                        if let Some(found) = self.found.borrow_and_update().clone() {
                            return Ok(found);
                        }
                    }
                    // The worker is gone, and said why; nothing more will come.
                    Err(_) => std::future::pending().await,
                },
            }
        }
    }

    fn reload(&mut self) {
        let _ = self.orders.try_send(Order::List);
    }

    fn announce(&mut self) {
        let _ = self.orders.try_send(Order::Announce);
    }

    async fn suspend(&mut self) {
        let (done, told) = oneshot::channel();
        if self.orders.send(Order::Suspend(done)).await.is_ok() {
            // Whether it was told or not, this is all that can be waited for.
            let _ = tokio::time::timeout(FAREWELL_LIMIT, told).await;
        }
    }
}

/// Messages that wait for the agent; more of the same say nothing new.
const ERRORS: usize = 16;
const ORDERS: usize = 4;
/// A stopping agent has 2 s for everything.
const FAREWELL_LIMIT: Duration = Duration::from_millis(700);
