//! Facts in, modes and words out.

use super::*;
use crate::adapters::clock::KernelClock;
use crate::adapters::datapath::ebpf::Tenant;
use crate::adapters::net::{LinkAddress, Moderation, XdpHolder, XdpMode};
use crate::app::doctor::collect::could_carry_probes;
use crate::engine::ladder::Mode;

const ALL: Capabilities = Capabilities(u64::MAX);

fn kernel(major: u32, minor: u32) -> KernelRelease {
    KernelRelease {
        version: (major, minor),
        text: format!("{major}.{minor}.0"),
    }
}

fn nic(driver: &str) -> InterfaceFacts {
    InterfaceFacts {
        link: Link {
            index: 2,
            name: "eth0".into(),
            driver: Some(driver.into()),
            mtu: 1_500,
            up: true,
            running: true,
            mac: Some([2, 0, 0, 0, 0, 1]),
            ..Link::default()
        },
        vlans: Vec::new(),
        moderation: Ok(Moderation {
            receive_us: Some(50),
            adaptive: true,
        }),
        tenant: None,
        attached: None,
    }
}

fn facts(interface: InterfaceFacts) -> Facts {
    Facts {
        kernel: Ok(kernel(6, 12)),
        capabilities: Ok(ALL),
        pins: ("/sys/fs/bpf/dt".into(), Ok(true)),
        lockable_bytes: Ok(None),
        idle: Ok(Some(IdleState {
            name: "C6".into(),
            exit_us: 133,
        })),
        clock: Ok(KernelClock {
            bound_ns: 1_500_000,
            synchronised: true,
        }),
        interfaces: vec![interface],
        unseen: Vec::new(),
    }
}

fn with_link(driver: &str, change: impl FnOnce(&mut Link)) -> InterfaceFacts {
    let mut facts = nic(driver);
    change(&mut facts.link);
    facts
}

fn mode_of(interface: InterfaceFacts) -> (&'static str, String) {
    let diagnosis = judge(&facts(interface));
    let one = &diagnosis.interfaces[0];
    assert_eq!(diagnosis.works, one.mode != "socket");
    (one.mode, one.why.join(" | "))
}

#[test]
fn each_driver_gets_the_mode_that_it_can_carry() {
    for (driver, mtu, mode, why) in [
        ("ice", 1_500, "xdp", "driver, MTU and slot"),
        ("ice", 9_000, "xdp", "driver, MTU and slot"),
        ("ena", 9_001, "tc", "MTU 9001 is above 3498"),
        ("ena", 3_498, "xdp", "driver, MTU and slot"),
        ("gve", 2_049, "tc", "above 2048"),
        ("veth", 1_500, "xdp", "neighbour has answered"),
        ("bridge", 1_500, "tc", "bridge has no native XDP"),
        ("vlan", 1_500, "tc", "vlan has no native XDP"),
        ("acme_eth", 1_500, "tc", "nothing is known"),
    ] {
        let (found, reasons) = mode_of(with_link(driver, |link| link.mtu = mtu));
        assert_eq!(found, mode, "{driver}, {mtu}: {reasons}");
        assert!(reasons.contains(why), "{driver}, {mtu}: {reasons}");
    }
    assert_eq!(mode_of(with_link("", |link| link.driver = None)).0, "tc");
}

#[test]
fn links_with_addresses_are_looked_at_and_unnumbered_ones_where_the_loopback_has_them() {
    let link = |index, up, loopback| Link {
        index,
        up,
        loopback,
        ..Link::default()
    };
    let links = [
        link(1, true, true),
        link(2, true, false),
        link(3, true, false),
        link(4, false, false),
    ];
    for (addresses, wanted) in [
        (&[(1, "127.0.0.1"), (2, "192.0.2.1")][..], &[2][..]),
        (&[(1, "10.0.0.1"), (2, "192.0.2.1"), (4, "192.0.2.2")], &[2]),
        (
            &[
                (1, "::1"),
                (1, "10.0.0.1"),
                (2, "fe80::2"),
                (3, "169.254.0.1"),
            ],
            &[2, 3],
        ),
        (&[(1, "127.0.0.1"), (1, "::1"), (2, "fe80::2")], &[]),
    ] {
        let addresses: Vec<_> = addresses
            .iter()
            .map(|(link, address)| LinkAddress {
                link: *link,
                address: address.parse().expect("an address"),
                prefix_len: 24,
                tentative: false,
            })
            .collect();
        let carrying = links
            .iter()
            .filter(|link| could_carry_probes(link, &links, &addresses));
        let found: Vec<_> = carrying.map(|link| link.index).collect();
        assert_eq!(found, wanted, "{addresses:?}");
    }
}

