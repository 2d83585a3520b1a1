//! From facts to findings. Pure.

use serde::Serialize;

use super::facts::{Capabilities, Fact, Facts, IdleState, KernelRelease};
use super::interface;
use crate::adapters::clock::KernelClock;

/// What was found on this host.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Diagnosis {
    /// Whether `xdp` or `tc` works on any interface.
    pub works: bool,
    /// About the host.
    pub host: Vec<Finding>,
    /// About each interface.
    pub interfaces: Vec<InterfaceDiagnosis>,
}

/// What was found on one interface.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct InterfaceDiagnosis {
    /// Its name.
    pub name: String,
    /// The mode that `auto` would take: `xdp`, `tc` or `socket`.
    pub mode: &'static str,
    /// Why this one, and what stands against the better ones.
    pub why: Vec<String>,
    /// Its driver, or kind.
    pub driver: Option<String>,
    /// Its MTU in bytes.
    pub mtu: u32,
    /// The agent whose programs hang on it.
    pub agent: Option<AgentHere>,
    /// Id of the program in its XDP slot.
    pub xdp_program: Option<u32>,
    /// How checksums are kept right: `full` or `incremental`.
    pub checksum: &'static str,
    /// Microseconds for which it may hold back a received packet.
    pub receive_moderation_us: Option<u32>,
    /// What else there is to say.
    pub findings: Vec<Finding>,
}

/// An agent whose programs hang on an interface.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct AgentHere {
    /// Its node.
    pub node: String,
    /// The mode that it uses here now; none if it has not chosen one, or lives no more.
    pub mode: Option<&'static str>,
    /// Whether its programs are at work; otherwise they wait for its successor.
    pub at_work: bool,
}

/// One thing found.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub level: Level,
    /// What it is about.
    pub subject: &'static str,
    /// What was found.
    pub says: String,
    /// What to do about it.
    pub advice: Option<String>,
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// As it should be.
    Good,
    /// Worth knowing when reading figures.
    Note,
    /// Keeps something from working.
    Problem,
}

impl Finding {
    pub(super) fn good(subject: &'static str, says: impl Into<String>) -> Self {
        Self::new(Level::Good, subject, says.into(), None)
    }

    pub(super) fn note(subject: &'static str, says: impl Into<String>, advice: &str) -> Self {
        Self::new(Level::Note, subject, says.into(), Some(advice.to_owned()))
    }

    pub(super) fn problem(subject: &'static str, says: impl Into<String>, advice: &str) -> Self {
        Self::new(
            Level::Problem,
            subject,
            says.into(),
            Some(advice.to_owned()),
        )
    }

    /// Something that this process was not told.
    pub(super) fn unseen(subject: &'static str, reason: &str) -> Self {
        Self::note(
            subject,
            format!("not known: {reason}"),
            "run as root to see it",
        )
    }

    const fn new(
        level: Level,
        subject: &'static str,
        says: String,
        advice: Option<String>,
    ) -> Self {
        Self {
            level,
            subject,
            says,
            advice,
        }
    }
}

/// Decides what the facts mean.
#[must_use]
pub fn judge(facts: &Facts) -> Diagnosis {
    let blockers = bpf_blockers(facts);
    let interfaces: Vec<_> = facts
        .interfaces
        .iter()
        .map(|facts_of_one| interface::judge(facts_of_one, facts.kernel.as_ref().ok(), &blockers))
        .collect();
    Diagnosis {
        works: interfaces.iter().any(|one| one.mode != "socket"),
        host: host_findings(facts, interfaces.is_empty()),
        interfaces,
    }
}

/// What keeps programs from being used on any interface.
fn bpf_blockers(facts: &Facts) -> Vec<String> {
    let mut blockers = Vec::new();
    if let Ok(kernel) = &facts.kernel
        && kernel.version < MIN_BPF_KERNEL
    {
        blockers.push(format!(
            "kernel {} is older than {}",
            kernel.text,
            version(MIN_BPF_KERNEL)
        ));
    }
    let Ok(capabilities) = facts.capabilities else {
        return blockers;
    };
    for (number, name) in missing(capabilities) {
        if number != Capabilities::NET_BIND_SERVICE {
            blockers.push(format!("{name} is missing"));
        }
    }
    let (directory, on_bpf_fs) = &facts.pins;
    if *on_bpf_fs == Ok(false) && !capabilities.has(Capabilities::SYS_ADMIN) {
        blockers.push(format!(
            "{directory} is on no BPF file system, and this process may not mount one"
        ));
    }
    blockers
}

/// Capabilities that the agent would use and does not have.
fn missing(capabilities: Capabilities) -> Vec<(u32, &'static str)> {
    [
        (Capabilities::BPF, "CAP_BPF"),
        (Capabilities::PERFMON, "CAP_PERFMON"),
        (Capabilities::NET_ADMIN, "CAP_NET_ADMIN"),
        (Capabilities::NET_BIND_SERVICE, "CAP_NET_BIND_SERVICE"),
    ]
    .into_iter()
    // CAP_SYS_ADMIN stood for CAP_BPF and CAP_PERFMON before there were any, and still does.
    .filter(|(number, _)| {
        let split_off = matches!(*number, Capabilities::BPF | Capabilities::PERFMON);
        let stands_in = split_off && capabilities.has(Capabilities::SYS_ADMIN);
        !capabilities.has(*number) && !stands_in
    })
    .collect()
}

