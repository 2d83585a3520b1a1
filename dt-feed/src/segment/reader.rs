//! Reads the batches of one segment file.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use super::{Corruption, Front, ReadError};
use crate::proto::Batch;

/// Batches of one segment in the order of writing, up to the last whole one.
#[derive(Debug)]
pub struct Reader {
    path: PathBuf,
    file: File,
    /// Where the next record begins in the file.
    offset: u64,
    /// What was read from the file; the next record begins at `consumed`.
    buffer: Vec<u8>,
    consumed: usize,
    end: Option<End>,
}

/// One batch as it stands in a segment.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// What it says.
    pub batch: Batch,
    /// The same as it was encoded, byte for byte.
    pub bytes: Vec<u8>,
}

/// How a segment ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// With a whole batch.
    Complete,
    /// In the middle of a record: the writer crashed there, or is still writing.
    Truncated {
        /// Length in bytes of all whole records.
        offset: u64,
    },
    /// With something that is no record; what follows cannot be told apart.
    Corrupt {
        /// Length in bytes of all whole records before it.
        offset: u64,
        /// What is wrong with it.
        cause: Corruption,
    },
}

impl Reader {
    /// Opens a segment.
    ///
    /// # Errors
    ///
    /// When the file cannot be opened.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, ReadError> {
        Self::open_at(path, 0)
    }

    /// Opens a segment to read on from `offset`, where a record begins: an [`Reader::offset`] of an earlier reader.
    ///
    /// # Errors
    ///
    /// When the file cannot be opened.
    pub fn open_at(path: impl Into<PathBuf>, offset: u64) -> Result<Self, ReadError> {
        let path = path.into();
        let file = File::open(&path).and_then(|mut file| {
            file.seek(SeekFrom::Start(offset))?;
            Ok(file)
        });
        match file {
            Ok(file) => Ok(Self {
                path,
                file,
                offset,
                buffer: Vec::new(),
                consumed: 0,
                end: None,
            }),
            Err(source) => Err(ReadError { path, source }),
        }
    }

    /// The next batch; `None` after the last whole one, and then [`Reader::end`] tells how the file ends.
    ///
    /// # Errors
    ///
    /// When the file cannot be read; the next call tries again.
    pub fn next_batch(&mut self) -> Result<Option<Batch>, ReadError> {
        self.next(|batch, _| batch)
    }

    /// The same with the bytes of the batch, for whoever passes them on.
    ///
    /// # Errors
    ///
    /// When the file cannot be read; the next call tries again.
    pub fn next_record(&mut self) -> Result<Option<Record>, ReadError> {
        self.next(|batch, bytes| Record {
            batch,
            bytes: bytes.to_vec(),
        })
    }

    fn next<T>(&mut self, found: impl FnOnce(Batch, &[u8]) -> T) -> Result<Option<T>, ReadError> {
        while self.end.is_none() {
            let front = &self.buffer[self.consumed..];
            match Front::of(front) {
                Front::Whole {
                    batch,
                    header,
                    bytes,
                } => {
                    let found = found(*batch, &front[header..bytes]);
                    self.consumed += bytes;
                    self.offset += bytes as u64;
                    return Ok(Some(found));
                }
                Front::Corrupt(cause) => {
                    self.end = Some(End::Corrupt {
                        offset: self.offset,
                        cause,
                    });
                }
                Front::Partial { at_least } => {
                    if !self.fill(at_least)? {
                        self.end = Some(self.end_of_file());
                    }
                }
            }
        }
        Ok(None)
    }

    /// How the segment ends; `None` while batches may follow.
    #[must_use]
    pub const fn end(&self) -> Option<&End> {
        self.end.as_ref()
    }

    /// Length in bytes of the records read so far.
    #[must_use]
    pub const fn offset(&self) -> u64 {
        self.offset
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn end_of_file(&self) -> End {
        if self.consumed == self.buffer.len() {
            End::Complete
        } else {
            End::Truncated {
                offset: self.offset,
            }
        }
    }

    /// Reads on until `wanted` bytes are at hand; false when the file has no more of them.
    ///
    /// The buffer grows with what the file really holds, not with what a record claims.
    fn fill(&mut self, wanted: usize) -> Result<bool, ReadError> {
        self.buffer.drain(..self.consumed);
        self.consumed = 0;
        let missing = (wanted - self.buffer.len()).max(CHUNK_BYTES) as u64;
        let read = (&self.file).take(missing).read_to_end(&mut self.buffer);
        read.map(|read| read > 0)
            .map_err(|source| ReadError::new(&self.path, source))
    }
}

const CHUNK_BYTES: usize = 64 << 10;
