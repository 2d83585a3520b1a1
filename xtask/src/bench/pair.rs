//! Two hosts on one cable, and agents on them that come and go without leaving anything on it.

use std::env;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use dt_common::map::Reason;
use dt_feed::proto::Mode;
use dt_tests::pinned;
use dt_tests::wait::Deadline;
use dt_tests::{Host, Interrupt, Lab, Proc};
use nix::sys::signal::Signal;

use crate::demo::feed::Feed;
use crate::demo::tally::{Pair as Tallied, Tally};
use crate::process;

/// Host [`PROBING`] and host [`ANSWERING`], joined by a veth pair.
pub struct Pair {
    lab: Lab,
    agent: PathBuf,
    ipv6: bool,
    starts: u32,
}

/// What the probing agent is asked for.
#[derive(Clone, Copy)]
pub struct Asked {
    /// Probes per second.
    pub rate: u32,
    /// Of so many probes one is also timed in user space; 0: none.
    pub compare_every: u32,
    /// Who makes the packets, as `--sender` has it.
    pub sender: &'static str,
}

/// Both agents, at work.
pub struct Agents {
    probing: Proc,
    answering: Proc,
    feed: Feed,
    detach: Vec<Command>,
}

impl Pair {
    /// Makes the hosts.
    pub fn raise(agent: &Path, ipv6: bool) -> Result<Self> {
        let lab = Lab::mesh(2)?;
        let peers = [PROBING, ANSWERING].map(|name| {
            let host = lab.host(name);
            let addresses = format!("[\"{}\", \"{}\"]", host.ipv4(), host.ipv6());
            format!("[[peer]]\nname = \"{name}\"\naddresses = {addresses}\n")
        });
        fs::write(lab.dir().join(PEERS), peers.concat())?;
        Ok(Self {
            lab,
            agent: agent.to_owned(),
            ipv6,
            starts: 0,
        })
    }

    /// The host that probes.
    pub fn probing(&self) -> &Host {
        self.lab.host(PROBING)
    }

    /// The host that is probed.
    pub fn answering(&self) -> &Host {
        self.lab.host(ANSWERING)
    }

    /// An address of the host that is probed, in the IP version asked for.
    pub fn target(&self) -> IpAddr {
        if self.ipv6 {
            self.answering().ipv6().into()
        } else {
            self.answering().ipv4().into()
        }
    }

    /// Makes one more host a member, though there is none at its address.
    pub fn add_member(&self, name: &str, address: IpAddr) -> Result<()> {
        let path = self.lab.dir().join(PEERS);
        let peers = fs::read_to_string(&path)?;
        let more = format!("[[peer]]\nname = \"{name}\"\naddresses = [\"{address}\"]\n");
        Ok(fs::write(path, peers + &more)?)
    }

    /// How often the programs of the host that is probed gave this verdict.
    pub fn answering_counter(&self, reason: Reason) -> Result<u64> {
        pinned::counter(&self.lab, ANSWERING, reason)
    }

    /// A directory for logs.
    pub fn dir(&self) -> PathBuf {
        self.lab.dir()
    }

    /// Starts both agents and waits until the one measures the other in native XDP.
    pub fn start_agents(&mut self, asked: Asked, interrupt: &Interrupt) -> Result<Agents> {
        self.starts += 1;
        let quiet = Asked {
            rate: 1,
            compare_every: 0,
            sender: "sockets",
        };
        let feed = self.feed_dir(PROBING);
        let mut agents = Agents {
            answering: self.start_agent(ANSWERING, quiet)?,
            probing: self.start_agent(PROBING, asked)?,
            feed: Feed::follow([feed]),
            detach: [PROBING, ANSWERING].map(|node| self.detach(node)).into(),
        };
        agents.wait_until_measured(interrupt)?;
        Ok(agents)
    }

    fn start_agent(&self, node: &str, asked: Asked) -> Result<Proc> {
        let mut command = self.lab.host(node).command(&self.agent.to_string_lossy());
        forget_settings(&mut command);
        let dir = self.lab.dir();
        command
            .args(["run", "--node", node, "--window=1s", "--mode=auto"])
            .arg(format!("--family={}", if self.ipv6 { 6 } else { 4 }))
            .arg(format!("--discovery=file:{}", dir.join(PEERS).display()))
            .arg(format!("--feed=file:{}", self.feed_dir(node).display()))
            .arg(format!("--rate={}", asked.rate))
            .arg(format!("--compare-every={}", asked.compare_every))
            .arg(format!("--sender={}", asked.sender))
            .arg(format!("--pin-root={}", self.lab.pin_dir().display()))
            .arg(format!(
                "--state-dir={}",
                dir.join("state").join(node).display()
            ));
        Proc::spawn(&format!("agent-{node}"), &dir, &mut command)
    }