fn host_findings(facts: &Facts, no_interface: bool) -> Vec<Finding> {
    let (directory, on_bpf_fs) = &facts.pins;
    let mut findings = vec![
        about(&facts.kernel, "kernel", kernel),
        about(&facts.capabilities, "capabilities", |held| {
            privileges(*held)
        }),
        about(on_bpf_fs, "BPF file system", |mounted| {
            pins(directory, *mounted)
        }),
        about(&facts.clock, "clock", |found| clock(*found)),
        about(&facts.idle, "idle states", |deepest| idle(deepest.as_ref())),
    ];
    findings.extend(memory(facts));
    let advice = "name one that `ip link` shows";
    let unseen = facts.unseen.iter();
    findings.extend(unseen.map(|what| Finding::problem("interfaces", what.clone(), advice)));
    if no_interface && facts.unseen.is_empty() {
        let says = "none is up and has an address";
        let advice = "set one up, or name it with --interface";
        findings.push(Finding::problem("interfaces", says, advice));
    }
    findings
}

/// The finding about a fact, or that it is not known.
fn about<T>(fact: &Fact<T>, subject: &'static str, judge: impl Fn(&T) -> Finding) -> Finding {
    match fact {
        Ok(fact) => judge(fact),
        Err(reason) => Finding::unseen(subject, reason),
    }
}

fn kernel(kernel: &KernelRelease) -> Finding {
    let subject = "kernel";
    if kernel.version < MIN_BPF_KERNEL {
        let says = format!(
            "{} lacks the atomic operations that the programs use",
            kernel.text
        );
        return Finding::problem(
            subject,
            says,
            "use 5.12 or later; until then only mode socket works",
        );
    }
    let tc = if kernel.version >= TCX_KERNEL {
        "tcx"
    } else {
        "clsact"
    };
    let frames = if kernel.version >= FRAGS_KERNEL {
        "any MTU"
    } else {
        "no jumbo frames"
    };
    Finding::good(
        subject,
        format!("{}: tc by {tc}, XDP with {frames}", kernel.text),
    )
}

fn privileges(capabilities: Capabilities) -> Finding {
    let missing: Vec<_> = missing(capabilities)
        .into_iter()
        .map(|(_, name)| name)
        .collect();
    if missing.is_empty() {
        return Finding::good("capabilities", "all that are needed");
    }
    let says = format!("missing: {}", missing.join(", "));
    if missing == ["CAP_NET_BIND_SERVICE"] {
        return Finding::note(
            "capabilities",
            says,
            "add it, or answer on a port from 1024 on",
        );
    }
    Finding::problem(
        "capabilities",
        says,
        "run as root, or add them (securityContext.capabilities.add, setcap); mode socket needs none on ports from 1024 on",
    )
}

fn pins(directory: &str, mounted: bool) -> Finding {
    let subject = "BPF file system";
    if mounted {
        return Finding::good(subject, format!("{directory} is on one"));
    }
    let says = format!("{directory} is on none; the agent tries to mount one");
    Finding::note(
        subject,
        says,
        "mount -t bpf bpf /sys/fs/bpf, on the host and into the container",
    )
}

fn clock(found: KernelClock) -> Finding {
    let bound = format!("at most {} from UTC", duration(found.bound_ns));
    if found.synchronised {
        return Finding::good("clock", format!("synchronised, {bound}"));
    }
    Finding::note(
        "clock",
        format!("not synchronised, {bound}"),
        "run chrony or a PTP client; round trips are right all the same, one-way delays are not",
    )
}

fn idle(deepest: Option<&IdleState>) -> Finding {
    let subject = "idle states";
    let Some(deepest) = deepest else {
        return Finding::good(
            subject,
            "the kernel manages none; a hypervisor below it may",
        );
    };
    let says = format!(
        "deepest is {}, {} us to leave",
        deepest.name, deepest.exit_us
    );
    if deepest.exit_us <= SHALLOW_US {
        return Finding::good(subject, says);
    }
    Finding::note(
        subject,
        format!("{says}: every figure of a quiet host has them"),
        "if that is too much: intel_idle.max_cstate=1 on the kernel's command line, or /dev/cpu_dma_latency",
    )
}

/// Before 5.11 maps counted against `RLIMIT_MEMLOCK`.
fn memory(facts: &Facts) -> Option<Finding> {
    let old = facts
        .kernel
        .as_ref()
        .is_ok_and(|kernel| kernel.version < MEMCG_KERNEL);
    match facts.lockable_bytes {
        Ok(Some(bytes)) if old => {
            let says =
                format!("at most {bytes} bytes may be locked, which this kernel asks of maps");
            Some(Finding::problem(
                "locked memory",
                says,
                "ulimit -l unlimited, or LimitMEMLOCK=infinity",
            ))
        }
        _ => None,
    }
}

/// A time in the unit in which people say it.
pub(super) fn duration(nanos: u64) -> String {
    match nanos {
        0..10_000 => format!("{nanos} ns"),
        10_000..10_000_000 => format!("{} us", nanos / 1_000),
        10_000_000..10_000_000_000 => format!("{} ms", nanos / 1_000_000),
        _ => format!("{} s", nanos / 1_000_000_000),
    }
}

pub(super) fn version((major, minor): (u32, u32)) -> String {
    format!("{major}.{minor}")
}

/// Atomic operations that return a value.
pub(super) const MIN_BPF_KERNEL: (u32, u32) = (5, 12);
/// Maps are charged to the memory cgroup.
const MEMCG_KERNEL: (u32, u32) = (5, 11);
/// XDP in several fragments.
pub(super) const FRAGS_KERNEL: (u32, u32) = (5, 18);
/// tc programs by link, in order, without a qdisc.
const TCX_KERNEL: (u32, u32) = (6, 6);

/// Exit times up to this do not show beside what a software stamp costs.
const SHALLOW_US: u32 = 10;
