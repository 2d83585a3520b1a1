//! Ctrl-C as a value, so that guards are dropped instead of the program dying with its namespaces in place.
//!
//! By handlers and not by blocking the signals: children would inherit the block, and never hear a SIGTERM of ours.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Result;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;

/// SIGINT, SIGTERM and SIGHUP turned into a flag. A second one ends the program at once.
#[derive(Clone, Debug)]
pub struct Interrupt {
    arrived: Arc<AtomicBool>,
}

impl Interrupt {
    /// Takes the signals over for the rest of the program.
    pub fn catch() -> Result<Self> {
        let arrived = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            // In this order: the first signal finds the flag down, the second finds it up.
            flag::register_conditional_shutdown(signal, EXIT_INTERRUPTED, Arc::clone(&arrived))?;
            flag::register(signal, Arc::clone(&arrived))?;
        }
        Ok(Self { arrived })
    }

    /// Whether a signal came.
    #[must_use]
    pub fn arrived(&self) -> bool {
        self.arrived.load(Ordering::Relaxed)
    }
}

/// 128 + SIGINT, as shells have it.
const EXIT_INTERRUPTED: i32 = 130;
