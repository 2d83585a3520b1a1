//! `dt-agent run`: finds the others, probes and answers them, publishes what it measured.

mod agent;
mod choice;
mod feed;
mod labels;

use std::process::ExitCode;

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};

use self::agent::Agent;
use super::discovery::Source;
use crate::adapters::metrics::{SourceState, Telemetry};
use crate::config::{ConfigError, RunConfig};
use crate::ports::{Discovered, Discovery, DiscoveryError};

/// Runs until SIGTERM or SIGINT. `reread` reads the settings again, for SIGHUP.
///
/// # Errors
/// The agent cannot start, or its datapath fails for good.
pub fn run(
    config: RunConfig,
    reread: impl Fn() -> Result<RunConfig, ConfigError>,
) -> anyhow::Result<ExitCode> {
    if config.print_config {
        print!("{}", config.to_toml());
        return Ok(ExitCode::SUCCESS);
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(serve(config, reread))?;
    Ok(ExitCode::SUCCESS)
}

async fn serve(
    mut config: RunConfig,
    reread: impl Fn() -> Result<RunConfig, ConfigError>,
) -> anyhow::Result<()> {
    let mut stop = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut reload = signal(SignalKind::hangup())?;
    let telemetry = config
        .metrics
        .map_or_else(|| Ok(Telemetry::off()), Telemetry::serve)?;
    tokio::select! {
        done = labels::complete(&mut config) => done.context("cannot take the labels of the node")?,
        _ = stop.recv() => return Ok(()),
        _ = interrupt.recv() => return Ok(()),
    }
    let mut discovery = Source::open(&config)?;
    let first = tokio::select! {
        first = first_membership(&mut discovery, &config.node, &telemetry) => first?,
        _ = stop.recv() => return Ok(()),
        _ = interrupt.recv() => return Ok(()),
    };
    let mut agent =
        Agent::start(&config, &first, telemetry.clone()).context("cannot start the agent")?;
    discovery.announce();
    let mut refused = None;
    loop {
        tokio::select! {
            biased; // Stop, then membership, then what time brings. Every branch is cancel safe.
            _ = stop.recv() => break,
            _ = interrupt.recv() => break,
            _ = reload.recv() => {
                discovery.reload();
                match reread() {
                    Ok(newer) => agent.handle_settings(&newer)?,
                    Err(error) => tracing::error!("The settings stay as they are: {error}"),
                }
            }
            change = noted(discovery.next_change(), &telemetry) => match change {
                Ok(discovered) if discovered.told_to_leave => {
                    tracing::info!("This node was told to leave the mesh.");
                    break;
                }
                Ok(discovered) => agent.handle_membership(&discovered)?,
                Err(error @ DiscoveryError::Refused { .. }) => {
                    refused = Some(error);
                    break;
                }
                Err(error) => tracing::error!("The last membership is kept: {:#}", anyhow::Error::from(error)),
            },
            () = agent.wait() => agent.work().await?,
        }
    }
    // First, so that peers know before they miss an answer.
    discovery.suspend().await;
    agent.stop().await?;
    refused.map_or(Ok(()), |error| Err(error.into()))
}

/// Waits for a membership that lists this node: before that there is no address to answer or to send from.
async fn first_membership(
    discovery: &mut Source,
    node: &str,
    telemetry: &Telemetry,
) -> anyhow::Result<Discovered> {
    loop {
        match noted(discovery.next_change(), telemetry).await {
            Ok(discovered)
                if discovered
                    .membership
                    .members
                    .iter()
                    .any(|member| *member.name == *node) =>
            {
                return Ok(discovered);
            }
            Ok(_) => tracing::error!(
                node,
                "The membership does not list this node; waiting until it does. Is --node right?"
            ),
            Err(error @ DiscoveryError::Refused { .. }) => return Err(error.into()),
            Err(error) => tracing::error!("No membership yet: {:#}", anyhow::Error::from(error)),
        }
    }
}

/// What discovery says next, and whoever asks this agent how it is hears whether it says anything. Cancel safe.
async fn noted(
    change: impl Future<Output = Result<Discovered, DiscoveryError>>,
    telemetry: &Telemetry,
) -> Result<Discovered, DiscoveryError> {
    let change = change.await;
    let state = match &change {
        Ok(_) => SourceState::Readable,
        Err(error) => SourceState::Failed(error.to_string()),
    };
    telemetry.update(|status| status.discovery = state);
    change
}
