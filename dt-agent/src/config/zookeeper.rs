//! Settings of discovery by ZooKeeper, and of `leave`, checked.

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use tracing::level_filters::LevelFilter;

use super::check::Checker;
use super::error::ConfigError;
use super::raw::{RawConfig, Surroundings, Typed};
use super::{parse, settings};

/// How to reach the mesh's tree in ZooKeeper.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct ZookeeperConfig {
    /// Servers, `HOST:PORT` each.
    pub servers: Vec<String>,
    /// Path below which the mesh is kept.
    pub root: String,
    /// Session timeout that is asked for.
    pub session: Duration,
    /// `user:password` for the scheme `digest`, from a file.
    pub auth: Option<String>,
    /// User and password for SASL DIGEST-MD5, from a file.
    pub sasl: Option<(String, String)>,
    /// Certificates of trusted authorities (PEM), which means TLS.
    pub tls_ca: Option<String>,
    /// This host's certificate (PEM).
    pub tls_cert: Option<String>,
    /// Its key (PEM).
    pub tls_key: Option<String>,
}

/// What this node says of itself, and whom it may probe, where no file says it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct SelfConfig {
    /// Own addresses; empty: those of the links.
    pub addresses: Vec<IpAddr>,
    /// Zone.
    pub zone: Option<String>,
    /// Rack.
    pub rack: Option<String>,
    /// Group of like machines.
    pub instance_group: Option<String>,
    /// Bandwidth as the operator writes it.
    pub bandwidth: Option<String>,
    /// Any other labels.
    pub labels: BTreeMap<String, String>,
    /// Who else says zone, rack and instance group.
    pub node_labels: NodeLabels,
    /// The label of a Kubernetes node that names its rack.
    pub rack_label: String,
    /// Networks whose addresses may be probed; empty: private ones and those of the links.
    pub allow_targets: Vec<IpNet>,
    /// For how long probing goes on without news of the members.
    pub grace: Duration,
}

/// Who says where this node stands, where its own settings do not.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum NodeLabels {
    /// Nobody.
    #[default]
    None,
    /// The labels of the Kubernetes node.
    Kubernetes,
}

impl ZookeeperConfig {
    pub(super) fn check(check: &mut Checker<'_>) -> Self {
        let config = Self {
            servers: check.list("zookeeper", server),
            root: check.one("zookeeper_root", root),
            session: check.one("zookeeper_session", |text| {
                parse::duration(text, Duration::from_secs(1)..=Duration::from_hours(1))
            }),
            auth: check.optional("zookeeper_auth_file", auth),
            sasl: check.optional("zookeeper_sasl_file", |path| {
                let line = auth(path)?;
                let (user, password) = line.split_once(':').unwrap_or((&line, ""));
                Ok((user.to_owned(), password.to_owned()))
            }),
            tls_ca: check.optional("zookeeper_tls_ca", pem),
            tls_cert: check.optional("zookeeper_tls_cert", pem),
            tls_key: check.optional("zookeeper_tls_key", pem),
        };
        check.contradiction(
            &["zookeeper_auth_file", "zookeeper_sasl_file"],
            config.auth.is_some() && config.sasl.is_some(),
            || String::from("a mesh has one user: give zookeeper_auth_file or zookeeper_sasl_file"),
        );
        check.contradiction(
            &["zookeeper_tls_cert", "zookeeper_tls_key"],
            config.tls_cert.is_some() != config.tls_key.is_some(),
            || {
                String::from(
                    "a certificate needs its key: give zookeeper_tls_cert and zookeeper_tls_key",
                )
            },
        );
        check.contradiction(
            &["zookeeper_tls_ca", "zookeeper_tls_cert"],
            config.tls_cert.is_some() && config.tls_ca.is_none(),
            || String::from("TLS needs to know whom to trust: give zookeeper_tls_ca too"),
        );
        config
    }

    /// As the client wants them.
    #[must_use]
    pub fn connection(&self) -> String {
        self.servers.join(",")
    }
}

impl SelfConfig {
    pub(super) fn check(check: &mut Checker<'_>) -> Self {
        Self {
            addresses: check.list("address", address),
            zone: check.optional("zone", label),
            rack: check.optional("rack", label),
            instance_group: check.optional("instance_group", label),
            bandwidth: check.optional("bandwidth", label),
            labels: check.list("label", free_label).into_iter().collect(),
            node_labels: check.one("node_labels", node_labels),
            rack_label: check.one("rack_label", label),
            allow_targets: check.list("allow_targets", parse::network),
            grace: check.one("membership_grace", |text| {
                parse::duration(text, Duration::from_secs(1)..=Duration::from_hours(24))
            }),
        }
    }
}

