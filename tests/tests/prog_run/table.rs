//! The lines of the verdict table: one frame each, what is told to the programs before, and what must come of it.

use dt_tests::datapath::Verdict;
use dt_tests::frame::{self, Checksum, Frame};

use crate::oracle::Settings;
use crate::rig::{IPV6, MEMBER, NEIGHBOUR, ROUTER, STRANGER, US, host, plain, probe, request_from};

/// One line of the table.
pub struct Case {
    pub name: &'static str,
    pub verdict: Verdict,
    pub reason: Option<&'static str>,
    pub settings: fn(&mut Settings),
    pub frame: fn(bool) -> Frame,
    /// What is done to the bytes; the numbers are the offsets of the IP and the UDP header.
    pub spoil: fn(&mut Vec<u8>, usize, usize),
    pub versions: &'static [bool],
}

impl Default for Case {
    fn default() -> Self {
        Self {
            name: "a probe of a member is answered",
            verdict: Verdict::Send,
            reason: Some("reflected"),
            settings: |_| {},
            frame: |ipv6| request_from(ipv6, MEMBER, probe(1, 7)),
            spoil: |_, _, _| {},
            versions: &IPV6,
        }
    }
}

fn answered(name: &'static str, frame: fn(bool) -> Frame) -> Case {
    Case {
        name,
        frame,
        ..Case::default()
    }
}

fn refused(name: &'static str, reason: &'static str, frame: fn(bool) -> Frame) -> Case {
    Case {
        name,
        verdict: Verdict::Drop,
        reason: Some(reason),
        frame,
        ..Case::default()
    }
}

fn passed(
    name: &'static str,
    reason: Option<&'static str>,
    spoil: fn(&mut Vec<u8>, usize, usize),
) -> Case {
    Case {
        name,
        verdict: Verdict::Pass,
        reason,
        spoil,
        ..Case::default()
    }
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "the case given is the one that comes back, changed"
)]
fn told(case: Case, settings: fn(&mut Settings)) -> Case {
    Case { settings, ..case }
}

fn from_port(ipv6: bool, from: u8, port: u16, ttl: u8) -> Frame {
    Frame {
        source_port: port,
        ttl,
        ..request_from(ipv6, from, plain(1))
    }
}

fn from_address(ipv6: bool, ipv4: [u8; 4], other: [u16; 8]) -> Frame {
    let source = if ipv6 { other.into() } else { ipv4.into() };
    Frame {
        source,
        ..request_from(ipv6, MEMBER, probe(1, 7))
    }
}

fn with_checksum(ipv6: bool, checksum: Checksum) -> Frame {
    Frame {
        checksum,
        ..request_from(ipv6, MEMBER, probe(1, 7))
    }
}

/// The same from a sender who says that it summed the whole.
fn said_to_be_summed(ipv6: bool, checksum: Checksum) -> Frame {
    let payload = [
        frame::request(1, 0x1111_2222_3333_4444, 0x5555, 9),
        frame::our_tlv(7, 0x48),
    ];
    Frame {
        checksum,
        ..request_from(ipv6, MEMBER, payload.concat())
    }
}

/// What may come to our port.
pub fn requests() -> Vec<Case> {
    let mut cases = vec![Case::default()];
    cases.extend(answered_requests());
    cases.extend(requests_refused_by_address());
    cases.extend(requests_refused_by_policy());
    cases.extend(malformed_requests());
    cases.extend(requests_that_are_not_ours());
    cases
}

