//! Settings, in three steps: as typed, as gathered, as checked.
//!
//! [`Typed`] holds what the command line says. Gathering adds environment, file and defaults, in that order of
//! precedence, and remembers where each value comes from. Checking turns that into one configuration per command, in
//! which nothing is left to guess, or into a [`ConfigError`] with all mistakes at once. Nothing here opens a socket or
//! touches the kernel.

mod check;
pub(crate) mod document;
mod error;
mod kafka;
mod parse;
mod paths;
mod ping;
mod print;
mod raw;
mod reflect;
mod run;
mod secret;
mod settings;
mod tools;
mod zookeeper;

pub use error::{ConfigError, Mistake};
pub use kafka::KafkaConfig;
pub use paths::{PathConfig, RotatingSourcePorts};
pub use ping::PingConfig;
pub use raw::{Origin, Surroundings, Typed};
pub use reflect::ReflectConfig;
pub use run::{Detail, DiscoverySource, FeedTarget, RateLimits, Reloaded, RunConfig, SourcePorts};
pub use tools::{DetachConfig, DetachTarget, DoctorConfig};
pub use zookeeper::{LeaveConfig, NodeLabels, SelfConfig, ZookeeperConfig};

pub(crate) use settings::{CommandSettings, Kind, Setting};

/// Exit status for mistakes in settings or on the command line (`EX_USAGE` of sysexits.h).
pub const EXIT_USAGE: u8 = 64;

/// Whether this can be the name of a node.
#[must_use]
pub fn is_node_name(text: &str) -> bool {
    parse::node(text).is_ok()
}

#[cfg(test)]
mod tests;
