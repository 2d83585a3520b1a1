//! The datapath in the kernel: loading, pinning, attaching and talking to the programs.
//!
//! Maps are pinned in a directory that names the ABI version, links in one that does not: an agent of another version
//! updates the links in place and brings maps of its own. The hard fact: everything here outlives the agent on purpose,
//! and only the lease in the configuration ends it.

mod fan;
mod guest;
mod maps;
mod node;
mod pins;
pub(crate) mod programs;
mod ring;
mod tenant;
#[cfg(feature = "trace")]
mod trace;

pub use fan::FanMaps;
pub use guest::{Visit, VisitError};
pub use maps::{MapsError, NodeMaps, address_words};
pub use node::{InterfaceStatus, Node, NodeError, NodeSettings, Rung, SharedMaps, publish_clock};
pub use pins::{Guest, NodeLock, NodePins, PinsError, node_names};
pub use programs::{AttachError, Hook, LoadError, Programs};
pub use ring::EventRing;
pub use tenant::{Tenant, tenant};

/// The BPF object that this binary carries; empty when it was built without (`cargo build` instead of `cargo xtask build`).
pub static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/dt-datapath.o"));

/// Whether this binary carries programs at all.
#[must_use]
pub fn is_built_in() -> bool {
    !OBJECT.is_empty()
}
