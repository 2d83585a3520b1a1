//! Hosts made of network namespaces, on one machine, and what tests need to work with them.
//!
//! ```no_run
//! use dt_tests::Lab;
//!
//! # fn main() -> anyhow::Result<()> {
//! let lab = Lab::mesh(3)?;
//! lab.host("n1").run(&["ping", "-c1", "10.77.0.3"])?;
//! # Ok(())
//! # }
//! ```
//!
//! A [`Lab`] owns everything it makes and takes it away when it is dropped, also by a panic. What a killed owner left is
//! taken away by the next one: see [`sweep`]. Processes in a host are [`Proc`]s; programs on its devices come from the
//! [`LabObject`], and a [`FaultyWire`] loses packets by count.

#![forbid(unsafe_code)]
#![warn(missing_docs)]
#![expect(
    clippy::missing_errors_doc,
    reason = "every error is an anyhow chain whose only use is to fail the test"
)]

pub mod agent;
mod cgroups;
pub mod datapath;
pub mod delay_line;
pub mod docker;
pub mod fault;
pub mod feed;
pub mod frame;
pub mod given;
pub mod host;
pub mod interrupt;
pub mod kube;
pub mod lab;
pub mod machine;
pub mod netns;
pub mod object;
mod owner;
pub mod pinned;
pub mod process;
pub mod servers;
pub mod skip;
#[cfg(feature = "kafka")]
pub mod topic;
mod topology;
pub mod truth;
pub mod wait;

pub use agent::{Agent, Launch};
pub use datapath::Datapath;
pub use fault::FaultyWire;
pub use feed::Feed;
pub use host::Host;
pub use interrupt::Interrupt;
pub use lab::Lab;
pub use object::LabObject;
pub use owner::sweep;
pub use process::Proc;
pub use topology::{SERVERS, SWITCH, WIRE};
