//! The agent's commands, each from checked settings to exit status.

pub mod detach;
mod discovery;
pub mod doctor;
pub mod leave;
mod log;
mod peers;
pub mod ping;
pub mod reflect;
mod report;
pub mod run;
mod station;

use std::io::{self, Write as _};
use std::process::ExitCode;

use tracing::level_filters::LevelFilter;

use crate::cli::{self, Cli};
use crate::config::{
    ConfigError, DetachConfig, DoctorConfig, EXIT_USAGE, LeaveConfig, PingConfig, ReflectConfig,
    RunConfig,
};

/// Runs the command that was typed.
#[must_use]
pub fn main(cli: &Cli) -> ExitCode {
    match cli {
        Cli::Run(typed) => {
            let read = || RunConfig::load(typed);
            with(read(), |config| config.log, |config| run::run(config, read))
        }
        Cli::Ping(typed) => with(PingConfig::load(typed), |config| config.log, ping::ping),
        Cli::Reflect(typed) => with(
            ReflectConfig::load(typed),
            |config| config.log,
            reflect::reflect,
        ),
        Cli::Doctor(typed) => with(DoctorConfig::load(typed), |config| config.log, examine),
        Cli::Detach(typed) => with(
            DetachConfig::load(typed),
            |config| config.log,
            detach::detach,
        ),
        Cli::Leave(typed) => with(LeaveConfig::load(typed), |config| config.log, leave::leave),
        Cli::Completions(shell) => told(
            io::stdout().write_all(&cli::completions(*shell)),
            "cannot print the completions",
        ),
        Cli::Manual(directory) => told(
            cli::write_manual(directory),
            &format!("cannot write the manual to {}", directory.display()),
        ),
    }
}

/// The exit status of something that needs no settings.
fn told(outcome: io::Result<()>, what_failed: &str) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{what_failed}: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Runs a command with its settings, or says all that is wrong with them.
fn with<C>(
    config: Result<C, ConfigError>,
    level: impl FnOnce(&C) -> LevelFilter,
    command: impl FnOnce(C) -> anyhow::Result<ExitCode>,
) -> ExitCode {
    let config = match config {
        Ok(config) => config,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(EXIT_USAGE);
        }
    };
    log::start(level(&config));
    command(config).unwrap_or_else(|error| {
        eprintln!("dt-agent: {error:#}");
        ExitCode::FAILURE
    })
}

/// Prints what `doctor` finds; the status says whether probes can be stamped in the kernel anywhere.
#[expect(
    clippy::needless_pass_by_value,
    reason = "a command takes its settings"
)]
fn examine(config: DoctorConfig) -> anyhow::Result<ExitCode> {
    let options = doctor::DoctorOptions {
        interfaces: &config.interfaces,
        node: &config.node,
        pin_root: &config.pin_root,
        json: config.json,
    };
    // Attaching XDP resets the rings of most NICs: an examination does not do that to a host.
    let works = doctor::doctor(&options, |_| None, &mut io::stdout().lock())?;
    Ok(if works {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
