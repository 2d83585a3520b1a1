//! The lab itself: hosts reach each other, and nothing is left behind, however the owner ends.

use std::fs;
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Result;
use dt_tests::fault::{Done, Faults};
use dt_tests::wait;
use dt_tests::{FaultyWire, Lab, LabObject, Proc, SWITCH, WIRE, skip_unless_equipped};
use nix::sys::signal::Signal;

#[test]
fn every_two_hosts_of_a_mesh_reach_each_other_by_both_ip_versions() -> Result<()> {
    skip_unless_equipped!();
    let lab = Lab::mesh(3)?;
    ping_all_pairs(&lab)?;
    assert_eq!(lab.host("n1").device_to("n3"), "to-n3");
    assert_eq!(lab.host("n2").devices(), ["to-n1", "to-n3"]);
    Ok(())
}

#[test]
fn every_two_hosts_on_a_bridge_reach_each_other_with_programs_on_its_ends() -> Result<()> {
    skip_unless_equipped!();
    let lab = Lab::bridge(3)?;
    LabObject::load()?.open_switch(&lab)?;
    ping_all_pairs(&lab)?;
    assert_eq!(lab.host("n1").devices(), ["eth0"]);
    assert_eq!(lab.host(SWITCH).devices(), ["to-n1", "to-n2", "to-n3"]);
    Ok(())
}

#[test]
fn a_wire_carries_nothing_until_its_ends_are_joined() -> Result<()> {
    skip_unless_equipped!();
    let lab = Lab::wire()?;
    assert_eq!(lab.hosts().len(), 2);
    assert_eq!(lab.host(WIRE).devices(), ["to-n1", "to-n2"]);
    let ping = ["ping", "-n", "-q", "-c1", "-W1", "10.77.0.2"];
    assert!(lab.host("n1").run(&ping).is_err());
    let wire = FaultyWire::join(&lab, PORT, Faults::default(), Faults::default())?;
    ping_all_pairs(&lab)?;
    drop(wire);
    assert!(lab.host("n1").run(&ping).is_err());
    Ok(())
}

#[test]
fn a_faulty_wire_does_to_each_direction_exactly_what_it_was_told() -> Result<()> {
    skip_unless_equipped!();
    let lab = Lab::wire()?;
    let there = Faults {
        drop_every: 7,
        duplicate_every: 5,
        corrupt_every: 0,
    };
    let back = Faults {
        corrupt_every: 3,
        ..Faults::default()
    };
    let mut wire = FaultyWire::join(&lab, PORT, there, back)?;
    // 70 packets: 10 are dropped, 14 are due twice, and of those 2 were dropped before.
    let arrived = datagrams_through(&lab, ("n1", "n2"), 70)?;
    assert_eq!(arrived, 70 - 10 + 12);
    let done = wire.done_there()?;
    assert_eq!(
        done,
        Done {
            seen: 70,
            dropped: 10,
            duplicated: 12,
            corrupted: 0
        }
    );
    // The stack of the receiver sees by the checksum that every third is not what was sent.
    assert_eq!(datagrams_through(&lab, ("n2", "n1"), 30)?, 20);
    let done = wire.done_back()?;
    assert_eq!(
        done,
        Done {
            seen: 30,
            dropped: 0,
            duplicated: 0,
            corrupted: 10
        }
    );
    Ok(())
}

#[test]
fn a_dropped_lab_leaves_no_namespace_process_pin_or_file() -> Result<()> {
    skip_unless_equipped!();
    let lab = Lab::mesh(2)?;
    let sleeper = Proc::spawn(
        "sleeper",
        &lab.dir(),
        lab.host("n1").command("sleep").arg("600"),
    )?;
    let pid = sleeper.pid();
    // As if its guard had been forgotten: the lab ends what runs in its hosts all the same.
    std::mem::forget(sleeper);
    fs::create_dir(lab.pin_dir())?;
    let (dir, pins) = (lab.dir(), lab.pin_dir());
    drop(lab);
    assert!(!runs(pid));
    assert!(!dir.exists() && !pins.exists());
    assert_eq!(namespaces_of(std::process::id()), Vec::<PathBuf>::new());
    Ok(())
}

