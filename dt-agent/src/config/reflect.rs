//! Settings of `reflect`, checked.

use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use tracing::level_filters::LevelFilter;

use crate::engine::ladder::ModeRequest;

use super::check::Checker;
use super::error::ConfigError;
use super::raw::{RawConfig, Surroundings, Typed};
use super::run::RateLimits;
use super::{parse, settings};

/// Everything `reflect` wants to know.
#[derive(Clone, Debug)]
pub struct ReflectConfig {
    /// Interfaces to answer on; at least one.
    pub interfaces: Vec<String>,
    /// UDP port on which requests are answered.
    pub port: u16,
    /// Who is answered; empty: nobody.
    pub allow: Vec<IpNet>,
    /// Rung of the datapath ladder.
    pub mode: ModeRequest,
    /// How much is answered.
    pub rate_limits: RateLimits,
    /// After how long without this process answering stops.
    pub lease: Duration,
    /// Name of the directory of pins.
    pub node: String,
    /// Directory on a BPF file system.
    pub pin_root: PathBuf,
    /// What is logged.
    pub log: LevelFilter,
}

impl ReflectConfig {
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
        let raw = RawConfig::gather(settings::REFLECT, typed, surroundings);
        let mut check = Checker::new(&raw);
        let config = Self {
            interfaces: check.list("interface", parse::interface),
            port: check.one("port", parse::port),
            allow: check.list("allow", parse::network),
            mode: check.one("mode", parse::mode),
            rate_limits: RateLimits::check(&mut check),
            lease: check.one("lease", parse::lease),
            node: check.one("node", parse::node),
            pin_root: check.one("pin_root", parse::absolute),
            log: check.one_or("log", LevelFilter::INFO, parse::level),
        };
        if !check.has("interface") {
            check.missing(
                "interface",
                String::from("say where to answer, with --interface IFACE"),
            );
        }
        check.finish(config)
    }
}
