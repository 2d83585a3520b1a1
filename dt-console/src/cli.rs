//! The command line. Values are checked here; what they lead to is the business of [`crate::app`].

use std::io;
use std::path::{Path, PathBuf};
use std::process;
use std::time::Duration;

use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum, value_parser};
use clap_complete::Shell;

use crate::filter::{Filter, Pattern, Threshold};
use crate::rollup::{By, Span};

use value::{Moment, SpanArg};

mod help;
#[cfg(test)]
mod tests;
pub mod value;

/// Status of a mistake on the command line.
pub const EXIT_USAGE: u8 = 64;

/// The whole command line.
#[derive(Debug, Parser)]
#[command(
    name = "dt-console",
    version,
    long_version = LONG_VERSION,
    about = "Shows what the hosts of a cluster measured of each other, from a Kafka topic or from segment files",
    after_help = help::ROOT,
    subcommand_required = true,
    arg_required_else_help = true
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub task: Task,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Task {
    /// Print a line for each window or probe, as they come
    Tail(Box<Tail>),
    /// Show P50, P99, loss and state between all nodes, racks or zones
    Matrix(Box<MatrixArgs>),
    /// Write windows or probes of a range of time to a Parquet or CSV file
    Export(Box<Export>),
    /// Write the batches themselves into segment files, as they come
    Save(Box<Save>),
    /// Say what is in segment files, and name what is damaged
    Inspect(Inspect),
    /// Print what a shell needs to complete the commands and flags of this program
    Completions {
        /// The shell.
        #[arg(value_enum)]
        shell: Shell,
    },
    /// Write the manual pages of this program, one for each command
    Manual {
        /// The directory to write to, which is made if it is not there
        #[arg(value_name = "DIR")]
        directory: PathBuf,
    },
}

/// What `shell` needs to complete this command line.
#[must_use]
pub fn completions(shell: Shell) -> Vec<u8> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "dt-console", &mut script);
    script
}

/// Writes a page of the manual's section 1 for the program and for each command into `directory`.
///
/// # Errors
/// The directory or a page in it cannot be written.
pub fn write_manual(directory: &Path) -> io::Result<()> {
    std::fs::create_dir_all(directory)?;
    // The commit of `--version` would make each build's pages differ.
    let root = Cli::command().long_version(env!("CARGO_PKG_VERSION"));
    clap_mangen::generate_to(root, directory)
}

const LONG_VERSION: &str = concat!(
    env!("CARGO_PKG_VERSION"),
    "\ncommit ",
    env!("DT_BUILD_COMMIT")
);

/// Where batches come from.
#[derive(Clone, Debug, Args)]
pub struct SourceArgs {
    /// Read from Kafka, by these brokers
    #[arg(long, help = help::KAFKA, value_name = "HOST:PORT,…", help_heading = help::SOURCE, conflicts_with = "dir")]
    pub kafka: Option<String>,

    /// Read the segment files in this directory, and what is written into it; repeat for more
    #[arg(long, value_name = "DIR", help_heading = help::SOURCE)]
    pub dir: Vec<PathBuf>,

    /// Kafka topic
    #[arg(long, value_name = "NAME", help_heading = help::SOURCE, env = "DT_KAFKA_TOPIC", default_value = "_distributedTrace")]
    pub topic: String,

    /// Share the topic with the other members of this consumer group, and go on where it stopped; without it all is read
    #[arg(long, value_name = "NAME", help_heading = help::SOURCE, env = "DT_CONSOLE_GROUP")]
    pub group: Option<String>,

    /// Anything that librdkafka knows, for instance security.protocol=SSL; repeat for more
    #[arg(long, value_name = "KEY=VALUE", help_heading = help::SOURCE, env = "DT_KAFKA_PROPERTY", hide_env_values = true, value_delimiter = '\n', value_parser = value::property)]
    pub kafka_property: Vec<(String, String)>,