    fn detach(&self, node: &str) -> Command {
        let mut command = Command::new(&self.agent);
        command
            .args(["detach", "--node", node])
            .arg(format!("--pin-root={}", self.lab.pin_dir().display()));
        command
    }

    /// Each start has its own, so that figures of different turns never meet.
    fn feed_dir(&self, node: &str) -> PathBuf {
        let start = format!("feed-{}", self.starts);
        self.lab.dir().join(start).join(node)
    }
}

impl Agents {
    /// Process ids of both.
    pub fn pids(&self) -> [u32; 2] {
        [self.probing.pid(), self.answering.pid()]
    }

    /// Ends both, takes their programs off the cable, and returns what was measured since they were started, less the
    /// windows before the first one in native XDP.
    pub fn finish(mut self) -> Result<Tally> {
        for agent in [&mut self.probing, &mut self.answering] {
            agent.signal(Signal::SIGTERM)?;
        }
        for agent in [&mut self.probing, &mut self.answering] {
            let status = agent.wait(STOP_LIMIT)?;
            ensure!(status.success(), "an agent ended with {status}");
        }
        let mut tally = Tally::default();
        self.feed.read_into(&mut tally)?;
        let faults = self.feed.faults();
        ensure!(faults.is_empty(), "the feed has gaps: {faults:?}");
        for command in &mut self.detach {
            process::capture(command)?;
        }
        Ok(tally)
    }

    /// What was read until then is of the start: its first probes wait for neighbours and for cold caches.
    fn wait_until_measured(&mut self, interrupt: &Interrupt) -> Result<()> {
        let deadline = Deadline::after(START_LIMIT);
        loop {
            let mut warm_up = Tally::default();
            self.feed.read_into(&mut warm_up)?;
            let mode = measured(&warm_up).and_then(Tallied::mode);
            if mode == Some(Mode::Xdp) {
                return Ok(());
            }
            if let Ok(status) = self.probing.wait(Duration::ZERO) {
                bail!("the agent ended with {status}:\n{}", self.probing.output()?);
            }
            ensure!(!interrupt.arrived(), "interrupted");
            ensure!(
                !deadline.has_passed(),
                "not measured in mode xdp within {START_LIMIT:?}:\n{}",
                self.probing.output()?
            );
            thread::sleep(LOOK_EVERY);
        }
    }
}

/// Settings of an agent of the user's own are not meant for those of a bench.
pub fn forget_settings(command: &mut Command) {
    for (name, _) in env::vars_os() {
        if name.to_string_lossy().starts_with("DT_") {
            command.env_remove(name);
        }
    }
}

/// All CPUs busy, by processes of usual priority. On a host, so that they go with it whatever happens here.
pub fn saturate(host: &Host, dir: &Path) -> Result<Proc> {
    let mut command = host.command("stress-ng");
    command
        .args(["--quiet", "--cpu", STRESS_WORKERS, "--temp-path"])
        .arg(dir);
    Proc::spawn("stress-ng", dir, &mut command)
}

/// What the probing host measured of the other.
pub fn measured(tally: &Tally) -> Option<&Tallied> {
    tally
        .pair(PROBING, ANSWERING)
        .filter(|pair| pair.is_answered())
}

/// Lets time pass; Ctrl-C is an error, so that all guards are dropped.
pub fn hold(length: Duration, interrupt: &Interrupt) -> Result<()> {
    let end = Deadline::after(length);
    while !end.has_passed() {
        ensure!(!interrupt.arrived(), "interrupted");
        thread::sleep(end.left().min(LOOK_EVERY));
    }
    Ok(())
}

/// Sends SIGINT, as a user would, and returns all that the process wrote.
pub fn interrupted_output(mut process: Proc) -> Result<String> {
    // One that ended by itself has said all.
    if process.wait(Duration::ZERO).is_err() {
        process.signal(Signal::SIGINT)?;
        process.wait(STOP_LIMIT).context("it hears no SIGINT")?;
    }
    process.output()
}

const STRESS_WORKERS: &str = "6";
const PROBING: &str = "n1";
const ANSWERING: &str = "n2";
const PEERS: &str = "peers.toml";
const START_LIMIT: Duration = Duration::from_mins(1);
const STOP_LIMIT: Duration = Duration::from_secs(10);
/// Rarely: looking costs CPU that is being measured.
const LOOK_EVERY: Duration = Duration::from_millis(200);
