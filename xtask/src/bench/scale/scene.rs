//! One host with the agent, and one that answers for all of its peers.

use std::fmt::Write as _;
use std::fs;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use dt_common::map::{Config, ConfigFlags, Reason};
use dt_tests::datapath::Datapath;
use dt_tests::pinned;
use dt_tests::wait::Deadline;
use dt_tests::{Interrupt, Lab, Proc};
use nix::sys::signal::Signal;

use crate::bench::hung::{Hung, hang};
use crate::bench::pair::{forget_settings, hold};
use crate::build::Built;
use crate::clock;
use crate::demo::cpu::process_ns;
use crate::demo::feed::Feed;
use crate::demo::tally::{Span, Tally};
use crate::process;

/// Dropped from the top: processes and programs before the lab.
pub struct Scene {
    agent: Option<Proc>,
    _peers: Datapath,
    binary: PathBuf,
    count: u32,
    lab: Lab,
}

/// Counters at one moment.
pub struct Look {
    pub unix_ns: u64,
    pub charged_ns: u64,
    pub made: u64,
    pub stamped: u64,
}

/// What the agent holds, bytes.
pub struct Memory {
    pub rss: u64,
    pub maps: u64,
    pub sockets: u64,
}

impl Scene {
    /// Two hosts on a cable, the second of which answers for `count` addresses.
    pub fn raise(built: &Built, count: u32) -> Result<Self> {
        let lab = Lab::mesh(2)?;
        let (own, behind) = (lab.host(OWN), lab.host(BEHIND));
        let network = format!("{}/16", address(0));
        let gateway = behind.ipv4().to_string();
        own.run(&["ip", "route", "add", &network, "via", &gateway])?;
        let mut peers = format!(
            "[[peer]]\nname = \"{OWN}\"\naddresses = [\"{}\"]\n",
            own.ipv4()
        );
        for number in 1..=count {
            let address = address(number);
            writeln!(
                peers,
                "[[peer]]\nname = \"p{number}\"\naddresses = [\"{address}\"]"
            )?;
        }
        fs::write(lab.dir().join(PEERS), peers)?;
        let peers = answering(built, &lab)?;
        Ok(Self {
            agent: None,
            _peers: peers,
            binary: built.agent.clone(),
            count,
            lab,
        })
    }

    pub const fn peers(&self) -> u32 {
        self.count
    }

    /// Starts the agent and waits until it probes in native XDP.
    pub fn start_agent(&mut self, rate: f64, sender: &str, interrupt: &Interrupt) -> Result<()> {
        let dir = self.lab.dir();
        let mut command = self.lab.host(OWN).command(&self.binary.to_string_lossy());
        forget_settings(&mut command);
        command
            .envs(ALLOCATOR)
            .args(["run", "--node", OWN, "--mode=xdp", "--family=4"])
            .arg("--peer-limit=16383")
            .arg(format!("--rate={rate}"))
            .arg(format!("--sender={sender}"))
            .arg(format!("--discovery=file:{}", dir.join(PEERS).display()))
            .arg(format!("--feed=file:{}", dir.join(FEED).display()))
            .arg(format!("--pin-root={}", self.lab.pin_dir().display()))
            .arg(format!("--state-dir={}", dir.join("state").display()));
        let mut agent = Proc::spawn("agent", &dir, &mut command)?;
        let deadline = Deadline::after(START_LIMIT);
        loop {
            let output = agent.output()?;
            if output.contains("Datapath chosen") && output.contains("mode=\"xdp\"") {
                break;
            }
            if let Ok(status) = agent.wait(Duration::ZERO) {
                anyhow::bail!("the agent ended with {status}:\n{output}");
            }
            ensure!(!interrupt.arrived(), "interrupted");
            ensure!(
                !deadline.has_passed(),
                "no mode xdp within {START_LIMIT:?}:\n{output}"
            );
            thread::sleep(LOOK_EVERY);
        }
        self.agent = Some(agent);
        Ok(())
    }

    pub fn look(&self) -> Result<Look> {
        Ok(Look {
            unix_ns: clock::now_unix_ns(),
            charged_ns: process_ns(self.pid()?)?,
            made: pinned::counter(&self.lab, OWN, Reason::Made)?,
            stamped: pinned::counter(&self.lab, OWN, Reason::Stamped)?,
        })
    }

