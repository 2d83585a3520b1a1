//! The hosts with their agents: raised before the first probe, gone without a trace after the last.
//!
//! Everything lies in the lab's directories, which go with the lab, or with the next one when this process was killed.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use dt_tests::wait::Deadline;
use dt_tests::{Host, Lab, LabObject, Proc};
use nix::sys::signal::Signal;
use serde::Serialize;

use super::cpu;
use super::options::{Options, Topology};
use super::services::Services;
use crate::build::Built;
use crate::workspace::Workspace;

/// Hosts, and once they are started the agents on them.
pub struct Stage {
    // In the order of removal: who uses a thing goes before it.
    agents: Vec<Agent>,
    services: Option<Services>,
    _switch: Option<LabObject>,
    feed: PathBuf,
    lab: Lab,
}

/// An agent on its host.
struct Agent {
    node: String,
    process: Proc,
    log: PathBuf,
}

impl Stage {
    /// Makes the hosts and joins them.
    pub fn raise(options: &Options, built: &Built) -> Result<Self> {
        let (lab, switch) = match options.topology {
            Topology::Mesh => (Lab::mesh(options.nodes)?, None),
            Topology::Bridge => {
                let lab = Lab::bridge(options.nodes)?;
                let mut object = LabObject::load_file(&built.lab_object, &[])?;
                object.open_switch(&lab)?;
                (lab, Some(object))
            }
        };
        let feed = match &options.keep_feed {
            Some(kept) => new_directory(kept)?,
            None => lab.dir().join("feed"),
        };
        Ok(Self {
            agents: Vec::new(),
            services: None,
            _switch: switch,
            feed,
            lab,
        })
    }

    /// Starts the servers that the agents will use, and whoever reads there.
    pub fn start_services(&mut self, workspace: &Workspace, console: &Path) -> Result<()> {
        self.services = Some(Services::start(&mut self.lab, workspace, console)?);
        Ok(())
    }

    /// Whether somebody else draws the live picture.
    pub fn is_drawn(&self) -> bool {
        self.services.as_ref().is_some_and(Services::draws)
    }

    /// After the agents have ended: sees to it that all of the feed can be read.
    pub fn finish_feed(&mut self) -> Result<()> {
        self.services.as_mut().map_or(Ok(()), Services::finish)
    }

    /// Starts an agent on every host.
    pub fn start_agents(&mut self, options: &Options, agent: &Path) -> Result<()> {
        let peers = self.lab.dir().join("peers.toml");
        fs::write(&peers, peers_file(&self.lab.hosts())?)?;
        for host in self.lab.hosts() {
            let mut command = self.agent_command(host, options, agent, &peers);
            let node = host.name().to_owned();
            let process = Proc::spawn(&node, &self.lab.dir(), &mut command)?;
            let log = self.lab.dir().join(format!("{node}.log"));
            self.agents.push(Agent { node, process, log });
        }
        Ok(())
    }

    /// Where each agent writes its feed.
    pub fn feed_dirs(&self) -> Vec<PathBuf> {
        if let Some(services) = &self.services {
            return services.feed_dirs();
        }
        self.lab
            .hosts()
            .iter()
            .map(|host| self.feed_dir(host))
            .collect()
    }

    /// The host with this name.
    pub fn host(&self, name: &str) -> &Host {
        self.lab.host(name)
    }

    /// A directory for logs and the like.
    pub fn dir(&self) -> PathBuf {
        self.lab.dir()
    }

    /// An error with the end of its log when an agent has ended by itself.
    pub fn check_agents(&mut self) -> Result<()> {
        for agent in &mut self.agents {
            if let Some(status) = agent.poll_ended() {
                bail!("{}", agent.obituary(&format!("ended with {status}")));
            }
        }
        Ok(())
    }

    /// CPU time that all agents have used, the kernel's work on their behalf included.
    pub fn cpu_ns(&self) -> Result<u64> {
        self.agents
            .iter()
            .map(|agent| cpu::process_ns(agent.process.pid()))
            .sum()
    }

