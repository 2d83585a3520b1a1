//! Whose programs hang on an interface, for those who only look.
//!
//! An interface's index means something in its own network namespace only, and the BPF file system is shared by all of
//! them. The kernel's number of a program is unique: a node works here if a link of its own carries a program that is here.

use std::collections::BTreeSet;
use std::path::Path;

use aya::programs::links::{FdLink, PinnedLink};
use aya::programs::{SchedClassifier, TcAttachType};
use dt_common::ABI_VERSION;
use dt_common::time::MonoNanos;

use super::pins::{NodePins, list, node_names};
use super::{NodeMaps, PinsError};
use crate::adapters::net::Link;
use crate::engine::ladder::Mode;

/// A node whose programs hang on an interface.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Tenant {
    /// Name of the node.
    pub node: String,
    /// The rung that it uses here; none: it proves one still, or uses none, or has another ABI version.
    pub mode: Option<Mode>,
    /// Whether its lease runs.
    pub alive: bool,
    /// Whether the program in the XDP slot is its own.
    pub holds_xdp: bool,
}

/// The node whose programs hang on `link`; none as well for who may not see them. `node` is looked at first.
#[must_use]
pub fn tenant(root: &Path, node: &str, link: &Link, now: MonoNanos) -> Option<Tenant> {
    let here = programs_on(link);
    if here.is_empty() {
        return None;
    }
    // Directories stand for nodes; only of the given one is the name known to the letter.
    let names = std::iter::once(node.to_owned()).chain(node_names(root));
    names
        .filter_map(|name| tenancy(root, name, link, &here, now).ok())
        .flatten()
        .next()
}

fn tenancy(
    root: &Path,
    node: String,
    link: &Link,
    here: &BTreeSet<u32>,
    now: MonoNanos,
) -> Result<Option<Tenant>, PinsError> {
    let pins = NodePins::existing(root, &node, ABI_VERSION)?;
    let own: BTreeSet<_> = list(&pins.links())
        .iter()
        .filter_map(|pin| program_of(pin))
        .collect();
    if own.is_disjoint(here) {
        return Ok(None);
    }
    let maps = NodeMaps::of_pins(&pins).ok();
    let mode = maps.as_ref().and_then(|maps| maps.mode(link.index).ok()?);
    let lease = maps.and_then(|maps| maps.config().ok());
    Ok(Some(Tenant {
        node,
        mode,
        alive: lease.is_some_and(|config| config.lease_until_ns > now.0),
        holds_xdp: link.xdp.is_some_and(|holder| own.contains(&holder.program)),
    }))
}

fn programs_on(link: &Link) -> BTreeSet<u32> {
    let classifiers = [TcAttachType::Ingress, TcAttachType::Egress]
        .into_iter()
        .filter_map(|way| SchedClassifier::query_tcx(&link.name, way).ok())
        .flat_map(|(_, programs)| programs)
        .map(|program| program.id());
    link.xdp
        .map(|holder| holder.program)
        .into_iter()
        .chain(classifiers)
        .collect()
}

fn program_of(pin: &Path) -> Option<u32> {
    let link = FdLink::from(PinnedLink::from_pin(pin).ok()?);
    Some(link.info().ok()?.program_id())
}
