//! The traits between the engine and the world; each has a real adapter and fakes in tests.

use std::io;

use dt_feed::proto::{Batch, Losses};

use crate::engine::mesh::Membership;
pub use crate::engine::outbox::FeedStatus;

/// Where the membership comes from.
pub trait Discovery {
    /// Waits until the membership, or what is wrong with it, is different from what was last returned.
    ///
    /// The first call returns as soon as the source was read once. Each result is the whole membership: a caller may
    /// skip all but the last. After an error the membership returned before holds on, and the next call goes on
    /// waiting; the same error is not returned twice in a row.
    ///
    /// Cancel safe: a call that was dropped before it returned has lost nothing.
    ///
    /// # Errors
    ///
    /// The source cannot be read, or what it holds cannot be understood.
    fn next_change(&mut self) -> impl Future<Output = Result<Discovered, DiscoveryError>> + Send;

    /// Makes the next [`Self::next_change`] look at the source at once, as on SIGHUP.
    ///
    /// That call still returns only if there is a change.
    fn reload(&mut self);

    /// This node answers probes from now on; a source that tells others of it may do so. Called once, after the start.
    fn announce(&mut self) {}

    /// This node stops and will be back; a source that tells others of it may do so. The last call, short and cancel safe.
    fn suspend(&mut self) -> impl Future<Output = ()> + Send {
        std::future::ready(())
    }
}

/// What a source of discovery holds.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Discovered {
    /// All members that are known well enough to be probed.
    pub membership: Membership,
    /// Those that are not; the source goes on trying.
    pub left_out: Vec<LeftOut>,
    /// An operator told this node to leave the mesh: the agent ends.
    pub told_to_leave: bool,
}

/// A member that cannot take part for now.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("member {name} is left out: {reason}")]
pub struct LeftOut {
    /// Its name.
    pub name: String,
    /// Why, for the operator.
    pub reason: String,
}

/// Why a source of discovery said nothing new.
#[derive(Debug, thiserror::Error)]
pub enum DiscoveryError {
    /// It cannot be reached or read.
    #[error("cannot read the members from {origin}")]
    Unreadable {
        /// File or service.
        origin: String,
        /// Cause.
        #[source]
        source: io::Error,
    },
    /// This node can never be a member as things are.
    #[error("this node cannot be a member by {origin}: {reason}")]
    Refused {
        /// Service.
        origin: String,
        /// Why, and what to do.
        reason: String,
    },
    /// It holds something that makes no sense.
    #[error("cannot understand the members in {origin}: {reason}")]
    Malformed {
        /// File or service.
        origin: String,
        /// What is wrong and where, one line for each mistake.
        reason: String,
    },
}

/// Where the measurements go.
pub trait Publisher {
    /// Whether the next batch has to carry the whole peer dictionary, because a reader may begin with it.
    ///
    /// `now_unix_ns` is the time at which that batch will be closed, nanoseconds since 1970.
    fn wants_all_peers(&self, now_unix_ns: u64) -> bool;

    /// What was lost after [`Self::publish`] had taken it: totals since the start, of the kinds that the caller cannot know.
    fn losses(&self) -> Losses;

    /// How the way to the destination is; asked for once a second.
    fn status(&self) -> FeedStatus;

    /// Hands one batch over; its time is [`Batch::closed_unix_ns`].
    ///
    /// Batches arrive in the order of the calls. Returns when the batch is as safe as the destination makes it at once,
    /// or is lost; a destination that is slow or down is the adapter's to bridge, with bounded memory. Cancel safe: a
    /// batch whose call was dropped is either handed over whole or not at all.
    ///
    /// # Errors
    ///
    /// The batch is lost; the caller counts it. The next one may do better.
    fn publish(&mut self, batch: Batch) -> impl Future<Output = Result<(), PublishError>> + Send;

    /// Makes everything that was handed over as safe as it will ever be; the last call before the end.
    ///
    /// Cancel safe: what was not flushed stays as it was.
    ///
    /// # Errors
    ///
    /// Something that was handed over may be lost.
    fn flush(&mut self) -> impl Future<Output = Result<(), PublishError>> + Send;
}

/// Why a batch is lost.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// There is no room left; counted apart, because it is the operator's to mend.
    #[error("no space is left for the feed in {destination}")]
    Full {
        /// Directory or topic.
        destination: String,
    },
    /// Writing failed.
    #[error("cannot write the feed to {destination}")]
    Failed {
        /// File, directory or topic.
        destination: String,
        /// Cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}