    /// How long to wait for the broker and the topic to be there
    #[arg(long, value_name = "TIME", help_heading = help::SOURCE, default_value = "10s", value_parser = value::duration)]
    pub wait: Duration,
}

/// Which nodes.
#[derive(Clone, Debug, Default, Args)]
pub struct FilterArgs {
    /// Only what this node measured; `*` stands for any letters; repeat for more
    #[arg(long, value_name = "NODE", help_heading = help::FILTER)]
    pub source: Vec<Pattern>,

    /// Only what was measured of this node
    #[arg(long, value_name = "NODE", help_heading = help::FILTER)]
    pub peer: Vec<Pattern>,

    /// Only with this node at either end
    #[arg(long, value_name = "NODE", help_heading = help::FILTER)]
    pub node: Vec<Pattern>,

    /// Only with this zone at either end
    #[arg(long, value_name = "ZONE", help_heading = help::FILTER)]
    pub zone: Vec<Pattern>,

    /// Only with this rack at either end, by its name or as ZONE/RACK
    #[arg(long, value_name = "RACK", help_heading = help::FILTER)]
    pub rack: Vec<Pattern>,

    /// Only probes with this code point; repeat for more
    #[arg(long, value_name = "DSCP", help_heading = help::FILTER, value_parser = value_parser!(u32).range(0..=63))]
    pub dscp: Vec<u32>,

    /// Only probes of this length, from their IP header on: 1500 of an agent with --size 1472
    #[arg(long, value_name = "BYTES", help_heading = help::FILTER)]
    pub packet_bytes: Vec<u32>,
}

/// `dt-console tail`.
#[derive(Debug, Args)]
#[command(after_help = help::TAIL)]
pub struct Tail {
    /// Where from.
    #[command(flatten)]
    pub source: SourceArgs,

    /// Which nodes.
    #[command(flatten)]
    pub filter: FilterArgs,

    /// Only with losses: windows that lost at least so much, lost probes; with --rtt: either
    #[arg(long, value_name = "PERCENT", help_heading = help::FILTER, num_args = 0..=1, default_missing_value = "0", value_parser = value::percent)]
    pub loss: Option<f64>,

    /// Only what is slow: windows with such a P99, probes with such a round trip time, or more
    #[arg(long, value_name = "TIME", help_heading = help::FILTER, value_parser = value::duration)]
    pub rtt: Option<Duration>,

    /// A line for each probe; agents must run with --detail probes
    #[arg(long)]
    pub probes: bool,

    /// A JSON object a line, with the names of docs/console.md
    #[arg(long)]
    pub json: bool,

    /// Where to begin: start, end, 10m (ago), 2026-11-25T18:00:00Z; end unless given, with --once start
    #[arg(long, value_name = "TIME", value_parser = value::moment)]
    pub since: Option<Moment>,

    /// End when everything was read that was there
    #[arg(long)]
    pub once: bool,

    /// End after so many lines
    #[arg(short = 'n', long, value_name = "N")]
    pub lines: Option<u64>,
}

/// `dt-console matrix`.
#[derive(Debug, Args)]
#[command(after_help = help::MATRIX)]
pub struct MatrixArgs {
    /// Where from.
    #[command(flatten)]
    pub source: SourceArgs,

    /// Which nodes.
    #[command(flatten)]
    pub filter: FilterArgs,

    /// What a row and a column stand for
    #[arg(long, value_enum, default_value_t = ByArg::Node)]
    pub by: ByArg,

    /// How far back figures count, or all
    #[arg(long, value_name = "TIME", default_value = "1m", value_parser = value::span)]
    pub span: SpanArg,

    /// Print one picture when everything was read that was there, and end
    #[arg(long)]
    pub once: bool,

    /// End after so long; with --once: read for at least so long
    #[arg(long = "for", value_name = "TIME", value_parser = value::duration)]
    pub for_time: Option<Duration>,

