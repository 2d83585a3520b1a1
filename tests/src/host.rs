//! One host of a lab: a namespace with one address per IP version that is valid on all its devices.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::netns;

/// A network namespace that plays a host.
#[derive(Clone, Debug)]
pub struct Host {
    name: String,
    namespace: String,
    number: u16,
    /// By the name of the peer, the device that leads there.
    devices: Vec<(String, String)>,
}

impl Host {
    pub(crate) fn new(name: String, namespace: String, number: u16) -> Self {
        Self {
            name,
            namespace,
            number,
            devices: Vec::new(),
        }
    }

    /// The name in the lab, such as `n1`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The name in `/run/netns`.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// `10.77.0.i`, on `lo` and used on every device.
    #[must_use]
    pub fn ipv4(&self) -> Ipv4Addr {
        let [high, low] = self.number.to_be_bytes();
        Ipv4Addr::new(10, 77, high, low)
    }

    /// `fd77::i`, on `lo` and used on every device.
    #[must_use]
    pub fn ipv6(&self) -> Ipv6Addr {
        Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, self.number)
    }

    /// The link-local address of all devices of this host: the gateway that others use towards [`Host::ipv6`].
    #[must_use]
    pub fn link_local(&self) -> Ipv6Addr {
        Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, self.number)
    }

    /// The device that leads to the host `peer`.
    ///
    /// # Panics
    ///
    /// When no device does.
    #[must_use]
    pub fn device_to(&self, peer: &str) -> &str {
        let found = self.devices.iter().find(|(name, _)| name == peer);
        let (_, device) =
            found.unwrap_or_else(|| panic!("no device of {} leads to {peer}", self.name));
        device
    }

    /// All devices except `lo`, each once.
    #[must_use]
    pub fn devices(&self) -> Vec<&str> {
        let mut devices: Vec<_> = self
            .devices
            .iter()
            .map(|(_, device)| device.as_str())
            .collect();
        devices.dedup();
        devices
    }

    /// A command that will run on this host: see [`netns::command_in`].
    #[must_use]
    pub fn command(&self, program: &str) -> Command {
        netns::command_in(&self.namespace, program)
    }

    /// Runs a command on this host to its end and returns its standard output; its failure is an error with its words.
    pub fn run(&self, words: &[&str]) -> Result<String> {
        let (program, args) = words.split_first().context("no command given")?;
        let output = self.command(program).args(args).output()?;
        let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
        if !output.status.success() {
            let stderr = String::from_utf8_lossy(&output.stderr);
            let (name, line, status) = (&self.name, words.join(" "), output.status);
            bail!("on {name}: {line} ended with {status}\n{stdout}{stderr}");
        }
        Ok(stdout)
    }

    /// Runs `work` on a thread that is on this host.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        netns::in_netns(&self.namespace, work)
    }

    pub(crate) fn add_device(&mut self, peer: &str, device: &str) {
        self.devices.push((peer.to_owned(), device.to_owned()));
    }
}
