//! The programs on a real cable: tags that the kernel takes off and puts back, and jumbo frames in pieces.
//!
//! `BPF_PROG_TEST_RUN` refuses VLAN metadata for tc (EINVAL), so tagged frames go through a veth by `AF_PACKET`.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};

use anyhow::{Context, Result, ensure};
use aya::programs::{SchedClassifier, TcAttachType, Xdp, XdpMode};
use dt_common::map::{Allowed, Iface, IfaceMode};
use dt_tests::datapath::{Datapath, Hook, mapped, monotonic_ns};
use dt_tests::frame::{self, Checksum, Frame};
use dt_tests::{Host, Lab, LabObject, given, netns, skip_unless_equipped};
use nix::net::if_::if_nametoindex;

use crate::oracle::{Oracle, Place};
use crate::rig::{
    HOOKS, IPV6, MEMBER, MEMBER_NUMBER, TAGS, US, config, host, moved, plain, probe, request_from,
    settings,
};

#[test]
fn tagged_and_untagged_requests_are_answered_through_a_cable() -> Result<()> {
    skip_unless_equipped!();
    for hook in HOOKS {
        let mut cable = Cable::lay(hook)?;
        for ipv6 in IPV6 {
            for tags in TAGS {
                for payload in [plain(1), probe(2, 7), odd(3, 1_001)] {
                    let frame = Frame {
                        tags: tags.to_vec(),
                        ..request_from(ipv6, MEMBER, payload)
                    };
                    let context = || format!("{hook:?}, IPv6: {ipv6}, tags: {tags:x?}");
                    cable.answers(&frame.bytes()).with_context(context)?;
                }
            }
        }
    }
    Ok(())
}

#[test]
fn jumbo_requests_are_answered_at_tc_and_left_to_the_stack_by_xdp() -> Result<()> {
    skip_unless_equipped!();
    for hook in HOOKS {
        let mut cable = Cable::lay(hook)?;
        for ipv6 in IPV6 {
            for len in [4_000, 8_951, 8_952, 9_000, 9_001] {
                let bytes = request_from(ipv6, MEMBER, odd(4, len)).bytes();
                let result = match hook {
                    Hook::Tc => cable.answers(&bytes),
                    Hook::Xdp => cable.is_silent(&bytes, "non_linear"),
                };
                result.with_context(|| format!("{hook:?}, IPv6: {ipv6}, {len} bytes"))?;
            }
        }
    }
    Ok(())
}

#[test]
fn a_corrupt_request_is_not_answered_through_a_cable() -> Result<()> {
    skip_unless_equipped!();
    for hook in HOOKS {
        let mut cable = Cable::lay(hook)?;
        for len in [96, 1_001] {
            let frame = Frame {
                checksum: Checksum::Wrong,
                tags: TAGS[1].to_vec(),
                ..request_from(false, MEMBER, odd(5, len))
            };
            cable.is_silent(&frame.bytes(), "corrupt_request")?;
        }
    }
    Ok(())
}

/// `n1` with a program on its end, and a raw socket on the end of `n2`. Dropped from the top: programs before the lab.
struct Cable {
    oracle: Oracle,
    datapath: Datapath,
    _opener: LabObject,
    end: RawEnd,
    _lab: Lab,
}

impl Cable {
    fn lay(hook: Hook) -> Result<Self> {
        let lab = Lab::mesh(2)?;
        let (ours, theirs) = (lab.host("n1"), lab.host("n2"));
        let ends = (host(false, US), host(true, MEMBER));
        assert_eq!(
            (ours.ipv4().into(), theirs.ipv6().into()),
            ends,
            "as in the oracle's world"
        );
        for one in [ours, theirs] {
            let device = one.devices()[0];
            netns::ip_batch(one.namespace(), &[format!("link set {device} mtu 9300")])?;
        }
        // Without a program at the far end a veth drops what XDP_TX sends.
        let mut opener = LabObject::load()?;
        opener.attach_xdp("xdp_pass", theirs, theirs.device_to("n1"))?;
        let datapath = attached(hook, ours, ours.device_to("n2"))?;
        let end = RawEnd::open(theirs, theirs.device_to("n1"))?;
        let place = if hook == Hook::Xdp {
            Place::Xdp
        } else {
            Place::Tc
        };
        let oracle = Oracle::new(settings(), place);
        Ok(Self {
            oracle,
            datapath,
            _opener: opener,
            end,
            _lab: lab,
        })
    }

