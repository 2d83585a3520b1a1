//! `dt-agent run`: finds all others, probes them, answers them, publishes what it measured.

mod agent;
mod feed;

use std::process::ExitCode;

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};

use self::agent::Agent;
use crate::adapters::discovery::file::FileDiscovery;
use crate::config::{DiscoverySource, RunConfig};
use crate::ports::{Discovered, Discovery};

/// Runs until SIGTERM or SIGINT.
///
/// # Errors
/// The agent cannot start, or its datapath fails for good.
pub fn run(config: RunConfig) -> anyhow::Result<ExitCode> {
    if config.print_config {
        print!("{}", config.to_toml());
        return Ok(ExitCode::SUCCESS);
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(serve(config))?;
    Ok(ExitCode::SUCCESS)
}

async fn serve(config: RunConfig) -> anyhow::Result<()> {
    let mut stop = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut reload = signal(SignalKind::hangup())?;
    let DiscoverySource::File(path) = &config.discovery;
    let mut discovery = FileDiscovery::new(path.clone(), config.port);
    let first = tokio::select! {
        first = first_membership(&mut discovery, &config.node) => first,
        _ = stop.recv() => return Ok(()),
        _ = interrupt.recv() => return Ok(()),
    };
    let mut agent = Agent::start(&config, &first).context("cannot start the agent")?;
    loop {
        tokio::select! {
            biased; // Stop, then membership, then what time brings. Every branch is cancel safe.
            _ = stop.recv() => break,
            _ = interrupt.recv() => break,
            _ = reload.recv() => discovery.reload(),
            change = discovery.next_change() => match change {
                Ok(discovered) => agent.handle_membership(&discovered)?,
                Err(error) => tracing::error!("The last membership is kept: {:#}", anyhow::Error::from(error)),
            },
            () = agent.wait() => agent.work().await?,
        }
    }
    agent.stop().await
}

/// Waits for a membership that lists this node: before that there is no address to answer or to send from.
async fn first_membership(discovery: &mut FileDiscovery, node: &str) -> Discovered {
    loop {
        match discovery.next_change().await {
            Ok(discovered)
                if discovered
                    .membership
                    .members
                    .iter()
                    .any(|member| member.name == node) =>
            {
                return discovered;
            }
            Ok(_) => tracing::error!(
                node,
                "The membership does not list this node; waiting until it does. Is --node right?"
            ),
            Err(error) => tracing::error!("No membership yet: {:#}", anyhow::Error::from(error)),
        }
    }
}
