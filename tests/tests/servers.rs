//! The fixtures of ZooKeeper and Kafka themselves: they start, freeze, lose their leader and their disk, and leave nothing.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use dt_tests::servers::{Place, kafka, zookeeper};
use dt_tests::{Lab, SERVERS, skip_unless_equipped, skip_unless_served, wait};

#[test]
fn zookeeper_is_there_again_at_its_port_after_a_stop_a_kill_and_a_freeze() -> Result<()> {
    skip_unless_served!();
    let lab = Lab::empty()?;
    let mut zookeeper = zookeeper::Options::given()?.start(&Place::local(&lab))?;
    assert_eq!(zookeeper.role()?, "standalone");
    assert_eq!(zookeeper.counter("zk_watch_count")?, 0);

    zookeeper.freeze()?;
    assert!(zookeeper.four_letters("ruok").is_err());
    zookeeper.thaw()?;
    assert_eq!(zookeeper.four_letters("ruok")?, "imok");

    let address = zookeeper.address();
    zookeeper.stop()?;
    assert!(zookeeper.four_letters("ruok").is_err());
    zookeeper.start()?;
    zookeeper.kill()?;
    zookeeper.wipe()?;
    zookeeper.start()?;
    assert_eq!(zookeeper.address(), address);
    assert_eq!(zookeeper.four_letters("ruok")?, "imok");
    Ok(())
}

#[test]
fn an_ensemble_that_loses_its_leader_elects_another() -> Result<()> {
    skip_unless_served!();
    let lab = Lab::empty()?;
    let options = zookeeper::Options::given()?;
    let mut ensemble = options.start_ensemble(&Place::local(&lab), 3)?;
    let first = ensemble.leader()?;
    ensemble.servers[first].kill()?;
    let second = ensemble.leader()?;
    assert_ne!(first, second);
    ensemble.servers[first].start()?;
    assert_eq!(ensemble.servers[first].role()?, "follower");
    Ok(())
}

#[test]
fn kafka_has_its_topics_at_its_port_after_a_stop_and_none_after_a_new_disk() -> Result<()> {
    skip_unless_served!();
    let lab = Lab::empty()?;
    let mut kafka = kafka::Options::given()?.start(&Place::local(&lab))?;
    kafka.create_topic("kept", 2, &["retention.ms=60000"])?;
    assert_eq!(
        kafka.offsets("kept")?.into_iter().collect::<Vec<_>>(),
        [(0, 0), (1, 0)]
    );

    kafka.freeze()?;
    assert!(!kafka.answers());
    kafka.thaw()?;
    assert!(kafka.answers());

    let address = kafka.address();
    kafka.stop()?;
    assert!(!kafka.answers());
    kafka.start()?;
    assert_eq!(kafka.topics()?, ["kept"]);
    kafka.kill()?;
    kafka.wipe()?;
    kafka.start()?;
    assert_eq!(kafka.address(), address);
    assert_eq!(kafka.topics()?, Vec::<String>::new());
    Ok(())
}

#[test]
fn servers_beside_the_hosts_are_reached_from_each_and_leave_no_disk_behind() -> Result<()> {
    skip_unless_equipped!();
    skip_unless_served!();
    let mut lab = Lab::mesh(2)?;
    lab.add_servers()?;
    assert_eq!(lab.hosts().len(), 2);
    let place = Place::on(&lab, SERVERS);
    let mut kafka = kafka::Options::given()?
        .disk_mb(64)
        .user("agent", "secret")
        .launch(&place)?;
    let zookeeper = zookeeper::Options::given()?.start(&place)?;
    kafka.wait_until_ready()?;
    for host in lab.hosts() {
        for address in [zookeeper.address(), kafka.address(), kafka.sasl_address()] {
            host.enter(|| std::net::TcpStream::connect(address))??;
        }
    }
    kafka.allow("agent", "Write", "topic")?;
    kafka.resize_disk(128)?;

    let dir = lab.dir();
    assert_eq!(disks_in(&dir)?, 1);
    drop((kafka, zookeeper));
    drop(lab);
    assert_eq!(disks_in(&dir)?, 0);
    assert!(!dir.exists());
    Ok(())
}

#[test]
fn a_server_dies_with_the_thread_that_started_it() -> Result<()> {
    skip_unless_served!();
    let lab = Lab::empty()?;
    let launched = thread::scope(|scope| {
        let starter = scope.spawn(|| -> Result<u32> {
            // Ready, because before its program runs it has not asked for that yet.
            let zookeeper = zookeeper::Options::given()?.start(&Place::local(&lab))?;
            let pid = zookeeper.pid().context("it was launched")?;
            // As if the thread had no time to drop anything.
            std::mem::forget(zookeeper);
            Ok(pid)
        });
        starter.join()
    });
    let pid = launched.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
    wait::until("end of a server whose owner is gone", LIMIT, || {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let ended = stat
            .rsplit_once(')')
            .is_none_or(|(_, rest)| rest.trim_start().starts_with('Z'));
        Ok(ended.then_some(()))
    })
}

/// How many file systems are mounted in a directory.
fn disks_in(dir: &Path) -> Result<usize> {
    let table = fs::read_to_string("/proc/self/mountinfo")?;
    let dir = dir.display().to_string();
    Ok(table.lines().filter(|line| line.contains(&dir)).count())
}

const LIMIT: Duration = Duration::from_secs(20);
