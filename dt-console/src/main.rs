//! The console's entry: reads the command line, hands over, turns the result into an exit status.

use std::process::ExitCode;

use dt_console::app;
use dt_console::cli::Cli;

fn main() -> ExitCode {
    app::main(Cli::read())
}
