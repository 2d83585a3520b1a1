//! What must not disturb an agent: a bad list of members, a full disk, and packets made to confuse it.

use std::net::{SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use dt_common::wire::PROBE_LEN;
use dt_tests::agent::{self, LIMIT, settle, wait_for_feed};
use dt_tests::feed::{excused, unexplained};
use dt_tests::wait::unix_now_ns;
use dt_tests::{Agent, Feed, Host, Lab, Launch, skip_unless_equipped};

#[test]
fn of_a_list_with_mistakes_only_the_mistaken_member_is_left_out() -> Result<()> {
    skip_unless_equipped!();
    let lab = Lab::mesh(2)?;
    let members = agent::all_members(&lab);
    let nobody = "[[peer]]\nname = \"n9\"\naddresses = [\"no-such-host.invalid\"]\n";
    let twice = "[[peer]]\nname = \"n2\"\naddresses = [\"10.77.0.9\"]\n";
    agent::write_peers(&lab, &format!("{members}{nobody}{twice}"))?;
    let (mut agents, mut feed) = start_both(&lab, &["--mode=tc"])?;
    let said = &mut agents[0].process;
    said.wait_for_line("member n9 is left out", LIMIT)?;
    said.wait_for_line("two members are called n2", LIMIT)?;
    wait_for_feed("answers", &mut feed, |feed| {
        (feed.received("n2") > 0).then_some(())
    })?;

    // A list that makes no sense is named with its line, and the one before is kept.
    agent::write_peers(&lab, &members.replace("addresses", "adresses"))?;
    let line = said.wait_for_line("unknown key `adresses`, did you mean `addresses`?", LIMIT)?;
    assert!(line.contains("line 3"), "{line}");
    assert_undisturbed(&mut feed)?;
    assert_eq!(feed.peers(), ["n2"]);
    Ok(())
}

#[test]
fn on_a_full_disk_probing_goes_on_and_the_feed_says_what_it_lost() -> Result<()> {
    skip_unless_equipped!();
    let lab = Lab::mesh(2)?;
    agent::write_peers(&lab, &agent::all_members(&lab))?;
    let disk = SmallDisk::mount(&lab.dir().join("small"), "64k")?;
    let feed_target = format!("file:{}", disk.0.display());
    let mut other = Launch::on(&lab, "n2")?.flags(&["--mode=tc"]).start("n2")?;
    other.wait_for_mode("tc")?;
    let mut agent = Launch::on(&lab, "n1")?
        .setting("DT_FEED", feed_target)
        .flags(&["--mode=tc", "--rate=2000", "--detail=probes"])
        .start("n1")?;
    agent
        .process
        .wait_for_line("no space is left for the feed", LIMIT)?;

    disk.resize("16m")?;
    let roomy = unix_now_ns()?;
    let mut feed = Feed::follow(&disk.0);
    wait_for_feed("windows after the disk was full", &mut feed, |feed| {
        let after = feed.pair("n2")?.received_after(roomy);
        (after.len() > 1 && after.iter().all(|received| *received > 0)).then_some(())
    })?;
    let losses = *feed.losses();
    eprintln!("{losses:?}");
    assert!(
        losses.batches_disk_full > 0 && losses.windows_unwritten > 0,
        "{losses:?}"
    );
    assert!(losses.probes_lost > 0, "{losses:?}");
    assert!(agent.stop()?.success());
    feed.read()?;
    let counters = feed.pair("n2").context("it was measured")?.counters;
    assert_eq!(unexplained(&counters), 0, "{counters:?}");
    Ok(())
}

#[test]
fn random_and_mutated_packets_disturb_no_agent_in_tc() -> Result<()> {
    skip_unless_equipped!();
    withstand("tc")
}

#[test]
fn random_and_mutated_packets_disturb_no_agent_in_xdp() -> Result<()> {
    skip_unless_equipped!();
    withstand("xdp")
}

#[test]
fn random_and_mutated_packets_disturb_no_agent_in_socket() -> Result<()> {
    skip_unless_equipped!();
    withstand("socket")
}

/// By both hosts' kernels: datagrams that found the queue of their socket full, as happens to those of user space.
fn no_room(lab: &Lab) -> Result<u64> {
    let mut sum = 0;
    for host in ["n1", "n2"] {
        let text = lab
            .host(host)
            .enter(|| std::fs::read_to_string("/proc/thread-self/net/snmp"))??;
        let mut lines = text.lines().filter_map(|line| line.strip_prefix("Udp: "));
        let (names, values) = lines.next().zip(lines.next()).context("two lines of UDP")?;
        let mut columns = names.split(' ').zip(values.split(' '));
        let found = columns.find(|(name, _)| *name == "RcvbufErrors");
        sum += found.context("a column of it")?.1.parse::<u64>()?;
    }
    Ok(sum)
}

fn withstand(mode: &str) -> Result<()> {
    // The third host is nobody's member; the first one is, and throws what it would never send.
    let lab = Lab::mesh(3)?;
    let members: String = ["n1", "n2"]
        .map(|name| agent::member(lab.host(name)))
        .concat();
    agent::write_peers(&lab, &members)?;
    let mode = format!("--mode={mode}");
    // What is thrown from a member's address counts against its rate.
    let (mut agents, mut feed) = start_both(&lab, &[&mode, "--rate-limit-source=1000000"])?;
    wait_for_feed("answers", &mut feed, |feed| {
        (feed.received("n2") > 0).then_some(())
    })?;
    let target = lab.host("n2");
    let mut thrown = 0;
    for (seed, host) in [(1, "n1"), (2, "n3")] {
        for port in [862, 61_000, 61_003] {
            thrown += throw(lab.host(host), (target.ipv4(), port).into(), seed)?;
        }
    }
    eprintln!("{thrown} packets thrown");
    // The programs take probes before any queue could be full.
    let excuse = if mode == "--mode=socket" {
        no_room(&lab)?
    } else {
        0
    };
    assert_undisturbed_but(&mut feed, "n2", excuse)?;
    let mut feed = agents[1].feed();
    assert_undisturbed_but(&mut feed, "n1", excuse)?;
    for agent in &mut agents {
        assert!(agent.stop()?.success());
        let output = agent.process.output()?;
        assert!(
            !output.contains("panicked") && !output.contains("ERROR"),
            "{output}"
        );
    }
    Ok(())
}

/// Sends random bytes of every length, and probes that were changed, but never whole ones; how many.
fn throw(from: &Host, to: SocketAddr, seed: u64) -> Result<usize> {
    let mut chance = Chance(seed);
    let packets: Vec<Vec<u8>> = (0..PACKETS).map(|number| chance.packet(number)).collect();
    from.enter(|| -> Result<usize> {
        let socket = UdpSocket::bind((from.ipv4(), 0))?;
        // An answer of ICMP to one of them is the next call's error.
        Ok(packets
            .iter()
            .filter(|packet| socket.send_to(packet, to).is_ok())
            .count())
    })?
}

/// Pseudo-random numbers that are the same in each run (`SplitMix64`).
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.next() as u8).collect()
    }

    fn packet(&mut self, number: usize) -> Vec<u8> {
        if number.is_multiple_of(2) {
            let length = self.next() as usize % 1400;
            return self.bytes(length);
        }
        // A request without TLV of ours: base header, then TLVs whose lengths lie.
        let mut packet = vec![0; PROBE_LEN];
        packet[..4].copy_from_slice(&(number as u32).to_be_bytes());
        let tail = self.bytes(PROBE_LEN - 44);
        packet[44..].copy_from_slice(&tail);
        let flipped = self.next() as usize % 44;
        packet[flipped] ^= self.next() as u8;
        packet.truncate(self.next() as usize % (PROBE_LEN + 1));
        packet
    }
}

