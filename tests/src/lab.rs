//! The guard that owns hosts and removes them.

use std::fs;
use std::panic;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::host::Host;
use crate::{cgroups, netns, owner, topology, wait};

/// Hosts and what joins them. Dropping it ends every process in them and removes them, their pins and their files.
#[derive(Debug)]
pub struct Lab {
    serial: u32,
    hosts: Vec<Host>,
}

impl Lab {
    /// `count` hosts `n1`, `n2`, …, every two of them joined by a veth pair of their own; devices are `to-n2` and so on.
    pub fn mesh(count: u16) -> Result<Self> {
        let mut lab = Self::empty()?;
        topology::mesh(&mut lab, count)?;
        lab.wait_reachable()?;
        Ok(lab)
    }

    /// `count` hosts `n1`, `n2`, …, each with `eth0` on one bridge in the host [`SWITCH`](crate::SWITCH), whose ends
    /// are `to-n1` and so on.
    ///
    /// The bridge's ends carry no XDP program: without one (`xdp_pass` of the [`LabObject`](crate::LabObject)) the
    /// kernel drops what a host answers by `XDP_TX`.
    pub fn bridge(count: u16) -> Result<Self> {
        let mut lab = Self::empty()?;
        topology::bridge(&mut lab, count)?;
        lab.wait_reachable()?;
        Ok(lab)
    }

    /// Hosts `n1` and `n2`, each with `eth0`, and between them the host [`WIRE`](crate::WIRE) with the ends `to-n1` and
    /// `to-n2`, which nothing joins yet.
    ///
    /// A [`FaultyWire`](crate::FaultyWire) joins them. The hosts compute their checksums themselves, as they would have
    /// to without a helpful network card, so that corruption on the wire is not papered over.
    pub fn wire() -> Result<Self> {
        let mut lab = Self::empty()?;
        topology::wire(&mut lab)?;
        Ok(lab)
    }

    /// Adds the host [`SERVERS`](crate::SERVERS), which is nobody's peer: each of the others reaches it by a device
    /// `to-servers` of its own, so that its wires can be cut without a probe noticing.
    pub fn add_servers(&mut self) -> Result<()> {
        topology::servers(self)
    }

    /// No host yet: for shapes that the others do not have.
    pub fn empty() -> Result<Self> {
        owner::sweep()?;
        owner::register()?;
        let serial = NEXT_SERIAL.fetch_add(1, Ordering::Relaxed);
        let lab = Self {
            serial,
            hosts: Vec::new(),
        };
        fs::create_dir_all(lab.dir())?;
        Ok(lab)
    }

    /// Adds a host with its addresses on `lo` and nothing else. Its number is the count of hosts before it plus one.
    pub fn add_host(&mut self, name: &str) -> Result<&mut Host> {
        let namespace = owner::namespace(self.serial, name);
        let number = u16::try_from(self.hosts.len() + 1).context("too many hosts")?;
        netns::add(&namespace)?;
        // Owned from here on, whatever fails next.
        self.hosts
            .push(Host::new(name.to_owned(), namespace, number));
        let host = self.hosts.last_mut().context("it was just added")?;
        topology::prepare(host)?;
        Ok(host)
    }

    /// Takes away the devices between two hosts of [`Lab::mesh`].
    pub fn unplug(&self, left: &str, right: &str) -> Result<()> {
        let host = self.host(left);
        host.run(&["ip", "link", "delete", host.device_to(right)])?;
        Ok(())
    }

    /// Puts new ones in their place.
    pub fn plug(&self, left: &str, right: &str) -> Result<()> {
        topology::plug(self, left, right)
    }

    /// The host with that name.
    ///
    /// # Panics
    ///
    /// When there is none.
    #[must_use]
    pub fn host(&self, name: &str) -> &Host {
        let found = self.hosts.iter().find(|host| host.name() == name);
        found.unwrap_or_else(|| panic!("this lab has no host {name}"))
    }

    /// The hosts with devices to others: all but the switch, the wire and the servers.
    #[must_use]
    pub fn hosts(&self) -> Vec<&Host> {
        let ends = |host: &&Host| topology::is_end(host.name());
        self.hosts.iter().filter(ends).collect()
    }

    /// A directory in the BPF file system for the pins of this lab; it goes with the lab. Not created.
    #[must_use]
    pub fn pin_dir(&self) -> PathBuf {
        owner::pin_dir(self.serial)
    }

    /// A name by which what is outside of directories and namespaces is known as this lab's, see [`crate::sweep`].
    #[must_use]
    pub fn owned_name(&self, what: &str) -> String {
        owner::namespace(self.serial, what)
    }

    /// A directory for the files of this lab; it goes with the lab.
    #[must_use]
    pub fn dir(&self) -> PathBuf {
        owner::work_dir(self.serial)
    }

    /// Waits until every host reached every other one once, by both IP versions.
    pub fn wait_reachable(&self) -> Result<()> {
        let hosts = self.hosts();
        thread::scope(|scope| {
            let mut pinging = Vec::new();
            for (index, from) in hosts.iter().copied().enumerate() {
                // A ping teaches both ends each other's link address, so half of the pairs is enough.
                let peers = &hosts[index + 1..];
                pinging.push(scope.spawn(move || peers.iter().try_for_each(|to| reach(from, to))));
            }
            let mut results = pinging.into_iter().map(thread::ScopedJoinHandle::join);
            results
                .try_for_each(|result| result.unwrap_or_else(|panic| panic::resume_unwind(panic)))
        })
    }

    pub(crate) fn index_of(&self, name: &str) -> usize {
        let found = self.hosts.iter().position(|host| host.name() == name);
        found.unwrap_or_else(|| panic!("this lab has no host {name}"))
    }

    pub(crate) fn host_mut(&mut self, index: usize) -> &mut Host {
        &mut self.hosts[index]
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        // Pins first: they hold programs on devices. Nothing may keep the rest from being removed.
        let mut results = vec![owner::remove_tree(&self.pin_dir())];
        results.extend(
            self.hosts
                .iter()
                .map(|host| netns::remove(host.namespace())),
        );
        // Containers and Pods, in groups named as ours.
        let ours = self.owned_name("");
        results.push(cgroups::sweep(|name| name.starts_with(&ours)));
        results.push(owner::remove_tree(Path::new(&self.dir())));
        for error in results.into_iter().filter_map(Result::err) {
            eprintln!("lab: {error:#}");
        }
        owner::unregister();
    }
}

fn reach(from: &Host, to: &Host) -> Result<()> {
    let targets = [to.ipv4().to_string(), to.ipv6().to_string()];
    for target in &targets {
        wait::until(&format!("answer from {target}"), REACH_LIMIT, || {
            Ok(from.run(&["ping", "-n", "-q", "-c1", "-W1", target]).ok())
        })
        .with_context(|| format!("{} does not reach {}", from.name(), to.name()))?;
    }
    Ok(())
}

static NEXT_SERIAL: AtomicU32 = AtomicU32::new(1);
const REACH_LIMIT: Duration = Duration::from_secs(10);
