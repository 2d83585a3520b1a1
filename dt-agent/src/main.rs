//! The agent's entry: reads the command line, hands over, turns the result into an exit status.

use std::process::ExitCode;

use dt_agent::app;
use dt_agent::cli::Cli;

fn main() -> ExitCode {
    app::main(&Cli::parse())
}
