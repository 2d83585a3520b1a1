//! Settings of the small commands, `doctor` and `detach`, checked.

use std::path::PathBuf;

use tracing::level_filters::LevelFilter;

use super::check::Checker;
use super::error::ConfigError;
use super::raw::{RawConfig, Surroundings, Typed};
use super::{parse, settings};

/// Everything `doctor` wants to know.
#[derive(Clone, Debug)]
pub struct DoctorConfig {
    /// Print one JSON object.
    pub json: bool,
    /// Interfaces to look at; empty: all that could carry probes.
    pub interfaces: Vec<String>,
    /// UDP port on which this node would answer.
    pub port: u16,
    /// Node whose pins are looked at.
    pub node: String,
    /// Directory on a BPF file system.
    pub pin_root: PathBuf,
    /// What is logged.
    pub log: LevelFilter,
}

impl DoctorConfig {
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
        let raw = RawConfig::gather(settings::DOCTOR, typed, surroundings);
        let mut check = Checker::new(&raw);
        let config = Self {
            json: check.switch("json"),
            interfaces: check.list("interface", parse::interface),
            port: check.one("port", parse::port),
            node: check.one("node", parse::node),
            pin_root: check.one("pin_root", parse::absolute),
            log: check.one_or("log", LevelFilter::WARN, parse::level),
        };
        check.finish(config)
    }
}

/// Everything `detach` wants to know.
#[derive(Clone, Debug)]
pub struct DetachConfig {
    /// Whose pins are removed.
    pub target: DetachTarget,
    /// Directory on a BPF file system.
    pub pin_root: PathBuf,
    /// What is logged.
    pub log: LevelFilter,
}

/// Whose pins are removed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum DetachTarget {
    /// Those of this node.
    Node(String),
    /// Those of every node on this machine.
    All,
    /// None here: Pods of this DaemonSet do it, and are waited for.
    DaemonSet {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
}

impl DetachConfig {
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
        let raw = RawConfig::gather(settings::DETACH, typed, surroundings);
        let mut check = Checker::new(&raw);
        let all = check.switch("all");
        let config = Self {
            target: if all {
                DetachTarget::All
            } else if let Some((namespace, name)) = check.optional("daemonset", daemonset) {
                DetachTarget::DaemonSet { namespace, name }
            } else {
                DetachTarget::Node(check.one("node", parse::node))
            },
            pin_root: check.one("pin_root", parse::absolute),
            log: check.one_or("log", LevelFilter::WARN, parse::level),
        };
        check.finish(config)
    }
}

fn daemonset(text: &str) -> Result<(String, String), String> {
    let is_name = |part: &str| {
        !part.is_empty()
            && part
                .chars()
                .all(|letter| letter.is_ascii_alphanumeric() || "-.".contains(letter))
    };
    match text.split_once('/') {
        Some((namespace, name)) if is_name(namespace) && is_name(name) => {
            Ok((namespace.to_owned(), name.to_owned()))
        }
        _ => Err(String::from("is not NAMESPACE/NAME of a DaemonSet")),
    }
}
