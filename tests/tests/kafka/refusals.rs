//! Settings that cannot work: each is named once, with what is wrong, and hurts nothing else.

use std::thread;

use anyhow::{Context, Result, ensure};
use dt_feed::segment::{Followed, Follower};
use dt_tests::servers::{Place, kafka};
use dt_tests::{Agent, Lab, SERVERS, skip_unless_equipped, skip_unless_served};

use super::{
    A_WHILE, TOPIC, check_probing, count_lines, lab, prepare, spool_of, verdict, wait_for_sequence,
};

#[test]
fn what_kafka_refuses_is_named_once_and_probing_goes_on() -> Result<()> {
    skip_unless_equipped!();
    skip_unless_served!();
    let lab = lab(5)?;
    let kafka = kafka::Options::given()?
        .line("auto.create.topics.enable=false")
        .user("agent", "right")
        .user("reader", "right")
        .start(&Place::on(&lab, SERVERS))?;
    // So that the one without the right to write at least sees the topic.
    kafka.create_topic(TOPIC, 1, &[])?;
    kafka.allow("reader", "Describe", TOPIC)?;
    kafka.allow("reader", "Describe", "mistyped")?;
    kafka.allow("reader", "Write", "something-else")?;
    let secure = kafka.sasl_address().to_string();
    let user = |user: &'static str, password: &'static str| {
        vec![
            "security.protocol=sasl_plaintext".to_owned(),
            "sasl.mechanism=PLAIN".to_owned(),
            format!("sasl.username={user}"),
            format!("sasl.password={password}"),
        ]
    };
    let start = |host: &str, broker: &str, topic: &str, properties: &[String]| {
        let properties: Vec<_> = properties.iter().map(String::as_str).collect();
        let launch = prepare(&lab, host, broker, &properties)?;
        launch.setting("DT_KAFKA_TOPIC", topic).start(host)
    };
    let mut agents = [
        start("n1", "nowhere.invalid:9092", TOPIC, &[])?,
        start("n2", &secure, TOPIC, &user("agent", "wrong"))?,
        start("n3", &secure, TOPIC, &user("agent", "right"))?,
        start("n4", &secure, TOPIC, &user("reader", "right"))?,
        start("n5", &secure, "mistyped", &user("reader", "right"))?,
    ];
    let cases = [
        ("unknown host name", vec!["nowhere.invalid"]),
        ("wrong credentials", vec!["Authentication failed"]),
        (
            "no right to see the topic",
            vec![TOPIC, "AuthorizationFailed"],
        ),
        (
            "no right to write to the topic",
            vec![TOPIC, "AuthorizationFailed"],
        ),
        (
            "topic that is not there and may not be created",
            vec!["mistyped", "does not exist"],
        ),
    ];
    let mut lines = Vec::new();
    for (agent, (_, words)) in agents.iter_mut().zip(&cases) {
        let line = agent.wait_until_said("Kafka takes no batches")?;
        let plain = line.replace(' ', "");
        for word in words {
            let found = line.contains(word) || plain.to_lowercase().contains(&word.to_lowercase());
            ensure!(found, "{word} is not in {line}");
        }
        ensure!(
            !line.contains("right\"") && !line.contains("wrong"),
            "{line}"
        );
        lines.push(line);
    }
    thread::sleep(A_WHILE);
    for (number, (agent, (case, _))) in agents.iter().zip(&cases).enumerate() {
        let said = count_lines(agent, "Kafka takes no batches")?;
        ensure!(said <= 2, "{case}: said {said} times");
        let gap_s = check_spool(&lab, &format!("n{}", number + 1))
            .with_context(|| agent.process.output().unwrap_or_default())?;
        verdict(
            &format!("{case}: one clear error, batches kept in the spool, probing goes on"),
            &format!(
                "{said} line(s) in 4 s and more, {:?}, longest pause between probes {gap_s:.3} s",
                cause(&lines[number])
            ),
        );
    }
    mended(&lab, &kafka, &mut agents[3])
}

/// Once the right is given, all that was kept is written.
fn mended(lab: &Lab, kafka: &dt_tests::servers::Kafka, agent: &mut Agent) -> Result<()> {
    kafka.allow("reader", "Write", TOPIC)?;
    agent.wait_until_said("Kafka takes batches again")?;
    let broker = kafka.address();
    let topic = lab
        .host(SERVERS)
        .enter(|| wait_for_sequence(broker, "n4", 4))??;
    let start = topic.only_start("n4")?;
    ensure!(start.sequences.first() == Some(&0) && start.missing()?.is_empty());
    verdict(
        "the right to write is given later: all that was kept is written, in order",
        &format!("{} batches from 0 on without a gap", start.sequences.len()),
    );
    Ok(())
}

/// What is in a spool has every probe.
fn check_spool(lab: &Lab, host: &str) -> Result<f64> {
    let mut follower = Follower::new(spool_of(lab, host));
    let mut batches = Vec::new();
    while let Some(Followed::Batch(batch)) = follower.poll()? {
        batches.push(*batch);
    }
    let sequences: Vec<_> = batches.iter().map(|batch| batch.sequence).collect();
    ensure!(
        sequences == (0..sequences.len() as u64).collect::<Vec<_>>(),
        "{host}: {sequences:?}"
    );
    check_probing(&batches).with_context(|| format!("{host}: {} batches", batches.len()))
}

fn cause(line: &str) -> &str {
    let cause = line
        .split("Kafka takes no batches: ")
        .nth(1)
        .unwrap_or(line);
    cause.split(" servers=").next().unwrap_or(cause)
}
