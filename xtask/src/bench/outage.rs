//! `cargo xtask bench outage`: a real broker is away while real agents probe, and what the topic has of that afterwards.
//!
//! Two runs. In the first the spool has room for all; the broker's last answers to one agent are lost on the way, and that
//! agent is killed in the middle of the outage: what the broker had written and the agent did not know comes twice. In the
//! second the spool is half as large as the first run needed.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::{Args, value_parser};
use dt_feed::probes;
use dt_feed::proto::Losses;
use dt_tests::servers::{Kafka, Place, kafka};
use dt_tests::topic::{self, Start, Topic};
use dt_tests::{Agent, Lab, Launch, SERVERS, agent, wait};

use crate::build;
use crate::clock;
use crate::setup::{self, Group};
use crate::workspace::Workspace;

/// Flags of `cargo xtask bench outage`.
#[derive(Args)]
pub struct Options {
    /// How long the broker is away, in seconds
    #[arg(long, value_name = "S", default_value_t = 120, value_parser = value_parser!(u32).range(10..=3_600))]
    seconds: u32,

    /// Probes per second of both agents together
    #[arg(long, value_name = "PPS", default_value_t = 10_000, value_parser = value_parser!(u32).range(100..=40_000))]
    rate: u32,
}

/// Sets up, builds, measures twice, prints; an error if a promise does not hold.
pub fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    setup::run(workspace, Group::Bench)?;
    let built = build::run(workspace)?;
    dt_tests::sweep()?;
    let libs = setup::kafka_libs(workspace);
    let needed = sufficient(options, &built.agent, &libs)?;
    let half = (needed / 2).max(LEAST_SPOOL);
    half_as_large(options, &built.agent, &libs, half)
}

/// The first run; returns how many bytes the spool of the agent that was not killed had grown to.
fn sufficient(options: &Options, agent: &Path, libs: &Path) -> Result<u64> {
    let mut scene = Scene::raise(options, agent, libs, 1 << 30)?;
    let away = Duration::from_secs(options.seconds.into());
    scene.lose_answers_to("n1")?;
    scene.kafka.kill()?;
    thread::sleep(away / 2);
    scene.agents[0].kill()?;
    let killed_at = clock::now_unix_ns();
    // Not before: the kernel goes on sending the last answer of a broker that is dead.
    scene.restore_answers_to("n1")?;
    scene.agents[0] = scene.launch("n1")?;
    thread::sleep(away / 2);
    let needed = spool_bytes(&scene.lab, "n2")?;
    let topic = scene.end()?;

    let mut starts = topic.starts();
    let killed = starts.remove("n1").context("batches of n1")?;
    let other = topic.only_start("n2")?;
    ensure!(killed.len() == 2, "{} starts of n1", killed.len());
    for start in killed.iter().chain([&other]) {
        let missing = start.missing()?;
        ensure!(missing.is_empty(), "lost: {missing:?}");
        ensure!(start.losses == Losses::default(), "{:?}", start.losses);
    }
    let lost_s = lost_by_kill_s(&topic, killed_at)?;
    let repeats: u64 = killed.iter().map(|start| start.repeats).sum();
    let gap_s = topic::longest_gap_ns(topic.batches.iter().filter(|batch| batch.source == "n2"))?
        as f64
        / 1e9;
    println!(
        "Kafka away for {} s, {} probes/s, spool with room:",
        options.seconds, options.rate
    );
    println!(
        "  n2, not killed: {}, no number missing, in order; spool up to {needed} bytes",
        told(&other)
    );
    println!("  n2, longest pause between probes to its peer: {gap_s:.3} s");
    println!(
        "  n1, before kill -9: {}, last batch closed {lost_s:.2} s before it",
        told(&killed[0])
    );
    println!("  n1, after it: {}, in order", told(&killed[1]));
    println!(
        "  raw repeats after the kill -9: {repeats}; left after the readers' removal: {}",
        topic.repeats_left()
    );
    ensure!(repeats > 0, "no repeat came about");
    ensure!(topic.repeats_left() == 0);
    // At most 2 s, and the window that was open.
    ensure!(lost_s < 3.0 && gap_s < 1.0);
    Ok(needed)
}

