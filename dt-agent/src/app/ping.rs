//! `dt-agent ping`: probes hosts as `ping` does, with the round trip timed in the kernel.
//!
//! One thread does it all, woken by a timer, by replies and by signals. Which datapath it stands on is the business of
//! `ground`, when to probe and what a reply means that of `host`. Its exit status is that of `ping`: 0 if every host
//! answered, 1 if one did not, 2 if it could not be tried.

mod bell;
mod form;
mod ground;
mod host;
mod print;
mod resolve;
mod round;
mod stats;

use std::process::ExitCode;

use self::bell::Bell;
use self::ground::{Ground, Interrupted};
use self::round::{Ended, Round};
use crate::config::PingConfig;

/// Probes until all is sent, the deadline or a signal.
///
/// # Errors
/// None: what fails is told here, because its status differs from that of other commands.
#[expect(
    clippy::needless_pass_by_value,
    reason = "every command is called like this"
)]
pub fn ping(config: PingConfig) -> anyhow::Result<ExitCode> {
    match probe(&config) {
        Ok(Ended::Answered) => Ok(ExitCode::SUCCESS),
        Ok(Ended::Unanswered) => Ok(ExitCode::from(UNANSWERED)),
        Ok(Ended::Failed) => Ok(ExitCode::from(FAILED)),
        Err(error) if error.is::<Interrupted>() => Ok(ExitCode::from(UNANSWERED)),
        Err(error) => {
            eprintln!("dt-agent: {error:#}");
            Ok(ExitCode::from(FAILED))
        }
    }
}

fn probe(config: &PingConfig) -> anyhow::Result<Ended> {
    let bell = Bell::new()?;
    let destinations = resolve::all(config)?;
    let all_found = destinations.len() == config.hosts.len();
    if destinations.is_empty() {
        return Ok(Ended::Failed);
    }
    let ground = Ground::open(config, &destinations, &bell)?;
    if let Some(kernel) = &ground.paths.kernel {
        bell.listen(kernel)?;
    }
    let ended = Round::new(config, ground, destinations)?.run(&bell)?;
    Ok(if all_found { ended } else { Ended::Failed })
}

const UNANSWERED: u8 = 1;
const FAILED: u8 = 2;