    /// A JSON object a line instead of a drawing
    #[arg(long)]
    pub json: bool,

    /// Time from picture to picture
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = value::duration)]
    pub interval: Duration,

    /// A source that was not heard for so long, and for three of its windows, is silent
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = value::duration)]
    pub silent_after: Duration,
}

/// `dt-console export`.
#[derive(Debug, Args)]
#[command(after_help = help::EXPORT)]
pub struct Export {
    /// Where from.
    #[command(flatten)]
    pub source: SourceArgs,

    /// Which nodes.
    #[command(flatten)]
    pub filter: FilterArgs,

    /// First instant: start, 1h (ago), 2026-11-25T18:00:00Z
    #[arg(long, value_name = "TIME", default_value = "start", value_parser = value::moment)]
    pub from: Moment,

    /// First instant that is too late: end, 10m (ago), 2026-11-25T19:00:00Z
    #[arg(long, value_name = "TIME", default_value = "end", value_parser = value::moment)]
    pub to: Moment,

    /// What a row is
    #[arg(long, value_enum, default_value_t = Rows::Windows)]
    pub rows: Rows,

    /// Form of the file; by the ending of its name unless given
    #[arg(long, value_enum)]
    pub format: Option<Format>,

    /// File to write; - for CSV to standard output
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
}

/// `dt-console save`.
#[derive(Debug, Args)]
#[command(after_help = help::SAVE)]
pub struct Save {
    /// Where from.
    #[command(flatten)]
    pub source: SourceArgs,

    /// End when everything was read that was there
    #[arg(long)]
    pub once: bool,

    /// Directory to write segments into, made if it is missing; what is in it stays
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
}

/// `dt-console inspect`.
#[derive(Debug, Args)]
#[command(after_help = help::INSPECT)]
pub struct Inspect {
    /// Segment files
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,

    /// A JSON object a line for each file
    #[arg(long)]
    pub json: bool,
}

/// What is added up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ByArg {
    /// Each node by itself
    Node,
    /// The nodes of a rack
    Rack,
    /// The nodes of a zone
    Zone,
}

/// What a row of an export is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Rows {
    /// A window
    Windows,
    /// A probe
    Probes,
}

/// Form of an export.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Parquet, compressed by zstd
    Parquet,
    /// Comma-separated values (RFC 4180), with a line of names
    Csv,
}

impl Cli {
    /// Reads the command line of this process; ends it with help (status 0) or usage (status 64) where that is due.
    #[must_use]
    pub fn read() -> Self {
        Self::try_parse().unwrap_or_else(|error| {
            // Nobody is left to tell when the terminal is gone.
            let _ = error.print();
            process::exit(if error.use_stderr() {
                i32::from(EXIT_USAGE)
            } else {
                0
            })
        })
    }
}

impl FilterArgs {
    /// What has to hold of nodes.
    #[must_use]
    pub fn filter(&self) -> Filter {
        Filter {
            from: self.source.clone(),
            to: self.peer.clone(),
            nodes: self.node.clone(),
            zones: self.zone.clone(),
            racks: self.rack.clone(),
            dscps: self.dscp.clone(),
            packet_bytes: self.packet_bytes.clone(),
        }
    }
}

impl Tail {
    /// From which figures on something is worth a line.
    #[must_use]
    pub fn threshold(&self) -> Threshold {
        Threshold {
            loss: self.loss,
            rtt_ns: self.rtt.map(|rtt| rtt.as_nanos() as u64),
        }
    }
}

impl From<ByArg> for By {
    fn from(by: ByArg) -> Self {
        match by {
            ByArg::Node => Self::Node,
            ByArg::Rack => Self::Rack,
            ByArg::Zone => Self::Zone,
        }
    }
}

impl From<SpanArg> for Span {
    fn from(span: SpanArg) -> Self {
        span.0
            .map_or(Self::ALL, |span| Self::last_ns(span.as_nanos() as u64))
    }
}
