//! Writes batches into the segments of a directory.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use prost::Message;

use super::{RECORD_TAG, name};
use crate::batch::MAX_BATCH_BYTES;
use crate::proto::Batch;
use crate::varint;

/// Appends batches to a segment of its own and begins a new one in time.
///
/// Each batch is handed to the kernel whole, by one write call, and is then safe from a crash of this process. Nothing is
/// synchronised to the disk unless [`Writer::sync`] is called: after a crash of the host the tail may be missing.
///
/// A batch that cannot be written is cut off again, so the segment stays readable and takes the next batch. Files are never
/// deleted, except a segment that got no batch.
#[derive(Debug)]
pub struct Writer {
    directory: PathBuf,
    start_id: u64,
    limits: Limits,
    /// Begin in the latest name of the directory, so that names rise even while the clock steps back.
    latest_begin: Option<u64>,
    open: Option<Open>,
    /// The record being written; kept for its memory.
    record: Vec<u8>,
}

/// When a new segment is begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Length in bytes from which on no further batch is added to a segment.
    pub max_bytes: u64,
    /// Age in ns from which on no further batch is added to a segment.
    pub max_age_ns: u64,
}

/// A batch was not written, or not made safe.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The directory cannot be made or listed.
    #[error("cannot use {} as a directory of segments", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// Cause.
        #[source]
        source: io::Error,
    },
    /// A new segment cannot be begun.
    #[error("cannot create segment {}", path.display())]
    Create {
        /// The new file.
        path: PathBuf,
        /// Cause.
        #[source]
        source: io::Error,
    },
    /// The batch could not be written whole and was taken back.
    #[error("cannot append to segment {}", path.display())]
    Append {
        /// The segment.
        path: PathBuf,
        /// Cause.
        #[source]
        source: io::Error,
    },
    /// The batch is longer than any reader accepts.
    #[error("batch of {bytes} bytes is longer than {MAX_BATCH_BYTES}")]
    TooLong {
        /// Length of the batch.
        bytes: usize,
    },
    /// The disk did not confirm what was written.
    #[error("cannot synchronise segment {}", path.display())]
    Sync {
        /// The segment.
        path: PathBuf,
        /// Cause.
        #[source]
        source: io::Error,
    },
}

impl Writer {
    /// Prepares to write into `directory`, which is made if it is missing. The first batch begins a segment.
    ///
    /// # Errors
    ///
    /// [`WriteError::Directory`].
    pub fn open(
        directory: impl Into<PathBuf>,
        start_id: u64,
        limits: Limits,
    ) -> Result<Self, WriteError> {
        let directory = directory.into();
        let latest_begin = fs::create_dir_all(&directory).and_then(|()| latest_begin(&directory));
        match latest_begin {
            Ok(latest_begin) => Ok(Self {
                directory,
                start_id,
                limits,
                latest_begin,
                open: None,
                record: Vec::new(),
            }),
            Err(source) => Err(WriteError::Directory {
                path: directory,
                source,
            }),
        }
    }

    /// Whether the next batch at this time, ns unix, will be the first of its segment and must hold the whole peer dictionary.
    #[must_use]
    pub fn begins_segment(&self, now_unix_ns: u64) -> bool {
        self.open
            .as_ref()
            .is_none_or(|open| open.bytes == 0 || open.is_due(&self.limits, now_unix_ns))
    }

    /// Writes a batch at this time, ns unix, and returns by how many bytes the feed has grown.
    ///
    /// # Errors
    ///
    /// The batch is then lost to the feed (what it alone carried, such as the dictionary, must come again), and the next one
    /// may be tried. [`WriteError::is_disk_full`] tells why.
    pub fn append(&mut self, batch: &Batch, now_unix_ns: u64) -> Result<u64, WriteError> {
        self.begin_record(batch.encoded_len())?;
        batch.encode_raw(&mut self.record);
        self.write_record(now_unix_ns)
    }

    /// The same for the bytes of a batch, which are written as they are.
    ///
    /// # Errors
    ///
    /// As [`Writer::append`].
    pub fn append_encoded(&mut self, batch: &[u8], now_unix_ns: u64) -> Result<u64, WriteError> {
        self.begin_record(batch.len())?;
        self.record.extend_from_slice(batch);
        self.write_record(now_unix_ns)
    }

