//! The example consumers are run against a real broker, as whoever copies them would run them, and agree.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use dt_feed::probes::{self, Outcome, ProbeRecord};
use dt_feed::proto::{Batch, Method, Mode, ProbeClass};
use dt_feed::{Histogram, batch};
use dt_tests::agent;
use dt_tests::servers::{Place, kafka};
use dt_tests::{Host, Lab, Launch, SERVERS, given, skip_unless_equipped, skip_unless_served, wait};
use prost::Message;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{ClientConfig, Message as _, Offset, TopicPartitionList};

#[test]
fn three_consumers_in_three_languages_print_the_same_p50_per_pair() -> Result<()> {
    skip_unless_equipped!();
    skip_unless_served!();
    let mut lab = Lab::mesh(3)?;
    lab.add_servers()?;
    let kafka = kafka::Options::given()?.start(&Place::on(&lab, SERVERS))?;
    kafka.create_topic(TOPIC, PARTITIONS, &[])?;
    let consumers = Consumers {
        host: lab.host(SERVERS),
        servers: kafka.address().to_string(),
        dir: lab.dir(),
    };
    let mut batches = measure(&lab, &consumers.servers)?;
    batches.push(extreme()?);
    consumers
        .host
        .enter(|| add_what_may_come(&consumers.servers, &batches))??;

    let rust = consumers.rust()?;
    assert_eq!(rust, expected(&batches)?);
    assert_eq!(rust.lines().count(), 1 + PAIRS, "{rust}");
    assert_eq!(consumers.python(&[])?, rust);
    assert_eq!(consumers.sql()?, rust);

    let probes = consumers.python(&["--probes"])?;
    let mut found: Vec<_> = probes.lines().skip(1).map(str::to_owned).collect();
    let mut expected = probe_lines(&batches)?;
    found.sort();
    expected.sort();
    assert_eq!(found, expected);
    Ok(())
}

/// The programs of `examples`, on a host that reaches the broker.
struct Consumers<'a> {
    host: &'a Host,
    servers: String,
    dir: PathBuf,
}

impl Consumers<'_> {
    fn rust(&self) -> Result<String> {
        let mut command = self.host.command(env!("CARGO_BIN_EXE_example-in-rust"));
        output(command.arg(&self.servers))
    }

    fn python(&self, flags: &[&str]) -> Result<String> {
        let mut command = self.host.command(&given::python()?.to_string_lossy());
        command
            .arg(examples().join("python/consume.py"))
            .arg(&self.servers)
            .args(flags)
            .env("PYTHONPATH", self.compiled_schema()?)
            .env("PYTHONDONTWRITEBYTECODE", "1");
        output(&mut command)
    }

    /// `dt-console export`, twice, so that each window is there twice; then the query.
    fn sql(&self) -> Result<String> {
        for name in ["windows-1.parquet", "windows-2.parquet"] {
            let mut export = self.host.command(&given::console()?.to_string_lossy());
            export.args(["export", "--kafka", &self.servers, "--out"]);
            output(export.arg(self.dir.join(name)))?;
        }
        let mut query = Command::new(given::python()?);
        query
            .args(["-c", RUN_QUERY])
            .arg(examples().join("sql/p50.sql"))
            .current_dir(&self.dir);
        output(&mut query)
    }

    /// The directory with the Python module of the schema, made by `protoc`.
    fn compiled_schema(&self) -> Result<PathBuf> {
        let out = self.dir.join("python");
        fs::create_dir_all(&out)?;
        let root = examples().join("../api/proto");
        let mut protoc = Command::new("protoc");
        protoc
            .arg("--proto_path")
            .arg(&root)
            .arg("--python_out")
            .arg(&out)
            .arg(root.join("v1/messages.proto"));
        output(&mut protoc)?;
        Ok(out)
    }
}

