//! Where the measurements go.

pub mod file;
pub mod kafka;
