//! Where batches come from: a Kafka topic, or directories of segment files that may still be written.
//!
//! Both hand out the same: batches in the order of the log, without repeats, and before them, as context, what came
//! earlier, so that names are known from the first batch on.

use std::path::PathBuf;
use std::time::Duration;

use dt_feed::proto::Batch;
use dt_feed::segment::ReadError;

pub use directory::Directories;
pub use kafka::{Kafka, Settings};

mod directory;
mod kafka;

/// Something that came.
#[derive(Debug)]
pub enum Event {
    /// A batch that had not come before.
    Batch {
        /// The batch.
        batch: Box<Batch>,
        /// When it was written into the log, ms unix, never later than now.
        log_ms: u64,
        /// It stands before the place from which on somebody wants to see: it only teaches names.
        context: bool,
    },
    /// Something that is no batch, with its place; it was skipped.
    Broken(String),
    /// Something that whoever watches should know.
    Note(String),
}

/// From where on batches are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begin {
    /// Everything that there is.
    Earliest,
    /// Only what comes from now on.
    Latest,
    /// What was written at or after this time, ms unix, log time.
    At(u64),
}

/// What was not handed out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Skipped {
    /// Batches that had come before.
    pub repeated_batches: u64,
    /// Messages and parts of files that are no batches.
    pub broken_messages: u64,
    /// Messages that the broker deleted by age or size before this group had read them.
    pub deleted_messages: u64,
    /// Starts and gaps that had to be forgotten early, so that repeats of theirs were not recognised.
    pub forgotten: u64,
}

/// Batches cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// No such directory.
    #[error("{} is not a directory of segment files", path.display())]
    NoDirectory {
        /// As it was given.
        path: PathBuf,
    },
    /// A file or directory cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A property of the client that librdkafka does not take.
    #[error("Kafka does not take the property {key}: {reason}")]
    Property {
        /// Its name. Its value may be a password.
        key: String,
        /// What librdkafka says.
        reason: String,
    },
    /// The client cannot be made.
    #[error("cannot make a Kafka client: {reason}")]
    Client {
        /// What librdkafka says.
        reason: String,
    },
    /// No broker answers.
    #[error("cannot reach Kafka at {brokers}: {reason}")]
    Unreachable {
        /// As they were given.
        brokers: String,
        /// What librdkafka says.
        reason: String,
    },
    /// The broker does not let us in.
    #[error("Kafka at {brokers} refuses the credentials: {reason}")]
    Credentials {
        /// As they were given.
        brokers: String,
        /// What librdkafka says.
        reason: String,
    },
    /// There is no such topic.
    #[error(
        "there is no topic {topic} at {brokers}; agents make it with their first batch, or name another by --topic"
    )]
    NoTopic {
        /// The topic.
        topic: String,
        /// As they were given.
        brokers: String,
    },
    /// Not allowed to read it.
    #[error("Kafka at {brokers} does not allow this user to read {what}")]
    Denied {
        /// A topic or a group.
        what: String,
        /// As they were given.
        brokers: String,
    },
    /// Anything else that does not pass by itself.
    #[error("cannot read topic {topic} at {brokers}: {reason}")]
    Failed {
        /// The topic.
        topic: String,
        /// As they were given.
        brokers: String,
        /// What librdkafka says.
        reason: String,
    },
}

/// A Kafka topic or directories.
pub enum Source {
    /// A topic.
    Kafka(Box<Kafka>),
    /// Directories.
    Directories(Box<Directories>),
}

impl Source {
    /// What comes next; `None` when nothing came within `wait`.
    ///
    /// Whatever was handed out before must be confirmed first, else another member of the group may hand it out again.
    ///
    /// # Errors
    ///
    /// What does not pass by itself.
    pub fn poll(&mut self, wait: Duration) -> Result<Option<Event>, SourceError> {
        match self {
            Self::Kafka(kafka) => kafka.poll(wait),
            Self::Directories(directories) => directories.poll(wait),
        }
    }

    /// Everything that was handed out has reached its reader.
    pub fn confirm(&mut self) {
        match self {
            Self::Kafka(kafka) => kafka.confirm(),
            Self::Directories(_) => (),
        }
    }

    /// Up to when everything was read, ms unix: now if there is nothing left, else the log time of what was read last.
    #[must_use]
    pub fn horizon_ms(&self) -> u64 {
        match self {
            Self::Kafka(kafka) => kafka.horizon_ms(),
            Self::Directories(directories) => directories.horizon_ms(),
        }
    }

    /// Whether everything was read that was there at the beginning.
    #[must_use]
    pub fn is_caught_up(&self) -> bool {
        match self {
            Self::Kafka(kafka) => kafka.is_caught_up(),
            Self::Directories(directories) => directories.is_caught_up(),
        }
    }

    /// What was not handed out.
    #[must_use]
    pub fn skipped(&self) -> Skipped {
        match self {
            Self::Kafka(kafka) => kafka.skipped(),
            Self::Directories(directories) => directories.skipped(),
        }
    }

    /// Says how far was read, so that the group goes on there, and lets go.
    pub fn close(self) {
        match self {
            Self::Kafka(kafka) => kafka.close(),
            Self::Directories(_) => (),
        }
    }
}
