//! Settings of `run`, checked.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use tracing::level_filters::LevelFilter;

use crate::engine::ladder::{Mode, ModeRequest};
use crate::engine::mesh::{Family, MeshSettings};
use crate::engine::sender::Sender;

use super::check::Checker;
use super::error::ConfigError;
use super::kafka::KafkaConfig;
use super::paths::PathConfig;
use super::raw::{RawConfig, Surroundings, Typed};
use super::zookeeper::{NodeLabels, SelfConfig, ZookeeperConfig};
use super::{parse, print, settings};

/// Everything `run` wants to know.
#[derive(Clone, Debug)]
pub struct RunConfig {
    /// Name of this node in the mesh; safe as the name of a directory.
    pub node: String,
    /// Where the members come from.
    pub discovery: DiscoverySource,
    /// Greatest number of members that are probed.
    pub peer_limit: usize,
    /// The way to ZooKeeper, for [`DiscoverySource::Zookeeper`].
    pub zookeeper: ZookeeperConfig,
    /// What this node says of itself there.
    pub own: SelfConfig,
    /// Where the measurements go.
    pub feed: FeedTarget,
    /// The way to Kafka, for [`FeedTarget::Kafka`].
    pub kafka: KafkaConfig,
    /// Probes per second towards each peer.
    pub rate: f64,
    /// Length of a window, 1 to 60 seconds.
    pub window: Duration,
    /// How long a probe is waited for.
    pub timeout: Duration,
    /// What the feed holds.
    pub detail: Detail,
    /// Of how many probes to a peer one is also timed in user space; 0: none.
    pub compare_every: u32,
    /// When probes are made in the kernel.
    pub sender: Sender,
    /// Rung of the datapath ladder.
    pub mode: ModeRequest,
    /// Interfaces to probe and answer on; empty: those that lead to the peers.
    pub interfaces: Vec<String>,
    /// IP version to probe by.
    pub family: Family,
    /// UDP port on which requests are answered, and the one of members that name none.
    pub port: u16,
    /// Source ports, none of which is `port`, sizes and code points of probes.
    pub paths: PathConfig,
    /// Firewall mark by which probes are known on their way out; not 0.
    pub mark: u32,
    /// Who is answered besides the members.
    pub allow: Vec<IpNet>,
    /// How much is answered.
    pub rate_limits: RateLimits,
    /// Where metrics are served, if anywhere.
    pub metrics: Option<SocketAddr>,
    /// Directory on a BPF file system; each node has one of its own below it.
    pub pin_root: PathBuf,
    /// Directory for what must outlive a restart.
    pub state_dir: PathBuf,
    /// After how long without an agent stamping and answering stop.
    pub lease: Duration,
    /// The same after a clean stop; not shorter than `lease`.
    pub handover: Duration,
    /// What is logged.
    pub log: LevelFilter,
    /// Print the settings instead of running.
    pub print_config: bool,
    raw: RawConfig,
}

/// Where the members come from.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum DiscoverySource {
    /// A TOML file.
    File(PathBuf),
    /// ZooKeeper.
    Zookeeper,
}

/// Where the measurements go.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum FeedTarget {
    /// Nowhere.
    #[default]
    None,
    /// Segment files in this directory.
    File(PathBuf),
    /// A Kafka topic, by way of a spool.
    Kafka,
}

/// What the feed holds.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Detail {
    /// Counters and histograms per peer and window.
    #[default]
    Windows,
    /// The same, and every probe.
    Probes,
}

/// A range of UDP ports, both ends included.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct SourcePorts {
    /// The first.
    pub first: u16,
    /// The last, not below the first.
    pub last: u16,
}

impl SourcePorts {
    /// How many there are; at least 1.
    #[must_use]
    pub const fn count(self) -> u16 {
        self.last - self.first + 1
    }

    /// Whether this port is one of them.
    #[must_use]
    pub const fn contains(self, port: u16) -> bool {
        self.first <= port && port <= self.last
    }
}

/// How much a reflector answers.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct RateLimits {
    /// Packets per second of one source.
    pub source_pps: u32,
    /// Packets per second of all sources together.
    pub total_pps: u32,
}

/// What came of reading the settings again: keys of those that changed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Reloaded {
    /// In use now.
    pub taken: Vec<&'static str>,
    /// In use after a restart.
    pub waiting: Vec<&'static str>,
}

