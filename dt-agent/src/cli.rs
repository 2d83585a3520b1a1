//! The command line.
//!
//! Flags are kept as typed and checked in [`crate::config`] together with environment and file, so that all mistakes
//! are reported at once. The variable and the default that `--help` shows for a flag come from the table of settings
//! there, where each is written once.

mod args;
mod help;

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process;

use clap::{ArgMatches, CommandFactory, FromArgMatches};
use clap_complete::Shell;

use crate::config::{CommandSettings, EXIT_USAGE, Kind, Typed};

use args::{Root, Task};

/// A command with its flags, as typed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Cli {
    /// Be a member of a mesh: probe the others, answer all of them, publish what was measured.
    Run(Typed),
    /// Probe hosts from the terminal.
    Ping(Typed),
    /// Only answer.
    Reflect(Typed),
    /// Say what this host can do and what it lacks.
    Doctor(Typed),
    /// Remove what was pinned.
    Detach(Typed),
    /// Leave a mesh for good.
    Leave(Typed),
    /// Print completions for a shell.
    Completions(Shell),
    /// Write the manual pages into a directory.
    Manual(PathBuf),
}

impl Cli {
    /// Reads the command line of this process; ends it with help (status 0) or usage (status 64) where that is due.
    #[must_use]
    pub fn parse() -> Self {
        Self::parse_from(std::env::args_os()).unwrap_or_else(|error| {
            // Nobody is left to tell when the terminal is gone.
            let _ = error.print();
            process::exit(if error.use_stderr() {
                i32::from(EXIT_USAGE)
            } else {
                0
            })
        })
    }

    /// Reads a command line, the program's name first.
    ///
    /// # Errors
    ///
    /// An unknown command or flag, or a flag without its value; also when help was asked for.
    pub fn parse_from<I>(arguments: I) -> Result<Self, clap::Error>
    where
        I: IntoIterator,
        I::Item: Into<OsString> + Clone,
    {
        let matches = help::annotated(Root::command()).try_get_matches_from(arguments)?;
        let Root { task } = Root::from_arg_matches(&matches)?;
        let typed = matches
            .subcommand()
            .map_or_else(Typed::default, |(name, matches)| typed(name, matches));
        Ok(match task {
            Task::Run(_) => Self::Run(typed),
            Task::Ping(_) => Self::Ping(typed),
            Task::Reflect(_) => Self::Reflect(typed),
            Task::Doctor(_) => Self::Doctor(typed),
            Task::Detach(_) => Self::Detach(typed),
            Task::Leave(_) => Self::Leave(typed),
            Task::Completions(args) => Self::Completions(args.shell),
            Task::Manual(args) => Self::Manual(args.directory),
        })
    }
}

/// What `shell` needs to complete this command line.
#[must_use]
pub fn completions(shell: Shell) -> Vec<u8> {
    let mut script = Vec::new();
    let mut root = help::annotated(Root::command());
    clap_complete::generate(shell, &mut root, "dt-agent", &mut script);
    script
}

/// Writes a page of the manual's section 1 for the program and for each command into `directory`.
///
/// # Errors
/// The directory or a page in it cannot be written.
pub fn write_manual(directory: &Path) -> io::Result<()> {
    std::fs::create_dir_all(directory)?;
    // The commits and hashes of `--version` would make each build's pages differ.
    let root = help::annotated(Root::command()).long_version(env!("CARGO_PKG_VERSION"));
    clap_mangen::generate_to(root, directory)
}

/// What was typed for each setting of a command.
fn typed(command: &str, matches: &ArgMatches) -> Typed {
    let mut typed = Typed::default();
    let settings = CommandSettings::of_command(command).map_or(&[][..], |command| command.settings);
    for setting in settings {
        if setting.kind == Kind::Switch {
            if matches.get_flag(setting.key) {
                typed.insert(setting.key, vec![String::from("true")]);
            }
        } else if let Some(values) = matches.get_many::<String>(setting.key) {
            typed.insert(setting.key, values.cloned().collect());
        }
    }
    typed
}

#[cfg(test)]
mod tests;
