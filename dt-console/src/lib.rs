//! The console of distributed-trace: what the feed of a whole mesh says, for people and programs.
//!
//! The library knows neither Kafka nor HTTP nor a terminal: batches and times are arguments, pictures and rows come out. It is
//! what any front end needs: names of indices ([`intake`]), figures of pairs, racks and zones ([`rollup`], [`matrix`]), states
//! of nodes ([`state`]), rows with stable columns ([`rows`]). With the feature `terminal` (on by default) come the sources
//! and the commands of the program `dt-console`.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod dictionary;
pub mod filter;
pub mod intake;
pub mod matrix;
pub mod merge;
pub mod nodes;
pub mod rollup;
pub mod rows;
pub mod state;
pub mod text;
pub mod units;

#[cfg(feature = "terminal")]
pub mod app;
#[cfg(feature = "terminal")]
pub mod cli;
#[cfg(feature = "terminal")]
mod clock;
#[cfg(feature = "terminal")]
pub mod interrupt;
#[cfg(feature = "terminal")]
pub mod source;
