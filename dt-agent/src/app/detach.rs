//! `dt-agent detach`: removes what was pinned, whoever left it.

use std::process::ExitCode;

use dt_common::ABI_VERSION;

use crate::adapters::datapath::ebpf::{NodePins, node_names};
use crate::config::{DetachConfig, DetachTarget};

/// Removes the pins of one node or of all; programs leave their interfaces with them.
///
/// # Errors
/// Another agent runs as that node, or a pin cannot be removed.
pub fn detach(config: DetachConfig) -> anyhow::Result<ExitCode> {
    let nodes = match config.target {
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
