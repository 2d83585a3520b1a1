//! What the agent says of itself over HTTP: `/metrics`, `/healthz`, `/readyz`.
//!
//! [`Telemetry`] is what the running agent writes into, from its own loop; a scrape reads it. Nothing is computed for somebody
//! who does not ask. Encoding is the library's ([`prometheus_client`]); what series there are stands in `series`.

mod health;
mod http;
mod process;
mod series;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use crate::engine::ladder::Mode;
use crate::engine::mesh::MemberState;
use crate::engine::rollup::Rollup;
use crate::ports::FeedStatus;

pub use series::Format;

/// Where the running agent leaves what may be asked of it; clones are the same place.
#[derive(Clone, Debug, Default)]
pub struct Telemetry {
    status: Option<Arc<Mutex<Status>>>,
}

/// Why nothing is served.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot serve metrics on {address}: is the port taken, and the address this host's? Choose another by --metrics"
)]
pub struct MetricsError {
    address: SocketAddr,
    #[source]
    source: std::io::Error,
}

impl Telemetry {
    /// Nobody will ask: what is written is dropped.
    #[must_use]
    pub fn off() -> Self {
        Self::default()
    }

    /// Serves on `address` from now on, on the current tokio runtime, until that ends.
    ///
    /// # Errors
    /// The address cannot be had.
    pub fn serve(address: SocketAddr) -> Result<Self, MetricsError> {
        let failed = |source| MetricsError { address, source };
        let listener = http::listen(address).map_err(failed)?;
        let telemetry = Self {
            status: Some(Arc::default()),
        };
        tokio::spawn(http::serve(listener, telemetry.clone()));
        Ok(telemetry)
    }

    /// Changes what is told, if anybody may ask.
    pub fn update(&self, change: impl FnOnce(&mut Status)) {
        if let Some(status) = &self.status {
            change(&mut status.lock().unwrap_or_else(PoisonError::into_inner));
        }
    }

    /// Whether anybody may ask.
    #[must_use]
    pub const fn is_served(&self) -> bool {
        self.status.is_some()
    }

    fn read<T>(&self, look: impl FnOnce(&Status) -> T) -> T {
        match &self.status {
            Some(status) => look(&status.lock().unwrap_or_else(PoisonError::into_inner)),
            None => look(&Status::default()),
        }
    }
}

/// What is known of the agent and of what it measured.
#[derive(Clone, Debug, Default)]
pub struct Status {
    /// The membership lists this node, and its datapath is set up.
    pub started: bool,
    /// This node's zone; empty without one.
    pub zone: String,
    /// This node's rack; empty without one.
    pub rack: String,
    /// What was measured.
    pub rollup: Rollup,
    /// The interfaces.
    pub interfaces: Vec<Interface>,
    /// Why requests that the programs pass up are not answered; none where they are.
    pub unanswered: Option<String>,
    /// Members that this node probes.
    pub peers: usize,
    /// All members, by what discovery says of them.
    pub members: Vec<(MemberState, usize)>,
    /// Whether the source of members can be read.
    pub discovery: SourceState,
    /// The mesh is told to stop.
    pub is_stopped: bool,
    /// After how long without renewal the programs stop, s; none without programs.
    pub lease_s: Option<f64>,
    /// When the lease was last renewed, s since 1970.
    pub lease_renewed_unix_s: f64,
    /// The way of the measurements; none where they go nowhere.
    pub feed: Option<FeedStatus>,
    /// Windows that never got into a batch, because the feed was behind.
    pub windows_dropped: u64,
}

/// How the source of members is.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum SourceState {
    /// It has not said anything yet.
    #[default]
    Waiting,
    /// It was read.
    Readable,
    /// It cannot be, for this reason.
    Failed(String),
}

/// An interface as probes see it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Interface {
    /// Its name; `*` stands for all of them where there are no programs.
    pub name: String,
    /// Its rung; none: nothing works.
    pub mode: Option<Mode>,
    /// Why.
    pub reason: String,
}
