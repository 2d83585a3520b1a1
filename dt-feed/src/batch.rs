//! Bytes to [`Batch`] with bounds, for whoever reads the feed.
//!
//! A protobuf message of two bytes can stand for a struct of hundreds, so the number of entries is checked on the bytes before
//! anything is decoded.

use prost::Message;

use crate::proto::Batch;
use crate::varint;

/// Longest batch in bytes that is written or read.
pub const MAX_BATCH_BYTES: usize = 16 << 20;

/// Most entries of each repeated field of a batch that are read.
pub const MAX_ENTRIES: usize = 1 << 16;

/// Why bytes are not a batch.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// Longer than [`MAX_BATCH_BYTES`].
    #[error("batch has {bytes} bytes, more than {MAX_BATCH_BYTES}")]
    TooLong {
        /// Length found.
        bytes: usize,
    },
    /// More than [`MAX_ENTRIES`] of one field.
    #[error("batch has more than {MAX_ENTRIES} entries of field {field}")]
    TooManyEntries {
        /// Field number in the schema.
        field: u64,
    },
    /// Not a protobuf message.
    #[error("batch is broken at byte {offset}")]
    Broken {
        /// Where the broken field begins, within the batch.
        offset: usize,
    },
    /// A protobuf message, but not this one.
    #[error("batch does not follow the schema")]
    Schema(#[source] prost::DecodeError),
}

/// Decodes one batch, for instance the value of a Kafka message.
///
/// # Errors
///
/// When the bytes are not a batch or exceed [`MAX_BATCH_BYTES`] or [`MAX_ENTRIES`].
pub fn decode(bytes: &[u8]) -> Result<Batch, BatchError> {
    if bytes.len() > MAX_BATCH_BYTES {
        return Err(BatchError::TooLong { bytes: bytes.len() });
    }
    limit_entries(bytes)?;
    Batch::decode(bytes).map_err(BatchError::Schema)
}

/// The bytes of a batch, as a Kafka message has them.
#[must_use]
pub fn encode(batch: &Batch) -> Vec<u8> {
    batch.encode_to_vec()
}

/// How many bytes [`encode`] makes, without making them.
#[must_use]
pub fn encoded_len(batch: &Batch) -> usize {
    batch.encoded_len()
}

/// Walks over the top-level fields, without decoding what is in them.
fn limit_entries(bytes: &[u8]) -> Result<(), BatchError> {
    let mut entries = [0_usize; MAX_FIELD as usize + 1];
    let mut rest = bytes;
    while !rest.is_empty() {
        let offset = bytes.len() - rest.len();
        let field = skip_field(&mut rest).ok_or(BatchError::Broken { offset })?;
        let seen = &mut entries[field.min(MAX_FIELD) as usize];
        *seen += 1;
        // Fields that this schema does not have cost no memory; they are skipped whatever their number.
        if *seen > MAX_ENTRIES && field < MAX_FIELD {
            return Err(BatchError::TooManyEntries { field });
        }
    }
    Ok(())
}

/// Takes one field off the front and returns its number.
fn skip_field(rest: &mut &[u8]) -> Option<u64> {
    let key = varint::read(rest).ok()?;
    let value_len = match key & 7 {
        0 => varint::read(rest).ok().map(|_| 0),
        1 => Some(8),
        2 => varint::read(rest).ok(),
        5 => Some(4),
        // Groups are not part of proto3.
        _ => None,
    }?;
    *rest = rest.get(usize::try_from(value_len).ok()?..)?;
    Some(key >> 3)
}

/// Beyond all fields of `Batch`; greater numbers are counted as this one.
const MAX_FIELD: u64 = 32;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::proto::{Peer, Window};

    #[test]
    fn a_batch_survives_the_wire() {
        let batch = Batch {
            source: "n1".into(),
            peers: vec![Peer::new(3, "n2", [10, 0, 0, 2].into(), "z", "")],
            windows: vec![Window {
                peer: 3,
                ..Window::default()
            }],
            ..Batch::default()
        };
        assert_eq!(decode(&batch.encode_to_vec()), Ok(batch));
    }

    #[test]
    fn entries_without_number_are_refused_before_they_cost_memory() {
        let empty_windows = [0x8A, 0x01, 0x00].repeat(MAX_ENTRIES + 1);
        assert_eq!(
            decode(&empty_windows),
            Err(BatchError::TooManyEntries { field: 17 })
        );
    }

    #[test]
    fn a_field_of_a_later_schema_is_skipped() {
        let mut bytes = Batch {
            source: "n1".into(),
            ..Batch::default()
        }
        .encode_to_vec();
        bytes.extend([0xFA, 0x3F, 0x02, 0xAA, 0xBB]);
        assert_eq!(decode(&bytes).map(|batch| batch.source), Ok("n1".into()));
    }

    #[test]
    fn a_field_that_ends_too_early_is_named() {
        assert_eq!(
            decode(&[0x08, 0x01, 0x12, 0x05, b'n']),
            Err(BatchError::Broken { offset: 2 })
        );
    }

    proptest! {
        #[test]
        fn noise_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = decode(&bytes);
        }
    }
}