/// Everything `leave` wants to know.
#[derive(Clone, Debug)]
pub struct LeaveConfig {
    /// Name of the node that leaves.
    pub node: String,
    /// The way to ZooKeeper.
    pub zookeeper: ZookeeperConfig,
    /// Directory with this host's identity.
    pub state_dir: PathBuf,
    /// How long ZooKeeper is waited for.
    pub timeout: Duration,
    /// What is logged.
    pub log: LevelFilter,
}

impl LeaveConfig {
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
        let raw = RawConfig::gather(settings::LEAVE, typed, surroundings);
        let mut check = Checker::new(&raw);
        if !check.has("zookeeper") {
            check.missing(
                "zookeeper",
                String::from("say where ZooKeeper is, with --zookeeper HOST:PORT"),
            );
        }
        let config = Self {
            node: check.one("node", parse::node),
            zookeeper: ZookeeperConfig::check(&mut check),
            state_dir: check.one("state_dir", parse::absolute),
            timeout: check.one("timeout", |text| {
                parse::duration(text, Duration::from_secs(1)..=Duration::from_mins(10))
            }),
            log: check.one_or("log", LevelFilter::WARN, parse::level),
        };
        check.finish(config)
    }
}

fn server(text: &str) -> Result<String, String> {
    let well_formed = text.rsplit_once(':').is_some_and(|(host, port)| {
        !host.is_empty() && parse::port(port).is_ok() && !text.contains(['/', ' ', ','])
    });
    if well_formed {
        Ok(text.to_owned())
    } else {
        Err(String::from("is not a server such as zookeeper-1:2181"))
    }
}

fn root(text: &str) -> Result<String, String> {
    let parts = text.strip_prefix('/').map(|rest| rest.split('/'));
    let is_good = |part: &str| {
        !part.is_empty()
            && !matches!(part, "." | ".." | "zookeeper")
            && part
                .chars()
                .all(|letter| letter.is_ascii_alphanumeric() || "-_.".contains(letter))
    };
    if text.len() <= MAX_ROOT && parts.is_some_and(|mut parts| parts.all(is_good)) {
        Ok(text.to_owned())
    } else {
        Err(String::from("is not a path such as /distributed-trace"))
    }
}

/// The content of a PEM file.
fn pem(path: &str) -> Result<String, String> {
    let text = fs::read_to_string(path).map_err(|error| format!("cannot be read: {error}"))?;
    if text.contains("-----BEGIN ") {
        Ok(text)
    } else {
        Err(String::from("is not a PEM file"))
    }
}

/// The content of the file, which nobody else should see.
fn auth(path: &str) -> Result<String, String> {
    let text = fs::read_to_string(path).map_err(|error| format!("cannot be read: {error}"))?;
    let line = text.trim();
    let well_formed = line.split_once(':').is_some_and(|(user, password)| {
        !user.is_empty() && !password.is_empty() && line.lines().count() == 1
    });
    if well_formed {
        Ok(line.to_owned())
    } else {
        Err(String::from("does not hold one line USER:PASSWORD"))
    }
}

fn address(text: &str) -> Result<IpAddr, String> {
    text.parse()
        .map_err(|_| String::from("is not an IP address"))
}

fn node_labels(text: &str) -> Result<NodeLabels, String> {
    match text {
        "none" => Ok(NodeLabels::None),
        "kubernetes" => Ok(NodeLabels::Kubernetes),
        _ => Err(String::from("is neither none nor kubernetes")),
    }
}

fn label(text: &str) -> Result<String, String> {
    if (1..=MAX_LABEL).contains(&text.len()) && !text.contains(char::is_control) {
        Ok(text.to_owned())
    } else {
        Err(format!("is not a label of 1 to {MAX_LABEL} bytes"))
    }
}

fn free_label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text
        .split_once('=')
        .ok_or_else(|| String::from("is not a label such as owner=net"))?;
    Ok((label(key)?, label(value)?))
}

const MAX_ROOT: usize = 512;
const MAX_LABEL: usize = 256;