    /// Ends all agents at once and returns a line for each that did not leave in time and well.
    pub fn stop_agents(&mut self) -> Vec<String> {
        let mut faults = Vec::new();
        for agent in &mut self.agents {
            // One that a Ctrl-C has ended already is waited for below like the others.
            let _ = agent.process.signal(Signal::SIGTERM);
        }
        let deadline = Deadline::after(STOP_LIMIT);
        for agent in &mut self.agents {
            match agent.process.wait(deadline.left()) {
                Ok(status) if status.success() => {}
                Ok(status) => {
                    faults.push(agent.obituary(&format!("ended with {status} after SIGTERM")));
                }
                Err(_) => {
                    let fate = format!("did not end within {STOP_LIMIT:?} after SIGTERM");
                    faults.push(agent.obituary(&fate));
                }
            }
        }
        self.agents.clear();
        faults
    }

    fn agent_command(&self, host: &Host, options: &Options, agent: &Path, peers: &Path) -> Command {
        let mut command = host.command(&agent.to_string_lossy());
        let of_user = env::vars_os().map(|(name, _)| name);
        for name in of_user.filter(|name| name.to_string_lossy().starts_with("DT_")) {
            // Settings of an agent of the user's own are not meant for these.
            command.env_remove(name);
        }
        command
            .env_remove("ZOOKEEPER_SERVERS")
            .env_remove("KAFKA_BOOTSTRAP_SERVERS")
            .args(["run", "--node", host.name()]);
        if let Some(services) = &self.services {
            let (zone, rack) = labels(&self.lab.hosts(), host.name());
            command
                .args(services.flags())
                .arg(format!("--address={}", host.ipv4()))
                .arg(format!("--address={}", host.ipv6()))
                .args([format!("--zone={zone}"), format!("--rack={rack}")]);
        } else {
            command
                .arg(format!("--discovery=file:{}", peers.display()))
                .arg(format!("--feed=file:{}", self.feed_dir(host).display()));
        }
        command
            .arg(format!("--rate={}", options.rate))
            .args(["--window=1s", &format!("--compare-every={COMPARE_EVERY}")])
            .arg(format!("--mode={}", options.mode))
            .arg(if options.every_probe {
                "--detail=probes"
            } else {
                "--detail=windows"
            })
            .arg(if options.ipv6 {
                "--family=6"
            } else {
                "--family=4"
            })
            .arg(format!("--pin-root={}", self.lab.pin_dir().display()))
            .arg(format!(
                "--state-dir={}",
                self.lab.dir().join("state").join(host.name()).display()
            ));
        command
    }

    fn feed_dir(&self, host: &Host) -> PathBuf {
        self.feed.join(host.name())
    }
}

impl Agent {
    fn poll_ended(&mut self) -> Option<ExitStatus> {
        self.process.wait(Duration::ZERO).ok()
    }

    fn obituary(&self, fate: &str) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        let tail = lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n  ");
        format!(
            "the agent on {} {fate}; the end of its log:\n  {tail}",
            self.node
        )
    }
}

/// New, so that no feed of an earlier demo is taken for this one's.
fn new_directory(path: &Path) -> Result<PathBuf> {
    fs::create_dir(path).with_context(|| format!("cannot create {}", path.display()))?;
    Ok(path.canonicalize()?)
}

/// The members as `--discovery` reads them.
fn peers_file(hosts: &[&Host]) -> Result<String> {
    let member = |host: &&Host| {
        let (zone, rack) = labels(hosts, host.name());
        Member {
            name: host.name().to_owned(),
            addresses: [host.ipv4().to_string(), host.ipv6().to_string()],
            zone,
            rack,
        }
    };
    let peer = hosts.iter().map(member).collect();
    toml::to_string(&Members { peer }).context("the members cannot be written as TOML")
}

/// Two zones, and racks of two hosts, so that the labels say something.
fn labels(hosts: &[&Host], name: &str) -> (&'static str, String) {
    let index = hosts.iter().position(|host| host.name() == name);
    let index = index.unwrap_or_default();
    let zone = if index < hosts.len().div_ceil(2) {
        "z1"
    } else {
        "z2"
    };
    (zone, format!("r{}", index / 2 + 1))
}

#[derive(Serialize)]
struct Members {
    peer: Vec<Member>,
}

#[derive(Serialize)]
struct Member {
    name: String,
    addresses: [String; 2],
    zone: &'static str,
    rack: String,
}

/// Of so many probes one is also timed in user space.
pub const COMPARE_EVERY: u32 = 10;
/// What `dt-agent run` promises.
const STOP_LIMIT: Duration = Duration::from_secs(2);
const TAIL_LINES: usize = 15;
