//! The datapath without BPF: plain UDP sockets and the time stamps that the kernel puts on their packets.
//!
//! Two halves. The prober: [`ProbeSockets`] sends, [`Collector`] receives; the BPF datapath sends through the very same
//! sockets and leaves only stamping and collecting to the kernel. The reflector: [`SocketReflector`], which also answers
//! what the programs pass up. Nothing here needs a privilege on ports from 1024 on.

mod calls;
mod classes;
mod collector;
mod event;
mod fan;
mod flights;
mod inbox;
#[cfg(test)]
pub(super) mod loopback;
mod open;
mod options;
mod probes;
mod reflector;
mod targets;
mod template;
mod wake;

#[cfg(test)]
mod tests;

pub use collector::{Collector, CollectorCounts, CollectorError};
pub use event::{Received, StampSource};
pub use fan::Fan;
pub use open::{OpenError, ProbeSocket, SocketOptions};
pub use probes::{Failed, MAX_BATCH, Probe, ProbeSockets, SendFailure, SendReport, Sent};
pub use reflector::{ReflectorError, ReflectorOptions, SocketReflector};
pub use targets::{Target, TargetError};
