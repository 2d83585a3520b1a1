//! `dt-console` on a topic of a real broker: what it shows, what it removes, and what its groups hand over.
//!
//! One broker serves all steps, each on a topic of its own.

mod program;
mod topic;

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use dt_tests::servers::kafka::Options;
use dt_tests::servers::{Kafka, Place};
use dt_tests::{Lab, skip_unless_equipped, skip_unless_served, wait};
use serde_json::Value;

use program::{Program, run};
use topic::{Topic, batch};

#[test]
fn the_console_reads_a_topic_of_a_real_broker() -> Result<()> {
    skip_unless_equipped!();
    skip_unless_served!();
    let lab = Lab::empty()?;
    let kafka = Options::given()?
        .line("num.partitions=4")
        .line("group.initial.rebalance.delay.ms=0")
        .user("reader", "right")
        .start(&Place::local(&lab))?;
    let mut bench = Bench { kafka, lab };
    bench.what_it_cannot_read_is_one_clear_message()?;
    bench.the_matrix_is_what_was_produced()?;
    bench.an_export_has_a_row_for_each_window_in_its_range()?;
    bench.repeats_are_removed_and_what_is_older_than_ten_minutes_of_log_is_not_known()?;
    bench.a_restart_neither_loses_nor_repeats()?;
    bench.a_group_in_the_middle_of_a_topic_knows_the_names_told_before()?;
    bench.two_members_share_the_topic_and_a_rebalance_neither_loses_nor_repeats()?;
    bench.a_broker_that_goes_and_comes_back_is_told_once_and_nothing_is_lost()
}

struct Bench {
    kafka: Kafka,
    lab: Lab,
}

impl Bench {
    fn topic(&self, name: &str) -> Result<Topic> {
        Topic::new(&self.kafka.address().to_string(), name)
    }

    /// `dt-console COMMAND`, with the broker and a topic.
    fn arguments(&self, command: &str, topic: &str, more: &[&str]) -> Vec<String> {
        let broker = self.kafka.address().to_string();
        let words = [&[command, "--kafka", &broker, "--topic", topic], more].concat();
        words.into_iter().map(str::to_owned).collect()
    }

    fn what_it_cannot_read_is_one_clear_message(&self) -> Result<()> {
        let open = self.kafka.address().to_string();
        let sasl = self.kafka.sasl_address().to_string();
        let credentials = [
            "--kafka-property=security.protocol=SASL_PLAINTEXT",
            "--kafka-property=sasl.mechanism=PLAIN",
            "--kafka-property=sasl.username=reader",
            "--kafka-property=sasl.password=wrong",
        ];
        let table: [(&str, &[&str], &str); 4] = [
            (
                "nobody.invalid:9092",
                &[],
                "cannot reach Kafka at nobody.invalid:9092",
            ),
            (&open, &["--topic=absent"], "there is no topic absent at"),
            (&sasl, &credentials, "refuses the credentials"),
            (
                &open,
                &["--kafka-property=no.such=1"],
                "does not take the property no.such",
            ),
        ];
        for (broker, more, expected) in table {
            let words = [
                &["tail", "--once", "--wait", "500ms", "--kafka", broker],
                more,
            ]
            .concat();
            let ended = run(&words)?;
            ensure!(
                ended.status == Some(1),
                "{words:?} ended with {:?}",
                ended.status
            );
            ensure!(
                ended.errors.contains(expected),
                "{words:?} said {}",
                ended.errors
            );
            ensure!(
                ended.errors.lines().count() == 1,
                "{words:?} said {}",
                ended.errors
            );
            ensure!(
                !ended.errors.contains("wrong"),
                "a password was told: {}",
                ended.errors
            );
        }
        Ok(())
    }