impl RunConfig {
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
        let mut raw = RawConfig::gather(settings::RUN, typed, surroundings);
        if raw.text("zookeeper").is_some() {
            raw.derive(
                "discovery",
                Some(String::from("zookeeper")),
                "zookeeper is given",
            );
        }
        if raw.text("kafka").is_some() {
            raw.derive("feed", Some(String::from("kafka")), "kafka is given");
        }
        let feed = raw
            .text("state_dir")
            .map(|directory| format!("file:{directory}/feed"));
        raw.derive("feed", feed, "below state_dir");
        Self::check(&raw)
    }

    /// The effective settings as a file that can be fed back, each with its origin.
    #[must_use]
    pub fn to_toml(&self) -> String {
        print::to_toml(&self.raw)
    }

    /// Keys of the settings that have another value than in `other`.
    #[must_use]
    pub fn differences(&self, other: &Self) -> Vec<&'static str> {
        self.raw.differences(&other.raw)
    }

    /// Takes from `newer` what can change while an agent runs: `rate`, `allow`, `log`. The rest stays as it is.
    pub fn reload(&mut self, newer: &Self) -> Reloaded {
        let changed = self.differences(newer);
        let (taken, waiting) = changed.into_iter().partition(|key| LIVE.contains(key));
        self.rate = newer.rate;
        self.allow.clone_from(&newer.allow);
        self.log = newer.log;
        self.raw.replace(&LIVE, &newer.raw);
        Reloaded { taken, waiting }
    }

    fn check(raw: &RawConfig) -> Result<Self, ConfigError> {
        let mut check = Checker::new(raw);
        let config = Self {
            node: check.one("node", parse::node),
            discovery: check_discovery(&mut check),
            peer_limit: check.one("peer_limit", peer_limit),
            zookeeper: ZookeeperConfig::check(&mut check),
            own: SelfConfig::check(&mut check),
            feed: check.one("feed", feed),
            kafka: KafkaConfig::check(&mut check),
            rate: check.one("rate", parse::rate),
            window: check.one("window", window),
            timeout: check.one("timeout", timeout),
            detail: check.one("detail", detail),
            compare_every: check.one("compare_every", |text| parse::whole(text, 0..=u32::MAX)),
            sender: check.one("sender", sender),
            mode: check.one("mode", parse::mode),
            interfaces: check.list("interface", parse::interface),
            family: check.one("family", parse::family),
            port: check.one("port", parse::port),
            paths: PathConfig::check(&mut check),
            mark: check.one("mark", |text| parse::whole(text, 1..=u32::MAX)),
            allow: check.list("allow", parse::network),
            rate_limits: RateLimits::check(&mut check),
            metrics: check.one("metrics", metrics),
            pin_root: check.one("pin_root", parse::absolute),
            state_dir: check.one("state_dir", parse::absolute),
            lease: check.one("lease", parse::lease),
            handover: check.one("handover", parse::lease),
            log: check.one_or("log", LevelFilter::INFO, parse::level),
            print_config: check.switch("print_config"),
            raw: raw.clone(),
        };
        if config.feed == FeedTarget::Kafka && !check.has("kafka") {
            check.missing(
                "kafka",
                String::from("say where the brokers are, with --kafka HOST:PORT"),
            );
        }
        config.check_contradictions(&mut check);
        check.finish(config)
    }

    fn check_contradictions(&self, check: &mut Checker<'_>) {
        let SourcePorts { first, last } = self.paths.source_ports;
        let keys = ["source_ports", "rotating_ports", "port"];
        check.contradiction(&keys, self.paths.source_ports.contains(self.port), || {
            format!(
                "port {} is one of source_ports {first}-{last}: a probe would look like a request",
                self.port
            )
        });
        let all = self.paths.all_ports();
        let rotates = all.contains(self.port) && !self.paths.source_ports.contains(self.port);
        check.contradiction(&keys, rotates, || {
            format!(
                "port {} is one of the rotating ports up to {}: a probe would look like a request",
                self.port, all.last
            )
        });
        let by_xdp = matches!(self.mode, ModeRequest::Auto | ModeRequest::Only(Mode::Xdp));
        let longest = self.paths.longest_payload();
        check.contradiction(&["size", "mode"], by_xdp && longest > XDP_PAYLOAD, || {
            format!(
                "XDP sees only the first part of a frame with {longest} bytes of payload, so no reply would be collected: \
                 use mode tc or socket, or at most {XDP_PAYLOAD} bytes"
            )
        });
        let by_file = matches!(self.discovery, DiscoverySource::File(_)) && check.has("discovery");
        let asks = self.own.node_labels == NodeLabels::Kubernetes;
        check.contradiction(&["node_labels", "discovery"], by_file && asks, || {
            String::from("the file of members says where each stands: node_labels kubernetes is for discovery by zookeeper")
        });
        check.contradiction(&["lease", "handover"], self.handover < self.lease, || {
            format!(
                "handover {} is shorter than lease {}: a clean stop would be worse than a crash",
                humantime::format_duration(self.handover),
                humantime::format_duration(self.lease)
            )
        });
    }
}

