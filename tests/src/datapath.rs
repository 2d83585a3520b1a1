//! The datapath object loaded into this process, and its programs run on made frames (`BPF_PROG_TEST_RUN`).
//!
//! Nothing is attached: a frame goes in, a verdict and a frame come out, and the maps are the test's to fill and read. The
//! kernel runs XDP on `lo` and, unless told otherwise, tc as well, so [`IFINDEX`] is the interface that all this is about.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{Array, HashMap, Map, MapData, PerCpuArray, RingBuf};
use aya::programs::{Program, SchedClassifier, TestRun, TestRunOptions, Xdp};
use aya::{Ebpf, EbpfLoader};
use dt_common::event::ReplyEvent;
use dt_common::fan::{FanReport, Hop};
use dt_common::map::{
    Address, Allowed, Config, ForeignKey, Iface, Proof, Reason, Session, Target, iface_slot, names,
};
use nix::time::{ClockId, clock_gettime};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::lab::Lab;

/// The interface on which the kernel runs frames: `lo` of this network namespace.
pub const IFINDEX: u32 = 1;
/// The mark of probes, as the object was loaded with it.
pub const MARK: u32 = 0x6474;
/// Longest frame that comes back whole.
pub const MAX_FRAME: usize = 16_384;

/// Programs that can be run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// `xdp_ingress`.
    Xdp,
    /// `tc_ingress`.
    Tc,
}

impl Hook {
    /// The datapath's ingress program at this hook.
    #[must_use]
    pub const fn ingress(self) -> &'static str {
        match self {
            Self::Xdp => "xdp_ingress",
            Self::Tc => "tc_ingress",
        }
    }

    fn verdict(self, code: u32) -> Result<Verdict> {
        // XDP_DROP, XDP_PASS, XDP_TX; TC_ACT_SHOT, TC_ACT_UNSPEC, TC_ACT_REDIRECT.
        match (self, code.cast_signed()) {
            (Self::Xdp, 1) | (Self::Tc, 2) => Ok(Verdict::Drop),
            (Self::Xdp, 2) | (Self::Tc, -1) => Ok(Verdict::Pass),
            (Self::Xdp, 3) | (Self::Tc, 7) => Ok(Verdict::Send),
            _ => bail!("{} returned {code}", self.ingress()),
        }
    }
}

/// What a program did with a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// On to the stack, or to the next program.
    Pass,
    /// Gone.
    Drop,
    /// Out of the interface it came in by.
    Send,
}

/// What came out of one run.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The verdict.
    pub verdict: Verdict,
    /// The frame as the program left it.
    pub frame: Vec<u8>,
    /// Monotonic time before the run.
    pub before_ns: u64,
    /// Monotonic time after the run.
    pub after_ns: u64,
}

/// The loaded object. Its maps are nobody else's, and gone with it.
#[derive(Debug)]
pub struct Datapath {
    ebpf: Ebpf,
    buffer: Vec<u8>,
}

impl Datapath {
    /// Loads an object with maps that nobody else has, and all of its programs.
    pub fn load(object: &Path) -> Result<Self> {
        let pins = Lab::empty()?;
        std::fs::create_dir_all(pins.pin_dir())?;
        let mut ebpf = EbpfLoader::new()
            .default_map_pin_directory(pins.pin_dir())
            .override_global("PROBE_MARK", &MARK, true)
            .load_file(object)
            .with_context(|| format!("cannot load {}", object.display()))?;
        load_all(&mut ebpf)?;
        // The directory goes here: pins are how the object wants its maps made, and nobody is to find them.
        drop(pins);
        Ok(Self {
            ebpf,
            buffer: vec![0; MAX_FRAME],
        })
    }

    /// Forgets what the programs wrote, and all targets: as if just loaded, but for configuration and allow-lists.
    pub fn forget(&mut self, members: &[u32]) -> Result<()> {
        for name in [names::FOREIGN, names::SOURCES] {
            self.clear(name)?;
        }
        for number in members {
            self.set_member(*number, &Session::default())?;
        }
        self.set_total_arrival(0)?;
        for ring in names::GUEST_EVENTS.iter().chain([&names::EVENTS]) {
            self.events(ring)?;
        }
        Ok(())
    }

