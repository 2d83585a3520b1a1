//! The feed as segment files in a directory, for when there is no Kafka.

use std::path::{Path, PathBuf};

use dt_feed::proto::{Batch, Losses};
use dt_feed::segment::{Limits, WriteError, Writer};

use crate::ports::{FeedStatus, PublishError, Publisher};

/// Writes batches into segments.
#[derive(Debug)]
pub struct FilePublisher {
    directory: PathBuf,
    writer: Writer,
    published: u64,
    /// The last batch was written.
    is_connected: bool,
}

impl FilePublisher {
    /// Opens the directory, making it where needed. `start_id` tells this start of the agent from all others.
    ///
    /// # Errors
    /// The directory cannot be made or written.
    pub fn open(directory: &Path, start_id: u64) -> Result<Self, PublishError> {
        let writer =
            Writer::open(directory, start_id, LIMITS).map_err(|error| failed(directory, error))?;
        Ok(Self {
            directory: directory.to_owned(),
            writer,
            published: 0,
            is_connected: true,
        })
    }
}

impl Publisher for FilePublisher {
    fn wants_all_peers(&self, now_unix_ns: u64) -> bool {
        self.writer.begins_segment(now_unix_ns)
    }

    fn losses(&self) -> Losses {
        // What cannot be written is refused by `publish`.
        Losses::default()
    }

    fn status(&self) -> FeedStatus {
        FeedStatus {
            is_connected: self.is_connected,
            published: self.published,
            ..FeedStatus::default()
        }
    }

    async fn publish(&mut self, batch: Batch) -> Result<(), PublishError> {
        // A write of a few kilobytes into the page cache: it blocks for microseconds, and probing has its own thread.
        let written = self.writer.append(&batch, batch.closed_unix_ns);
        self.is_connected = written.is_ok();
        self.published += u64::from(self.is_connected);
        written
            .map(drop)
            .map_err(|error| failed(&self.directory, error))
    }

    async fn flush(&mut self) -> Result<(), PublishError> {
        self.writer
            .sync()
            .map_err(|error| failed(&self.directory, error))
    }
}

/// A segment is small enough to read at once, and old enough ones can be removed by age.
const LIMITS: Limits = Limits {
    max_bytes: 64 << 20,
    max_age_ns: 600 * 1_000_000_000,
};

fn failed(directory: &Path, error: WriteError) -> PublishError {
    let destination = directory.display().to_string();
    if error.is_disk_full() {
        PublishError::Full { destination }
    } else {
        PublishError::Failed {
            destination,
            source: Box::new(error),
        }
    }
}