    fn the_matrix_is_what_was_produced(&self) -> Result<()> {
        let topic = self.topic("matrix")?;
        let now_ns = wait::unix_now_ns()?;
        for (source, rack) in [("n1", "r1"), ("n2", "r1"), ("n3", "r2")] {
            for sequence in 0..5 {
                let batch = batch(source, rack, sequence, now_ns);
                topic.send(&batch, None)?;
                // A producer that did not hear of the acknowledgement.
                topic.send(&batch, None)?;
            }
        }
        topic.send_bytes(b"no batch", Some(2))?;
        topic.flush()?;

        let words = self.arguments("matrix", "matrix", &["--once", "--json", "--span", "all"]);
        let ended = run(&words)?;
        ensure!(ended.status == Some(0), "{}", ended.errors);
        let picture: Value = serde_json::from_str(&ended.output)?;
        let cells = picture["cells"].as_array().context("there are cells")?;
        ensure!(cells.len() == 6, "{picture}");
        for cell in cells {
            // Five windows of ten probes, one of them lost.
            let expected = [
                ("windows", 5),
                ("sent", 50),
                ("received", 45),
                ("lost_return", 5),
                ("p50_ns", 5_000),
                ("max_ns", 9_000),
            ];
            for (name, count) in expected {
                ensure!(cell[name] == count, "{name} of {cell}");
            }
            ensure!(cell["state"] == "alive" && cell["loss"] == 0.1, "{cell}");
        }
        ensure!(picture["repeated_batches"] == 15, "{picture}");
        ensure!(picture["broken_messages"] == 1, "{picture}");
        ensure!(picture["missing_batches"] == 0, "{picture}");
        ensure!(
            ended.errors.contains("matrix, partition 2, offset"),
            "{}",
            ended.errors
        );

        let words = self.arguments("matrix", "matrix", &["--once", "--json", "--by", "rack"]);
        let picture: Value = serde_json::from_str(&run(&words)?.output)?;
        let sent: BTreeMap<String, u64> = picture["cells"]
            .as_array()
            .context("there are cells")?
            .iter()
            .map(|cell| {
                let name = |end: &str| cell[end].as_str().unwrap_or_default().to_owned();
                (
                    name("from") + " " + &name("to"),
                    cell["sent"].as_u64().unwrap_or(0),
                )
            })
            .collect();
        let expected = [("r1 r1", 100), ("r1 r2", 100), ("r2 r1", 100)];
        let expected = expected.map(|(pair, sent)| (pair.to_owned(), sent));
        ensure!(sent == BTreeMap::from(expected), "{sent:?}");
        Ok(())
    }

    fn an_export_has_a_row_for_each_window_in_its_range(&self) -> Result<()> {
        let topic = self.topic("export")?;
        let now_ns = wait::unix_now_ns()?;
        for (age_s, sequence) in [(7_200, 0), (1_800, 1), (600, 2)] {
            let end_ns = now_ns - age_s * 1_000_000_000;
            topic.send(
                &batch("n1", "r1", sequence, end_ns),
                Some(end_ns / 1_000_000),
            )?;
        }
        topic.flush()?;
        let file = self.lab.dir().join("windows.csv");
        let out = file.to_string_lossy().into_owned();
        let range = ["--from", "1h", "--to", "20m", "--out", &out];
        let ended = run(&self.arguments("export", "export", &range))?;
        ensure!(ended.status == Some(0), "{}", ended.errors);
        let text = fs::read_to_string(&file)?;
        let lines: Vec<_> = text.lines().collect();
        // The names, and the windows about both peers in the one batch of the range.
        ensure!(lines.len() == 3, "{text}");
        let names: Vec<_> = lines[0].split(',').collect();
        let column = |name: &str| names.iter().position(|found| *found == name);
        let sequence = column("batch_sequence").context("there is such a column")?;
        ensure!(lines[1].split(',').nth(sequence) == Some("1"), "{text}");

        let file = self.lab.dir().join("windows.parquet");
        let out = file.to_string_lossy().into_owned();
        let ended = run(&self.arguments("export", "export", &["--out", &out]))?;
        ensure!(ended.errors.contains("6 rows written"), "{}", ended.errors);
        let bytes = fs::read(&file)?;
        ensure!(
            bytes.starts_with(b"PAR1") && bytes.ends_with(b"PAR1"),
            "no Parquet file"
        );
        Ok(())
    }

