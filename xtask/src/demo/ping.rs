//! `ping` of iputils beside the agents: the view from user space that everybody knows.

use std::io::{BufRead, BufReader, Read};
use std::panic;
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use anyhow::{Context, Result};
use dt_feed::Histogram;
use dt_tests::Host;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::options::Options;

/// A running `ping` from one host to another. Dropping it ends it.
pub struct Ping {
    child: Child,
    heard: Arc<Mutex<Histogram>>,
    listener: Option<JoinHandle<()>>,
}

impl Ping {
    /// Starts on `from`, at the interval at which the agents probe, as far as `ping` can.
    pub fn start(from: &Host, to: &Host, options: &Options) -> Result<Self> {
        let address = if options.ipv6 {
            to.ipv6().to_string()
        } else {
            to.ipv4().to_string()
        };
        let interval = format!("{:.3}", f64::from(interval_ms(options)) / 1000.0);
        let mut child = from
            .command("ping")
            .args(["-n", "-i", &interval, &address])
            .env("LC_ALL", "C")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot start ping (Debian package iputils-ping)")?;
        let stdout = child.stdout.take().context("stdout is piped")?;
        let heard = Arc::new(Mutex::new(Histogram::new()));
        let listener = thread::spawn({
            let heard = Arc::clone(&heard);
            move || listen(stdout, &heard)
        });
        Ok(Self {
            child,
            heard,
            listener: Some(listener),
        })
    }

    /// Ends it and returns the round trip times of all replies, ns.
    pub fn finish(mut self) -> Histogram {
        self.end();
        lock(&self.heard).clone()
    }

    fn end(&mut self) {
        // Not reaped yet, so the id is still the child's; one that has ended is as good.
        let _ = kill(Pid::from_raw(self.child.id() as i32), Signal::SIGKILL);
        let _ = self.child.wait();
        if let Some(Err(panic)) = self.listener.take().map(JoinHandle::join) {
            panic::resume_unwind(panic);
        }
    }
}

impl Drop for Ping {
    fn drop(&mut self) {
        self.end();
    }
}

/// Time between two packets: `ping` counts in whole milliseconds, and one is the least.
pub fn interval_ms(options: &Options) -> u32 {
    (1000 / options.rate).max(1)
}

fn listen(stdout: impl Read, heard: &Mutex<Histogram>) {
    // The last line may be cut off, or not be text: it is then no reply.
    for line in BufReader::new(stdout).lines().map_while(Result::ok) {
        if let Some(ns) = rtt_ns(&line) {
            lock(heard).record(ns);
        }
    }
}

fn lock(heard: &Mutex<Histogram>) -> std::sync::MutexGuard<'_, Histogram> {
    heard.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The time in a line such as `64 bytes from 10.77.0.2: icmp_seq=1 ttl=64 time=0.045 ms`.
fn rtt_ns(line: &str) -> Option<u64> {
    if !line.contains(" bytes from ") || line.contains("(DUP!)") {
        return None;
    }
    let (_, time) = line.rsplit_once("time=")?;
    let ms: f64 = time.split(' ').next()?.parse().ok()?;
    (ms >= 0.0).then(|| (ms * 1e6).round() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_have_a_time_and_nothing_else_has() {
        let reply = "64 bytes from 10.77.0.2: icmp_seq=1 ttl=64 time=";
        assert_eq!(rtt_ns(&format!("{reply}0.045 ms")), Some(45_000));
        assert_eq!(rtt_ns(&format!("{reply}12.3 ms")), Some(12_300_000));
        assert_eq!(rtt_ns(&format!("{reply}1001 ms")), Some(1_001_000_000));
        assert_eq!(
            rtt_ns("64 bytes from fd77::2: icmp_seq=9 ttl=64 time=0.031 ms"),
            Some(31_000)
        );
        assert_eq!(rtt_ns(&format!("{reply}0.045 ms (DUP!)")), None);
        assert_eq!(
            rtt_ns("PING 10.77.0.2 (10.77.0.2) 56(84) bytes of data."),
            None
        );
        assert_eq!(
            rtt_ns("From 10.77.0.1 icmp_seq=1 Destination Host Unreachable"),
            None
        );
        assert_eq!(
            rtt_ns("rtt min/avg/max/mdev = 0.031/0.045/0.060/0.002 ms, time=9"),
            None
        );
        assert_eq!(
            rtt_ns("64 bytes from 10.77.0.2: icmp_seq=1 ttl=64 time="),
            None
        );
    }

    #[test]
    fn all_that_is_heard_is_recorded() {
        let heard = Mutex::new(Histogram::new());
        let talk = "PING n2\n64 bytes from n2: time=0.010 ms\n64 bytes from n2: time=0.020 ms\n64 bytes fr";
        listen(talk.as_bytes(), &heard);
        let heard = heard.into_inner().expect("no listener panicked");
        assert_eq!(
            (heard.count(), heard.min(), heard.max()),
            (2, Some(10_000), Some(20_000))
        );
    }
}