fn half_as_large(options: &Options, agent: &Path, libs: &Path, spool_bytes: u64) -> Result<()> {
    let mut scene = Scene::raise(options, agent, libs, spool_bytes)?;
    scene.kafka.kill()?;
    thread::sleep(Duration::from_secs(options.seconds.into()));
    let topic = scene.end()?;
    println!(
        "Kafka away for {} s, {} probes/s, spool of {spool_bytes} bytes:",
        options.seconds, options.rate
    );
    for source in ["n1", "n2"] {
        let start = topic.only_start(source)?;
        let missing = start.missing()?;
        let (first, last) = missing
            .first()
            .zip(missing.last())
            .context("nothing was lost")?;
        let losses = start.losses;
        let probes = missing_probes(&topic, source)?;
        println!(
            "  {source}: {}, in order; missing {} batches, numbers {first} to {last}, {probes} probes",
            told(&start),
            missing.len()
        );
        println!(
            "  {source}: published counts: {} batches for want of room in the spool, {} windows, {} probes; other kinds {}",
            losses.batches_spool_full,
            losses.windows_unwritten,
            losses.probes_lost,
            losses.batches_queue_full + losses.batches_rejected + losses.batches_spool_damaged,
        );
        ensure!(
            last - first + 1 == missing.len() as u64,
            "not one gap: {missing:?}"
        );
        ensure!(losses.batches_spool_full == missing.len() as u64);
        ensure!(losses.windows_unwritten == missing.len() as u64 && losses.probes_lost == probes);
    }
    Ok(())
}

/// Two agents that probe each other and report every probe, and a broker beside them.
struct Scene {
    agents: Vec<Agent>,
    kafka: Kafka,
    lab: Lab,
    agent: std::path::PathBuf,
    rate: u32,
    spool_bytes: u64,
}

impl Scene {
    /// Returns when batches of both are in the topic.
    fn raise(options: &Options, agent: &Path, libs: &Path, spool_bytes: u64) -> Result<Self> {
        let mut lab = Lab::mesh(2)?;
        lab.add_servers()?;
        agent::write_peers(&lab, &agent::all_members(&lab))?;
        let place = Place::on(&lab, SERVERS);
        let kafka = kafka::Options::new(libs).for_load(512).start(&place)?;
        let mut scene = Self {
            agents: Vec::new(),
            kafka,
            lab,
            agent: agent.to_owned(),
            rate: options.rate / 2,
            spool_bytes,
        };
        for host in ["n1", "n2"] {
            let started = scene.launch(host)?;
            scene.agents.push(started);
        }
        scene.wait_for("first batches", |topic| {
            ["n1", "n2"]
                .iter()
                .all(|source| last_sequence(topic, source) >= Some(5))
        })?;
        Ok(scene)
    }

    fn launch(&self, host: &str) -> Result<Agent> {
        let log = format!("{host}-{}", clock::now_unix_ns());
        Launch::of(&self.lab, host, self.agent.clone())
            .setting("DT_FEED", "kafka")
            .setting("KAFKA_BOOTSTRAP_SERVERS", self.kafka.address().to_string())
            .setting("DT_SPOOL_BYTES", self.spool_bytes.to_string())
            .setting("DT_DETAIL", "probes")
            .setting("DT_RATE", self.rate.to_string())
            .flags(&["--mode=tc"])
            .start(&log)
    }

    /// From now on the broker hears a host, and the host does not hear the broker; returns after some batches of that.
    fn lose_answers_to(&self, host: &str) -> Result<()> {
        // A route into nowhere would not do: the kernel drops what comes from an address that it cannot answer.
        self.answers_to(host, &["replace"], &["pfifo", "limit", "0"])?;
        thread::sleep(Duration::from_millis(2_500));
        Ok(())
    }