    /// Log time is that of the messages, so an hour of it takes no time here.
    fn repeats_are_removed_and_what_is_older_than_ten_minutes_of_log_is_not_known(
        &self,
    ) -> Result<()> {
        let topic = self.topic("window")?;
        let now_ns = wait::unix_now_ns()?;
        let send = |sequence: u64, age_min: u64| -> Result<()> {
            let time_ms = now_ns / 1_000_000 - age_min * 60_000;
            topic.send(&batch("n1", "r1", sequence, now_ns), Some(time_ms))
        };
        let read = || self.read_once("window", "window");
        for (sequence, age_min) in [(0, 40), (1, 20), (2, 9), (3, 1)] {
            send(sequence, age_min)?;
        }
        topic.flush()?;
        ensure!(read()? == [0, 1, 2, 3]);
        // Two and three are known from the ten minutes before the offset, nought and one stand further back.
        for sequence in [2, 3, 1, 4, 4] {
            send(sequence, 0)?;
        }
        topic.flush()?;
        let found = read()?;
        ensure!(found == [1, 4], "{found:?}");
        Ok(())
    }

    fn a_restart_neither_loses_nor_repeats(&self) -> Result<()> {
        let topic = self.topic("restart")?;
        let now_ns = wait::unix_now_ns()?;
        let mut found = Vec::new();
        for round in 0..3_u64 {
            for sequence in 10 * round..10 * (round + 1) {
                topic.send(&batch("n1", "r1", sequence, now_ns), None)?;
                // What was read by the member before this one.
                topic.send(
                    &batch("n1", "r1", sequence.saturating_sub(10), now_ns),
                    None,
                )?;
            }
            topic.flush()?;
            found.extend(self.read_once("restart", "restart")?);
        }
        found.sort_unstable();
        ensure!(found == (0..30).collect::<Vec<_>>(), "{found:?}");
        Ok(())
    }

    fn a_group_in_the_middle_of_a_topic_knows_the_names_told_before(&self) -> Result<()> {
        let topic = self.topic("names")?;
        let now_ns = wait::unix_now_ns()?;
        topic.send(&batch("n1", "r1", 0, now_ns), None)?;
        topic.flush()?;
        self.read_once("names", "names")?;
        let mut without_names = batch("n1", "r1", 1, now_ns);
        without_names.peers.clear();
        topic.send(&without_names, None)?;
        topic.flush()?;
        let words = ["--group=names", "--since=start", "--once", "--json"];
        let ended = run(&self.arguments("tail", "names", &words))?;
        let peers: Vec<Value> = ended
            .output
            .lines()
            .map(|line| Ok(serde_json::from_str::<Value>(line)?["peer"].clone()))
            .collect::<Result<_>>()?;
        ensure!(peers == ["n2", "n3"], "{}", ended.output);
        Ok(())
    }

