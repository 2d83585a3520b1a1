//! Reads all segments of a directory in order, and goes on when more is written.

use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::reader::{End, Reader};
use super::{Corruption, ReadError, name};
use crate::proto::Batch;

/// Batches of a directory, segment by segment in the order of their names.
///
/// The order of one writer's batches is kept. Several writers may share the directory; their batches come as they are found.
/// Files that are not segments are left alone, segments that vanish are forgotten.
#[derive(Debug)]
pub struct Follower {
    directory: PathBuf,
    /// How far each segment was read, by file name.
    progress: BTreeMap<String, Progress>,
    /// Segments with unread bytes, as of the last look at the directory.
    pending: VecDeque<String>,
    reading: Option<(String, Reader)>,
}

/// What [`Follower::poll`] found.
#[derive(Clone, Debug, PartialEq)]
pub enum Followed {
    /// The next batch.
    Batch(Box<Batch>),
    /// The rest of this segment cannot be read; reported once, the other segments go on.
    Damaged {
        /// The segment.
        path: PathBuf,
        /// Length in bytes of all whole records before the damage.
        offset: u64,
        /// What is wrong there.
        cause: Corruption,
    },
}

impl Follower {
    /// Follows a directory from its oldest segment on. It need not exist yet.
    #[must_use]
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self {
            directory: directory.into(),
            progress: BTreeMap::new(),
            pending: VecDeque::new(),
            reading: None,
        }
    }

    /// What comes next; `None` when all was read that was there during the call. Call again later for more.
    ///
    /// # Errors
    ///
    /// When the directory or a segment cannot be read; the next call goes on with the next segment, and with this one when
    /// its turn comes again.
    pub fn poll(&mut self) -> Result<Option<Followed>, ReadError> {
        let mut has_looked = false;
        loop {
            if let Some(followed) = self.read_on()? {
                return Ok(Some(followed));
            }
            if let Some(name) = self.pending.pop_front() {
                self.reading = self.open(name)?;
            } else if has_looked {
                return Ok(None);
            } else {
                self.look()?;
                has_looked = true;
            }
        }
    }

    /// Followed directory.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The next batch of the segment that is open; `None` when there is none.
    fn read_on(&mut self) -> Result<Option<Followed>, ReadError> {
        // Taken out, so that a segment that cannot be read is left for another time.
        let Some((name, mut reader)) = self.reading.take() else {
            return Ok(None);
        };
        let batch = reader.next_batch();
        self.progress
            .insert(name.clone(), Progress::UpTo(reader.offset()));
        if let Some(batch) = batch? {
            self.reading = Some((name, reader));
            return Ok(Some(Followed::Batch(Box::new(batch))));
        }
        let Some(End::Corrupt { offset, cause }) = reader.end().cloned() else {
            return Ok(None);
        };
        self.progress.insert(name, Progress::Damaged);
        Ok(Some(Followed::Damaged {
            path: reader.path().to_owned(),
            offset,
            cause,
        }))
    }

    /// Opens a segment where it was left; `None` when it has vanished.
    fn open(&self, name: String) -> Result<Option<(String, Reader)>, ReadError> {
        let offset = match self.progress.get(&name) {
            None => 0,
            Some(Progress::UpTo(offset)) => *offset,
            Some(Progress::Damaged) => return Ok(None),
        };
        match Reader::open_at(self.directory.join(&name), offset) {
            Ok(reader) => Ok(Some((name, reader))),
            Err(error) if error.source.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Lists the segments that have more than was read.
    ///
    /// A writer's next segment appears only after the last batch of the one before, so what is listed now can be read in the
    /// order of the names without passing over anything.
    fn look(&mut self) -> Result<(), ReadError> {
        let lengths = self.lengths()?;
        self.progress.retain(|name, _| lengths.contains_key(name));
        let has_more = |(name, length): &(String, u64)| match self.progress.get(name) {
            None => *length > 0,
            Some(Progress::UpTo(offset)) => length > offset,
            Some(Progress::Damaged) => false,
        };
        self.pending = lengths
            .into_iter()
            .filter(has_more)
            .map(|(name, _)| name)
            .collect();
        Ok(())
    }

    /// Lengths in bytes of all segments, by name.
    fn lengths(&self) -> Result<BTreeMap<String, u64>, ReadError> {
        let failed = |source| ReadError::new(&self.directory, source);
        let entries = match fs::read_dir(&self.directory) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(BTreeMap::new()),
            entries => entries.map_err(failed)?,
        };
        let mut lengths = BTreeMap::new();
        for entry in entries {
            let entry = entry.map_err(failed)?;
            let Some(name) = entry
                .file_name()
                .to_str()
                .filter(|name| name::begin_unix_ns(name).is_some())
                .map(str::to_owned)
            else {
                continue;
            };
            match entry.metadata() {
                Ok(metadata) => lengths.insert(name, metadata.len()),
                // Deleted since it was listed.
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                Err(error) => return Err(ReadError::new(&entry.path(), error)),
            };
        }
        Ok(lengths)
    }
}

/// How far a segment was read.
#[derive(Clone, Copy, Debug)]
enum Progress {
    /// So many bytes of whole records.
    UpTo(u64),
    /// To where it is damaged.
    Damaged,
}
