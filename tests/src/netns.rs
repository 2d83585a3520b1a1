//! Network namespaces by name, as `ip netns` keeps them in `/run/netns`.
//!
//! Never `ip netns exec`: it mounts a new `/sys`, and with it pinned BPF objects vanish from sight. `nsenter --net` and
//! [`in_netns`] change the network and nothing else.

use std::fs::{self, File};
use std::io::Write;
use std::panic;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::wait;

/// Runs `work` on a thread of its own inside the namespace. A panic of `work` goes on in the caller.
pub fn in_netns<T: Send>(namespace: &str, work: impl FnOnce() -> T + Send) -> Result<T> {
    let file = File::open(path(namespace)).with_context(|| format!("no namespace {namespace}"))?;
    thread::scope(|scope| {
        let worker = scope.spawn(|| -> Result<T> {
            setns(&file, CloneFlags::CLONE_NEWNET)
                .with_context(|| format!("cannot enter the namespace {namespace}"))?;
            Ok(work())
        });
        worker
            .join()
            .unwrap_or_else(|panic| panic::resume_unwind(panic))
    })
}

/// A command that will run inside the namespace and die with the thread that starts it.
///
/// `setpriv` asks the kernel for that death, so that even a crashed test leaves no process; `nsenter` and `setpriv` both
/// become the program, so its process id is that of the child.
#[must_use]
pub fn command_in(namespace: &str, program: &str) -> Command {
    let mut command = Command::new("nsenter");
    command
        .arg(format!("--net={}", path(namespace).display()))
        .args(["--", "setpriv", "--pdeathsig", "KILL", "--", program]);
    command
}

/// A command that will run where this process runs and die with the thread that starts it.
pub(crate) fn mortal_command(program: &str) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--", program]);
    command
}

/// Runs the lines with `ip -batch` in the namespace; all of them, or an error that has the first that failed.
pub fn ip_batch(namespace: &str, lines: &[String]) -> Result<()> {
    let mut child = Command::new("ip")
        .args(["-n", namespace, "-batch", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot start ip (Debian package iproute2)")?;
    let mut stdin = child.stdin.take().context("stdin is piped")?;
    // A failing line closes the pipe; what counts is then the status.
    let _ = stdin.write_all((lines.join("\n") + "\n").as_bytes());
    drop(stdin);
    let output = child.wait_with_output()?;
    if !output.status.success() {
        let talk = String::from_utf8_lossy(&output.stderr);
        bail!(
            "ip -n {namespace} -batch failed: {} in\n{}",
            talk.trim(),
            lines.join("\n")
        );
    }
    Ok(())
}

pub(crate) fn add(namespace: &str) -> Result<()> {
    let status = Command::new("ip")
        .args(["netns", "add", namespace])
        .status()?;
    if !status.success() {
        bail!("ip netns add {namespace} ended with {status}");
    }
    Ok(())
}

/// Kills what runs in the namespace, waits until it is gone, and removes the namespace.
pub(crate) fn remove(namespace: &str) -> Result<()> {
    wait::until("end of the processes in a namespace", KILL_LIMIT, || {
        let pids = pids(namespace)?;
        for pid in &pids {
            // One that ended by itself in the meantime is as good.
            let _ = kill(*pid, Signal::SIGKILL);
        }
        Ok(pids.is_empty().then_some(()))
    })?;
    let status = Command::new("ip")
        .args(["netns", "delete", namespace])
        .status()?;
    if !status.success() {
        bail!("ip netns delete {namespace} ended with {status}");
    }
    Ok(())
}

/// The names of all namespaces of this machine.
pub(crate) fn all() -> Result<Vec<String>> {
    let Ok(entries) = fs::read_dir(DIR) else {
        // The directory comes with the first namespace.
        return Ok(Vec::new());
    };
    let names = entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
    names.collect()
}

pub(crate) fn path(namespace: &str) -> PathBuf {
    PathBuf::from(DIR).join(namespace)
}

fn pids(namespace: &str) -> Result<Vec<Pid>> {
    let output = Command::new("ip")
        .args(["netns", "pids", namespace])
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let own = Pid::this();
    let pids = text
        .lines()
        .filter_map(|line| line.trim().parse().ok())
        .map(Pid::from_raw);
    Ok(pids.filter(|pid| *pid != own).collect())
}

const DIR: &str = "/run/netns";
const KILL_LIMIT: Duration = Duration::from_secs(5);
