//! What is told on standard error, and how much of it.

use std::io::IsTerminal as _;
use std::sync::OnceLock;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Registry, fmt, registry, reload};

/// Starts telling. Results go to stdout, talk to stderr.
pub(super) fn start(level: LevelFilter) {
    let (filter, handle) = reload::Layer::new(filter(level));
    let words = fmt::layer()
        .with_writer(std::io::stderr)
        // In a file or a journal colours are noise that no search gets past.
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false);
    registry().with(filter).with(words).init();
    // There is one log in a process, and this is called once.
    let _ = LEVEL.set(handle);
}

/// Tells more or less from now on.
pub(super) fn set_level(level: LevelFilter) {
    if let Some(Err(error)) = LEVEL.get().map(|handle| handle.reload(filter(level))) {
        tracing::error!(%error, "The log keeps its level.");
    }
}

/// A library that tells each attempt to connect is not heard below `debug`: what matters of it the agent says itself.
fn filter(level: LevelFilter) -> Targets {
    let library = if level < LevelFilter::DEBUG {
        LevelFilter::OFF
    } else {
        level
    };
    Targets::new()
        .with_default(level)
        .with_target("zookeeper_client", library)
}

static LEVEL: OnceLock<reload::Handle<Targets, Registry>> = OnceLock::new();
