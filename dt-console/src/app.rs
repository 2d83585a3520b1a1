//! The commands, each from its arguments to its exit status.

mod export;
mod inspect;
mod json;
mod matrix;
mod output;
mod save;
mod screen;
mod tail;

use std::env;
use std::io::{self, Write as _};
use std::process::ExitCode;

use anyhow::{Context as _, Result};

use crate::cli::{self, Cli, EXIT_USAGE, SourceArgs, Task};
use crate::interrupt::Interrupt;
use crate::source::{Begin, Directories, Event, Kafka, Settings, Skipped, Source};
use output::Closed;

/// Runs the command that was typed.
#[must_use]
pub fn main(cli: Cli) -> ExitCode {
    match run(cli.task) {
        Ok(status) => status,
        // Whoever closed the pipe has seen enough.
        Err(error) if error.is::<Closed>() => ExitCode::SUCCESS,
        Err(error) if error.is::<NoSource>() => {
            eprintln!("dt-console: {error:#}");
            ExitCode::from(EXIT_USAGE)
        }
        Err(error) => {
            eprintln!("dt-console: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(task: Task) -> Result<ExitCode> {
    let interrupt = Interrupt::catch().context("cannot wait for signals")?;
    match task {
        Task::Tail(tail) => tail::run(&tail, &interrupt),
        Task::Matrix(arguments) => matrix::run(&arguments, &interrupt),
        Task::Export(export) => export::run(&export, &interrupt),
        Task::Save(save) => save::run(&save, &interrupt),
        Task::Inspect(inspect) => inspect::run(&inspect, &interrupt),
        Task::Completions { shell } => {
            io::stdout().write_all(&cli::completions(shell))?;
            Ok(ExitCode::SUCCESS)
        }
        Task::Manual { directory } => {
            cli::write_manual(&directory)
                .with_context(|| format!("cannot write the manual to {}", directory.display()))?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Neither a broker nor a directory was named.
#[derive(Debug, thiserror::Error)]
#[error("name a source: --kafka HOST:PORT (or KAFKA_BOOTSTRAP_SERVERS), or --dir DIR")]
struct NoSource;

/// Opens what was named on the command line or in the environment.
fn open(arguments: &SourceArgs, begin: Begin, interrupt: &Interrupt) -> Result<Source> {
    if !arguments.dir.is_empty() {
        let directories = Directories::follow(arguments.dir.clone(), begin)?;
        return Ok(Source::Directories(Box::new(directories)));
    }
    // Not by clap, for which the variable would contradict --dir.
    let named = arguments.kafka.clone();
    let brokers = named.or_else(|| env::var("KAFKA_BOOTSTRAP_SERVERS").ok());
    let brokers = brokers
        .filter(|brokers| !brokers.is_empty())
        .ok_or(NoSource)?;
    let kafka = Kafka::open(Settings {
        brokers,
        topic: arguments.topic.clone(),
        group: arguments.group.clone(),
        properties: arguments.kafka_property.clone(),
        begin,
        patience: arguments.wait,
        interrupt: interrupt.clone(),
    })?;
    Ok(Source::Kafka(Box::new(kafka)))
}

/// Says on standard error what a source has to say, the first few times each.
#[derive(Default)]
struct Talk {
    broken: u64,
}

impl Talk {
    /// Takes what is no batch.
    fn take(&mut self, event: &Event) {
        match event {
            Event::Batch { .. } => (),
            Event::Note(text) => eprintln!("dt-console: {text}"),
            Event::Broken(text) => {
                self.broken += 1;
                if self.broken <= NAMED {
                    eprintln!("dt-console: {text}");
                }
                if self.broken == NAMED {
                    eprintln!("dt-console: further ones are only counted");
                }
            }
        }
    }
}

/// What was skipped, as the end of a talk; nothing if nothing was.
fn told(skipped: Skipped) {
    let Skipped {
        repeated_batches,
        broken_messages,
        deleted_messages,
        forgotten,
    } = skipped;
    let counted = [
        (repeated_batches, "repeated batches left out"),
        (broken_messages, "broken messages or segments skipped"),
        (
            deleted_messages,
            "messages deleted by the broker before they were read",
        ),
        (
            forgotten,
            "starts or gaps forgotten early: repeats may have passed",
        ),
    ];
    for (count, what) in counted.into_iter().filter(|(count, _)| *count > 0) {
        eprintln!("dt-console: {count} {what}");
    }
}

/// How many broken messages are named.
const NAMED: u64 = 10;