fn start_both(lab: &Lab, flags: &[&str]) -> Result<(Vec<Agent>, Feed)> {
    let start = |host| Launch::on(lab, host)?.flags(flags).start(host);
    let agents = vec![start("n1")?, start("n2")?];
    let feed = agents[0].feed();
    Ok((agents, feed))
}

fn assert_undisturbed(feed: &mut Feed) -> Result<()> {
    assert_undisturbed_but(feed, "n2", 0)
}

/// Every probe of ours but so many was answered, and nothing else was counted.
fn assert_undisturbed_but(feed: &mut Feed, peer: &str, excuse: u64) -> Result<()> {
    settle(feed, peer)?;
    let pair = feed.pair(peer).context("it was measured")?;
    let counters = pair.counters;
    assert!(pair.adds_up(), "{counters:?}");
    assert!(
        unexplained(&counters) <= excuse,
        "{counters:?}, no room for {excuse}"
    );
    assert_eq!(excused(&counters), counters.not_admitted, "{counters:?}");
    assert_eq!(
        counters.duplicate_forward + counters.duplicate_return,
        0,
        "{counters:?}"
    );
    Ok(())
}

/// A file system that is full soon; unmounted when dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(path: &Path, size: &str) -> Result<Self> {
        std::fs::create_dir_all(path)?;
        let disk = Self(path.to_owned());
        disk.call(&[
            "mount",
            "-t",
            "tmpfs",
            "-o",
            &format!("size={size}"),
            "tmpfs",
        ])?;
        Ok(disk)
    }

    fn resize(&self, size: &str) -> Result<()> {
        self.call(&["mount", "-o", &format!("remount,size={size}")])
    }

    fn call(&self, words: &[&str]) -> Result<()> {
        let status = Command::new(words[0])
            .args(&words[1..])
            .arg(&self.0)
            .status()?;
        ensure!(status.success(), "{words:?} ended with {status}");
        Ok(())
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: the agent may still have its segment open.
        let _ = self.call(&["umount", "-l"]);
    }
}

const PACKETS: usize = 5_000;
