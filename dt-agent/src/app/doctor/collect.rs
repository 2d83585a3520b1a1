//! Asks the machine.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit};

use super::facts::{AttachTry, Fact, Facts, IdleState, InterfaceFacts};
use super::{DoctorOptions, host};
use crate::adapters::clock::{self, kernel_clock};
use crate::adapters::datapath::ebpf::tenant;
use crate::adapters::net::{Link, LinkAddress, Net, moderation};

/// All facts. Asking never fails: what is not told is a fact, too.
pub(super) fn collect(
    options: &DoctorOptions<'_>,
    attach_probe: impl Fn(&Link) -> Option<AttachTry>,
) -> Facts {
    let (interfaces, unseen) = interfaces(options, attach_probe);
    let mounts = read("/proc/self/mounts");
    Facts {
        kernel: read("/proc/sys/kernel/osrelease").and_then(|text| host::release(&text)),
        capabilities: read("/proc/self/status").and_then(|text| host::capabilities(&text)),
        pins: (
            options.pin_root.display().to_string(),
            mounts.map(|mounts| host::is_on_bpf_fs(&mounts, options.pin_root)),
        ),
        lockable_bytes: getrlimit(Resource::RLIMIT_MEMLOCK)
            .map(|(soft, _)| (soft != RLIM_INFINITY).then_some(soft))
            .map_err(|errno| errno.to_string()),
        idle: deepest_idle(Path::new("/sys/devices/system/cpu/cpu0/cpuidle")),
        clock: kernel_clock().map_err(|error| error.to_string()),
        interfaces,
        unseen,
    }
}

fn interfaces(
    options: &DoctorOptions<'_>,
    attach_probe: impl Fn(&Link) -> Option<AttachTry>,
) -> (Vec<InterfaceFacts>, Vec<String>) {
    let seen = Net::open().and_then(|mut net| Ok((net.links()?, net.addresses()?)));
    let (links, addresses) = match seen {
        Ok(seen) => seen,
        Err(error) => return (Vec::new(), vec![host::chain(&error)]),
    };
    let names = options.interfaces;
    let missing = names
        .iter()
        .filter(|name| links.iter().all(|link| link.name != **name));
    let unseen = missing
        .map(|name| format!("there is no interface {name}"))
        .collect();
    let chosen = links.iter().filter(|link| {
        names.contains(&link.name)
            || (names.is_empty() && could_carry_probes(link, &links, &addresses))
    });
    let facts = chosen
        .map(|link| InterfaceFacts {
            vlans: vlans_on(link, &links),
            moderation: moderation(link.index).map_err(|error| host::chain(&error)),
            tenant: tenant(options.pin_root, options.node, link, clock::now()),
            attached: attach_probe(link),
            link: link.clone(),
        })
        .collect();
    (facts, unseen)
}

/// Those that are up and have an address; where only the loopback has one, as in fabrics whose links are unnumbered, those
/// that are up.
pub(super) fn could_carry_probes(link: &Link, links: &[Link], addresses: &[LinkAddress]) -> bool {
    let is_addressed = |link: &Link| {
        addresses.iter().any(|address| {
            address.link == link.index && !address.is_link_local() && !address.address.is_loopback()
        })
    };
    let is_numbered = |link: &Link| !link.loopback && is_addressed(link);
    let is_unnumbered_host = !links.iter().any(is_numbered)
        && links.iter().any(|link| link.loopback && is_addressed(link));
    link.up && !link.loopback && (is_addressed(link) || is_unnumbered_host)
}

fn vlans_on(link: &Link, links: &[Link]) -> Vec<String> {
    links
        .iter()
        .filter(|upper| upper.kind.as_deref() == Some("vlan") && upper.lower == Some(link.index))
        .map(|upper| upper.name.clone())
        .collect()
}

/// The deepest state that is not disabled, of those that the kernel's governor may choose.
fn deepest_idle(folder: &Path) -> Fact<Option<IdleState>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        // No cpuidle driver: a virtual machine, or an idle loop that polls.
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(format!("{} cannot be read: {error}", folder.display())),
    };
    let states = entries.flatten().filter_map(|entry| {
        let field = |name| fs::read_to_string(entry.path().join(name)).ok();
        let enabled = field("disable").is_none_or(|text| text.trim() == "0");
        let name = field("name")?.trim().to_owned();
        let exit_us = field("latency")?.trim().parse().ok()?;
        enabled.then_some(IdleState { name, exit_us })
    });
    Ok(states.max_by_key(|state| state.exit_us))
}

fn read(path: &str) -> Fact<String> {
    fs::read_to_string(path).map_err(|error| format!("{path} cannot be read: {error}"))
}
