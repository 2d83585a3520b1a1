//! The broker is away for two minutes while 10,000 probes a second are reported one by one.

use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use dt_feed::proto::Losses;
use dt_tests::servers::{Place, kafka};
use dt_tests::topic::Topic;
use dt_tests::{Agent, SERVERS, skip_unless_equipped, skip_unless_served};

use super::{TOPIC, check_probing, lab, prepare, verdict, wait_for_sequence};

#[test]
fn two_minutes_without_a_broker_under_load_cost_nothing() -> Result<()> {
    skip_unless_equipped!();
    skip_unless_served!();
    let lab = lab(2)?;
    let mut kafka = kafka::Options::given()?
        .for_load(512)
        .start(&Place::on(&lab, SERVERS))?;
    let broker = kafka.address();
    let servers = lab.host(SERVERS);
    let start = |host: &str| -> Result<Agent> {
        prepare(&lab, host, &broker.to_string(), &[])?
            .setting("DT_RATE", (RATE / 2).to_string())
            .start(host)
    };
    let mut agents = [start("n1")?, start("n2")?];
    for host in HOSTS {
        servers.enter(|| wait_for_sequence(broker, host, 5))??;
    }
    kafka.kill()?;
    // The fault itself: so long, whatever happens meanwhile.
    thread::sleep(AWAY);
    kafka.start()?;
    // One batch a second was made meanwhile, and some come after the spool.
    for host in HOSTS {
        servers.enter(|| wait_for_sequence(broker, host, AWAY.as_secs() + 10))??;
    }
    for agent in &mut agents {
        ensure!(agent.stop()?.success());
    }
    let topic = servers.enter(|| Topic::read(broker, TOPIC))??;
    let (mut probes, mut gap_s) = (0, 0.0_f64);
    for host in HOSTS {
        let start = topic.only_start(host)?;
        ensure!(start.sequences.first() == Some(&0), "{host} lost the first");
        ensure!(start.missing()?.is_empty(), "{host}: {:?}", start.missing());
        ensure!(start.losses == Losses::default(), "{:?}", start.losses);
        let own = topic.batches.iter().filter(|batch| batch.source == host);
        gap_s = gap_s.max(check_probing(own.clone())?);
        let closed = own.map(|batch| batch.closed_unix_ns);
        let (first, last) = closed
            .clone()
            .min()
            .zip(closed.max())
            .context("no batches")?;
        let seconds = (last - first) as f64 / 1e9;
        ensure!(seconds > AWAY.as_secs_f64(), "only {seconds} s");
        probes += start.probes;
    }
    verdict(
        "Kafka gone for 120 s at 10,000 probes/s: nothing lost, order kept, probing goes on",
        &format!(
            "{probes} probes in the topic, no number missing, in order, longest pause between probes {gap_s:.3} s"
        ),
    );
    Ok(())
}

const HOSTS: [&str; 2] = ["n1", "n2"];
/// Probes per second of both agents together.
const RATE: u32 = 10_000;
const AWAY: Duration = Duration::from_mins(2);
