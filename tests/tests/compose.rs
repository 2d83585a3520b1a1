//! The compose file at the top of the tree: read by both generations of its readers, and brought up whole.
//!
//! No image comes from a registry. The agent's is made by the `Dockerfile`; those of ZooKeeper and Kafka are stand-ins with
//! the official ones' paths, variables and commands, see `tests/images`.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use dt_tests::docker::images::Images;
use dt_tests::docker::{self, Engine};
use dt_tests::host::Host;
use dt_tests::topic::Topic;
use dt_tests::{Lab, LabObject, given, skip_unless_equipped, skip_unless_served, wait};

#[test]
fn the_file_loads_in_compose_1_29_and_in_compose_go_2() -> Result<()> {
    skip_unless_equipped!();
    let file = docker::root().join("docker-compose.yml");
    let old = docker::run(
        Command::new("docker-compose")
            .arg("--file")
            .arg(&file)
            .args(["--project-name", "dt", "--profile", "consumer"])
            .args(["config", "--services"]),
    )?;
    let mut old: Vec<_> = old.lines().collect();
    old.sort_unstable();
    ensure!(old == SERVICES, "{old:?}");

    let new = docker::run(
        Command::new(given::python()?.with_file_name("go"))
            .args(["run", "-mod=readonly", "."])
            .arg(&file)
            .current_dir(docker::root().join("tests/compose-go"))
            .env("GOTOOLCHAIN", "local")
            .env_remove("GOFLAGS"),
    )?;
    let names: Vec<_> = new
        .lines()
        .filter_map(|line| line.split(' ').next())
        .collect();
    ensure!(names == SERVICES, "{new}");
    for agent in ["agent-a", "agent-b"] {
        let line =
            format!("{agent} distributed-trace:latest privileged true after kafka:service_healthy");
        ensure!(new.contains(&line), "{new}");
    }
    Ok(())
}

#[test]
fn the_whole_file_comes_up_measures_is_read_and_goes_down_with_nothing_left() -> Result<()> {
    skip_unless_equipped!();
    skip_unless_served!();
    let mut lab = Lab::empty()?;
    lab.add_host(HOST)?;
    // An agent of somebody else may run on this machine.
    let before = programs()?;
    let images = Images::prepare(&lab)?;
    let engine = Engine::on(&lab, HOST)?;
    check_image(&engine, &images)?;
    let compose = Compose {
        engine: &engine,
        images: &images,
        project: lab.owned_name("compose"),
    };
    compose.run(&["up", "--detach", "--no-build"])?;
    let outcome = compose.check(&lab);
    if outcome.is_err() {
        let said = compose.run(&["logs", "--no-color", "--tail=20"]);
        eprintln!("{}", said.unwrap_or_default());
    }
    compose.run(&["down", "--volumes"])?;
    outcome?;
    check_nothing_left(&engine, &compose.project, &before)?;
    engine.stop()
}

struct Compose<'a> {
    engine: &'a Engine,
    images: &'a Images,
    project: String,
}

impl Compose<'_> {
    fn command(&self, words: &[&str]) -> Command {
        let mut command = self.engine.compose(&self.project, words);
        command
            .env("DT_AGENT_IMAGE", &self.images.agent)
            .env("DT_ZOOKEEPER_IMAGE", &self.images.zookeeper)
            .env("DT_KAFKA_IMAGE", &self.images.kafka)
            .env("DT_WINDOW", "1s");
        command
    }

    fn run(&self, words: &[&str]) -> Result<String> {
        docker::run(&mut self.command(words))
    }

    fn check(&self, lab: &Lab) -> Result<()> {
        let host = lab.host(HOST);
        // Whoever comes first may find nobody to ask, and says that instead until the next try.
        let line = self.wait_for_mode("agent-a", "on a veth the other end needs an xdp program")?;
        ensure!(
            line.contains("mode=\"tc\" reason=xdp is attached"),
            "{line}"
        );
        println!("mode of the containers: {line}");
        let topic = Self::read_from_outside(host, "tc")?;
        for source in AGENTS {
            let start = topic.only_start(source)?;
            ensure!(start.missing()?.is_empty(), "{source} lost batches");
        }
        let object = let_answers_through(host)?;
        let line = self.wait_for_mode("agent-a", "mode=\"xdp\"")?;
        println!("with a program on the bridge's ends: {line}");
        self.wait_for_mode("agent-b", "mode=\"xdp\"")?;
        Self::read_from_outside(host, "xdp")?;
        self.consume()?;
        drop(object);
        self.stop_agents()
    }

    /// A line of an agent's log that chooses this mode.
    fn wait_for_mode(&self, agent: &str, text: &str) -> Result<String> {
        wait::until(&format!("{text} from {agent}"), LIMIT, || {
            let said = self.run(&["logs", "--no-color", agent])?;
            let mut chosen = said.lines().filter(|line| line.contains("Datapath chosen"));
            Ok(chosen.find(|line| line.contains(text)).map(str::to_owned))
        })
    }

    /// The topic through the published port, once both agents measured each other in this mode.
    fn read_from_outside(host: &Host, mode: &str) -> Result<Topic> {
        let broker: SocketAddr = "127.0.0.1:9092".parse()?;
        let what = format!("windows of both in mode {mode}");
        host.enter(|| {
            Topic::wait_for(&what, LIMIT, broker, "_distributedTrace", |topic| {
                let measured = AGENTS.iter().all(|agent| has_measured(topic, agent, mode));
                measured.then(|| topic.clone())
            })
        })?
    }

    /// `docker-compose run consumer`, as the file's first lines have it.
    fn consume(&self) -> Result<()> {
        let name = format!("{}-consumer", self.project);
        let said = wait::until("lines of the consumer", LIMIT, || {
            let mut command = Command::new("timeout");
            command.args(["--signal=INT", "12"]);
            let consumer = self.command(&["run", "--rm", "--no-deps", "--name", &name, "consumer"]);
            command
                .arg(consumer.get_program())
                .args(consumer.get_args());
            for (name, value) in consumer.get_envs() {
                command.env(name, value.unwrap_or_default());
            }
            let output = command.output()?;
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            let both = said.contains("agent-a → agent-b") && said.contains("agent-b → agent-a");
            Ok(both.then_some(said))
        })?;
        let line = said.lines().find(|line| line.contains('→'));
        println!("consumer: {}", line.unwrap_or_default());
        Ok(())
    }

    /// `stop` sends SIGTERM; killed ones would have status 137.
    fn stop_agents(&self) -> Result<()> {
        self.run(&["stop", "agent-a", "agent-b"])?;
        for agent in AGENTS {
            let id = self.run(&["ps", "--quiet", agent])?;
            let status = docker::run(&mut self.engine.docker(&[
                "inspect",
                "--format={{.State.ExitCode}}",
                id.trim(),
            ]))?;
            ensure!(status.trim() == "0", "{agent} ended with {status}");
        }
        Ok(())
    }
}