    /// Empties one of the two maps that remember foreigners.
    fn clear(&mut self, name: &str) -> Result<()> {
        let map = self.map(name)?;
        if name == names::FOREIGN {
            let mut sessions: HashMap<_, [u8; size_of::<ForeignKey>()], [u8; 64]> =
                map.try_into()?;
            let keys: Vec<_> = sessions.keys().flatten().collect();
            return Ok(keys.iter().try_for_each(|key| sessions.remove(key))?);
        }
        let mut arrivals: HashMap<_, Address, u64> = map.try_into()?;
        let keys: Vec<_> = arrivals.keys().flatten().collect();
        Ok(keys.iter().try_for_each(|key| arrivals.remove(key))?)
    }

    /// Runs a frame through an ingress program.
    pub fn ingress(&mut self, hook: Hook, frame: &[u8]) -> Result<Outcome> {
        let before_ns = monotonic_ns()?;
        let (code, len) = run(&self.ebpf, hook.ingress(), frame, None, &mut self.buffer)?;
        Ok(Outcome {
            verdict: hook.verdict(code)?,
            frame: self.buffer[..len].to_vec(),
            before_ns,
            after_ns: monotonic_ns()?,
        })
    }

    /// Runs a frame that carries `mark` through `tc_egress` and returns what it became.
    pub fn egress(&mut self, mark: u32, frame: &[u8]) -> Result<Outcome> {
        // `__sk_buff` as the kernel takes it: all zero but `mark`, the third word.
        let mut context = [0; SK_BUFF_LEN];
        context[8..12].copy_from_slice(&mark.to_ne_bytes());
        let before_ns = monotonic_ns()?;
        let (code, len) = run(
            &self.ebpf,
            "tc_egress",
            frame,
            Some(&context),
            &mut self.buffer,
        )?;
        Ok(Outcome {
            verdict: Hook::Tc.verdict(code)?,
            frame: self.buffer[..len].to_vec(),
            before_ns,
            after_ns: monotonic_ns()?,
        })
    }

    /// Nanoseconds that a program takes per frame, over `repeat` runs on the same bytes, which nothing resets.
    pub fn time(&self, program: &str, frame: &[u8], repeat: u32) -> Result<Duration> {
        time(&self.ebpf, program, frame, repeat)
    }

    /// How many instructions the verifier walked for a program; `None` before kernel 5.16.
    pub fn verified_instructions(&self, program: &str) -> Result<Option<u32>> {
        let info = match found(&self.ebpf, program)? {
            Program::Xdp(xdp) => xdp.info()?,
            other => <&SchedClassifier>::try_from(other)?.info()?,
        };
        Ok(info.verified_instruction_count())
    }

    /// The object itself, for what attaches its programs.
    pub fn ebpf_mut(&mut self) -> &mut Ebpf {
        &mut self.ebpf
    }

    /// Replaces the configuration.
    pub fn set_config(&mut self, config: &Config) -> Result<()> {
        self.set(names::CONFIG, 0, bytes::<_, 200>(config))
    }

    /// Replaces the entry in an interface's slot.
    pub fn set_iface(&mut self, iface: &Iface) -> Result<()> {
        self.set(
            names::IFACES,
            iface_slot(iface.ifindex),
            bytes::<_, 16>(iface),
        )
    }

    /// Replaces a target.
    pub fn set_target(&mut self, ssid: u16, target: &Target) -> Result<()> {
        self.set(names::TARGETS, u32::from(ssid), bytes::<_, 32>(target))
    }

    /// A target with its counters.
    pub fn target(&mut self, ssid: u16) -> Result<Target> {
        self.get::<_, 32>(names::TARGETS, u32::from(ssid))
    }