fn answered_requests() -> Vec<Case> {
    vec![
        answered("a bare request", |ipv6| {
            request_from(ipv6, MEMBER, plain(1))
        }),
        answered("one from an allowed prefix", |ipv6| {
            request_from(ipv6, NEIGHBOUR, probe(1, 7))
        }),
        answered("a router's, from its own 862", |ipv6| {
            from_port(ipv6, ROUTER, 862, 255)
        }),
        answered("a router's, from a low port", |ipv6| {
            from_port(ipv6, ROUTER, 22, 224)
        }),
        answered("one from port 1024", |ipv6| {
            from_port(ipv6, MEMBER, 1024, 1)
        }),
        answered("one that met congestion", |ipv6| Frame {
            tos: 0x03,
            ..request_from(ipv6, MEMBER, probe(1, 7))
        }),
        answered("one of a traffic class, padded by Ethernet", |ipv6| Frame {
            tos: 0xb9,
            trailer: vec![0xaa; 7],
            ..request_from(ipv6, MEMBER, plain(1))
        }),
        Case {
            versions: &[false],
            ..answered("no checksum in IPv4", |ipv6| {
                with_checksum(ipv6, Checksum::Zero)
            })
        },
        told(
            answered("a stranger where all are allowed", |ipv6| {
                request_from(ipv6, STRANGER, plain(1))
            }),
            |settings| {
                settings.allow_all = true;
            },
        ),
        told(
            answered("stateless", |ipv6| request_from(ipv6, MEMBER, probe(77, 7))),
            |settings| {
                settings.stateless = true;
            },
        ),
        told(
            answered("another port", |ipv6| Frame {
                destination_port: 4862,
                ..request_from(ipv6, MEMBER, plain(1))
            }),
            |settings| settings.port = 4862,
        ),
        told(
            answered("a bare pseudo-header sum", |ipv6| {
                with_checksum(ipv6, Checksum::Partial)
            }),
            |settings| {
                settings.partial_checksums = true;
            },
        ),
        answered("summed by who sent it", |ipv6| {
            said_to_be_summed(ipv6, Checksum::Right)
        }),
        answered("eight TLVs", |ipv6| {
            request_from(ipv6, MEMBER, many_tlvs(8))
        }),
    ]
}

fn many_tlvs(count: usize) -> Vec<u8> {
    let mut payload = probe(1, 7);
    for index in 0..count {
        payload.extend(frame::tlv(0x80, 200, &vec![0; index]));
    }
    payload
}

fn requests_refused_by_address() -> Vec<Case> {
    vec![
        refused("to a group's hardware address", "multicast", |ipv6| Frame {
            destination_mac: [0x33, 0x33, 0, 0, 0, 1],
            ..request_from(ipv6, MEMBER, probe(1, 7))
        }),
        refused("broadcast by hardware", "multicast", |ipv6| Frame {
            destination_mac: [0xff; 6],
            ..request_from(ipv6, MEMBER, probe(1, 7))
        }),
        refused("from a group's hardware address", "multicast", |ipv6| {
            Frame {
                source_mac: [1, 0, 0x5e, 0, 0, 1],
                ..request_from(ipv6, MEMBER, probe(1, 7))
            }
        }),
        refused("from a group", "multicast", |ipv6| {
            from_address(ipv6, [239, 1, 2, 3], [0xff02, 0, 0, 0, 0, 0, 0, 1])
        }),
        Case {
            versions: &[false],
            ..refused("from everybody", "multicast", |ipv6| {
                from_address(ipv6, [255; 4], [0; 8])
            })
        },
        refused("from loopback", "loopback", |ipv6| {
            from_address(ipv6, [127, 0, 0, 1], [0, 0, 0, 0, 0, 0, 0, 1])
        }),
        refused("from nobody", "loopback", |ipv6| {
            from_address(ipv6, [0; 4], [0; 8])
        }),
        Case {
            versions: &[true],
            ..refused("IPv4 dressed as IPv6", "loopback", |ipv6| {
                from_address(ipv6, [0; 4], [0, 0, 0, 0, 0, 0xffff, 0x0a4d, 0x0002])
            })
        },
        refused("from ourselves", "reflexive", |ipv6| {
            request_from(ipv6, US, probe(1, 7))
        }),
        refused("from a stranger", "not_allowed", |ipv6| {
            request_from(ipv6, STRANGER, probe(1, 7))
        }),
        refused("from beyond an allowed prefix", "not_allowed", |ipv6| {
            from_address(ipv6, [172, 21, 0, 0], [0xfd88, 0, 0, 1, 0, 0, 0, 2])
        }),
    ]
}

