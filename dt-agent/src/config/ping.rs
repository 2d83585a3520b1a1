//! Settings of `ping`, checked.

use std::path::PathBuf;
use std::time::Duration;

use tracing::level_filters::LevelFilter;

use crate::engine::ladder::ModeRequest;
use crate::engine::mesh::Family;

use super::check::Checker;
use super::error::ConfigError;
use super::raw::{RawConfig, Surroundings, Typed};
use super::{parse, settings};

/// Everything `ping` wants to know.
#[derive(Clone, Debug)]
pub struct PingConfig {
    /// Names or addresses of the hosts to probe; at least one.
    pub hosts: Vec<String>,
    /// Probes to send to each; none: until interrupted.
    pub count: Option<u64>,
    /// Time from probe to probe.
    pub interval: Duration,
    /// When to end, whatever was sent; none: never.
    pub deadline: Option<Duration>,
    /// How long a probe is waited for.
    pub timeout: Duration,
    /// UDP payload of a probe, bytes.
    pub payload_bytes: u16,
    /// IP version to probe by.
    pub family: Family,
    /// Print only the summary.
    pub quiet: bool,
    /// Print JSON, one object a line.
    pub json: bool,
    /// Also time each probe in user space.
    pub compare: bool,
    /// UDP port of the reflectors.
    pub port: u16,
    /// UDP source port of probes; none: any.
    pub source_port: Option<u16>,
    /// Rung of the datapath ladder.
    pub mode: ModeRequest,
    /// Interface to send from; none: the one that leads to the host.
    pub interface: Option<String>,
    /// Node whose agent is joined, if it runs.
    pub node: String,
    /// Directory on a BPF file system.
    pub pin_root: PathBuf,
    /// What is logged.
    pub log: LevelFilter,
}

impl PingConfig {
    /// Gathers and checks the settings of this process.
    ///
    /// # Errors
    ///
    /// All mistakes together.
    pub fn load(typed: &Typed) -> Result<Self, ConfigError> {
        Self::load_in(typed, &Surroundings::of_process())
    }

    /// Gathers and checks the settings in these surroundings.
    ///
    /// # Errors
    ///
    /// All mistakes together.
    pub fn load_in(typed: &Typed, surroundings: &Surroundings<'_>) -> Result<Self, ConfigError> {
        let raw = RawConfig::gather(settings::PING, typed, surroundings);
        let mut check = Checker::new(&raw);
        let config = Self {
            hosts: check.list("host", host),
            count: check.optional("count", |text| parse::whole(text, 1..=u64::MAX)),
            interval: check.one("interval", interval),
            deadline: check.optional("deadline", deadline),
            timeout: check.one("timeout", timeout),
            payload_bytes: check.one("size", parse::payload),
            family: check_family(&mut check),
            quiet: check.switch("quiet"),
            json: check.switch("json"),
            compare: check.switch("compare"),
            port: check.one("port", parse::port),
            source_port: check.optional("source_port", |text| parse::whole(text, 1024..=u16::MAX)),
            mode: check.one("mode", parse::mode),
            interface: check.optional("interface", parse::interface),
            node: check.one("node", parse::node),
            pin_root: check.one("pin_root", parse::absolute),
            log: check.one_or("log", LevelFilter::WARN, parse::level),
        };
        if !check.has("host") {
            check.missing("host", String::from("name at least one host to probe"));
        }
        check.contradiction(
            &["source_port", "port"],
            config.source_port == Some(config.port),
            || {
                format!(
                    "port and source_port are both {}: a probe would look like a request",
                    config.port
                )
            },
        );
        check.finish(config)
    }
}

fn check_family(check: &mut Checker<'_>) -> Family {
    match (check.switch("ipv4"), check.switch("ipv6")) {
        (false, false) => Family::Auto,
        (true, false) => Family::V4,
        (false, true) => Family::V6,
        (true, true) => {
            check.contradiction(&[], true, || String::from("-4 and -6 exclude each other"));
            Family::Auto
        }
    }
}

fn host(text: &str) -> Result<String, String> {
    let valid = !text.is_empty() && !text.contains(char::is_whitespace);
    if valid {
        Ok(text.to_owned())
    } else {
        Err(String::from("is not a host name or address"))
    }
}

/// As for `run`, at most 20,000 probes per second.
fn interval(text: &str) -> Result<Duration, String> {
    parse::duration(text, Duration::from_micros(50)..=Duration::from_hours(1))
}

fn deadline(text: &str) -> Result<Duration, String> {
    parse::duration(
        text,
        Duration::from_millis(1)..=Duration::from_hours(24 * 365),
    )
}

fn timeout(text: &str) -> Result<Duration, String> {
    parse::duration(text, Duration::from_millis(1)..=Duration::from_mins(1))
}
