//! `cargo xtask bench`: figures that the project promises, each measured beside what it is compared with.

mod cpu;
mod discovery;
#[cfg(feature = "kafka")]
mod feed;
mod foreign;
mod hung;
mod json;
mod machine;
#[cfg(feature = "kafka")]
mod outage;
mod pair;
mod pinglist;
mod reflector;
mod rtt;
mod scale;
#[cfg(not(feature = "kafka"))]
mod second;
mod sending;
mod spinners;
mod spread;
mod traffic;
mod truth;

use anyhow::Result;
use clap::Subcommand;
use dt_tests::Interrupt;

use crate::build::{self, Built};
use crate::setup::{self, Group};
use crate::workspace::Workspace;

/// What to measure.
#[derive(Subcommand)]
pub enum Bench {
    /// Round trip times of one cable as the kernel, user space and six probers of others see them, idle and saturated
    Rtt(rtt::Options),
    /// CPU time of a probe's round trip, both ends and the kernel included, beside fping's
    Cpu(cpu::Options),
    /// Nanoseconds per packet in the programs themselves, above an empty program and above one with two clock reads
    Reflector(reflector::Options),
    /// What one probe costs at the least, by each way of making it: sockets, or in the kernel
    Sending(sending::Options),
    /// How far what is said of each probe is from what happened to it, on a wire that holds each for a time of its own
    Truth(truth::Options),
    /// Time in which a node knows whom to probe in a mesh of up to 10,000, and what one who comes or goes changes
    Pinglist(pinglist::Options),
    /// Throughput of traffic that is not ours through the programs, and a flood of strangers beside probes of ours
    Traffic(traffic::Options),
    /// Memory and CPU of an agent with up to 10,000 peers, which are addresses behind one XDP reflector
    Scale(scale::Options),
    /// Membership by ZooKeeper with 1,000 real sessions: time, reads, bytes, watch events, memory and CPU
    Discovery(discovery::Options),
    /// Bytes per probe on the feed, time to encode and decode it, and what one broker with one consumer keeps up with
    #[cfg(feature = "kafka")]
    Feed(feed::Options),
    /// Bytes per probe on the feed, time to encode and decode it, and what one broker with one consumer keeps up with
    #[cfg(not(feature = "kafka"))]
    #[command(disable_help_flag = true)]
    Feed(second::Arguments),
    /// Kafka away for two minutes under 10,000 probes/s: what is lost, repeated, and counted; a spool that suffices, then half of it
    #[cfg(feature = "kafka")]
    Outage(outage::Options),
    /// Kafka away for two minutes under 10,000 probes/s: what is lost, repeated, and counted; a spool that suffices, then half of it
    #[cfg(not(feature = "kafka"))]
    #[command(disable_help_flag = true)]
    Outage(second::Arguments),
}

/// Sets up and builds, and takes away what killed benches left; from then on Ctrl-C is an error, so that all guards are dropped.
fn ready(workspace: &Workspace) -> Result<(Built, Interrupt)> {
    setup::run(workspace, Group::Bench)?;
    let built = build::run(workspace)?;
    let interrupt = Interrupt::catch()?;
    dt_tests::sweep()?;
    Ok((built, interrupt))
}

/// Measures and prints.
pub fn run(workspace: &Workspace, bench: &Bench) -> Result<()> {
    match bench {
        Bench::Rtt(options) => rtt::run(workspace, options),
        Bench::Cpu(options) => cpu::run(workspace, options),
        Bench::Reflector(options) => reflector::run(workspace, options),
        Bench::Sending(options) => sending::run(workspace, options),
        Bench::Truth(options) => truth::run(workspace, options),
        Bench::Pinglist(options) => pinglist::run(workspace, options),
        Bench::Traffic(options) => traffic::run(workspace, options),
        Bench::Scale(options) => scale::run(workspace, options),
        Bench::Discovery(options) => discovery::run(workspace, options),
        #[cfg(feature = "kafka")]
        Bench::Feed(options) => feed::run(workspace, options),
        #[cfg(feature = "kafka")]
        Bench::Outage(options) => outage::run(workspace, options),
        #[cfg(not(feature = "kafka"))]
        Bench::Feed(_) | Bench::Outage(_) => second::run(workspace),
    }
}
