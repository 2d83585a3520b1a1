//! The feed through a real Kafka broker: what is promised when broker, disk or agent fail.
//!
//! Each fault prints one line, `promised: … | seen: …`, from which the table in `docs/reliability.md` is made.

mod absences;
mod disk;
mod outage;
mod refusals;
mod rounds;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, ensure};
use dt_feed::proto::Batch;
use dt_tests::topic::{self, Topic};
use dt_tests::{Agent, Lab, Launch, agent};

/// An agent that reports every probe through Kafka; the last of `properties` counts.
fn launch(lab: &Lab, host: &str, broker: &str, properties: &[&str]) -> Result<Agent> {
    prepare(lab, host, broker, properties)?.start(host)
}

fn prepare<'a>(lab: &'a Lab, host: &str, broker: &str, properties: &[&str]) -> Result<Launch<'a>> {
    Ok(Launch::on(lab, host)?
        .setting("DT_FEED", "kafka")
        .setting("KAFKA_BOOTSTRAP_SERVERS", broker)
        .setting("DT_KAFKA_PROPERTY", properties.join("\n"))
        .setting("DT_KAFKA_PARTITIONS", "3")
        .setting("DT_DETAIL", "probes")
        .flags(&["--mode=tc"]))
}

/// Hosts that probe each other, and one for servers beside them.
fn lab(hosts: u16) -> Result<Lab> {
    let mut lab = Lab::mesh(hosts)?;
    lab.add_servers()?;
    agent::write_peers(&lab, &agent::all_members(&lab))?;
    Ok(lab)
}

/// Where an agent of a lab keeps what Kafka does not take.
fn spool_of(lab: &Lab, host: &str) -> PathBuf {
    lab.dir().join("state").join(host).join("spool")
}

/// Lines of an agent's log with this text.
fn count_lines(agent: &Agent, text: &str) -> Result<usize> {
    let output = agent.process.output()?;
    Ok(output.lines().filter(|line| line.contains(text)).count())
}

/// No probe was late by more than a second; returns the longest pause in seconds.
fn check_probing<'a>(batches: impl IntoIterator<Item = &'a Batch>) -> Result<f64> {
    check_pauses(batches, 0)
}

/// The same where `unread` batches in a row, of a second each, are not among these.
fn check_pauses<'a>(batches: impl IntoIterator<Item = &'a Batch>, unread: u64) -> Result<f64> {
    let gap_s = topic::longest_gap_ns(batches)? as f64 / 1e9;
    let limit_s = 1.0 + unread as f64;
    ensure!(
        gap_s < limit_s,
        "no probe for {gap_s} s, {unread} batches unread"
    );
    Ok(gap_s)
}

/// Waits until a batch of `source` with at least this number is in the topic.
fn wait_for_sequence(broker: SocketAddr, source: &str, least: u64) -> Result<Topic> {
    let what = format!("batch {least} of {source} in the topic");
    Topic::wait_for(&what, agent::LIMIT, broker, TOPIC, |topic| {
        let start = topic.starts().get(source)?.last()?.clone();
        let last = *start.sequences.last()?;
        (last >= least).then(|| topic.clone())
    })
}

fn verdict(promised: &str, seen: &str) {
    println!("promised: {promised} | seen: {seen}");
}

const TOPIC: &str = "_distributedTrace";
/// Time in which some batches are made, and the spool is used.
const A_WHILE: Duration = Duration::from_secs(4);