    fn two_members_share_the_topic_and_a_rebalance_neither_loses_nor_repeats(&self) -> Result<()> {
        const SOURCES: u64 = 16;
        let topic = self.topic("shared")?;
        let now_ns = wait::unix_now_ns()?;
        let mut sent = 0_u64;
        // A few batches of each source, with one repeat among them.
        let mut send = |rounds: u64| -> Result<u64> {
            for _ in 0..rounds {
                for source in 0..SOURCES {
                    topic.send(&batch(&format!("s{source}"), "r1", sent, now_ns), None)?;
                    topic.send(
                        &batch(&format!("s{source}"), "r1", sent.saturating_sub(1), now_ns),
                        None,
                    )?;
                }
                sent += 1;
            }
            topic.flush()?;
            Ok(sent * SOURCES)
        };
        let words = self.arguments(
            "tail",
            "shared",
            &[
                "--group=shared",
                "--since=start",
                "--json",
                // Members hear of a rebalance by their heartbeats.
                "--kafka-property=heartbeat.interval.ms=300",
            ],
        );
        let member = |name: &str| Program::start(&words, &self.lab.dir().join(name));
        let all = |members: &[&Program]| -> Result<Vec<(String, u64)>> {
            let mut found = Vec::new();
            for member in members {
                found.extend(batches(&member.output()?)?);
            }
            Ok(found)
        };
        let wait_for = |members: &[&Program], count: u64| {
            wait::until(&format!("{count} batches at the members"), LIMIT, || {
                Ok((all(members)?.len() as u64 >= count).then_some(()))
            })
        };

        let mut first = member("first")?;
        let count = send(20)?;
        wait_for(&[&first], count)?;
        let mut second = member("second")?;
        // Until the second one has a share, and while partitions move.
        wait::until("a batch at the second member", LIMIT, || {
            send(2)?;
            Ok((!second.output()?.is_empty()).then_some(()))
        })?;
        let count = send(20)?;
        wait_for(&[&first, &second], count)?;
        ensure!(!first.output()?.is_empty(), "the first member has nothing");
        let before_leaving = batches(&first.output()?)?.len();
        // It leaves while more comes, and the other one takes its partitions over.
        let count = send(20)?;
        first.interrupt()?;
        wait_for(&[&first, &second], count)?;
        let count = send(20)?;
        wait_for(&[&first, &second], count)?;
        second.interrupt()?;

        let mut found = all(&[&first, &second])?;
        ensure!(
            before_leaving > 0 && found.len() as u64 == count,
            "{} of {count}",
            found.len()
        );
        found.sort();
        let distinct = found.windows(2).filter(|pair| pair[0] != pair[1]).count() + 1;
        ensure!(
            distinct == found.len(),
            "{} came twice",
            found.len() - distinct
        );
        Ok(())
    }

    fn a_broker_that_goes_and_comes_back_is_told_once_and_nothing_is_lost(&mut self) -> Result<()> {
        let now_ns = wait::unix_now_ns()?;
        let topic = self.topic("outage")?;
        topic.send(&batch("n1", "r1", 0, now_ns), None)?;
        topic.flush()?;
        let words = self.arguments("tail", "outage", &["--since=start", "--json"]);
        let mut tail = Program::start(&words, &self.lab.dir().join("outage"))?;
        let wait_for = |tail: &Program, count: usize| {
            wait::until(&format!("{count} batches"), LIMIT, || {
                Ok((batches(&tail.output()?)?.len() >= count).then_some(()))
            })
        };
        wait_for(&tail, 1)?;
        self.kafka.kill()?;
        wait::until("word of the outage", LIMIT, || {
            Ok(tail.errors()?.contains("is away").then_some(()))
        })?;
        self.kafka.start()?;
        topic.send(&batch("n1", "r1", 1, now_ns), None)?;
        topic.flush()?;
        wait_for(&tail, 2)?;
        tail.interrupt()?;
        let errors = tail.errors()?;
        ensure!(errors.lines().count() == 2, "{errors}");
        ensure!(errors.contains("Kafka is back"), "{errors}");
        ensure!(batches(&tail.output()?)?.len() == 2, "{}", tail.output()?);
        Ok(())
    }

    /// Sequences of the batches that a member of a group prints until the end of the topic.
    fn read_once(&self, topic: &str, group: &str) -> Result<Vec<u64>> {
        let words = ["--group", group, "--since", "start", "--once", "--json"];
        let ended = run(&self.arguments("tail", topic, &words))?;
        ensure!(ended.status == Some(0), "{}", ended.errors);
        Ok(batches(&ended.output)?
            .into_iter()
            .map(|(_, sequence)| sequence)
            .collect())
    }
}

/// The batches whose windows were printed, by source and sequence; each prints two windows.
fn batches(output: &str) -> Result<Vec<(String, u64)>> {
    let mut found = Vec::new();
    // The last line may still be being written.
    let whole = output.rfind('\n').map_or("", |end| &output[..end]);
    for line in whole.lines() {
        let row: Value = serde_json::from_str(line)?;
        if row["peer"] == "n2" {
            let source = row["source"].as_str().context("it has a source")?;
            let sequence = row["batch_sequence"]
                .as_u64()
                .context("it has a sequence")?;
            found.push((source.to_owned(), sequence));
        }
    }
    Ok(found)
}

const LIMIT: Duration = Duration::from_mins(1);