#[test]
fn a_program_of_somebody_else_is_left_alone() {
    for (mode, place) in [
        (XdpMode::Native, "program 71 (native)"),
        (XdpMode::Generic, "program 71 (generic)"),
        (XdpMode::Offloaded, "program 71 (on the device)"),
        (XdpMode::Several, "program 71 (in several places)"),
    ] {
        let holder = XdpHolder { program: 71, mode };
        let (found, reasons) = mode_of(with_link("ice", |link| link.xdp = Some(holder)));
        assert_eq!(found, "tc");
        assert!(reasons.contains(place), "{reasons}");
    }
}

fn lived_in(mode: Option<Mode>, alive: bool, holds_xdp: bool) -> InterfaceFacts {
    let holder = XdpHolder {
        program: 71,
        mode: XdpMode::Native,
    };
    InterfaceFacts {
        tenant: Some(Tenant {
            node: "n1".into(),
            mode,
            alive,
            holds_xdp,
        }),
        ..with_link("ice", |link| link.xdp = Some(holder))
    }
}

#[test]
fn an_agents_own_programs_stand_against_nothing_and_its_mode_is_told() {
    for (facts, mode, why, says) in [
        (
            lived_in(Some(Mode::Xdp), true, true),
            "xdp",
            "the agent of node n1 uses it here now",
            "node n1 works here in mode xdp now",
        ),
        (
            lived_in(Some(Mode::Tc), true, true),
            "xdp",
            "driver, MTU and slot allow it",
            "node n1 works here in mode tc now",
        ),
        (
            lived_in(Some(Mode::Tc), true, false),
            "tc",
            "the slot is held by program 71",
            "node n1 works here in mode tc now",
        ),
        (
            lived_in(None, true, true),
            "xdp",
            "driver, MTU and slot allow it",
            "has not chosen a mode",
        ),
        (
            lived_in(Some(Mode::Xdp), false, true),
            "xdp",
            "driver, MTU and slot allow it",
            "left programs here",
        ),
    ] {
        let diagnosis = judge(&self::facts(facts));
        let one = &diagnosis.interfaces[0];
        assert_eq!(one.mode, mode, "{one:?}");
        assert!(one.why.join(" ").contains(why), "{one:?}");
        let agent = finding(&one.findings, "agent");
        assert!(agent.says.contains(says), "{agent:?}");
    }
}

#[test]
fn a_link_without_ethernet_is_left_to_sockets() {
    let (mode, why) = mode_of(with_link("wireguard", |link| link.mac = None));
    assert_eq!(mode, "socket");
    assert!(why.contains("no Ethernet frames"), "{why}");
}

#[test]
fn a_device_that_strips_tags_is_not_answered_from_by_xdp() {
    let mut under_vlans = nic("ice");
    under_vlans.vlans = vec!["eth0.7".into()];
    let (mode, why) = mode_of(under_vlans);
    assert_eq!(mode, "tc");
    assert!(why.contains("VLANs eth0.7"), "{why}");
}

#[test]
fn a_real_try_outweighs_what_is_known_of_the_driver() {
    let tried = |xdp: Result<(), String>, tc: Result<(), String>| InterfaceFacts {
        attached: Some(AttachTry { xdp, tc }),
        ..nic("acme_eth")
    };
    let no = |what: &str| Err(what.to_owned());
    assert_eq!(mode_of(tried(Ok(()), Ok(()))).0, "xdp");
    let (mode, why) = mode_of(tried(no("too many channels"), Ok(())));
    assert_eq!(mode, "tc");
    assert!(
        why.contains("too many channels") && why.contains("taken off"),
        "{why}"
    );
    let (mode, why) = mode_of(tried(no("busy"), no("no clsact")));
    assert_eq!(mode, "socket");
    assert!(why.contains("busy") && why.contains("no clsact"), "{why}");
}

type Change<'a> = &'a dyn Fn(&mut Facts);

