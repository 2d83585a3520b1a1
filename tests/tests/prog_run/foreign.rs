//! What is not ours is passed on byte for byte, however it was made or cut.

use anyhow::Result;
use dt_tests::datapath::{Hook, Verdict};
use dt_tests::frame::{self, Frame};
use dt_tests::skip_unless_equipped;

use crate::rig::{HOOKS, IPV6, MEMBER, PORT, Rig, TAGS, US, host, probe, request_from};

#[test]
fn traffic_that_is_not_ours_passes_untouched_and_uncounted() -> Result<()> {
    skip_unless_equipped!();
    for hook in HOOKS {
        let mut rig = Rig::new(hook)?;
        for bytes in others() {
            let (verdict, reason, frame) = rig.judge(&bytes)?;
            assert_eq!((verdict, reason), (Verdict::Pass, None), "{bytes:02x?}");
            assert_eq!(frame, bytes);
        }
    }
    Ok(())
}

#[test]
fn frames_cut_at_any_byte_are_passed() -> Result<()> {
    skip_unless_equipped!();
    for hook in HOOKS {
        let mut rig = Rig::new(hook)?;
        for ipv6 in IPV6 {
            for tags in TAGS {
                for frame in [request_from(ipv6, MEMBER, probe(1, 7)), reply(ipv6)] {
                    let whole = Frame {
                        tags: tags.to_vec(),
                        ..frame
                    }
                    .bytes();
                    // The kernel runs no frame without a whole Ethernet header, and at tc none without what its type
                    // announces.
                    let shortest = match (hook, tags.len()) {
                        (Hook::Xdp, _) => 14,
                        (Hook::Tc, 0) => 14 + if ipv6 { 40 } else { 20 },
                        (Hook::Tc, _) => 15,
                    };
                    for len in shortest..whole.len() {
                        let (verdict, ..) = rig.judge(&whole[..len])?;
                        assert_eq!(verdict, Verdict::Pass, "{len} bytes");
                    }
                }
            }
        }
    }
    Ok(())
}

#[test]
fn an_unknown_interface_is_left_alone() -> Result<()> {
    skip_unless_equipped!();
    for hook in HOOKS {
        let mut rig = Rig::new(hook)?;
        // An interface that stands in the same slot of the map, but is another.
        let other = dt_common::map::Iface {
            ifindex: 1 + dt_common::map::MAX_IFACES,
            mode: 1 + u32::from(hook == Hook::Tc),
            ..Default::default()
        };
        rig.datapath.set_iface(&other)?;
        rig.oracle.settings.acting = false;
        for frame in [request_from(false, MEMBER, probe(1, 7)), reply(true)] {
            assert_eq!(rig.judge(&frame.bytes())?.0, Verdict::Pass);
        }
    }
    Ok(())
}

fn reply(ipv6: bool) -> Frame {
    let payload = [
        frame::request(9, 0, 1, 5 + u16::from(ipv6)),
        frame::our_tlv(7, 0x08),
    ]
    .concat();
    Frame::udp((host(ipv6, MEMBER), 862), (host(ipv6, US), 61_000), payload)
}

fn others() -> Vec<Vec<u8>> {
    let mut frames = vec![
        arp(),
        vec![0xff; 64],
        ethernet(0x88cc, &[0; 100]),
        ethernet(0x8100, &[0; 2]),
    ];
    for ipv6 in IPV6 {
        let request = request_from(ipv6, MEMBER, probe(1, 7));
        for port in [53, 861, 863, 60_999, 61_004, PORT] {
            frames.push(
                Frame {
                    destination_port: port,
                    ..request.clone()
                }
                .bytes(),
            );
        }
        frames.push(
            Frame {
                tags: vec![(0x8100, 1); 3],
                ..request.clone()
            }
            .bytes(),
        );
        frames.push(
            Frame {
                tags: vec![(0x9100, 1)],
                ..request.clone()
            }
            .bytes(),
        );
        let next = request.ip_offset() + if ipv6 { 6 } else { 9 };
        for protocol in 0..=255 {
            if protocol != 17 {
                let mut bytes = request.bytes();
                bytes[next] = protocol;
                frames.push(bytes);
            }
        }
        for version in [0x00, 0x44, 0x46, 0x4f, 0x50, 0x75, 0xff] {
            let mut bytes = request.bytes();
            bytes[request.ip_offset()] = version;
            frames.push(bytes);
        }
    }
    for fragment in [0x0001, 0x2001, 0x1fff, 0x3fff] {
        frames.push(
            Frame {
                fragment,
                ..request_from(false, MEMBER, probe(1, 7))
            }
            .bytes(),
        );
    }
    frames
}

fn ethernet(kind: u16, body: &[u8]) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
    frame.extend(kind.to_be_bytes());
    frame.extend(body);
    frame
}

fn arp() -> Vec<u8> {
    let body = [
        0, 1, 8, 0, 6, 4, 0, 2, 2, 0, 0, 0, 0, 2, 10, 77, 0, 2, 2, 0, 0, 0, 0, 1, 10, 77, 0, 1,
    ];
    ethernet(0x0806, &body)
}
