//! The measurement feed of distributed-trace: its schema, its files, and the histogram in it.
//!
//! Agents write [`proto::Batch`]es, anybody reads them; `docs/feed.md` describes the fields. Nothing here knows a clock, a
//! network or a runtime: time comes in as an argument, and only [`segment`] touches files. Whatever is decoded may be hostile:
//! it ends in a value or an error, within bounds stated as constants.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod batch;
pub mod histogram;
pub mod probes;
pub mod proto;
pub mod repeats;
pub mod segment;
mod varint;

pub use histogram::Histogram;
pub use repeats::Repeats;

/// Version of the schema that this crate writes into [`proto::Batch::schema_version`].
///
/// It rises when fields are added; a reader need not look at it, because fields are never changed.
pub const SCHEMA_VERSION: u32 = 1;