    fn restore_answers_to(&self, host: &str) -> Result<()> {
        self.answers_to(host, &["delete"], &[])
    }

    fn answers_to(&self, host: &str, verb: &[&str], queue: &[&str]) -> Result<()> {
        let servers = self.lab.host(SERVERS);
        let device = servers.device_to(host);
        let words = [&["tc", "qdisc"], verb, &["dev", device, "root"], queue].concat();
        servers.run(&words)?;
        Ok(())
    }

    /// Brings the broker back, waits until the spools are empty and more came, stops all, and reads the topic.
    fn end(mut self) -> Result<Topic> {
        self.kafka.start()?;
        let lab = &self.lab;
        wait::until("empty spool", Duration::from_mins(2), || {
            let left = spool_bytes(lab, "n1")? + spool_bytes(lab, "n2")?;
            Ok((left == 0).then_some(()))
        })?;
        thread::sleep(Duration::from_secs(3));
        for agent in &mut self.agents {
            ensure!(agent.stop()?.success(), "an agent failed");
        }
        let broker = self.kafka.address();
        self.lab
            .host(SERVERS)
            .enter(|| Topic::read(broker, TOPIC))?
    }

    fn wait_for(&self, what: &str, is_there: impl Fn(&Topic) -> bool + Sync) -> Result<()> {
        let broker = self.kafka.address();
        self.lab.host(SERVERS).enter(|| {
            Topic::wait_for(what, agent::LIMIT, broker, TOPIC, |topic| {
                is_there(topic).then_some(())
            })
        })?
    }
}

fn told(start: &Start) -> String {
    let (first, last) = (start.sequences.first(), start.sequences.last());
    format!(
        "{} batches, numbers {} to {}, {} probes",
        start.sequences.len(),
        first.copied().unwrap_or(0),
        last.copied().unwrap_or(0),
        start.probes
    )
}

fn last_sequence(topic: &Topic, source: &str) -> Option<u64> {
    let starts = topic.starts();
    starts.get(source)?.last()?.sequences.last().copied()
}

/// From the last batch of the killed start to the kill.
fn lost_by_kill_s(topic: &Topic, killed_at_unix_ns: u64) -> Result<f64> {
    let own = topic.batches.iter().filter(|batch| batch.source == "n1");
    let closed = own.map(|batch| batch.closed_unix_ns);
    let last = closed.filter(|closed| *closed <= killed_at_unix_ns).max();
    Ok((killed_at_unix_ns - last.context("no batch before the kill")?) as f64 / 1e9)
}

/// Probes to the only peer of a source that were numbered and are in no batch, between the first and the last that are.
fn missing_probes(topic: &Topic, source: &str) -> Result<u64> {
    let mut numbers = std::collections::BTreeSet::new();
    for batch in topic.batches.iter().filter(|batch| batch.source == source) {
        if let Some(block) = &batch.probes {
            numbers.extend(probes::decode(block)?.iter().map(|probe| probe.sequence));
        }
    }
    let (first, last) = numbers.first().zip(numbers.last()).context("no probes")?;
    Ok(u64::from(last - first) + 1 - numbers.len() as u64)
}

/// Bytes of all segments in an agent's spool.
fn spool_bytes(lab: &Lab, host: &str) -> Result<u64> {
    let spool = lab.dir().join("state").join(host).join("spool");
    let mut bytes = 0;
    for entry in fs::read_dir(&spool)? {
        let entry = entry?;
        let is_segment = entry.path().extension().is_some();
        if is_segment {
            // Deleted since it was listed, perhaps.
            bytes += entry.metadata().map_or(0, |metadata| metadata.len());
        }
    }
    Ok(bytes)
}

const TOPIC: &str = "_distributedTrace";
/// What the agent accepts at least.
const LEAST_SPOOL: u64 = 256 << 10;
