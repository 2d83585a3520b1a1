//! The distributed-trace agent: finds its peers, probes them, answers them, publishes what it measured.
//!
//! Dependencies point inwards: `adapters -> ports -> engine -> dt-common`. `engine` knows no clock, socket or runtime;
//! `adapters` know nothing of each other; `app` is the only place where all of them meet.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod adapters;
pub mod app;
pub mod build;
pub mod cli;
pub mod config;
pub mod engine;
pub mod ports;
