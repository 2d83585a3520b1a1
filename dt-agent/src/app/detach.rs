//! `dt-agent detach`: removes what was pinned, whoever left it.

use std::process::ExitCode;
use std::time::Duration;

use dt_common::ABI_VERSION;

use crate::adapters::clock;
use crate::adapters::datapath::ebpf::{NodePins, node_names};
use crate::adapters::kubernetes::{ApiServer, Rollout};
use crate::config::{DetachConfig, DetachTarget};

/// Removes the pins of one node or of all; programs leave their interfaces with them.
///
/// # Errors
/// Another agent runs as that node, or a pin cannot be removed.
pub fn detach(config: DetachConfig) -> anyhow::Result<ExitCode> {
    let nodes = match config.target {
        DetachTarget::DaemonSet { namespace, name } => return await_daemonset(&namespace, &name),
        DetachTarget::Node(node) => vec![node],
        DetachTarget::All => node_names(&config.pin_root),
    };
    let mut status = ExitCode::SUCCESS;
    let mut removed = 0;
    for node in nodes {
        let pins = NodePins::existing(&config.pin_root, &node, ABI_VERSION)?;
        if !pins.exist() {
            continue;
        }
        // Holding the lock while removing keeps an agent from starting in between.
        let result = pins.lock().and_then(|_lock| pins.remove_all());
        match result {
            Ok(()) => {
                removed += 1;
                println!("{node}: programs and pins removed");
            }
            Err(error) => {
                eprintln!("{node}: {:#}", anyhow::Error::from(error));
                status = ExitCode::FAILURE;
            }
        }
    }
    if removed == 0 && status == ExitCode::SUCCESS {
        println!("nothing is pinned below {}", config.pin_root.display());
    }
    Ok(status)
}

/// Waits until the Pods of a DaemonSet are ready on every node: each is, once it has detached there.
fn await_daemonset(namespace: &str, name: &str) -> anyhow::Result<ExitCode> {
    let server = ApiServer::of_pod(&|variable| std::env::var(variable).ok())?;
    let until = clock::now().plus(PATIENCE.as_nanos() as u64);
    let mut said = None;
    loop {
        // A server that is slow for a moment is asked again.
        let rollout = server.rollout(namespace, name);
        if let Ok(rollout) = &rollout
            && said.as_ref() != Some(rollout)
        {
            println!("{} of {} nodes are detached", rollout.ready, rollout.wanted);
            said = Some(rollout.clone());
        }
        if rollout.as_ref().is_ok_and(Rollout::is_done) {
            return Ok(ExitCode::SUCCESS);
        }
        if clock::now() > until {
            let left = rollout?;
            anyhow::bail!(
                "{} nodes are not detached: they are down, or an agent still runs there. Their programs stop by themselves when \
                 the lease ends; to remove them type on each: dt-agent detach",
                left.wanted.saturating_sub(left.ready)
            );
        }
        std::thread::sleep(PAUSE);
    }
}

const PATIENCE: Duration = Duration::from_mins(3);
const PAUSE: Duration = Duration::from_secs(1);