fn requests_refused_by_policy() -> Vec<Case> {
    vec![
        refused("reflector to reflector", "loop", |ipv6| {
            from_port(ipv6, MEMBER, 862, 255)
        }),
        refused("a router that is too far", "loop", |ipv6| {
            from_port(ipv6, ROUTER, 862, 223)
        }),
        told(
            refused("from our own port", "loop", |ipv6| Frame {
                destination_port: 4862,
                ..from_port(ipv6, MEMBER, 4862, 255)
            }),
            |settings| settings.port = 4862,
        ),
        refused("from a low port", "source_port", |ipv6| {
            from_port(ipv6, MEMBER, 1023, 255)
        }),
        refused("from no port", "source_port", |ipv6| {
            from_port(ipv6, MEMBER, 0, 255)
        }),
        refused("a router's low port from afar", "source_port", |ipv6| {
            from_port(ipv6, ROUTER, 22, 223)
        }),
        Case {
            versions: &[false],
            ..refused("a first fragment", "fragment", |ipv6| Frame {
                fragment: 0x2000,
                ..request_from(ipv6, MEMBER, probe(1, 7))
            })
        },
        refused("a wrong checksum", "corrupt_request", |ipv6| {
            with_checksum(ipv6, Checksum::Wrong)
        }),
        refused(
            "a bare pseudo-header sum from the wire",
            "corrupt_request",
            |ipv6| with_checksum(ipv6, Checksum::Partial),
        ),
        Case {
            settings: |settings| settings.partial_checksums = true,
            ..refused(
                "a bare pseudo-header sum of who said it had summed all",
                "corrupt_request",
                |ipv6| said_to_be_summed(ipv6, Checksum::Partial),
            )
        },
        refused(
            "no checksum of who said it had summed all",
            "corrupt_request",
            |ipv6| said_to_be_summed(ipv6, Checksum::Zero),
        ),
        Case {
            versions: &[true],
            ..refused("no checksum in IPv6", "corrupt_request", |ipv6| {
                with_checksum(ipv6, Checksum::Zero)
            })
        },
        Case {
            versions: &[true],
            settings: |settings| settings.partial_checksums = true,
            ..refused(
                "no checksum in IPv6 of this host",
                "corrupt_request",
                |ipv6| with_checksum(ipv6, Checksum::Zero),
            )
        },
    ]
}

fn malformed_requests() -> Vec<Case> {
    let short = |name, frame| Case {
        frame,
        ..passed(name, Some("short"), |_, _, _| {})
    };
    vec![
        passed(
            "a UDP length beyond IP's",
            Some("malformed"),
            |bytes, _, udp| bytes[udp + 5] += 1,
        ),
        passed(
            "a UDP length below IP's",
            Some("malformed"),
            |bytes, _, udp| bytes[udp + 5] -= 1,
        ),
        passed(
            "a UDP length below its header's",
            Some("malformed"),
            |bytes, ip, udp| {
                bytes[udp + 4..udp + 6].copy_from_slice(&[0, 7]);
                let (at, len) = if bytes[ip] >> 4 == 6 {
                    (ip + 4, 7)
                } else {
                    (ip + 2, 27)
                };
                bytes[at..at + 2].copy_from_slice(&[0, len]);
            },
        ),
        passed(
            "lengths beyond the frame",
            Some("malformed"),
            |bytes, _, _| {
                bytes.pop();
            },
        ),
        short("TWAMP Light with 14 bytes", |ipv6| {
            request_from(ipv6, MEMBER, vec![0; 14])
        }),
        short("one byte less than STAMP", |ipv6| {
            request_from(ipv6, MEMBER, vec![0; 43])
        }),
        Case {
            frame: |ipv6| request_from(ipv6, MEMBER, many_tlvs(9)),
            ..passed("nine TLVs", Some("many_tlvs"), |_, _, _| {})
        },
        // More than a program handles, claimed by a frame that is not even that long.
        Case {
            frame: |ipv6| request_from(ipv6, MEMBER, vec![0; 9_209]),
            ..passed("more than jumbo", Some("non_linear"), |bytes, _, udp| {
                bytes.truncate(udp + 100);
            })
        },
        told(
            passed("without an agent", Some("lease_expired"), |_, _, _| {}),
            |settings| settings.lease = false,
        ),
    ]
}