    /// How the last ordinary probe to a target left.
    pub fn hop(&mut self, ssid: u16) -> Result<Hop> {
        self.get::<_, 32>(names::HOPS, u32::from(ssid))
    }

    /// Replaces that.
    pub fn set_hop(&mut self, ssid: u16, hop: &Hop) -> Result<()> {
        self.set(names::HOPS, u32::from(ssid), bytes::<_, 32>(hop))
    }

    /// What is told of the last list of probes.
    pub fn fan_report(&mut self) -> Result<FanReport> {
        self.get::<_, 32>(names::FAN, 0)
    }

    /// Takes back the lists up to this serial.
    pub fn revoke(&mut self, serial: u64) -> Result<()> {
        self.set(names::FAN_REVOKED, 0, serial.to_ne_bytes())
    }

    /// Says whose replies come to the `index`th source port.
    pub fn set_port_owner(&mut self, index: u32, ssid: u16) -> Result<()> {
        let map = self.map(names::PORTS)?;
        let mut ports: Array<_, u32> = map.try_into()?;
        Ok(ports.set(index, u32::from(ssid), 0)?)
    }

    /// How far the proof on [`IFINDEX`] has come.
    pub fn proof(&mut self) -> Result<Proof> {
        self.get::<_, 24>(names::PROOFS, iface_slot(IFINDEX))
    }

    /// Replaces how far the proof on [`IFINDEX`] has come.
    pub fn set_proof(&mut self, proof: &Proof) -> Result<()> {
        self.set(names::PROOFS, iface_slot(IFINDEX), bytes::<_, 24>(proof))
    }

    /// A member's session.
    pub fn member(&mut self, number: u32) -> Result<Session> {
        self.get::<_, 64>(names::MEMBERS, number)
    }

    /// Replaces a member's session.
    pub fn set_member(&mut self, number: u32, session: &Session) -> Result<()> {
        self.set(names::MEMBERS, number, bytes::<_, 64>(session))
    }

    /// Sets when the next request of all together is due.
    pub fn set_total_arrival(&mut self, arrival_ns: u64) -> Result<()> {
        self.set(names::TOTAL, 0, arrival_ns.to_ne_bytes())
    }

    /// Allows an address.
    pub fn allow(&mut self, address: Address, allowed: Allowed) -> Result<()> {
        let map = self.map(names::ALLOW)?;
        let mut list: HashMap<_, Address, [u8; 8]> = map.try_into()?;
        Ok(list.insert(address, bytes::<_, 8>(&allowed), 0)?)
    }

    /// Allows a prefix of so many of the 128 bits.
    pub fn allow_prefix(&mut self, bits: u32, address: Address, allowed: Allowed) -> Result<()> {
        let map = self.map(names::ALLOW_PREFIX)?;
        let mut list: LpmTrie<_, Address, [u8; 8]> = map.try_into()?;
        Ok(list.insert(&Key::new(bits, address), bytes::<_, 8>(&allowed), 0)?)
    }

    /// How many foreign sessions are remembered.
    pub fn foreign_sessions(&mut self) -> Result<usize> {
        let map = self.map(names::FOREIGN)?;
        let sessions: HashMap<_, [u8; size_of::<ForeignKey>()], [u8; 64]> = map.try_into()?;
        Ok(sessions.keys().count())
    }

    /// All counters by name, over all CPUs.
    pub fn counters(&mut self) -> Result<Vec<(&'static str, u64)>> {
        let map = self.map(names::COUNTERS)?;
        let counters: PerCpuArray<_, u64> = map.try_into()?;
        let count = |reason: &Reason| -> Result<_> {
            let values = counters.get(&(*reason as u32), 0)?;
            Ok((reason.name(), values.iter().sum()))
        };
        Reason::ALL.iter().map(count).collect()
    }