#[test]
fn what_the_host_lacks_is_said_for_every_interface() {
    let none = Capabilities(0);
    let only = Capabilities(
        1 << Capabilities::BPF | 1 << Capabilities::PERFMON | 1 << Capabilities::NET_ADMIN,
    );
    let old = Capabilities(1 << Capabilities::SYS_ADMIN | 1 << Capabilities::NET_ADMIN);
    let table: [(&str, Change<'_>, &str, &str); 6] = [
        (
            "nothing at all",
            &|facts| facts.capabilities = Ok(none),
            "socket",
            "CAP_BPF is missing; CAP_PERFMON is missing; CAP_NET_ADMIN is missing",
        ),
        (
            "the three that matter",
            &|facts| facts.capabilities = Ok(only),
            "xdp",
            "",
        ),
        (
            "the old one for all",
            &|facts| facts.capabilities = Ok(old),
            "xdp",
            "",
        ),
        (
            "not told",
            &|facts| facts.capabilities = Err("no /proc".into()),
            "xdp",
            "",
        ),
        (
            "old kernel",
            &|facts| facts.kernel = Ok(kernel(5, 10)),
            "socket",
            "5.10.0 is older than 5.12",
        ),
        (
            "no place for pins",
            &|facts| {
                facts.capabilities = Ok(only);
                facts.pins.1 = Ok(false);
            },
            "socket",
            "no BPF file system",
        ),
    ];
    for (name, change, mode, why) in table {
        let mut facts = facts(nic("ice"));
        change(&mut facts);
        let diagnosis = judge(&facts);
        assert_eq!(diagnosis.interfaces[0].mode, mode, "{name}");
        assert!(
            diagnosis.interfaces[0].why.join(" ").contains(why),
            "{name}: {:?}",
            diagnosis.interfaces[0].why
        );
    }
}

#[test]
fn jumbo_frames_need_a_kernel_with_fragments() {
    let mut facts = facts(with_link("ice", |link| link.mtu = 9_000));
    facts.kernel = Ok(kernel(5, 15));
    assert_eq!(judge(&facts).interfaces[0].mode, "tc");
}

#[test]
fn links_on_which_checksums_are_left_unfinished_are_full() {
    for (driver, checksum) in [
        ("veth", "full"),
        ("virtio_net", "full"),
        ("ice", "incremental"),
    ] {
        assert_eq!(judge(&facts(nic(driver))).interfaces[0].checksum, checksum);
    }
}

fn finding<'a>(findings: &'a [Finding], subject: &str) -> &'a Finding {
    findings
        .iter()
        .find(|finding| finding.subject == subject)
        .expect(subject)
}

#[test]
fn every_finding_that_is_not_good_says_what_to_do() {
    let mut facts = facts(with_link("ena", |link| {
        link.running = false;
        link.controller = Some(9);
        link.xdp = Some(XdpHolder {
            program: 7,
            mode: XdpMode::Native,
        });
    }));
    facts.kernel = Ok(kernel(5, 10));
    facts.capabilities = Ok(Capabilities(0));
    facts.pins.1 = Ok(false);
    facts.lockable_bytes = Ok(Some(65_536));
    facts.clock = Err("not permitted".into());
    facts.unseen = vec!["there is no interface eth7".into()];
    let diagnosis = judge(&facts);
    let all = diagnosis
        .host
        .iter()
        .chain(&diagnosis.interfaces[0].findings);
    for finding in all {
        assert_eq!(
            finding.level == Level::Good,
            finding.advice.is_none(),
            "{finding:?}"
        );
    }
    assert!(
        finding(&diagnosis.host, "clock")
            .says
            .contains("not known: not permitted")
    );
    assert_eq!(
        finding(&diagnosis.host, "locked memory").level,
        Level::Problem
    );
    assert_eq!(finding(&diagnosis.host, "idle states").level, Level::Note);
    assert!(
        finding(&diagnosis.interfaces[0].findings, "interrupt moderation")
            .says
            .contains("50 us")
    );
}

#[test]
fn a_host_without_interfaces_says_so() {
    let mut facts = facts(nic("ice"));
    facts.interfaces.clear();
    let diagnosis = judge(&facts);
    assert!(!diagnosis.works);
    assert_eq!(finding(&diagnosis.host, "interfaces").level, Level::Problem);
}

#[test]
fn the_text_has_every_reason_and_the_json_every_field() {
    let diagnosis = judge(&facts(with_link("ena", |link| link.mtu = 9_001)));
    let mut text = Vec::new();
    print::text(&diagnosis, &mut text).expect("memory");
    let text = String::from_utf8(text).expect("text");
    for part in [
        "eth0: tc",
        "not xdp: MTU 9001",
        "XDP slot",
        "free",
        "incremental",
        "at most 1500 us from UTC",
        "C6",
        "xdp or tc works",
    ] {
        assert!(text.contains(part), "{part:?} in\n{text}");
    }
    let json = serde_json::to_value(&diagnosis).expect("JSON");
    assert_eq!(json["works"], true);
    assert_eq!(json["interfaces"][0]["mode"], "tc");
    assert_eq!(json["interfaces"][0]["receive_moderation_us"], 50);
    assert_eq!(json["host"][0]["level"], "good");
}

#[test]
fn this_very_host_can_be_examined() {
    let names = ["lo".to_owned(), "no-such-link".to_owned()];
    let options = DoctorOptions {
        interfaces: &names,
        node: "n1",
        pin_root: Path::new("/sys/fs/bpf/distributed-trace"),
        json: true,
    };
    let mut out = Vec::new();
    let probe = |_: &Link| None;
    doctor(&options, probe, &mut out).expect("memory");
    let json: serde_json::Value = serde_json::from_slice(&out).expect("JSON");
    assert_eq!(json["interfaces"][0]["name"], "lo");
    let host = json["host"].as_array().expect("findings");
    assert!(
        host.iter()
            .any(|one| one["says"] == "there is no interface no-such-link")
    );
    assert!(host.iter().all(|one| {
        !one["says"]
            .as_str()
            .unwrap_or("")
            .contains("is not understood")
    }));
}
