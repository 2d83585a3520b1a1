//! `cargo xtask bench discovery`: what membership by ZooKeeper costs when a thousand agents join, change and restart.
//!
//! Real sessions of the agent's own discovery, each watching, all in one process on one host, against one real server on
//! another, so that the wire between them tells the bytes. Crowd and server share this machine's CPUs, so times are upper
//! bounds of what as many hosts with as many CPUs would see.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::{Args, value_parser};
use dt_tests::servers::{Place, ZooKeeper, zookeeper};
use dt_tests::{Lab, SERVERS};
use serde::{Deserialize, Serialize};

use super::json::JsonFile;
use super::machine::Machine;
use crate::process;
use crate::setup::{self, Group};
use crate::workspace::Workspace;

/// Flags of `cargo xtask bench discovery`.
#[derive(Args)]
pub struct Options {
    /// Members of the mesh, each with a session of its own
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = value_parser!(u32).range(2..=5_000))]
    members: u32,

    /// Single changes that are measured
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = value_parser!(u32).range(1..=1_000))]
    changes: u32,

    /// Also write the result to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Sets up, builds, measures, prints; an error if a single change took longer than is promised.
pub fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    let json = JsonFile::create(options.json.as_deref())?;
    setup::run(workspace, Group::DemoFull)?;
    let crowd = build(workspace)?;
    dt_tests::sweep()?;
    let report = measure(options, &crowd)?;
    print!("{}", report.to_markdown());
    json.write(&report)?;
    let slowest = report.slowest_change();
    ensure!(
        slowest <= CHANGE_LIMIT_S,
        "a single change was everywhere only after {slowest:.2} s, not within {CHANGE_LIMIT_S} s"
    );
    Ok(())
}

fn build(workspace: &Workspace) -> Result<PathBuf> {
    let mut cargo = workspace.cargo();
    cargo.args(["build", "--release", "--locked"]);
    cargo.args(["--package", "dt-agent", "--example", "crowd"]);
    process::run_shown(&mut cargo)?;
    Ok(workspace.target().join("release/examples/crowd"))
}

fn measure(options: &Options, crowd: &Path) -> Result<Report> {
    let mut lab = Lab::mesh(1)?;
    lab.add_servers()?;
    let zookeeper = zookeeper::Options::new(&setup::zookeeper_class_path())
        .tick(Duration::from_secs(2))
        .for_load(HEAP_MB)
        .start(&Place::on(&lab, SERVERS))?;
    let mut scene = Scene::raise(&lab, zookeeper, crowd, options.members)?;
    let join = scene.phase("join")?;
    let watches = scene.zookeeper.counter("zk_watch_count")?;
    let idle = scene.phase("idle")?;
    let mut changes = Vec::new();
    for _ in 0..options.changes {
        changes.push(scene.phase("one")?);
    }
    let restart = scene.phase("restart")?;
    Ok(Report {
        machine: Machine::look()?,
        members: options.members,
        session_s: SESSION_S,
        watches,
        join,
        idle,
        changes,
        restart,
    })
}

/// One server, and one process with all members on the host beside it.
struct Scene<'a> {
    lab: &'a Lab,
    zookeeper: ZooKeeper,
    crowd: Child,
    words: ChildStdin,
    answers: BufReader<ChildStdout>,
    before: Counts,
}

