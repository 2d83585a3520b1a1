//! Where the membership comes from.

pub mod file;
pub mod zookeeper;
