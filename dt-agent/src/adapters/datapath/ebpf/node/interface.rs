//! One interface: obeys its ladder, and tells it what came of that.

use std::net::IpAddr;

use dt_common::map::{Iface, IfaceFlags, IfaceMode};
use dt_common::time::MonoNanos;

use crate::adapters::datapath::ebpf::programs::AttachError;
use crate::adapters::datapath::ebpf::{Hook, NodeMaps, Programs};
use crate::adapters::net::{Link, Net};
use crate::engine::ladder::{
    Command, Input, Ladder, LadderSettings, Mode, ModeRequest, Refusal, RefusalKind, Verdict,
};
use crate::engine::random::Random;

/// On which rung an interface is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Rung<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its mode; none while it has none.
    pub mode: Option<Mode>,
    /// Why it has that mode.
    pub reason: &'a str,
}

/// How an interface works, for operators.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct InterfaceStatus {
    /// Its name.
    pub name: String,
    /// Its index.
    pub ifindex: u32,
    /// Its rung; none: nothing works.
    pub mode: Option<Mode>,
    /// Why.
    pub reason: String,
    /// Whether checksums of local origin may be incomplete here.
    pub checksum_full: bool,
    /// Hooks with the kernel's numbers of program and link.
    pub attached: Vec<(Hook, Option<u32>, Option<u32>)>,
}

/// What commands are carried out with.
pub(super) struct Surroundings<'a> {
    pub maps: &'a mut NodeMaps,
    pub programs: &'a mut Programs,
    pub net: &'a mut Net,
    pub round_base: u32,
}

/// One interface.
#[derive(Debug)]
pub(super) struct Interface {
    name: String,
    entry: Iface,
    ladder: Ladder,
    neighbours: Vec<IpAddr>,
    asked: usize,
    proof: Option<Try>,
    reason: String,
}

/// A try to prove XDP.
#[derive(Clone, Copy, Debug)]
struct Try {
    round: u32,
    turned_at: Option<MonoNanos>,
    told: bool,
}

impl InterfaceStatus {
    /// Its rung.
    #[must_use]
    pub fn rung(&self) -> Rung<'_> {
        Rung {
            name: &self.name,
            mode: self.mode,
            reason: &self.reason,
        }
    }
}