impl<'a> Scene<'a> {
    fn raise(lab: &'a Lab, zookeeper: ZooKeeper, program: &Path, members: u32) -> Result<Self> {
        let mut crowd = lab
            .host("n1")
            .command(&program.display().to_string())
            .arg(zookeeper.address().to_string())
            .args([members.to_string(), SESSION_S.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let words = crowd.stdin.take().context("its input is piped")?;
        let answers = crowd.stdout.take().context("its output is piped")?;
        let mut scene = Self {
            lab,
            zookeeper,
            crowd,
            words,
            answers: BufReader::new(answers),
            before: Counts::default(),
        };
        scene.before = scene.counts(&Answer::default())?;
        Ok(scene)
    }

    /// Lets the crowd do what the word says, and what that cost.
    fn phase(&mut self, word: &str) -> Result<Phase> {
        writeln!(self.words, "{word}")?;
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        ensure!(
            !line.is_empty(),
            "the crowd ended: {:?}",
            self.crowd.try_wait()?
        );
        let answer: Answer = serde_json::from_str(&line)?;
        let after = self.counts(&answer)?;
        let before = std::mem::replace(&mut self.before, after.clone());
        let pid = self.zookeeper.pid().context("it runs")?;
        Ok(Phase {
            seen: answer.told,
            requests: after.requests - before.requests,
            nodes_read: after.nodes - before.nodes,
            node_bytes: after.node_bytes - before.node_bytes,
            events: after.events - before.events,
            wire_bytes_to_agents: after.wire_out - before.wire_out,
            wire_bytes_to_server: after.wire_in - before.wire_in,
            agents_cpu_s: answer.cpu_s,
            agents_rss_bytes: answer.rss_bytes,
            server_cpu_s: after.server_cpu_s - before.server_cpu_s,
            server_rss_bytes: rss_bytes(pid)?,
        })
    }

    fn counts(&self, answer: &Answer) -> Result<Counts> {
        let device = self.lab.host(SERVERS).device_to("n1");
        let text = self
            .lab
            .host(SERVERS)
            .run(&["ip", "-j", "-s", "link", "show", "dev", device])?;
        let links: serde_json::Value = serde_json::from_str(&text)?;
        let bytes = |way: &str| {
            let count = links[0]["stats64"][way]["bytes"].as_u64();
            count.context("the link counts bytes")
        };
        Ok(Counts {
            wire_out: bytes("tx")?,
            wire_in: bytes("rx")?,
            server_cpu_s: cpu_s(self.zookeeper.pid().context("it runs")?)?,
            requests: answer.requests,
            nodes: answer.nodes,
            node_bytes: answer.node_bytes,
            events: answer.events,
        })
    }
}

impl Drop for Scene<'_> {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.crowd.kill();
        let _ = self.crowd.wait();
    }
}

/// What the crowd answers to a word; sums over all members since their start.
#[derive(Default, Deserialize)]
struct Answer {
    told: serde_json::Value,
    cpu_s: f64,
    rss_bytes: u64,
    requests: u64,
    nodes: u64,
    node_bytes: u64,
    events: u64,
}

#[derive(Clone, Default)]
struct Counts {
    wire_out: u64,
    wire_in: u64,
    server_cpu_s: f64,
    requests: u64,
    nodes: u64,
    node_bytes: u64,
    events: u64,
}

/// What one phase took and cost, all members together.
#[derive(Serialize)]
struct Phase {
    /// Seconds until the members saw it: the half of them, 99 %, the last.
    seen: serde_json::Value,
    requests: u64,
    nodes_read: u64,
    node_bytes: u64,
    events: u64,
    wire_bytes_to_agents: u64,
    wire_bytes_to_server: u64,
    agents_cpu_s: f64,
    agents_rss_bytes: u64,
    server_cpu_s: f64,
    server_rss_bytes: u64,
}

#[derive(Serialize)]
struct Report {
    machine: Machine,
    members: u32,
    session_s: u32,
    watches: u64,
    join: Phase,
    idle: Phase,
    changes: Vec<Phase>,
    restart: Phase,
}

impl Report {
    /// Seconds until the last member saw a single change, the slowest of all changes.
    fn slowest_change(&self) -> f64 {
        let times = self.changes.iter().flat_map(|phase| {
            ["join_seconds", "change_seconds"].map(|what| last(&phase.seen[what]))
        });
        times.fold(0.0, f64::max)
    }