fn requests_that_are_not_ours() -> Vec<Case> {
    vec![
        told(
            passed("another hook acts", None, |_, _, _| {}),
            |settings| settings.acting = false,
        ),
        Case {
            frame: |ipv6| Frame {
                destination: host(ipv6, MEMBER),
                ..request_from(ipv6, STRANGER, plain(1))
            },
            ..passed("to another host", None, |_, _, _| {})
        },
        told(
            passed("to an address given up", None, |_, _, _| {}),
            |settings| settings.locals.clear(),
        ),
    ]
}

fn reply(ipv6: bool, ssid: u16, port: u16) -> Frame {
    let mut payload = frame::request(9, 0x1111, 0x4102, ssid);
    payload[16..40].fill(0x22);
    payload.extend(frame::our_tlv(7, 0x08));
    Frame::udp((host(ipv6, MEMBER), 862), (host(ipv6, US), port), payload)
}

fn ssid(ipv6: bool) -> u16 {
    5 + u16::from(ipv6)
}

/// What may come to our source ports.
pub fn replies() -> Vec<Case> {
    let collected = |name, frame| Case {
        verdict: Verdict::Drop,
        reason: Some("collected"),
        ..answered(name, frame)
    };
    let unknown = |name, frame| Case {
        frame,
        ..passed(name, Some("unknown_reply"), |_, _, _| {})
    };
    let mut cases = vec![
        collected("a reply", |ipv6| reply(ipv6, ssid(ipv6), 61_000)),
        collected("a reply known by its port", |ipv6| {
            reply(ipv6, 0, 61_001 + u16::from(ipv6))
        }),
        Case {
            verdict: Verdict::Pass,
            settings: pass_even,
            ..collected("one to compare", |ipv6| reply(ipv6, ssid(ipv6), 61_003))
        },
        unknown("an SSID of nobody", |ipv6| reply(ipv6, 400, 61_000)),
        unknown("a port of nobody", |ipv6| reply(ipv6, 0, 61_003)),
        unknown("another target's SSID", |ipv6| {
            reply(ipv6, 6 - u16::from(ipv6), 61_000)
        }),
        unknown("a reply from another port", |ipv6| Frame {
            source_port: 863,
            ..reply(ipv6, ssid(ipv6), 61_000)
        }),
        unknown("a reply of a stranger", |ipv6| Frame {
            source: host(ipv6, STRANGER),
            ..reply(ipv6, ssid(ipv6), 61_000)
        }),
        unknown("a short reply", |ipv6| Frame {
            payload: vec![0; 43],
            ..reply(ipv6, ssid(ipv6), 61_000)
        }),
        refused("a wrong checksum", "corrupt_reply", |ipv6| Frame {
            checksum: Checksum::Wrong,
            ..reply(ipv6, ssid(ipv6), 61_000)
        }),
    ];
    cases.extend(replies_left_alone());
    cases
}

fn pass_even(settings: &mut Settings) {
    settings
        .targets
        .iter_mut()
        .for_each(|target| target.pass_every = 2);
}

fn replies_left_alone() -> Vec<Case> {
    let left = |name, reason, spoil| Case {
        frame: |ipv6| reply(ipv6, ssid(ipv6), 61_000),
        ..passed(name, reason, spoil)
    };
    vec![
        left(
            "lengths that differ",
            Some("unknown_reply"),
            |bytes, _, udp| bytes[udp + 5] -= 1,
        ),
        left("a cut reply", Some("non_linear"), |bytes, _, _| {
            bytes.pop();
        }),
        Case {
            versions: &[false],
            ..left(
                "a reply in fragments",
                Some("unknown_reply"),
                |bytes, ip, _| bytes[ip + 6] |= 0x20,
            )
        },
        told(left("without an agent", None, |_, _, _| {}), |settings| {
            settings.lease = false;
        }),
        told(left("another hook acts", None, |_, _, _| {}), |settings| {
            settings.acting = false;
        }),
        Case {
            frame: |ipv6| reply(ipv6, ssid(ipv6), 60_999),
            ..left("below our ports", None, |_, _, _| {})
        },
        Case {
            frame: |ipv6| reply(ipv6, ssid(ipv6), 61_004),
            ..left("above our ports", None, |_, _, _| {})
        },
    ]
}
