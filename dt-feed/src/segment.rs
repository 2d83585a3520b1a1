//! Files of batches on disk: [`Writer`], [`Reader`] of one file, [`Follower`] of a directory.
//!
//! A segment file is one serialised [`crate::proto::Segment`], written field by field: each record is the byte `0A`, the
//! length of the batch as a varint, and the batch. So `protoc --decode` reads it, and a file that was cut anywhere still holds
//! all batches before the cut.

use std::io;
use std::path::{Path, PathBuf};

use crate::batch::{self, BatchError, MAX_BATCH_BYTES};
use crate::proto::Batch;
use crate::varint::{self, VarintError};

pub use follower::{Followed, Follower};
pub use reader::{End, Reader, Record};
pub use writer::{Limits, WriteError, Writer};

mod follower;
mod name;
mod reader;
mod writer;

/// End of the name of every segment file.
pub const EXTENSION: &str = "dtseg";

/// A file or directory could not be read. Damage inside of a file is not an error, see [`End`].
#[derive(Debug, thiserror::Error)]
#[error("cannot read {}", path.display())]
pub struct ReadError {
    /// File or directory.
    pub path: PathBuf,
    /// Cause.
    #[source]
    pub source: io::Error,
}

impl ReadError {
    fn new(path: &Path, source: io::Error) -> Self {
        Self {
            path: path.to_owned(),
            source,
        }
    }
}

/// Why a record is neither a batch nor the beginning of one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Corruption {
    /// It does not begin as a record does; zeros are what a host crash leaves behind on some file systems.
    #[error("found byte {found:#04x} where a record begins")]
    Tag {
        /// The byte instead of `0A`.
        found: u8,
    },
    /// Its length is more than [`MAX_BATCH_BYTES`].
    #[error("record claims more than {MAX_BATCH_BYTES} bytes")]
    TooLong,
    /// Its length is right, its content is not.
    #[error("record does not hold a batch")]
    Batch(#[from] BatchError),
}

/// What stands at the front of some bytes of a segment.
enum Front {
    /// A whole batch, where its bytes begin, and the length of its record in bytes.
    Whole {
        batch: Box<Batch>,
        header: usize,
        bytes: usize,
    },
    /// The beginning of a record that has at least so many bytes.
    Partial { at_least: usize },
    /// Anything else.
    Corrupt(Corruption),
}

impl Front {
    fn of(bytes: &[u8]) -> Self {
        let mut rest = match bytes.split_first() {
            None => {
                return Self::Partial {
                    at_least: MIN_HEADER,
                };
            }
            Some((&RECORD_TAG, rest)) => rest,
            Some((found, _)) => return Self::Corrupt(Corruption::Tag { found: *found }),
        };
        let len = match varint::read(&mut rest) {
            Ok(len) => usize::try_from(len)
                .ok()
                .filter(|len| *len <= MAX_BATCH_BYTES),
            Err(VarintError::Truncated) => {
                return Self::Partial {
                    at_least: bytes.len() + 1,
                };
            }
            Err(VarintError::Overlong) => None,
        };
        let Some(len) = len else {
            return Self::Corrupt(Corruption::TooLong);
        };
        let header = bytes.len() - rest.len();
        match rest.get(..len).map(batch::decode) {
            None => Self::Partial {
                at_least: header + len,
            },
            Some(Ok(batch)) => Self::Whole {
                batch: Box::new(batch),
                header,
                bytes: header + len,
            },
            Some(Err(error)) => Self::Corrupt(Corruption::Batch(error)),
        }
    }
}

/// Field 1 of `Segment`, length-delimited.
const RECORD_TAG: u8 = 0x0A;
/// Tag and shortest length.
const MIN_HEADER: usize = 2;

#[cfg(test)]
mod tests;
