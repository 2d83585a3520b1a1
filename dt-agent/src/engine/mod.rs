//! Decisions: whom to probe, when, what became of each probe, which datapath to trust.
//!
//! Pure: time, packets, membership and chance come in as values; what is to be done comes out as values. Nothing here
//! may name tokio, aya, nix, a socket, a file or a clock (`cargo xtask check` compiles it without them).

#[cfg(test)]
mod day;
pub mod ladder;
pub mod mesh;
pub mod mix;
pub mod outbox;
pub mod pinglist;
pub mod random;
pub mod reflector;
pub mod registry;
pub mod rollup;
pub mod rotation;
pub mod schedule;
pub mod sender;
pub mod session;
pub mod wheel;
pub mod window;