    fn to_markdown(&self) -> String {
        let mut lines = vec![
            self.machine.host(),
            format!(
                "{} members, sessions of {} s, {} watches, one server; crowd and server on these CPUs. Sums over all members.",
                self.members, self.session_s, self.watches
            ),
            String::new(),
            "| what | seen by half, 99 %, all, s | requests | nodes read | MB of nodes | events | MB on the wire to agents, to the server | CPU of the agents, of the server, s |".to_owned(),
            "| --- | --- | ---: | ---: | ---: | ---: | --- | --- |".to_owned(),
        ];
        lines.push(row(
            "join of all at once",
            &self.join,
            &self.join.seen["seconds"],
        ));
        lines.push(row(
            "ten idle seconds",
            &self.idle,
            &serde_json::Value::Null,
        ));
        for phase in &self.changes {
            lines.push(row("one joins", phase, &phase.seen["join_seconds"]));
            lines.push(format!(
                "| and says that it restarts | {} | | | | | | |",
                spread(&phase.seen["change_seconds"])
            ));
        }
        lines.push(row(
            "restart of all at once",
            &self.restart,
            &self.restart.seen["seconds"],
        ));
        let each = |total: u64| total as f64 / f64::from(self.members) / 1e3;
        lines.push(String::new());
        lines.push(format!(
            "Memory after the join: {:.0} kB an agent, {:.0} MB of the server. Each agent: {:.1} requests, {:.0} nodes, {:.1} ms of CPU for the join, {:.2} ms in an idle second.",
            each(self.join.agents_rss_bytes),
            self.join.server_rss_bytes as f64 / 1e6,
            each(self.join.requests) * 1e3,
            each(self.join.nodes_read) * 1e3,
            self.join.agents_cpu_s / f64::from(self.members) * 1e3,
            self.idle.agents_cpu_s / f64::from(self.members) / IDLE_S * 1e3,
        ));
        lines.push(format!(
            "Slowest single change: everywhere after {:.2} s (promised: {CHANGE_LIMIT_S} s).",
            self.slowest_change()
        ));
        lines.join("\n") + "\n"
    }
}

fn row(what: &str, phase: &Phase, seen: &serde_json::Value) -> String {
    let mb = |bytes: u64| bytes as f64 / 1e6;
    format!(
        "| {what} | {} | {} | {} | {:.2} | {} | {:.1}, {:.1} | {:.2}, {:.2} |",
        spread(seen),
        phase.requests,
        phase.nodes_read,
        mb(phase.node_bytes),
        phase.events,
        mb(phase.wire_bytes_to_agents),
        mb(phase.wire_bytes_to_server),
        phase.agents_cpu_s,
        phase.server_cpu_s,
    )
}

fn spread(seen: &serde_json::Value) -> String {
    let at = |name: &str| seen[name].as_f64().map(|s| format!("{s:.2}"));
    let parts: Vec<_> = ["p50", "p99", "last"].into_iter().filter_map(at).collect();
    parts.join(", ")
}

fn last(seen: &serde_json::Value) -> f64 {
    seen["last"].as_f64().unwrap_or(f64::INFINITY)
}

/// CPU time that a process has used, s.
fn cpu_s(pid: u32) -> Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, rest) = stat.rsplit_once(") ").context("a name in parentheses")?;
    let fields: Vec<_> = rest.split(' ').collect();
    let ticks = |index: usize| -> Result<f64> {
        let text = fields.get(index).context("too few fields")?;
        Ok(text.parse::<u64>()? as f64)
    };
    // utime and stime, in ticks of 10 ms on every Linux there is.
    Ok((ticks(11)? + ticks(12)?) / 100.0)
}

fn rss_bytes(pid: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next());
    Ok(kib.context("no VmRSS")?.parse::<u64>()? * 1_024)
}

const HEAP_MB: u32 = 1_024;
/// Long enough that nobody's ends while this machine does everybody's work.
const SESSION_S: u32 = 30;
/// What the crowd idles.
const IDLE_S: f64 = 10.0;
/// Promised.
const CHANGE_LIMIT_S: f64 = 2.0;