/// What three real agents publish in some seconds: each batch once, in the order of the topic.
fn measure(lab: &Lab, servers: &str) -> Result<Vec<Batch>> {
    agent::write_peers(lab, &agent::all_members(lab))?;
    let mut agents = Vec::new();
    for host in lab.hosts() {
        let launch = Launch::on(lab, host.name())?
            .setting("DT_FEED", "kafka")
            .setting("KAFKA_BOOTSTRAP_SERVERS", servers)
            .flags(&["--mode=tc", "--detail=probes"]);
        agents.push(launch.start(host.name())?);
    }
    let mut log = lab.host(SERVERS).enter(|| Log::open(servers))??;
    wait::until("measurements of every pair", LIMIT, || {
        log.read()?;
        // Pairs without a name yet are not complete.
        let pairs = pairs(&log.batches).unwrap_or_default();
        let complete = pairs.values().filter(|rtt| rtt.count() >= 200);
        Ok((complete.count() == PAIRS).then_some(()))
    })?;
    for agent in &mut agents {
        ensure!(agent.stop()?.success(), "an agent did not end well");
    }
    log.read_to_end()?;
    Ok(log.batches)
}

/// The topic as the test reads it, with another memory of repeats than the examples have.
struct Log {
    consumer: BaseConsumer,
    /// The next offset of each partition.
    next: [i64; PARTITIONS as usize],
    seen: BTreeSet<(String, u64, u64)>,
    batches: Vec<Batch>,
}

impl Log {
    fn open(servers: &str) -> Result<Self> {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", servers)
            .set("group.id", "test")
            .create()?;
        let mut all = TopicPartitionList::new();
        for partition in 0..PARTITIONS {
            all.add_partition_offset(TOPIC, partition as i32, Offset::Beginning)?;
        }
        consumer.assign(&all)?;
        Ok(Self {
            consumer,
            next: [0; PARTITIONS as usize],
            seen: BTreeSet::new(),
            batches: Vec::new(),
        })
    }

    /// Takes what has come.
    fn read(&mut self) -> Result<()> {
        while let Some(message) = self.consumer.poll(Duration::from_millis(10)) {
            let message = message?;
            self.next[message.partition() as usize] = message.offset() + 1;
            let batch = batch::decode(message.payload().context("an empty message")?)?;
            let identity = (batch.source.clone(), batch.start_id, batch.sequence);
            if self.seen.insert(identity) {
                self.batches.push(batch);
            }
        }
        Ok(())
    }

    /// Takes all that is there now.
    fn read_to_end(&mut self) -> Result<()> {
        for partition in 0..PARTITIONS {
            let ends = self
                .consumer
                .fetch_watermarks(TOPIC, partition as i32, LIMIT)?;
            wait::until("end of a partition", LIMIT, || {
                self.read()?;
                Ok((self.next[partition as usize] >= ends.1).then_some(()))
            })?;
        }
        Ok(())
    }
}

/// A batch of probes that no agent would see: every outcome, and numbers of all sizes.
fn extreme() -> Result<Batch> {
    let outcomes = [
        Outcome::LostForward,
        Outcome::LostReturn,
        Outcome::LostUnknown,
        Outcome::CorruptForward,
        Outcome::CorruptReturn,
        Outcome::Overrun,
        Outcome::Refused,
        Outcome::NotAdmitted,
        Outcome::PeerRestarted,
        Outcome::Straddled,
        Outcome::SendFailed,
    ];
    let mut state = 1_u64;
    // Of any size: as many small numbers as great ones.
    let mut draw = || {
        state = state
            .wrapping_mul(0x5851_F42D_4C95_7F2D)
            .wrapping_add(0x1405_7B7E_F767_814F);
        state.rotate_left(29) >> (state >> 58)
    };
    let mut records = Vec::new();
    for row in 0..1_000 {
        let hops = [None, Some(0), Some(u8::MAX)];
        records.push(ProbeRecord {
            peer: draw() as u32,
            sent_unix_us: draw(),
            sequence: draw() as u32,
            outcome: match row % 13 {
                0 => Outcome::Late { rtt_ns: draw() },
                kind if kind <= outcomes.len() => outcomes[kind - 1],
                _ => Outcome::Received { rtt_ns: draw() },
            },
            source_port: draw() as u16,
            hops_forward: hops[draw() as usize % 3],
            hops_return: hops[draw() as usize % 3],
            method: Method {
                mode: draw() as i32 & 3,
                ..Method::default()
            },
            suspect_reasons: draw() as u32,
            class: ProbeClass {
                dscp: [None, Some(0), Some(63)][draw() as usize % 3],
                packet_bytes: draw() as u32 % 20,
            },
        });
    }
    Ok(Batch {
        source: EXTREME.to_owned(),
        probes: Some(probes::encode(&mut records)?),
        ..Batch::default()
    })
}