impl RateLimits {
    pub(super) fn check(check: &mut Checker<'_>) -> Self {
        Self {
            source_pps: check.one("rate_limit_source", parse::packet_rate),
            total_pps: check.one("rate_limit_total", parse::packet_rate),
        }
    }
}

fn check_discovery(check: &mut Checker<'_>) -> DiscoverySource {
    if !check.has("discovery") {
        check.missing(
            "discovery",
            String::from(
                "say where the members are, with --zookeeper HOST:PORT or --discovery file:PATH",
            ),
        );
    }
    let source = check.optional("discovery", discovery);
    let is_lost = source == Some(DiscoverySource::Zookeeper) && !check.has("zookeeper");
    check.contradiction(&["discovery", "zookeeper"], is_lost, || {
        String::from("discovery zookeeper wants servers: give --zookeeper HOST:PORT")
    });
    source.unwrap_or_else(|| DiscoverySource::File(PathBuf::new()))
}

fn discovery(text: &str) -> Result<DiscoverySource, String> {
    match text.strip_prefix("file:") {
        Some(path) if !path.is_empty() => Ok(DiscoverySource::File(path.into())),
        None if text == "zookeeper" => Ok(DiscoverySource::Zookeeper),
        _ => Err(String::from(
            "is neither zookeeper nor a file such as file:/etc/distributed-trace/peers.toml",
        )),
    }
}

fn feed(text: &str) -> Result<FeedTarget, String> {
    match text.strip_prefix("file:") {
        Some(path) if !path.is_empty() => Ok(FeedTarget::File(path.into())),
        None if text == "none" => Ok(FeedTarget::None),
        None if text == "kafka" => Ok(FeedTarget::Kafka),
        _ => Err(String::from(
            "is neither kafka nor none nor a directory such as file:/var/lib/distributed-trace/feed",
        )),
    }
}

fn peer_limit(text: &str) -> Result<usize, String> {
    parse::whole(text, 1..=MeshSettings::MAX_PEER_LIMIT)
}

fn window(text: &str) -> Result<Duration, String> {
    parse::duration(text, Duration::from_secs(1)..=Duration::from_mins(1))
}

fn timeout(text: &str) -> Result<Duration, String> {
    parse::duration(text, Duration::from_millis(1)..=Duration::from_secs(10))
}

fn detail(text: &str) -> Result<Detail, String> {
    match text {
        "windows" => Ok(Detail::Windows),
        "probes" => Ok(Detail::Probes),
        _ => Err(String::from("is neither windows nor probes")),
    }
}

fn sender(text: &str) -> Result<Sender, String> {
    match text {
        "auto" => Ok(Sender::Auto),
        "sockets" => Ok(Sender::Sockets),
        "kernel" => Ok(Sender::Kernel),
        _ => Err(String::from("is none of auto, sockets and kernel")),
    }
}

fn metrics(text: &str) -> Result<Option<SocketAddr>, String> {
    if text == "none" {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|_| {
        String::from("is neither none nor an address and port such as 0.0.0.0:9862 or [::]:9862")
    })
}

/// Settings that can change while an agent runs; `RunConfig::reload` takes each of them over.
const LIVE: [&str; 3] = ["rate", "allow", "log"];
/// What surely is in the linear part of a frame: a page, less headroom, the kernel's own data and our headers.
const XDP_PAYLOAD: u16 = 3_400;