    /// Takes what is in a ring.
    pub fn events(&mut self, ring: &str) -> Result<Vec<ReplyEvent>> {
        let map = self.map(ring)?;
        let mut ring: RingBuf<_> = map.try_into()?;
        let mut events = Vec::new();
        while let Some(item) = ring.next() {
            let event = ReplyEvent::read_from_bytes(&item);
            events.push(event.ok().context("an event of another length")?);
        }
        Ok(events)
    }

    fn map(&mut self, name: &str) -> Result<&mut Map> {
        let map = self.ebpf.map_mut(name);
        map.with_context(|| format!("the object has no map {name}"))
    }

    fn array<const N: usize>(&mut self, name: &str) -> Result<Array<&mut MapData, [u8; N]>> {
        Ok(self.map(name)?.try_into()?)
    }

    fn set<const N: usize>(&mut self, name: &str, index: u32, value: [u8; N]) -> Result<()> {
        Ok(self.array::<N>(name)?.set(index, value, 0)?)
    }

    fn get<T: FromBytes, const N: usize>(&mut self, name: &str, index: u32) -> Result<T> {
        let value = self.array::<N>(name)?.get(&index, 0)?;
        let value = T::read_from_bytes(&value).ok();
        value.with_context(|| format!("a value of another length in {name}"))
    }
}

/// Loads every program of an object, XDP and tc.
pub fn load_all(ebpf: &mut Ebpf) -> Result<()> {
    for (name, program) in ebpf.programs_mut() {
        match program {
            Program::Xdp(xdp) => xdp.load(),
            Program::SchedClassifier(tc) => tc.load(),
            _ => bail!("{name} is a program of an unexpected kind"),
        }
        .with_context(|| format!("cannot load {name}"))?;
    }
    Ok(())
}

/// Nanoseconds that a program of a loaded object takes per frame, see [`Datapath::time`].
pub fn time(ebpf: &Ebpf, program: &str, frame: &[u8], repeat: u32) -> Result<Duration> {
    let mut options = TestRunOptions::new();
    options.data_in = Some(frame);
    options.repeat = repeat;
    Ok(test_run(ebpf, program, options)?.duration)
}

/// An address as the maps have it: IPv4 mapped into IPv6.
#[must_use]
pub fn mapped(address: std::net::IpAddr) -> Address {
    match address {
        std::net::IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        std::net::IpAddr::V6(address) => address.octets(),
    }
}

/// Now on the clock that the programs read.
pub fn monotonic_ns() -> Result<u64> {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC)?;
    Ok(now.tv_sec() as u64 * 1_000_000_000 + now.tv_nsec() as u64)
}

fn run(
    ebpf: &Ebpf,
    program: &str,
    frame: &[u8],
    context: Option<&[u8]>,
    buffer: &mut [u8],
) -> Result<(u32, usize)> {
    let mut options = TestRunOptions::new();
    options.data_in = Some(frame);
    options.ctx_in = context;
    options.data_out = Some(buffer);
    let result = test_run(ebpf, program, options)
        .with_context(|| format!("cannot run {program} on {} bytes", frame.len()))?;
    Ok((result.return_value, result.data_size_out as usize))
}

fn test_run(
    ebpf: &Ebpf,
    program: &str,
    options: TestRunOptions<'_>,
) -> Result<aya::programs::TestRunResult> {
    let found = found(ebpf, program)?;
    Ok(match found {
        Program::Xdp(_) => <&Xdp>::try_from(found)?.test_run(options)?,
        _ => <&SchedClassifier>::try_from(found)?.test_run(options)?,
    })
}

fn found<'a>(ebpf: &'a Ebpf, program: &str) -> Result<&'a Program> {
    let found = ebpf.program(program);
    found.with_context(|| format!("the object has no program {program}"))
}

fn bytes<T: IntoBytes + Immutable, const N: usize>(value: &T) -> [u8; N] {
    const { assert!(size_of::<T>() == N) };
    let mut array = [0; N];
    array.copy_from_slice(value.as_bytes());
    array
}

/// Bytes of `struct __sk_buff` up to and without `hwtstamp`: older kernels know no more.
const SK_BUFF_LEN: usize = 176;
