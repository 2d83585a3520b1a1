//! The command line: one subcommand per developer task.

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::setup::Group;
use crate::workspace::{self, Workspace};
use crate::{bench, build, check, demo, load, package, sbom, schema, setup, test};

#[derive(Parser)]
#[command(
    name = "cargo xtask",
    bin_name = "cargo xtask",
    about = "Developer commands of distributed-trace",
    after_help = AFTER_HELP,
    version
)]
struct Args {
    #[command(subcommand)]
    command: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Install what the other commands need; a second call changes nothing
    ///
    /// Debian packages (the only part that needs root), the source of `core` for the BPF target, `bpf-linker`, and for
    /// tests and benchmarks the foreign peers (`stamp-suite`, scapy), Kafka and Python packages. Everything but the
    /// packages goes below `target/`.
    Setup {
        /// Install only what this command needs, instead of everything
        #[arg(long = "for", value_enum, value_name = "COMMAND", default_value_t = Group::All)]
        group: Group,
    },
    /// Build the BPF objects, then the agent with its object embedded, all optimised
    Build {
        /// Build target/trace/dt-agent instead, whose programs log each verdict: for development, not for measuring
        #[arg(long)]
        trace: bool,
    },
    /// Set up, build, and make the Debian package: target/package/distributed-trace_VERSION_ARCHITECTURE.deb
    ///
    /// Agent with a systemd unit, console, manual pages, completions. The same commit makes the same bytes.
    Package(package::Options),
    /// Print what is linked into agent and console, with versions, licences and hashes, in JSON as `CycloneDX` has it
    Sbom,
    /// Set up, build, and watch hosts on this machine probe each other; needs root
    ///
    /// The hosts are network namespaces, each with a real agent. Ends with status 0 only if every pair was measured in the
    /// mode asked for, reached the rate within 2 %, and lost nothing. Leaves nothing behind.
    Demo(demo::Options),
    /// Attach the programs to an interface without an agent, and answer until Ctrl-C; needs root
    ///
    /// Prints the ids of programs, links and maps and the mode chosen, keeps the lease, and takes everything away when it
    /// ends.
    Load(load::Options),
    /// Remove what a `load` that crashed left on an interface; needs root
    Unload {
        /// The interface
        #[arg(value_name = "IFACE")]
        interface: String,
    },
    /// Measure what the project promises, beside what it is compared with; needs root
    #[command(subcommand)]
    Bench(bench::Bench),
    /// Prove what can be proved without a kernel: formatting, lints, docs, licences, duplicates, layering
    Check,
    /// Compare the schema of the feed with the released one, which it may only extend
    Schema(schema::Options),
    /// Set up, build, and run all tests: on the host, and as root in network namespaces
    ///
    /// Ends with one line, `N passed, N failed, N skipped`. With CI=true a skipped test is a failure.
    Test {
        /// Run only the tests whose name contains this
        filter: Option<String>,
    },
}

/// Reads the command line and does what it says.
pub fn run() -> Result<()> {
    let task = Args::parse().command;
    let workspace = Workspace::find()?;
    match task {
        Task::Setup { group } => setup::run(&workspace, group),
        Task::Build { trace: true } => build::run_trace(&workspace).map(drop),
        Task::Build { trace: false } => build::run(&workspace).map(drop),
        Task::Package(options) => package::run(&workspace, &options),
        Task::Sbom => {
            print!("{}", sbom::text(&workspace)?);
            Ok(())
        }
        Task::Demo(options) => {
            workspace::require_root("demo")?;
            demo::run(&workspace, &options)
        }
        Task::Load(options) => {
            workspace::require_root("load")?;
            load::load(&workspace, &options)
        }
        Task::Unload { interface } => {
            workspace::require_root("unload")?;
            load::unload(&workspace, &interface)
        }
        Task::Bench(bench) => {
            workspace::require_root("bench")?;
            bench::run(&workspace, &bench)
        }
        Task::Check => check::run(&workspace),
        Task::Schema(options) => schema::run(&workspace, &options),
        Task::Test { filter } => {
            workspace::require_root("test")?;
            test::run(&workspace, filter.as_deref())
        }
    }
}

const AFTER_HELP: &str = "\
A first hour:
  cargo xtask setup    once, on a fresh Debian machine (as root, or with sudo for the packages it names)
  cargo xtask build    target/release/dt-agent, and the BPF objects in target/bpf-objects
  cargo xtask demo     needs root: four hosts that measure each other, in the kernel and beside ping
  cargo xtask test     needs root: makes network namespaces and loads BPF programs
  cargo xtask check    what a pull request has to pass besides the tests

Logs of long steps are in target/xtask-logs. `cargo xtask COMMAND --help` says more.";

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_well_formed() {
        Args::command().debug_assert();
    }

    #[test]
    fn setup_is_for_everything_unless_told_otherwise() {
        let args = Args::parse_from(["cargo xtask", "setup"]);
        assert!(matches!(args.command, Task::Setup { group: Group::All }));
    }
}