    fn write_record(&mut self, now_unix_ns: u64) -> Result<u64, WriteError> {
        if self
            .open
            .as_ref()
            .is_some_and(|open| open.is_due(&self.limits, now_unix_ns))
        {
            self.close();
        }
        // Taken out while it is in doubt: after a failed cut readers stop at the broken tail, so nothing may follow it.
        let mut open = match self.open.take() {
            Some(open) => open,
            None => self.begin(now_unix_ns)?,
        };
        if let Err(source) = open.append(&self.record) {
            let path = open.path.clone();
            self.open = open.cut_back().ok().map(|()| open);
            return Err(WriteError::Append { path, source });
        }
        self.open = Some(open);
        Ok(self.record.len() as u64)
    }

    /// Waits until the disk has what was written to the present segment.
    ///
    /// # Errors
    ///
    /// [`WriteError::Sync`].
    pub fn sync(&self) -> Result<(), WriteError> {
        let Some(open) = &self.open else {
            return Ok(());
        };
        open.file.sync_data().map_err(|source| WriteError::Sync {
            path: open.path.clone(),
            source,
        })
    }

    /// The present segment, if there is one.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        self.open.as_ref().map(|open| open.path.as_path())
    }

    /// Ends the present segment; the next batch begins another one.
    pub fn close(&mut self) {
        if let Some(Open { path, bytes: 0, .. }) = self.open.take() {
            // An empty segment is valid, only a nuisance: no reason to fail.
            let _ = fs::remove_file(path);
        }
    }

    fn begin_record(&mut self, bytes: usize) -> Result<(), WriteError> {
        if bytes > MAX_BATCH_BYTES {
            return Err(WriteError::TooLong { bytes });
        }
        self.record.clear();
        self.record.push(RECORD_TAG);
        varint::write(&mut self.record, bytes as u64);
        Ok(())
    }

    fn begin(&mut self, now_unix_ns: u64) -> Result<Open, WriteError> {
        let mut begin_unix_ns = now_unix_ns;
        if let Some(latest) = self.latest_begin {
            begin_unix_ns = begin_unix_ns.max(latest.saturating_add(1));
        }
        loop {
            let path = self
                .directory
                .join(name::format(begin_unix_ns, self.start_id));
            match File::options().append(true).create_new(true).open(&path) {
                Ok(file) => {
                    self.latest_begin = Some(begin_unix_ns);
                    return Ok(Open {
                        path,
                        file,
                        bytes: 0,
                        opened_unix_ns: now_unix_ns,
                    });
                }
                Err(source)
                    if source.kind() == ErrorKind::AlreadyExists && begin_unix_ns < u64::MAX =>
                {
                    begin_unix_ns += 1;
                }
                Err(source) => return Err(WriteError::Create { path, source }),
            }
        }
    }
}

impl WriteError {
    /// Whether the disk, the quota or the permitted file size is used up, so that the same may succeed later.
    #[must_use]
    pub fn is_disk_full(&self) -> bool {
        match self {
            Self::Directory { source, .. }
            | Self::Create { source, .. }
            | Self::Append { source, .. }
            | Self::Sync { source, .. } => {
                matches!(
                    source.kind(),
                    ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge
                )
            }
            Self::TooLong { .. } => false,
        }
    }
}

/// The segment that is being written.
#[derive(Debug)]
struct Open {
    path: PathBuf,
    file: File,
    /// Length of all whole records.
    bytes: u64,
    opened_unix_ns: u64,
}

impl Open {
    /// A clock that was set back makes the segment live longer, never a name collide.
    fn is_due(&self, limits: &Limits, now_unix_ns: u64) -> bool {
        self.bytes >= limits.max_bytes
            || now_unix_ns.saturating_sub(self.opened_unix_ns) >= limits.max_age_ns
    }

    /// One write call, unless the kernel takes only a part, as it does before it says that the disk is full.
    fn append(&mut self, record: &[u8]) -> io::Result<()> {
        self.file.write_all(record)?;
        self.bytes += record.len() as u64;
        Ok(())
    }

    /// The file is open for appending, so the next write follows the cut.
    fn cut_back(&mut self) -> io::Result<()> {
        self.file.set_len(self.bytes)
    }
}

fn latest_begin(directory: &Path) -> io::Result<Option<u64>> {
    let mut latest = None;
    for entry in fs::read_dir(directory)? {
        latest = latest.max(entry?.file_name().to_str().and_then(name::begin_unix_ns));
    }
    Ok(latest)
}