#[test]
fn a_lab_is_removed_when_its_test_panics() -> Result<()> {
    skip_unless_equipped!();
    let panic = std::panic::catch_unwind(|| -> () {
        let _lab = Lab::mesh(2).expect("a mesh of two");
        assert_eq!(namespaces_of(std::process::id()).len(), 2);
        std::panic::resume_unwind(Box::new("on purpose"))
    });
    assert_eq!(panic.unwrap_err().downcast_ref(), Some(&"on purpose"));
    assert_eq!(namespaces_of(std::process::id()), Vec::<PathBuf>::new());
    Ok(())
}

#[test]
fn what_a_killed_owner_left_is_swept_by_the_next() -> Result<()> {
    skip_unless_equipped!();
    let lab = Lab::empty()?;
    let mut holder = Proc::spawn(
        "holder",
        &lab.dir(),
        Command::new(HOLDER).args(["mesh", "2"]),
    )?;
    holder.wait_for_line("held", LIMIT)?;
    let idle: u32 = holder
        .wait_for_line("idle ", LIMIT)?
        .trim_start_matches("idle ")
        .parse()?;
    let owner = holder.pid();
    // Pins may outlive everything; the owner's are known by their directory.
    let pins = PathBuf::from(format!("/sys/fs/bpf/dt{owner}-1"));
    fs::create_dir(&pins)?;

    // Until it is itself, nothing has asked for its death yet.
    let comm = format!("/proc/{idle}/comm");
    let is_sleep = || Ok((fs::read_to_string(&comm)?.trim() == "sleep").then_some(()));
    wait::until("idle process", LIMIT, is_sleep)?;
    dt_tests::sweep()?;
    assert!(runs(idle));
    assert_eq!(
        namespaces_of(owner).len(),
        2,
        "a living owner keeps what it has"
    );

    holder.kill()?;
    wait::until("end of the process of a killed owner", LIMIT, || {
        Ok((!runs(idle)).then_some(()))
    })?;
    dt_tests::sweep()?;
    assert_eq!(namespaces_of(owner), Vec::<PathBuf>::new());
    assert!(!pins.exists());
    assert!(!Path::new("/run/dt-lab").join(format!("dt{owner}")).exists());
    Ok(())
}

#[test]
fn an_interrupted_owner_removes_its_lab_itself() -> Result<()> {
    skip_unless_equipped!();
    let lab = Lab::empty()?;
    let mut holder = Proc::spawn(
        "holder",
        &lab.dir(),
        Command::new(HOLDER).args(["bridge", "2"]),
    )?;
    holder.wait_for_line("held", LIMIT)?;
    let owner = holder.pid();
    holder.signal(Signal::SIGINT)?;
    assert!(holder.wait(LIMIT)?.success());
    assert_eq!(namespaces_of(owner), Vec::<PathBuf>::new());
    Ok(())
}

fn ping_all_pairs(lab: &Lab) -> Result<()> {
    for from in lab.hosts() {
        for to in lab.hosts() {
            for address in [to.ipv4().to_string(), to.ipv6().to_string()] {
                from.run(&["ping", "-n", "-q", "-c1", "-W1", &address])?;
            }
        }
    }
    Ok(())
}

/// How many datagrams arrive at [`PORT`] of the second host when the first one sends `count`.
fn datagrams_through(lab: &Lab, ends: (&str, &str), count: u32) -> Result<usize> {
    let (from, to) = (lab.host(ends.0), lab.host(ends.1));
    let receiver = to.enter(|| UdpSocket::bind((to.ipv4(), PORT)))??;
    let sender = from.enter(|| UdpSocket::bind((from.ipv4(), 0)))??;
    for _ in 0..count {
        sender.send_to(&[0; 44], (to.ipv4(), PORT))?;
    }
    // A veth hands over within the send or shortly after: what is not there after a quiet moment was lost.
    receiver.set_read_timeout(Some(Duration::from_millis(300)))?;
    let mut buffer = [0; 64];
    let mut received = 0;
    while receiver.recv(&mut buffer).is_ok() {
        received += 1;
    }
    Ok(received)
}

fn namespaces_of(owner: u32) -> Vec<PathBuf> {
    let prefix = format!("dt{owner}-");
    let entries = fs::read_dir("/run/netns").into_iter().flatten().flatten();
    let ours = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(&prefix));
    ours.map(|entry| entry.path()).collect()
}

/// Whether there is such a process and it is more than a zombie.
fn runs(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')')
        .is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z'))
}

const PORT: u16 = 862;
const HOLDER: &str = env!("CARGO_BIN_EXE_hold-lab");
const LIMIT: Duration = Duration::from_secs(20);
