//! The rungs of the ladder, and what an operator may ask for.

use std::fmt;

/// A rung: how probes are stamped, answered and collected on one interface.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Mode {
    /// Through sockets, without any program in the kernel.
    Socket,
    /// Stamped by tc on egress, answered and collected by tc on ingress.
    Tc,
    /// Stamped by tc on egress, answered and collected by native XDP.
    Xdp,
}

impl Mode {
    /// The mode's name in records, tables and settings.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Socket => "socket",
            Self::Tc => "tc",
            Self::Xdp => "xdp",
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// What the operator asked for.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub enum ModeRequest {
    /// The highest rung that can be had, changing as the interface does.
    #[default]
    Auto,
    /// This rung or an error.
    Only(Mode),
}

impl fmt::Display for ModeRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.pad("auto"),
            Self::Only(mode) => mode.fmt(f),
        }
    }
}
