//! `cargo xtask load` and `unload`: the programs on one interface, without an agent.
//!
//! What runs is `dt-agent reflect`, in the place of this process: so signals, output and exit status are its own, and it
//! takes its programs away when it ends. Its pins have a name of their own, made of the interface and the network
//! namespace, so that `unload` finds what a crash left and nothing else.

use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use clap::Args;

use crate::build;
use crate::process;
use crate::setup::{self, Group};
use crate::workspace::Workspace;

/// Flags of `cargo xtask load`.
#[derive(Args)]
pub struct Options {
    /// Interface to attach to
    #[arg(value_name = "IFACE")]
    interface: String,

    /// Answer this network or address; repeat for more
    #[arg(long, value_name = "CIDR", required = true)]
    allow: Vec<String>,

    /// Datapath: auto takes the best that is proved to work, any other is had or is an error
    #[arg(long, value_name = "auto|xdp|tc|socket", default_value = "auto")]
    mode: String,

    /// UDP port on which requests are answered
    #[arg(long, value_name = "PORT", default_value_t = 862)]
    port: u16,
}

/// Attaches, answers and keeps the lease until a signal; returns only if that cannot begin.
pub fn load(workspace: &Workspace, options: &Options) -> Result<()> {
    ensure_interface(&options.interface)?;
    setup::run(workspace, Group::Build)?;
    let built = build::run(workspace)?;
    let mut agent = Command::new(&built.agent);
    agent
        .arg("reflect")
        .arg(format!("--interface={}", options.interface))
        .arg(format!("--node={}", node(&options.interface)?))
        .arg(format!("--mode={}", options.mode))
        .arg(format!("--port={}", options.port));
    for network in &options.allow {
        agent.arg(format!("--allow={network}"));
    }
    eprintln!("{}", process::line(&agent));
    let error = agent.exec();
    Err(error).with_context(|| format!("cannot run {}", built.agent.display()))
}

/// Removes what a `load` that crashed left on this interface.
pub fn unload(workspace: &Workspace, interface: &str) -> Result<()> {
    // The interface may be gone; its pins are not.
    let node = node(interface)?;
    if !workspace.agent().is_file() {
        setup::run(workspace, Group::Build)?;
        build::run(workspace)?;
    }
    let mut detach = Command::new(workspace.agent());
    process::run_shown(detach.args(["detach", "--node", &node]))
}

fn ensure_interface(name: &str) -> Result<()> {
    // Not by /sys, which may show another namespace than that of this process.
    let listed = std::fs::read_to_string("/proc/self/net/dev")?
        .lines()
        .any(|line| line.trim_start().starts_with(&format!("{name}:")));
    ensure!(listed, "there is no interface {name}");
    Ok(())
}

/// The name of the pins: interfaces of other namespaces may be called the same.
fn node(interface: &str) -> Result<String> {
    let namespace = std::fs::read_link("/proc/self/ns/net")?;
    let namespace = namespace.to_string_lossy();
    let number: String = namespace.chars().filter(char::is_ascii_digit).collect();
    Ok(format!("load-{number}-{interface}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pins_are_named_after_namespace_and_interface() -> Result<()> {
        let name = node("eth0")?;
        assert!(name.starts_with("load-") && name.ends_with("-eth0"));
        assert_ne!(name, node("eth1")?);
        Ok(())
    }

    #[test]
    fn an_interface_that_is_not_there_is_named() {
        let error = ensure_interface("no-such-if").expect_err("it is not there");
        assert!(error.to_string().contains("no-such-if"));
    }
}