/// Whether a source has a window with answers in this mode.
fn has_measured(topic: &Topic, source: &str, mode: &str) -> bool {
    let own = topic.batches.iter().filter(|batch| batch.source == source);
    own.flat_map(|batch| &batch.windows).any(|window| {
        let received = window
            .counters
            .as_ref()
            .is_some_and(|counters| counters.received > 0);
        let method = window.method.unwrap_or_default();
        received && dt_tests::feed::mode_name(method.mode()) == mode
    })
}

/// Puts a program that passes all on the bridge's ends of the containers' cables, without which no answer that XDP sends
/// leaves a veth.
fn let_answers_through(host: &Host) -> Result<LabObject> {
    let mut object = LabObject::load()?;
    let links = host.run(&["ip", "-oneline", "link", "show", "type", "veth"])?;
    for line in links.lines() {
        let name = line.split(": ").nth(1).context("a link has a name")?;
        let name = name.split('@').next().unwrap_or(name);
        object.attach_xdp("xdp_pass", host, name)?;
    }
    Ok(object)
}

/// The agent's image has the programs and what they link to, and nothing to compile with.
fn check_image(engine: &Engine, images: &Images) -> Result<()> {
    let run = |entry: &str, words: &[&str]| {
        let entry = format!("--entrypoint={entry}");
        let words = [
            &["run", "--rm", "--network=none", &entry, &images.agent],
            words,
        ]
        .concat();
        docker::run(&mut engine.docker(&words))
    };
    let version = run("dt-agent", &["--version"])?;
    ensure!(version.starts_with("dt-agent "), "{version}");
    run("dt-console", &["--help"])?;
    let found = run(
        "sh",
        &[
            "-c",
            "ls /usr/bin | grep -xE '(cc|gcc|g[+][+]|clang|llc)(-[0-9]+)?|cargo|rustc|ld|make|cmake' || true",
        ],
    )?;
    ensure!(found.is_empty(), "compilers in the image: {found}");
    let size = |image: &str| {
        docker::run(&mut engine.docker(&["image", "inspect", "--format={{.Size}}", image]))
    };
    let bytes: u64 = size(&images.agent)?.trim().parse()?;
    println!(
        "image of the agent: {} MB, Debian included",
        bytes / 1_000_000
    );
    Ok(())
}

fn check_nothing_left(engine: &Engine, project: &str, before: &BTreeSet<String>) -> Result<()> {
    for words in [
        &["ps", "--all", "--quiet"][..],
        &["volume", "ls", "--quiet"],
        &["network", "ls", "--quiet", "--filter=type=custom"],
    ] {
        let left = docker::run(&mut engine.docker(words))?;
        ensure!(left.is_empty(), "left of {project}: {words:?}: {left}");
    }
    // Programs end with the last file system, link and namespace that holds them, a little later.
    wait::until("end of the programs", LIMIT, || {
        Ok(programs()?.is_subset(before).then_some(()))
    })
}

/// Numbers of all loaded programs by the names of ours.
fn programs() -> Result<BTreeSet<String>> {
    let listed = docker::run(Command::new("bpftool").args(["prog", "show"]))?;
    let ours = ["xdp_ingress", "tc_ingress", "tc_egress"];
    let is_ours = |line: &&str| ours.iter().any(|name| line.contains(name));
    let lines = listed.lines().filter(is_ours);
    Ok(lines
        .filter_map(|line| Some(line.split_once(':')?.0.to_owned()))
        .collect())
}

const HOST: &str = "engine";
const AGENTS: [&str; 2] = ["agent-a", "agent-b"];
const SERVICES: [&str; 5] = ["agent-a", "agent-b", "consumer", "kafka", "zookeeper"];
const LIMIT: Duration = Duration::from_mins(2);
