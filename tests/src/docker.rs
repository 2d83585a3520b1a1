//! A Docker engine of the tests' own, and the images that a compose file asks for.
//!
//! Its images live in a directory that outlives the tests, because making them takes minutes; everything else (sockets,
//! networks, containers) goes with the lab. The engine that runs containers is a host of the lab, so that bridges and
//! packet filter rules are in a namespace of ours; the one that builds needs the package registries and has neither.

pub mod images;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::lab::Lab;
use crate::process::Proc;
use crate::{given, netns, owner, wait};

/// A running `dockerd`. Dropping it ends it and its containers.
#[derive(Debug)]
pub struct Engine {
    process: Proc,
    socket: PathBuf,
}

impl Engine {
    /// Starts one that only builds images, where this process is: with the machine's network, and without touching it.
    pub fn for_builds(lab: &Lab) -> Result<Self> {
        let mut command = netns::mortal_command("dockerd");
        command.args(["--iptables=false", "--ip-forward=false"]);
        Self::start(lab, "build", command)
    }

    /// Starts one on a host of the lab, whose networks are that host's own.
    pub fn on(lab: &Lab, host: &str) -> Result<Self> {
        let mut command = lab.host(host).command("dockerd");
        let runtime = manifest_dir().join("images/runtime/runc-bounded");
        command
            .arg(format!("--add-runtime=bounded={}", runtime.display()))
            .arg("--default-runtime=bounded");
        Self::start(lab, host, command)
    }

    fn start(lab: &Lab, name: &str, mut command: Command) -> Result<Self> {
        let data = given::docker_dir()?;
        fs::create_dir_all(&data)?;
        // What a killed engine left mounted there.
        owner::unmount_below(&data)?;
        let dir = lab.dir().join(format!("docker-{name}"));
        fs::create_dir_all(&dir)?;
        let socket = dir.join("socket");
        command
            .arg(format!("--data-root={}", data.display()))
            .arg(format!("--exec-root={}", dir.join("exec").display()))
            .arg(format!("--pidfile={}", dir.join("pid").display()))
            .arg(format!("--host=unix://{}", socket.display()))
            .arg(format!("--cgroup-parent=/{}", lab.owned_name("docker")))
            .arg("--bridge=none");
        let process = Proc::spawn(&format!("dockerd-{name}"), &lab.dir(), &mut command)?;
        let mut engine = Self { process, socket };
        engine.wait_until_ready()?;
        Ok(engine)
    }

    fn wait_until_ready(&mut self) -> Result<()> {
        wait::until("Docker engine", LIMIT, || {
            if let Some(status) = self.process.ended()? {
                anyhow::bail!("dockerd ended with {status}:\n{}", self.process.tail());
            }
            let ready = self.docker(&["info"]).output()?.status.success();
            Ok(ready.then_some(()))
        })
    }

    /// A call of `docker` with this engine.
    #[must_use]
    pub fn docker(&self, words: &[&str]) -> Command {
        self.client("docker", words)
    }

    /// A call of `docker-compose` for the file at the top of the tree.
    #[must_use]
    pub fn compose(&self, project: &str, words: &[&str]) -> Command {
        let file = root().join("docker-compose.yml").display().to_string();
        let words = [&["--file", &file, "--project-name", project], words].concat();
        self.client("docker-compose", &words)
    }

    /// Where it listens, as `DOCKER_HOST` has it.
    #[must_use]
    pub fn address(&self) -> String {
        format!("unix://{}", self.socket.display())
    }

    /// Ends it.
    pub fn stop(mut self) -> Result<()> {
        let status = self.process.terminate(LIMIT)?;
        ensure!(status.success(), "dockerd ended with {status}");
        Ok(())
    }

    fn client(&self, program: &str, words: &[&str]) -> Command {
        let mut command = Command::new(program);
        command
            .args(words)
            .env("DOCKER_HOST", self.address())
            // The builder that every version has.
            .env("DOCKER_BUILDKIT", "0")
            .env("COMPOSE_DOCKER_CLI_BUILD", "0");
        command
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // It ends its containers, which a killed one would not.
        let _ = self.process.terminate(LIMIT);
    }
}

/// Runs a command to its end; what it printed, or an error with the end of that.
pub fn run(command: &mut Command) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command
        .output()
        .with_context(|| format!("cannot start {name}"))?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let complaint = String::from_utf8_lossy(&output.stderr);
    let lines: Vec<_> = said.lines().chain(complaint.lines()).collect();
    ensure!(
        output.status.success(),
        "{command:?} ended with {}:\n{}",
        output.status,
        lines[lines.len().saturating_sub(30)..].join("\n")
    );
    Ok(said)
}

/// The top of the source tree.
#[must_use]
pub fn root() -> PathBuf {
    let root = manifest_dir().join("..");
    root.canonicalize().unwrap_or(root)
}

fn manifest_dir() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

const LIMIT: Duration = Duration::from_mins(1);
