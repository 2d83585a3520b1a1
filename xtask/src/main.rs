//! Every developer command of distributed-trace; `cargo xtask --help` lists them.
//!
//! One module per command, and what they share beside them: `workspace` (where things are), `process` (children and
//! their output), `clock` (how long it took).

#![forbid(unsafe_code)]

mod bench;
mod build;
mod check;
mod cli;
mod clock;
mod demo;
mod load;
mod package;
mod process;
mod sbom;
mod schema;
mod setup;
mod test;
mod workspace;

use std::process::ExitCode;

fn main() -> ExitCode {
    match cli::run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
