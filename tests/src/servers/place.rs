//! Where a server runs, where it listens, and where its files are.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use super::port::Port;
use crate::host::Host;
use crate::lab::Lab;
use crate::netns;

/// A network and an address in it, with a directory for files.
#[derive(Clone, Debug)]
pub struct Place {
    dir: PathBuf,
    host: Option<Host>,
    address: IpAddr,
}

impl Place {
    /// On this machine, for this machine only.
    #[must_use]
    pub fn local(lab: &Lab) -> Self {
        Self {
            dir: lab.dir(),
            host: None,
            address: Ipv4Addr::LOCALHOST.into(),
        }
    }

    /// On a host of the lab, at its address: for those that reach that host.
    ///
    /// # Panics
    ///
    /// When there is no such host.
    #[must_use]
    pub fn on(lab: &Lab, host: &str) -> Self {
        let host = lab.host(host);
        Self {
            dir: lab.dir(),
            address: host.ipv4().into(),
            host: Some(host.clone()),
        }
    }

    /// Listens at another address, and gives that one to clients.
    #[must_use]
    pub fn at(mut self, address: IpAddr) -> Self {
        self.address = address;
        self
    }

    pub(super) fn dir(&self) -> &PathBuf {
        &self.dir
    }

    pub(super) fn reserve_port(&self) -> Result<Port> {
        self.enter(|| Port::reserve(self.address))?
    }

    /// A command that runs there and dies with the thread that starts it.
    pub(super) fn command(&self, program: &str) -> Command {
        if let Some(host) = &self.host {
            return host.command(program);
        }
        netns::mortal_command(program)
    }

    /// Runs `work` in the network of the place.
    pub(super) fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        match &self.host {
            Some(host) => host.enter(work),
            None => Ok(work()),
        }
    }
}