    /// Demands the reply that the oracle predicts.
    fn answers(&mut self, bytes: &[u8]) -> Result<()> {
        let expected = self
            .oracle
            .predict(bytes)
            .reply
            .context("the oracle expects no reply")?;
        let before_ns = monotonic_ns()?;
        let reply = self
            .exchange(bytes, "reflected")?
            .context("no reply came")?;
        let checked = self
            .oracle
            .check(expected, &reply, before_ns, monotonic_ns()?);
        checked.map_err(anyhow::Error::msg)
    }

    /// Demands that nothing comes back.
    fn is_silent(&mut self, bytes: &[u8], reason: &'static str) -> Result<()> {
        ensure!(self.exchange(bytes, reason)?.is_none(), "there was a reply");
        Ok(())
    }

    fn exchange(&mut self, bytes: &[u8], reason: &'static str) -> Result<Option<Vec<u8>>> {
        let before = self.datapath.counters()?;
        let answer = self.end.exchange(bytes)?;
        let moved = moved(&before, &self.datapath.counters()?);
        ensure!(moved == [(reason, 1)], "counters moved: {moved:?}");
        Ok(answer)
    }
}

/// The programs of a new object, told the oracle's settings, one of them attached.
fn attached(hook: Hook, on: &Host, device: &str) -> Result<Datapath> {
    let mut datapath = Datapath::load(&given::datapath_object()?)?;
    let settings = settings();
    datapath.set_config(&config(&settings))?;
    for address in IPV6.map(|ipv6| mapped(host(ipv6, MEMBER))) {
        datapath.allow(
            address,
            Allowed {
                member: MEMBER_NUMBER,
                flags: 0,
            },
        )?;
    }
    let ifindex = on
        .enter(|| if_nametoindex(device))?
        .context("the device is not there")?;
    let mode = if hook == Hook::Xdp {
        IfaceMode::XDP
    } else {
        IfaceMode::TC
    };
    datapath.set_iface(&Iface {
        ifindex,
        mode,
        flags: 0,
        proof_round: 0,
    })?;
    let program = datapath
        .ebpf_mut()
        .program_mut(hook.ingress())
        .context("no such program")?;
    if hook == Hook::Xdp {
        let xdp: &mut Xdp = program.try_into()?;
        on.enter(|| xdp.attach(device, XdpMode::Driver))??;
    } else {
        let tc: &mut SchedClassifier = program.try_into()?;
        on.enter(|| tc.attach(device, TcAttachType::Ingress))??;
    }
    Ok(datapath)
}

/// `oracle/wire.py` on a device.
struct RawEnd {
    child: Child,
    frames: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl RawEnd {
    fn open(host: &Host, device: &str) -> Result<Self> {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/oracle/wire.py");
        let mut child = host
            .command("python3")
            .args([script, device])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start Python")?;
        let frames = child.stdin.take().context("stdin is piped")?;
        let answers = BufReader::new(child.stdout.take().context("stdout is piped")?);
        let mut end = Self {
            child,
            frames,
            answers,
        };
        ensure!(end.line()? == "ready", "wire.py is not ready");
        Ok(end)
    }

    fn exchange(&mut self, frame: &[u8]) -> Result<Option<Vec<u8>>> {
        let hex = frame
            .iter()
            .fold(String::new(), |text, byte| text + &format!("{byte:02x}"));
        writeln!(self.frames, "{hex}")?;
        let line = self.line()?;
        if line == "-" {
            return Ok(None);
        }
        let byte = |pair: &[u8]| Ok(u8::from_str_radix(std::str::from_utf8(pair)?, 16)?);
        line.as_bytes()
            .chunks(2)
            .map(byte)
            .collect::<Result<_>>()
            .map(Some)
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        ensure!(!line.is_empty(), "wire.py ended");
        Ok(line.trim_end().to_owned())
    }
}

impl Drop for RawEnd {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A probe with padding up to this length.
fn odd(seq: u32, len: usize) -> Vec<u8> {
    let mut payload = probe(seq, 7);
    if let Some(padding) = len.checked_sub(payload.len() + 4) {
        payload.extend(frame::tlv(0x80, 1, &vec![0xa5; padding]));
    }
    payload
}
