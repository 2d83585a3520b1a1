//! A plain Debian machine with systemd, on a host of the lab.
//!
//! Its files are a tree that `debootstrap` made once, with what the machine writes laid over it. It has namespaces and control
//! groups of its own; kernel, time and CPUs are this machine's.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::docker::run;
use crate::lab::Lab;
use crate::process::Proc;
use crate::{given, wait};

/// A running machine. Dropping it ends all its processes; its files go with the lab.
#[derive(Debug)]
pub struct Machine<'a> {
    lab: &'a Lab,
    host: String,
    process: Proc,
    init: String,
}

impl<'a> Machine<'a> {
    /// Starts one on a host of the lab and waits until its services are up.
    pub fn boot(lab: &'a Lab, host: &str) -> Result<Self> {
        let base = base_tree(lab)?;
        let dir = lab.dir().join("machines").join(host);
        fs::create_dir_all(&dir)?;
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("machine/boot.sh");
        let mut command = lab.host(host).command(&script.display().to_string());
        command
            .args([&base, &dir])
            .arg(lab.owned_name(&format!("machine-{host}")));
        let process = Proc::spawn(&format!("machine-{host}"), &lab.dir(), &mut command)?;
        let mut machine = Self {
            lab,
            host: host.to_owned(),
            process,
            init: String::new(),
        };
        machine.wait_until_up()?;
        Ok(machine)
    }

    fn wait_until_up(&mut self) -> Result<()> {
        let children = format!("/proc/{0}/task/{0}/children", self.process.pid());
        wait::until(&format!("machine {}", self.host), LIMIT, || {
            if let Some(status) = self.process.ended()? {
                anyhow::bail!("it ended with {status}:\n{}", self.process.tail());
            }
            // The first process in the new namespace of processes.
            fs::read_to_string(&children)?
                .trim()
                .clone_into(&mut self.init);
            let state = self.command(&["systemctl", "is-system-running"]).output()?;
            let state = String::from_utf8_lossy(&state.stdout).trim().to_owned();
            ensure!(
                state != "degraded",
                "{}",
                self.run(&["systemctl", "--failed"])?
            );
            Ok((state == "running").then_some(()))
        })
    }

    /// A command on the machine.
    #[must_use]
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command
            .args(["--all", "--root", "--wd", "--target", &self.init, "--"])
            .args(words);
        command
    }

    /// Runs a command on the machine to its end; what it printed.
    pub fn run(&self, words: &[&str]) -> Result<String> {
        run(&mut self.command(words)).with_context(|| format!("on {}", self.host))
    }

    /// The path here of a file there.
    #[must_use]
    pub fn path(&self, there: &str) -> PathBuf {
        Path::new("/proc")
            .join(&self.init)
            .join("root")
            .join(there.trim_start_matches('/'))
    }

    /// The name of the host of the lab that it is.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// What the kernel has attached to the machine's devices, as `bpftool net` says it.
    pub fn programs(&self) -> Result<String> {
        self.lab.host(&self.host).run(&["bpftool", "net", "show"])
    }
}

/// Debian as a new machine has it, with systemd and what the package depends on; made once.
fn base_tree(lab: &Lab) -> Result<PathBuf> {
    let place = given::target_dir()?.join(format!("debian-tree-{SUITE}"));
    if place.is_dir() {
        return Ok(place);
    }
    let part = lab.dir().join("debian-tree");
    run(Command::new("debootstrap")
        .args(["--variant=minbase", &format!("--include={INCLUDE}"), SUITE])
        .arg(&part))?;
    // A machine of namespaces has no terminals; agettys would take those of this one.
    for unit in ["console-getty", "getty@"] {
        std::os::unix::fs::symlink(
            "/dev/null",
            part.join(format!("etc/systemd/system/{unit}.service")),
        )?;
    }
    fs::remove_dir_all(part.join("var/cache/apt"))?;
    let moving = place.with_extension("part");
    let _ = fs::remove_dir_all(&moving);
    run(Command::new("mv").args([&part, &moving]))?;
    fs::rename(&moving, &place)?;
    Ok(place)
}

const SUITE: &str = "bookworm";
const INCLUDE: &str = "ca-certificates,iproute2,libssl3,systemd,systemd-sysv";
const LIMIT: Duration = Duration::from_mins(1);
