//! Where the measurements go.

pub mod file;