/// Adds to the topic what may come in one: every third batch again, a batch of extremes, and something that is no batch.
fn add_what_may_come(servers: &str, batches: &[Batch]) -> Result<()> {
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", servers)
        // As the agents do, so that a copy comes where the batch is: nobody looks for repeats in other partitions.
        .set("partitioner", "murmur2")
        .set("compression.type", "zstd")
        .create()?;
    let send = |key: &str, value: &[u8]| -> Result<()> {
        let record = BaseRecord::to(TOPIC).key(key).payload(value);
        producer.send(record).map_err(|(error, _)| error.into())
    };
    let repeated = batches.iter().step_by(3);
    let extreme = batches.last().filter(|batch| batch.source == EXTREME);
    for batch in repeated.chain(extreme) {
        send(&batch.source, &batch.encode_to_vec())?;
    }
    send("stranger", b"\xff\xff")?;
    producer.flush(LIMIT)?;
    Ok(())
}

/// What the consumers should print.
fn expected(batches: &[Batch]) -> Result<String> {
    let mut text = String::from("source,peer,received,p50_ns\n");
    for ((source, peer), rtt) in pairs(batches)? {
        let p50_ns = rtt.quantile(0.5).context("nothing came back")?;
        writeln!(text, "{source},{peer},{},{p50_ns}", rtt.count())?;
    }
    Ok(text)
}

/// All round trip times by source and peer.
fn pairs(batches: &[Batch]) -> Result<BTreeMap<(&str, &str), Histogram>> {
    let mut names = BTreeMap::new();
    let mut pairs: BTreeMap<(&str, &str), Histogram> = BTreeMap::new();
    for batch in batches {
        for peer in &batch.peers {
            names.insert((&batch.source, peer.index), peer.name.as_str());
        }
        for window in &batch.windows {
            let Some(rtt) = &window.rtt else { continue };
            let peer = names.get(&(&batch.source, window.peer));
            let pair = (
                batch.source.as_str(),
                *peer.context("a peer without a name")?,
            );
            pairs.entry(pair).or_default().merge(&rtt.try_into()?);
        }
    }
    Ok(pairs)
}

/// A line for each probe, as the example in Python prints it.
fn probe_lines(batches: &[Batch]) -> Result<Vec<String>> {
    let mut lines = Vec::new();
    for batch in batches {
        if let Some(block) = &batch.probes {
            let probes = probes::decode(block)?;
            lines.extend(probes.iter().map(|probe| probe_line(&batch.source, probe)));
        }
    }
    ensure!(
        lines.len() > 1_000,
        "the agents reported {} probes",
        lines.len()
    );
    Ok(lines)
}

fn probe_line(source: &str, probe: &ProbeRecord) -> String {
    let text = |number: Option<u64>| number.map_or_else(String::new, |number| number.to_string());
    [
        source.to_owned(),
        probe.peer.to_string(),
        probe.sent_unix_us.to_string(),
        probe.sequence.to_string(),
        probe.outcome.code().to_string(),
        text(probe.outcome.rtt_ns()),
        probe.source_port.to_string(),
        text(probe.hops_forward.map(u64::from)),
        text(probe.hops_return.map(u64::from)),
        Mode::try_from(probe.method.mode)
            .unwrap_or_default()
            .as_str_name()
            .to_owned(),
        probe.suspect_reasons.to_string(),
        text(probe.class.dscp.map(u64::from)),
        probe.class.packet_bytes.to_string(),
    ]
    .join(",")
}

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples")
}

fn output(command: &mut Command) -> Result<String> {
    let output = command
        .output()
        .with_context(|| format!("cannot start {command:?}"))?;
    ensure!(
        output.status.success(),
        "{command:?} ended with {}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8(output.stdout)?)
}

/// What `duckdb -csv < FILE` does, in the Python package of it.
const RUN_QUERY: &str = "\
import csv, sys, duckdb
query = duckdb.sql(open(sys.argv[1]).read())
csv.writer(sys.stdout, lineterminator='\\n').writerows([query.columns, *query.fetchall()])
";
const TOPIC: &str = "_distributedTrace";
const PARTITIONS: u32 = 2;
/// Of three hosts, each with each.
const PAIRS: usize = 6;
const EXTREME: &str = "extreme";
const LIMIT: Duration = Duration::from_secs(30);
