//! What is known of the machine, without any opinion.

use crate::adapters::clock::KernelClock;
use crate::adapters::datapath::ebpf::Tenant;
use crate::adapters::net::{Link, Moderation};

/// A fact, or why it is not known.
pub type Fact<T> = Result<T, String>;

/// All facts.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Release of the kernel.
    pub kernel: Fact<KernelRelease>,
    /// What this process may do.
    pub capabilities: Fact<Capabilities>,
    /// Directory for pins, and whether it is on a BPF file system.
    pub pins: (String, Fact<bool>),
    /// Memory that may be locked, in bytes; `None`: any.
    pub lockable_bytes: Fact<Option<u64>>,
    /// Deepest idle state that is enabled; `None`: the kernel manages none.
    pub idle: Fact<Option<IdleState>>,
    /// State of the wall clock.
    pub clock: Fact<KernelClock>,
    /// Interfaces looked at.
    pub interfaces: Vec<InterfaceFacts>,
    /// What kept interfaces from being looked at, such as a name that none has.
    pub unseen: Vec<String>,
}

/// Release of a kernel.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct KernelRelease {
    /// Major and minor number.
    pub version: (u32, u32),
    /// As `uname -r` prints it.
    pub text: String,
}

/// Bits of an effective capability set.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Capabilities(pub u64);

impl Capabilities {
    /// Bind ports below 1024.
    pub const NET_BIND_SERVICE: u32 = 10;
    /// Attach programs, mark probes, ask neighbours.
    pub const NET_ADMIN: u32 = 12;
    /// Everything that has no capability of its own.
    pub const SYS_ADMIN: u32 = 21;
    /// Let programs reckon with packet pointers (Linux 5.8): headers have no fixed length.
    pub const PERFMON: u32 = 38;
    /// Load programs (Linux 5.8).
    pub const BPF: u32 = 39;

    /// Whether the capability of this number is effective.
    #[must_use]
    pub const fn has(self, number: u32) -> bool {
        self.0 & (1 << number) != 0
    }
}

/// An idle state of the CPU.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct IdleState {
    /// Its name, such as `C6`.
    pub name: String,
    /// How long it takes to leave it, in microseconds.
    pub exit_us: u32,
}

/// One interface.
#[derive(Clone, Debug)]
pub struct InterfaceFacts {
    /// The link.
    pub link: Link,
    /// Names of VLANs on top of it.
    pub vlans: Vec<String>,
    /// How its device moderates interrupts.
    pub moderation: Fact<Moderation>,
    /// The node whose programs hang on it, if they are an agent's and may be seen.
    pub tenant: Option<Tenant>,
    /// What came of a real try to attach; `None`: not tried.
    pub attached: Option<AttachTry>,
}

/// What came of trying to attach the programs: for each mode, nothing or why not.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct AttachTry {
    /// Native XDP.
    pub xdp: Result<(), String>,
    /// tc.
    pub tc: Result<(), String>,
}
