//! One world for two judges: the programs with their maps, and the oracle.

use std::net::IpAddr;
use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result, ensure};
use dt_common::map::{
    Allowed, AllowedFlags, Config, ConfigFlags, Iface, IfaceFlags, IfaceMode, Target, TargetFlags,
    words,
};
use dt_tests::datapath::{Datapath, Hook, IFINDEX, Outcome, Verdict, mapped};
use dt_tests::frame::{self, Frame};
use dt_tests::given;

use crate::oracle::{self, Action, Oracle, Permit, Place, Settings};

/// The programs and the oracle, told the same.
pub struct Rig {
    pub datapath: Loaded,
    pub oracle: Oracle,
    pub hook: Hook,
    /// How many of `targets` stand in the map.
    targets: Vec<u16>,
}

/// The one object of this process, for as long as a test has it: to load it takes the verifier half a second.
pub struct Loaded(MutexGuard<'static, Option<Datapath>>);

impl Loaded {
    fn take() -> Result<Self> {
        static OBJECT: Mutex<Option<Datapath>> = Mutex::new(None);
        // A test that failed left nothing that `forget` does not put right.
        let mut object = OBJECT.lock().unwrap_or_else(PoisonError::into_inner);
        if object.is_none() {
            *object = Some(Datapath::load(&given::datapath_object()?)?);
        }
        let mut loaded = Self(object);
        loaded.forget(&[MEMBER_NUMBER])?;
        Ok(loaded)
    }
}

impl Deref for Loaded {
    type Target = Datapath;

    fn deref(&self) -> &Datapath {
        self.0.as_ref().expect("`take` loaded it")
    }
}

impl DerefMut for Loaded {
    fn deref_mut(&mut self) -> &mut Datapath {
        self.0.as_mut().expect("`take` loaded it")
    }
}

/// Both hooks.
pub const HOOKS: [Hook; 2] = [Hook::Xdp, Hook::Tc];
pub const IPV6: [bool; 2] = [false, true];
/// None, one, and two as providers stack them.
pub const TAGS: [&[(u16, u16)]; 3] = [
    &[],
    &[(0x8100, 0x2064)],
    &[(0x88a8, 0x0010), (0x8100, 0x0064)],
];

impl Rig {
    pub fn new(hook: Hook) -> Result<Self> {
        let place = if hook == Hook::Xdp {
            Place::Xdp
        } else {
            Place::Tc
        };
        let mut rig = Self {
            datapath: Loaded::take()?,
            oracle: Oracle::new(settings(), place),
            hook,
            targets: Vec::new(),
        };
        rig.allow_all_permits()?;
        rig.apply()?;
        Ok(rig)
    }

    /// Changes what both are told.
    pub fn set(&mut self, change: impl FnOnce(&mut Settings)) -> Result<()> {
        change(&mut self.oracle.settings);
        self.apply()
    }

    /// Runs a frame and demands what the oracle predicts: verdict, bytes, and the one counter that moves.
    pub fn judge(&mut self, frame: &[u8]) -> Result<(Verdict, Option<&'static str>, Vec<u8>)> {
        let before = self.datapath.counters()?;
        let (outcome, reason) = self.judge_quickly(frame)?;
        let after = self.datapath.counters()?;
        let moved = moved(&before, &after);
        let expected: Vec<_> = reason.iter().map(|reason| (*reason, 1)).collect();
        ensure!(
            moved == expected,
            "counters moved: {moved:?}, expected {expected:?}, for {frame:02x?}"
        );
        Ok((outcome.verdict, reason, outcome.frame))
    }

    /// The same without the counters, whose reading takes longer than all the rest.
    pub fn judge_quickly(&mut self, frame: &[u8]) -> Result<(Outcome, Option<&'static str>)> {
        let prediction = self.oracle.predict(frame);
        let outcome = self.datapath.ingress(self.hook, frame)?;
        let said = match outcome.verdict {
            Verdict::Pass => Action::Pass,
            Verdict::Drop => Action::Drop,
            Verdict::Send => Action::Send,
        };
        let reason = prediction.reason;
        ensure!(
            said == prediction.action,
            "verdict {said:?} where {:?} ({reason:?}) was due, for {frame:02x?}",
            prediction.action
        );
        let checked = match prediction.reply {
            Some(reply) => {
                self.oracle
                    .check(reply, &outcome.frame, outcome.before_ns, outcome.after_ns)
            }
            None if outcome.frame == frame => Ok(()),
            None => Err(format!("the frame was changed to {:02x?}", outcome.frame)),
        };
        checked
            .map_err(anyhow::Error::msg)
            .with_context(|| format!("on {frame:02x?}"))?;
        Ok((outcome, reason))
    }

    fn allow_all_permits(&mut self) -> Result<()> {
        for permit in &self.oracle.settings.permits {
            let allowed = Allowed {
                member: permit.member.unwrap_or(Allowed::NO_MEMBER),
                flags: if permit.low_ports {
                    AllowedFlags::LOW_PORTS
                } else {
                    0
                },
            };
            if permit.bits == 128 {
                self.datapath.allow(permit.address, allowed)?;
            } else {
                self.datapath
                    .allow_prefix(permit.bits as u32, permit.address, allowed)?;
            }
        }
        Ok(())
    }

    /// Tells the programs what the oracle's settings say.
    fn apply(&mut self) -> Result<()> {
        let settings = self.oracle.settings.clone();
        self.datapath.set_config(&config(&settings))?;
        let acting = if self.hook == Hook::Xdp {
            IfaceMode::XDP
        } else {
            IfaceMode::TC
        };
        let flags = if settings.partial_checksums {
            IfaceFlags::CHECKSUM_FULL
        } else {
            0
        };
        let mode = if settings.acting {
            acting
        } else {
            IfaceMode::OFF
        };
        self.datapath.set_iface(&Iface {
            ifindex: IFINDEX,
            mode,
            flags,
            proof_round: 0,
        })?;
        for ssid in std::mem::take(&mut self.targets) {
            self.datapath.set_target(ssid, &Target::default())?;
        }
        for target in &settings.targets {
            self.datapath.set_target(target.ssid, &as_target(target))?;
            self.targets.push(target.ssid);
        }
        for (port, ssid) in &settings.port_owners {
            self.datapath
                .set_port_owner(u32::from(port - settings.source_ports.0), *ssid)?;
        }
        Ok(())
    }
}

pub fn moved(
    before: &[(&'static str, u64)],
    after: &[(&'static str, u64)],
) -> Vec<(&'static str, u64)> {
    let pairs = before.iter().zip(after);
    let differences = pairs.map(|((name, before), (_, after))| (*name, after - before));
    differences
        .filter(|(_, difference)| *difference != 0)
        .collect()
}

/// What the maps say of a target.
pub fn as_target(target: &oracle::Target) -> Target {
    Target {
        address: words(target.address),
        port: target.port,
        flags: TargetFlags::ACTIVE,
        pass_every: target.pass_every,
        ..Target::default()
    }
}

/// What the maps say of the settings.
pub fn config(settings: &Settings) -> Config {
    let mut config = Config {
        abi_version: dt_common::ABI_VERSION,
        flags: if settings.allow_all {
            ConfigFlags::ALLOW_ALL
        } else {
            0
        } | if settings.stateless {
            ConfigFlags::STATELESS
        } else {
            0
        },
        lease_until_ns: if settings.lease { u64::MAX } else { 1 },
        clock_offset_ns: settings.clock_offset_ns,
        clock_generation: u32::from(settings.clock_generation),
        error_estimate: settings.error_estimate,
        port: settings.port,
        source_port_first: settings.source_ports.0,
        source_port_last: settings.source_ports.1,
        locals_len: settings.locals.len() as u32,
        ..Config::default()
    };
    for (slot, local) in config.locals.iter_mut().zip(&settings.locals) {
        *slot = words(*local);
    }
    config
}

/// The world of all tests, before they change it.
pub fn settings() -> Settings {
    let both = |number: u8| IPV6.map(|ipv6| mapped(host(ipv6, number)));
    let permit = |address, member, low_ports| Permit {
        address,
        bits: 128,
        member,
        low_ports,
    };
    let mut permits = Vec::new();
    permits.extend(both(MEMBER).map(|address| permit(address, Some(MEMBER_NUMBER), false)));
    permits.extend(both(ROUTER).map(|address| permit(address, None, true)));
    permits.push(Permit {
        bits: 96 + 16,
        ..permit(mapped([172, 20, 0, 0].into()), None, false)
    });
    permits.push(Permit {
        bits: 64,
        ..permit(
            mapped(IpAddr::from([0xfd88, 0, 0, 0, 0, 0, 0, 0])),
            None,
            false,
        )
    });
    let targets = (0..2).map(|index| oracle::Target {
        ssid: 5 + index,
        address: both(MEMBER)[usize::from(index)],
        port: 862,
        pass_every: 0,
    });
    Settings {
        port: 862,
        source_ports: (61_000, 61_003),
        locals: both(US).into(),
        permits,
        targets: targets.collect(),
        port_owners: vec![(61_001, 5), (61_002, 6)],
        allow_all: false,
        stateless: false,
        partial_checksums: false,
        acting: true,
        lease: true,
        // Twelve seconds before the NTP era ends: times wrap during the tests.
        clock_offset_ns: (1_u64 << 32) * 1_000_000_000,
        clock_generation: 8,
        error_estimate: 0x8b21,
    }
}

/// A host of our network, or of one that is allowed by prefix.
pub fn host(ipv6: bool, number: u8) -> IpAddr {
    match (ipv6, number) {
        (false, NEIGHBOUR) => [172, 20, 1, 2].into(),
        (true, NEIGHBOUR) => [0xfd88, 0, 0, 0, 0, 0, 0, 2].into(),
        (false, _) => [10, 77, 0, number].into(),
        (true, _) => [0xfd77, 0, 0, 0, 0, 0, 0, u16::from(number)].into(),
    }
}

pub const US: u8 = 1;
/// A member of the mesh.
pub const MEMBER: u8 = 2;
pub const MEMBER_NUMBER: u32 = 3;
/// Allowed, and may use low ports.
pub const ROUTER: u8 = 3;
/// Allowed by prefix.
pub const NEIGHBOUR: u8 = 4;
/// Not allowed.
pub const STRANGER: u8 = 5;
/// Source port of senders.
pub const PORT: u16 = 50_000;

/// A request of `from` to us.
pub fn request_from(ipv6: bool, from: u8, payload: Vec<u8>) -> Frame {
    Frame::udp((host(ipv6, from), PORT), (host(ipv6, US), 862), payload)
}

/// The payload of an agent's probe.
pub fn probe(seq: u32, sender_epoch: u32) -> Vec<u8> {
    let mut payload = frame::request(seq, 0x0123_4567_89ab_cdef, 0x4102, 9);
    payload.extend(frame::our_tlv(sender_epoch, 0x08));
    payload
}

/// A base packet alone.
pub fn plain(seq: u32) -> Vec<u8> {
    frame::request(seq, 0x0123_4567_89ab_cdef, 0x4102, 9)
}