    pub fn memory(&self) -> Result<Memory> {
        let pid = self.pid()?;
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let rss_kib = field(&status, "VmRSS:").context("no VmRSS")?;
        // Pages that the UDP sockets of the agent's namespace hold: it has no others.
        let sockets = fs::read_to_string(format!("/proc/{pid}/net/sockstat"))?;
        let udp = sockets.lines().find(|line| line.starts_with("UDP:"));
        let pages = udp
            .and_then(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
            .context("no UDP in sockstat")?;
        Ok(Memory {
            rss: rss_kib << 10,
            maps: pinned::map_bytes(&self.lab, OWN)?,
            sockets: pages * PAGE,
        })
    }

    /// Ends the agent; the round trips that its feed has of a span. Every probe must have come back.
    pub fn finish(&mut self, from: u64, to: u64, interrupt: &Interrupt) -> Result<f64> {
        // The window in which the span ended has to reach the feed.
        hold(super::WINDOW + super::SETTLE, interrupt)?;
        let mut agent = self.agent.take().context("no agent was started")?;
        agent.signal(Signal::SIGTERM)?;
        let status = agent.wait(STOP_LIMIT)?;
        ensure!(status.success(), "the agent ended with {status}");
        let mut tally = Tally::default();
        let mut feed = Feed::follow([self.lab.dir().join(FEED)]);
        feed.read_into(&mut tally)?;
        let faults = feed.faults();
        ensure!(faults.is_empty(), "the feed has gaps: {faults:?}");
        let mut detach = Command::new(&self.binary);
        detach
            .args(["detach", "--node", OWN])
            .arg(format!("--pin-root={}", self.lab.pin_dir().display()));
        process::capture(&mut detach)?;
        let answered = tally.answered();
        ensure!(
            answered == self.count as usize,
            "{answered} of {} peers answered",
            self.count
        );
        Ok(tally.received_in(Span {
            start_unix_ns: from,
            end_unix_ns: to,
        }))
    }

    fn pid(&self) -> Result<u32> {
        Ok(self.agent.as_ref().context("no agent was started")?.pid())
    }
}

/// The programs of the peers, for everybody and for all addresses.
fn answering(built: &Built, lab: &Lab) -> Result<Datapath> {
    let host = lab.host(BEHIND);
    let config = Config {
        flags: ConfigFlags::ALLOW_ALL | ConfigFlags::ANY_ADDRESS,
        clock_offset_ns: CLOCK_OFFSET_NS,
        clock_generation: 2,
        error_estimate: 0x8001,
        ..Config::default()
    };
    hang(built, host, host.device_to(OWN), Hung::Xdp, config)
}

/// A number in a line of `/proc`.
fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// The `number`th peer's.
fn address(number: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(NETWORK) + number)
}

const NETWORK: Ipv4Addr = Ipv4Addr::new(10, 80, 0, 0);
const OWN: &str = "n1";
const BEHIND: &str = "n2";
const PEERS: &str = "peers.toml";
const FEED: &str = "feed";
const PAGE: u64 = 4_096;
/// What the packaged agent starts with.
const ALLOCATOR: [(&str, &str); 2] = [
    ("MALLOC_ARENA_MAX", "1"),
    ("MALLOC_TRIM_THRESHOLD_", "131072"),
];
/// Any wall clock will do: round trip times do not depend on it.
const CLOCK_OFFSET_NS: u64 = 4_000_000_000_000_000_000;
const START_LIMIT: Duration = Duration::from_mins(1);
const STOP_LIMIT: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_millis(200);

#[cfg(test)]
mod tests {
    use super::ALLOCATOR;

    #[test]
    fn memory_is_measured_as_the_packages_start_the_agent() {
        let pairs = ALLOCATOR.map(|(name, value)| format!("{name}={value}"));
        let pairs = pairs.join(" ");
        let unit = include_str!("../../../../packaging/debian/dt-agent.service");
        assert!(unit.contains(&format!("\nEnvironment={pairs}\n")));
        let image = include_str!("../../../../Dockerfile");
        assert!(image.contains(&format!("\nENV {pairs}\n")));
    }
}
