//! What can be asked of a demo.

use std::fmt;
use std::path::PathBuf;

use clap::{Args, ValueEnum, value_parser};
use dt_feed::proto;

/// Flags of `cargo xtask demo`.
#[derive(Args)]
#[expect(clippy::struct_excessive_bools, reason = "each of them is a flag")]
pub struct Options {
    /// Hosts, each a network namespace with an agent of its own, 2 to 16
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = value_parser!(u16).range(2..=16))]
    pub nodes: u16,

    /// How long to measure once every host answers every other, in seconds
    #[arg(long, value_name = "S", default_value_t = 20, value_parser = value_parser!(u32).range(1..=86_400))]
    pub seconds: u32,

    /// Probes per second from each host to each other, 1 to 20,000
    #[arg(long, value_name = "PPS", default_value_t = 100, value_parser = value_parser!(u32).range(1..=20_000))]
    pub rate: u32,

    /// Datapath of the agents; auto is xdp where that is proved to work, else tc
    #[arg(long, value_enum, default_value_t = ModeAsked::Auto)]
    pub mode: ModeAsked,

    /// How the hosts are joined: every two by a cable, or all on one switch
    #[arg(long, value_enum, default_value_t = Topology::Mesh)]
    pub topology: Topology,

    /// With a real ZooKeeper for finding each other and a real Kafka broker for what was measured, read from the topic
    #[arg(long, conflicts_with = "keep_feed")]
    pub full: bool,

    /// Probe by IPv6 instead of IPv4
    #[arg(long)]
    pub ipv6: bool,

    /// Saturate all CPUs while measuring, with three busy processes for each
    #[arg(long)]
    pub stress: bool,

    /// Let the agents report every probe too, not only windows; the feed grows by it
    #[arg(long)]
    pub every_probe: bool,

    /// Also write the result to this file
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,

    /// Leave the agents' feed in this new directory, one below it for each host
    #[arg(long, value_name = "DIR")]
    pub keep_feed: Option<PathBuf>,
}

/// The datapath as `dt-agent run --mode` knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ModeAsked {
    Auto,
    Xdp,
    Tc,
    Socket,
}

/// How hosts are joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Topology {
    Mesh,
    Bridge,
}

impl Options {
    /// Ordered pairs of hosts, each of which is measured.
    pub fn pair_count(&self) -> usize {
        let nodes = usize::from(self.nodes);
        nodes * (nodes - 1)
    }
}

impl ModeAsked {
    /// Whether a pair measured in `mode` is what was asked for.
    pub fn accepts(self, mode: proto::Mode) -> bool {
        match self {
            Self::Auto => matches!(mode, proto::Mode::Xdp | proto::Mode::Tc),
            Self::Xdp => mode == proto::Mode::Xdp,
            Self::Tc => mode == proto::Mode::Tc,
            Self::Socket => mode == proto::Mode::Socket,
        }
    }

    /// The mode that all pairs should reach before measuring begins.
    pub fn best(self) -> proto::Mode {
        match self {
            Self::Auto | Self::Xdp => proto::Mode::Xdp,
            Self::Tc => proto::Mode::Tc,
            Self::Socket => proto::Mode::Socket,
        }
    }
}

impl fmt::Display for ModeAsked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Xdp => "xdp",
            Self::Tc => "tc",
            Self::Socket => "socket",
        })
    }
}

impl fmt::Display for Topology {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Mesh => "mesh",
            Self::Bridge => "bridge",
        })
    }
}

/// The word for a mode that the feed names; modes of a later agent have none.
pub fn mode_name(mode: proto::Mode) -> &'static str {
    match mode {
        proto::Mode::Xdp => "xdp",
        proto::Mode::Tc => "tc",
        proto::Mode::Socket => "socket",
        proto::Mode::Unspecified => "unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn auto_takes_either_kernel_path_but_never_the_socket() {
        assert!(ModeAsked::Auto.accepts(proto::Mode::Xdp));
        assert!(ModeAsked::Auto.accepts(proto::Mode::Tc));
        assert!(!ModeAsked::Auto.accepts(proto::Mode::Socket));
        assert!(!ModeAsked::Xdp.accepts(proto::Mode::Tc));
    }

    #[test]
    fn the_words_are_those_that_the_agent_and_the_command_line_take() {
        for mode in ModeAsked::value_variants() {
            let typed = mode.to_possible_value().expect("no mode is hidden");
            assert_eq!(mode.to_string(), typed.get_name());
        }
        for topology in Topology::value_variants() {
            let typed = topology.to_possible_value().expect("no topology is hidden");
            assert_eq!(topology.to_string(), typed.get_name());
        }
    }
}