impl Interface {
    pub(super) fn new(
        link: &Link,
        neighbour: Option<IpAddr>,
        request: ModeRequest,
        random: Random,
        now: MonoNanos,
    ) -> Self {
        let settings = LadderSettings {
            request,
            detach_unproved: is_virtual(link),
        };
        let flags = if checksum_may_be_partial(link) {
            IfaceFlags::CHECKSUM_FULL
        } else {
            0
        };
        Self {
            name: link.name.clone(),
            entry: Iface {
                ifindex: link.index,
                mode: IfaceMode::OFF,
                flags,
                proof_round: 0,
            },
            ladder: Ladder::new(settings, random, now),
            neighbours: neighbour.into_iter().collect(),
            asked: 0,
            proof: None,
            reason: String::new(),
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn mode(&self) -> Option<Mode> {
        self.ladder.mode()
    }

    pub(super) fn is_settled(&self) -> bool {
        self.ladder.is_settled()
    }

    pub(super) fn reason(&self) -> &str {
        &self.reason
    }

    pub(super) fn status(&self, programs: &Programs) -> InterfaceStatus {
        let id = |hook| {
            Some((
                hook,
                programs.program_id(hook),
                Some(programs.link_id(&self.name, hook)?),
            ))
        };
        InterfaceStatus {
            name: self.name.clone(),
            ifindex: self.entry.ifindex,
            mode: self.ladder.mode(),
            reason: self.reason.clone(),
            checksum_full: self.entry.flags & IfaceFlags::CHECKSUM_FULL != 0,
            attached: Hook::ALL.into_iter().filter_map(id).collect(),
        }
    }

    pub(super) fn add_neighbour(&mut self, neighbour: Option<IpAddr>) {
        if let Some(neighbour) = neighbour
            .filter(|one| !self.neighbours.contains(one) && self.neighbours.len() < MAX_ASKED)
        {
            self.neighbours.push(neighbour);
        }
    }

    pub(super) fn doubt(&mut self, now: MonoNanos) {
        self.ladder.handle_input(Input::PeersSilent, now);
    }

    /// Lets time pass and obeys.
    pub(super) fn tick(&mut self, around: &mut Surroundings<'_>, now: MonoNanos) {
        self.watch_proof(around, now);
        self.ladder.handle_timeout(now);
        // Commands end in inputs, which end in commands; the ladder never answers itself without an end.
        while let Some(command) = self.ladder.poll_command() {
            self.obey(command, around, now);
        }
    }

    /// Notices that the interface vanished, came back, or lost a program that was not ours.
    pub(super) fn follow(
        &mut self,
        link: Option<&Link>,
        around: &mut Surroundings<'_>,
        now: MonoNanos,
    ) {
        match link {
            None => self.ladder.handle_input(Input::InterfaceGone, now),
            Some(link) if link.index != self.entry.ifindex => {
                self.ladder.handle_input(Input::InterfaceGone, now);
                self.entry.ifindex = link.index;
                self.ladder.handle_input(Input::InterfaceBack, now);
            }
            Some(link) => {
                self.ladder.handle_input(Input::InterfaceBack, now);
                if link.xdp.is_none() {
                    self.ladder.handle_input(Input::ForeignGone, now);
                }
            }
        }
        self.tick(around, now);
    }

    fn obey(&mut self, command: Command, around: &mut Surroundings<'_>, now: MonoNanos) {
        match command {
            Command::AttachTc => {
                let input = self.attach_tc(around);
                self.ladder.handle_input(input, now);
            }
            Command::AttachXdp => {
                // Before it is attached the program must find this interface, or it would not take part in the proof.
                self.write(around);
                let input = match around
                    .programs
                    .attach(&self.name, self.entry.ifindex, Hook::Xdp)
                {
                    Ok(_) => Input::XdpAttached,
                    Err(error) => Input::XdpRefused(refusal(&error)),
                };
                self.ladder.handle_input(input, now);
            }
            Command::DetachXdp => around.programs.detach(&self.name, Hook::Xdp),
            Command::StartProof { round } => self.start_proof(round, around),
            Command::EndProof => {
                self.proof = None;
                self.entry.proof_round = 0;
                self.write(around);
            }
            Command::Use { mode, reason } => self.use_mode(mode, reason, around),
        }
    }

    fn attach_tc(&self, around: &mut Surroundings<'_>) -> Input {
        for hook in [Hook::TcEgress, Hook::TcIngress] {
            if let Err(error) = around.programs.attach(&self.name, self.entry.ifindex, hook) {
                return Input::TcRefused(refusal(&error));
            }
        }
        Input::TcAttached
    }

    fn use_mode(&mut self, mode: Option<Mode>, reason: String, around: &mut Surroundings<'_>) {
        self.entry.mode = match mode {
            Some(Mode::Xdp) => IfaceMode::XDP,
            Some(Mode::Tc) => IfaceMode::TC,
            Some(Mode::Socket) | None => IfaceMode::OFF,
        };
        self.write(around);
        let mode_name = mode.map_or("none", Mode::name);
        tracing::info!(interface = %self.name, mode = mode_name, %reason, "Datapath chosen.");
        self.reason = reason;
        if mode == Some(Mode::Xdp) {
            // tc ingress has nothing left to do, and every other packet would pay for it.
            around.programs.detach(&self.name, Hook::TcIngress);
        } else if mode == Some(Mode::Tc)
            && let Err(error) =
                around
                    .programs
                    .attach(&self.name, self.entry.ifindex, Hook::TcIngress)
        {
            tracing::warn!(interface = %self.name, %error, "Replies are neither answered nor collected.");
        }
    }

    fn start_proof(&mut self, round: u32, around: &mut Surroundings<'_>) {
        // Zero means "no proof" to the programs.
        self.entry.proof_round = around.round_base.wrapping_add(round) | PROOF_BIT;
        self.proof = Some(Try {
            round,
            turned_at: None,
            told: false,
        });
        self.write(around);
        let Some(neighbour) = self
            .neighbours
            .get(self.asked % self.neighbours.len().max(1))
        else {
            return;
        };
        self.asked = self.asked.wrapping_add(1);
        if let Err(error) = around.net.probe_neighbour(self.entry.ifindex, *neighbour) {
            tracing::debug!(interface = %self.name, %neighbour, %error, "Cannot ask a neighbour.");
        }
    }

    /// Looks how far the proof has come and tells the ladder, at most once a verdict.
    fn watch_proof(&mut self, around: &mut Surroundings<'_>, now: MonoNanos) {
        let Some(proof) = self.proof.as_mut().filter(|proof| !proof.told) else {
            return;
        };
        let Ok(state) = around.maps.proof(self.entry.ifindex) else {
            return;
        };
        let round = proof.round;
        let verdict = if state.proved_round == self.entry.proof_round {
            Some(Verdict::Proved)
        } else if state.turned_round == self.entry.proof_round {
            let since = *proof.turned_at.get_or_insert(now);
            (now.since(since) >= ANSWER_NS).then_some(Verdict::Unreturned)
        } else {
            None
        };
        if let Some(verdict) = verdict {
            proof.told = true;
            self.ladder
                .handle_input(Input::Proof { round, verdict }, now);
        }
    }

    fn write(&self, around: &mut Surroundings<'_>) {
        if let Err(error) = around.maps.set_iface(&self.entry) {
            tracing::error!(interface = %self.name, %error, "The programs do not know this interface.");
        }
    }
}

/// Whether the sender's stack may leave a checksum to hardware that is not there (kernel-facts 1.3).
#[must_use]
pub(super) fn checksum_may_be_partial(link: &Link) -> bool {
    let of = |name: &Option<String>| name.as_deref().is_some_and(|name| PARTIAL.contains(&name));
    of(&link.kind) || of(&link.driver)
}

fn is_virtual(link: &Link) -> bool {
    link.kind.as_deref() == Some("veth")
}

fn refusal(error: &AttachError) -> Refusal {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    let mut denied = false;
    let mut gone = false;
    while let Some(error) = cause {
        if let Some(code) = error
            .downcast_ref::<std::io::Error>()
            .and_then(std::io::Error::raw_os_error)
        {
            let errno = nix::errno::Errno::from_raw(code);
            denied |= matches!(errno, nix::errno::Errno::EPERM | nix::errno::Errno::EACCES);
            gone |= errno == nix::errno::Errno::ENODEV;
            text = format!("{text}: {errno}");
            break;
        }
        cause = error.source();
    }
    let kind = match error {
        AttachError::Taken { .. } => RefusalKind::Foreign,
        AttachError::Unsupported { .. } => RefusalKind::Unsupported,
        AttachError::Failed { .. } if denied => RefusalKind::Permission,
        AttachError::Failed { .. } if gone => RefusalKind::NoInterface,
        AttachError::Failed { .. } => RefusalKind::Other,
    };
    Refusal { kind, text }
}

const PARTIAL: [&str; 5] = ["veth", "tun", "tap", "virtio_net", "netkit"];
/// Neighbours to take turns with; any one of them proves the path.
const MAX_ASKED: usize = 8;
/// A second answer that takes longer counts as none.
const ANSWER_NS: u64 = 100_000_000;
const PROOF_BIT: u32 = 1 << 31;
