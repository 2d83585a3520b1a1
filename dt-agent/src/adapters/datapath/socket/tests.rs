//! Probes and replies through real sockets on the loopback link.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use dt_common::event::EventFlags;
use dt_common::map::Reason;
use dt_common::time::{MonoNanos, NtpTime};
use dt_common::wire::{BASE_LEN, DtFlags, ReflectorPacket, SenderPacket};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use zerocopy::IntoBytes;
use zerocopy::network_endian::{U16, U32};

use super::loopback::{self, V4, V6};
use super::*;
use crate::adapters::clock::{ClockTracker, SharedClock, read};
use crate::engine::mix::Class;
use crate::engine::random::Random;
use crate::engine::reflector::AllowList;
use crate::engine::rotation::{RotatingPorts, Rotation};

const EPOCH: u32 = 77;
const SSID: u16 = 9;
const PATIENCE: Duration = Duration::from_secs(5);

fn clock() -> SharedClock {
    SharedClock::new(ClockTracker::new(&read()).state())
}

fn options(local: SocketAddr, ports: usize) -> SocketOptions {
    SocketOptions {
        locals: vec![local],
        ports: vec![0; ports],
        rotation: None,
        classes: vec![class(0, 46)],
        mark: None,
    }
}

fn class(payload_bytes: u16, dscp: u8) -> Class {
    Class {
        payload_bytes,
        dscp,
    }
}

fn reflector(local: SocketAddr) -> SocketReflector {
    loopback::reflector(local, clock())
}

fn target(address: SocketAddr) -> Target {
    Target {
        address,
        local: 0,
        tlv: Some((EPOCH, DtFlags::AGENT)),
    }
}

fn probe(seq: u32, slot: u16) -> Probe {
    Probe {
        ssid: SSID,
        slot,
        class: 0,
        seq,
        timed: false,
        by_socket: true,
    }
}

/// A prober with its collector, and where its replies come out.
struct Prober {
    sockets: ProbeSockets,
    collector: Collector,
    replies: Receiver<Received>,
    report: SendReport,
}

impl Prober {
    fn new(local: SocketAddr, ports: usize) -> Self {
        Self::with(&options(local, ports))
    }

    /// Probes of this size only.
    fn of_size(local: SocketAddr, payload_bytes: u16) -> Self {
        Self::with(&SocketOptions {
            classes: vec![class(payload_bytes, 0)],
            ..options(local, 1)
        })
    }

    fn with(options: &SocketOptions) -> Self {
        let sockets = ProbeSockets::open(options, Some(clock())).expect("ports");
        let (sender, replies) = channel();
        let sink = move |batch: &[Received]| batch.iter().for_each(|reply| _ = sender.send(*reply));
        let collector = Collector::start(&sockets, clock(), sink).expect("a thread");
        Self {
            sockets,
            collector,
            replies,
            report: SendReport::default(),
        }
    }

    fn towards(mut self, target: Target) -> Self {
        self.sockets.set_target(SSID, target).expect("reachable");
        self
    }

    fn send(&mut self, probes: &[Probe]) -> &SendReport {
        self.sockets.send_batch(probes, &mut self.report);
        &self.report
    }

    fn reply(&self) -> Received {
        self.replies.recv_timeout(PATIENCE).expect("a reply")
    }

    /// Sends probes until the kernel stamps what it receives; how many that took.
    ///
    /// It begins to do so some time after it was asked, from a work queue (`net_enable_timestamp`).
    fn warm_up(&mut self) -> u32 {
        for seq in 0..1_000 {
            self.send(&[probe(seq, 0)]);
            if self.reply().t4 == StampSource::Kernel {
                return seq + 1;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        panic!("no stamps");
    }

    /// Waits for a count, because what is refused comes out nowhere.
    fn wait_for(&self, refused: fn(&CollectorCounts) -> u64) {
        for _ in 0..500 {
            if refused(&self.collector.counts()) > 0 {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("not counted: {:?}", self.collector.counts());
    }
}

fn every_probe_comes_back(local: SocketAddr) {
    let reflector = reflector(local);
    let mut prober = Prober::new(local, 4).towards(target(reflector.locals()[0]));
    let first = prober.warm_up();
    let probes: Vec<_> = (first..first + 200)
        .map(|seq| probe(seq, (seq % 4) as u16))
        .collect();
    let report = prober.send(&probes);
    assert_eq!((report.sent, report.failed.len()), (200, 0));
    let mut replies: Vec<_> = probes.iter().map(|_| prober.reply()).collect();
    replies.sort_by_key(|reply| reply.event.seq);
    for (seq, reply) in (first..).zip(&replies) {
        let event = &reply.event;
        assert_eq!(
            (event.seq, event.ssid, event.sender_epoch),
            (seq, SSID, EPOCH)
        );
        let port = prober.sockets.port(0, (seq % 4) as u16);
        assert_eq!(Some(event.source_port), port);
        assert_eq!((event.reply_ttl, event.request_ttl), (255, 255));
        assert_eq!(event.flags, EventFlags::SOCKET | EventFlags::TLV);
        assert_eq!(
            (reply.t1, reply.t4),
            (StampSource::Kernel, StampSource::Kernel)
        );
        let stated = DtFlags::ADMITTED | DtFlags::STATEFUL | DtFlags::REFLECTOR_SOCKET;
        assert_eq!(event.tlv_flags & stated, stated);
        let span = NtpTime(event.t4).since(NtpTime(event.t1));
        let residence = NtpTime(event.t3).since(NtpTime(event.t2));
        assert!(
            0 < residence && residence < span,
            "{residence} ns of {span} ns"
        );
        assert!(reply.user_received.0 >= event.received_ns);
    }
    let received = replies.iter().map(|reply| reply.event.received).max();
    assert_eq!(received, Some(first + 200), "one session over all ports");
    assert_eq!(reflector.count(Reason::Reflected), u64::from(first + 200));
    assert_eq!(prober.collector.counts(), CollectorCounts::default());
}

#[test]
fn every_probe_comes_back_over_ipv4() {
    every_probe_comes_back(V4);
}

#[test]
fn every_probe_comes_back_over_ipv6() {
    every_probe_comes_back(V6);
}

#[test]
fn what_cannot_be_sent_is_reported_and_the_rest_is_sent_and_stamped() {
    let reflector = reflector(V4);
    let mut prober = Prober::new(V4, 1).towards(target(reflector.locals()[0]));
    let broadcast = SocketAddr::from((Ipv4Addr::BROADCAST, 862));
    prober
        .sockets
        .set_target(SSID + 1, target(broadcast))
        .expect("of this family");
    let stranger = Probe {
        ssid: 1_000,
        ..probe(0, 0)
    };
    let forbidden = Probe {
        ssid: SSID + 1,
        ..probe(0, 0)
    };
    let report = prober.send(&[
        probe(0, 0),
        stranger,
        probe(1, 0),
        forbidden,
        probe(2, 7),
        probe(3, 0),
    ]);
    assert_eq!(report.sent, 3);
    let failed: Vec<_> = report
        .failed
        .iter()
        .map(|failed| (failed.index, failed.failure))
        .collect();
    assert_eq!(
        failed,
        [
            (1, SendFailure::Unknown),
            (4, SendFailure::Unknown),
            (3, SendFailure::Forbidden)
        ]
    );
    let seqs: Vec<_> = (0..3).map(|_| prober.reply().event.seq).collect();
    assert_eq!(seqs, [0, 1, 3]);
    prober.send(&[probe(4, 0)]);
    assert_eq!(
        prober.reply().t1,
        StampSource::Kernel,
        "numbers are in step again"
    );
}

#[test]
fn a_probe_longer_than_the_link_is_a_local_failure() {
    let reflector = reflector(V4);
    let mut prober = Prober::of_size(V4, 65_530).towards(target(reflector.locals()[0]));
    let report = prober.send(&[probe(0, 0)]);
    assert_eq!(report.sent, 0);
    assert_eq!(
        report.failed,
        [Failed {
            index: 0,
            failure: SendFailure::TooLong
        }]
    );
}

#[test]
fn a_large_probe_comes_back_whole() {
    let reflector = reflector(V4);
    let mut prober = Prober::of_size(V4, 8_972).towards(target(reflector.locals()[0]));
    assert_eq!(prober.send(&[probe(0, 0)]).sent, 1);
    assert_eq!(
        prober.reply().event.flags & EventFlags::TLV,
        EventFlags::TLV
    );
}

/// The UDP payload's length and the code point of a probe that a plain socket received.
fn seen(peer: &UdpSocket) -> (u32, usize, u8) {
    let mut bytes = [0; 2_000];
    let mut io = [std::io::IoSliceMut::new(&mut bytes)];
    let mut space = nix::cmsg_space!(u8, i32);
    let message = recvmsg::<()>(
        peer.as_raw_fd(),
        &mut io,
        Some(&mut space),
        MsgFlags::empty(),
    )
    .expect("the probe");
    let class = message
        .cmsgs()
        .expect("whole")
        .find_map(|control| match control {
            ControlMessageOwned::Ipv4Tos(tos) => Some(tos),
            ControlMessageOwned::Ipv6TClass(class) => Some(class as u8),
            _ => None,
        });
    let length = message.bytes;
    let (packet, _) = SenderPacket::parse(&bytes[..length]).expect("whole");
    (packet.seq.get(), length, class.expect("a class") >> 2)
}

fn each_class_has_its_size_and_its_code_point(local: SocketAddr) {
    let peer = UdpSocket::bind(local).expect("a port");
    peer.set_read_timeout(Some(PATIENCE)).expect("an option");
    if local.is_ipv4() {
        rustix::net::sockopt::set_ip_recvtos(&peer, true).expect("an option");
    } else {
        rustix::net::sockopt::set_ipv6_recvtclass(&peer, true).expect("an option");
    }
    let classes = [class(96, 0), class(200, 46), class(1_000, 0)];
    let options = SocketOptions {
        classes: classes.to_vec(),
        ..options(local, 2)
    };
    let mut sockets = ProbeSockets::open(&options, None).expect("ports");
    sockets
        .set_target(SSID, target(peer.local_addr().expect("bound")))
        .expect("reachable");
    let probes: Vec<_> = (0..12)
        .map(|seq| Probe {
            class: (seq % 3) as u8,
            ..probe(seq, (seq % 2) as u16)
        })
        .collect();
    let mut report = SendReport::default();
    sockets.send_batch(&probes, &mut report);
    assert_eq!((report.sent, report.failed.len()), (12, 0));
    let mut got: Vec<_> = probes.iter().map(|_| seen(&peer)).collect();
    got.sort_unstable();
    let expected: Vec<_> = probes
        .iter()
        .map(|probe| {
            let class = classes[usize::from(probe.class)];
            (probe.seq, usize::from(class.payload_bytes), class.dscp)
        })
        .collect();
    assert_eq!(got, expected);
    let stranger = Probe {
        class: 3,
        ..probe(12, 0)
    };
    sockets.send_batch(&[stranger], &mut report);
    assert_eq!(report.failed[0].failure, SendFailure::Unknown);
}

#[test]
fn each_class_has_its_size_and_its_code_point_by_ipv4() {
    each_class_has_its_size_and_its_code_point(V4);
}

#[test]
fn each_class_has_its_size_and_its_code_point_by_ipv6() {
    each_class_has_its_size_and_its_code_point(V6);
}

#[test]
fn one_port_changes_when_its_time_has_come_and_the_others_stay() {
    let mut options = options(V4, 2);
    options.rotation = Some(Rotation::new(
        RotatingPorts {
            first: 0,
            count: 1,
            every_ns: 1_000,
        },
        &mut Random::new(1),
        MonoNanos(0),
    ));
    let mut sockets = ProbeSockets::open(&options, None).expect("ports");
    let ports = |sockets: &ProbeSockets| [0, 1, 2].map(|slot| sockets.port(0, slot).expect("one"));
    let before = ports(&sockets);
    assert_eq!((sockets.staying().len(), sockets.changing().len()), (2, 1));
    let replaced = sockets.rotate(MonoNanos(5_000)).expect("free ports");
    let after = ports(&sockets);
    assert_eq!(replaced[0].local().port(), before[2]);
    assert_eq!(before[..2], after[..2]);
    assert_ne!(before[2], after[2], "the old one is still bound");
    assert!(
        sockets
            .rotate(MonoNanos(5_500))
            .expect("not due")
            .is_empty()
    );
    assert_eq!(ports(&sockets), after);
}

#[test]
fn a_port_that_is_taken_is_passed_over() {
    let taken: Vec<_> = (0..2)
        .map(|_| UdpSocket::bind(V4).expect("a port"))
        .collect();
    let port = |socket: &UdpSocket| socket.local_addr().expect("bound").port();
    let mut options = options(V4, 1);
    let ports = RotatingPorts {
        first: port(&taken[0]),
        count: 1,
        every_ns: 1_000,
    };
    let rotation = |ports| Some(Rotation::new(ports, &mut Random::new(1), MonoNanos(0)));
    options.rotation = rotation(ports);
    let refused = ProbeSockets::open(&options, None);
    assert!(matches!(refused, Err(OpenError::Bind { .. })));
    options.rotation = rotation(RotatingPorts { count: 50, ..ports });
    let mut sockets = ProbeSockets::open(&options, None).expect("one of fifty is free");
    let first = sockets.port(0, 1).expect("open");
    assert!(!taken.iter().any(|taken| port(taken) == first));
    sockets.rotate(MonoNanos(5_000)).expect("another one is");
    assert_ne!(sockets.port(0, 1), Some(first));
}

#[test]
fn timed_probes_tell_when_user_space_sent_them() {
    let reflector = reflector(V4);
    let mut prober = Prober::new(V4, 1).towards(target(reflector.locals()[0]));
    let timed = |seq| Probe {
        timed: true,
        ..probe(seq, 0)
    };
    let report = prober
        .send(&[probe(0, 0), timed(1), probe(2, 0), timed(3)])
        .clone();
    let indexes: Vec<_> = report.timed.iter().map(|sent| sent.index).collect();
    assert_eq!(indexes, [1, 3]);
    for reply in (0..4).map(|_| prober.reply()) {
        for sent in report
            .timed
            .iter()
            .filter(|sent| sent.index == reply.event.seq as usize)
        {
            let user = reply.user_received.since(sent.at);
            let kernel = NtpTime(reply.event.t4).since(NtpTime(reply.event.t1));
            assert!(user as i64 >= kernel, "{user} ns against {kernel} ns");
        }
    }
}

#[test]
fn without_a_clock_t1_is_left_to_a_program() {
    let peer = UdpSocket::bind(V4).expect("a port");
    let mut sockets = ProbeSockets::open(&options(V4, 1), None).expect("ports");
    sockets
        .set_target(SSID, target(peer.local_addr().expect("bound")))
        .expect("reachable");
    let mut report = SendReport::default();
    sockets.send_batch(&[probe(5, 0)], &mut report);
    let mut bytes = [0; 200];
    peer.set_read_timeout(Some(PATIENCE)).expect("an option");
    let length = peer.recv(&mut bytes).expect("the probe");
    let (packet, _) = SenderPacket::parse(&bytes[..length]).expect("whole");
    assert_eq!((packet.seq.get(), packet.timestamp.get()), (5, 0));
}

/// A reflector made by hand, that answers each probe with what `answer` makes of it.
fn answer_by_hand(
    prober: &mut Prober,
    peer: &UdpSocket,
    answer: impl Fn(&mut ReflectorPacket) -> Vec<u8>,
) {
    peer.set_read_timeout(Some(PATIENCE)).expect("an option");
    prober.send(&[probe(6, 0)]);
    let mut bytes = [0; 200];
    let (length, from) = peer.recv_from(&mut bytes).expect("the probe");
    let (request, _) = SenderPacket::parse(&bytes[..length]).expect("whole");
    let mut packet = ReflectorPacket {
        ssid: request.ssid,
        sender_seq: request.seq,
        sender_timestamp: request.timestamp,
        ..ReflectorPacket::default()
    };
    peer.send_to(&answer(&mut packet), from).expect("sent");
}

#[test]
fn a_reflector_that_returns_no_ssid_is_known_by_its_address() {
    let peer = UdpSocket::bind(V4).expect("a port");
    let plain = Target {
        tlv: None,
        ..target(peer.local_addr().expect("bound"))
    };
    let mut prober = Prober::new(V4, 1).towards(plain);
    answer_by_hand(&mut prober, &peer, |packet| {
        packet.ssid = U16::ZERO;
        packet.as_bytes().to_vec()
    });
    let reply = prober.reply();
    assert_eq!(
        (reply.event.ssid, reply.event.seq, reply.event.flags),
        (SSID, 6, EventFlags::SOCKET)
    );
    assert_eq!(reply.t1, StampSource::Kernel);
}

#[test]
fn replies_that_are_not_ours_are_counted_by_their_reason() {
    let peer = UdpSocket::bind(V4).expect("a port");
    let mut prober = Prober::new(V4, 1).towards(target(peer.local_addr().expect("bound")));
    answer_by_hand(&mut prober, &peer, |packet| {
        packet.as_bytes()[..BASE_LEN - 1].to_vec()
    });
    prober.wait_for(|counts| counts.malformed);
    answer_by_hand(&mut prober, &peer, |packet| {
        packet.ssid = U16::new(SSID + 1);
        packet.as_bytes().to_vec()
    });
    prober.wait_for(|counts| counts.unknown_session);
    answer_by_hand(&mut prober, &peer, |packet| {
        let other = dt_common::wire::DtTlv::request(EPOCH + 1, 0);
        [packet.as_bytes(), other.as_bytes()].concat()
    });
    prober.wait_for(|counts| counts.wrong_epoch);
    let elsewhere = "127.0.0.1:9".parse().expect("an address");
    answer_by_hand(&mut prober, &peer, |packet| {
        packet.sender_seq = U32::new(1);
        packet.as_bytes().to_vec()
    });
    assert_eq!(prober.reply().event.seq, 1);
    let from = prober.sockets.sockets()[0].local();
    prober
        .sockets
        .set_target(SSID, target(elsewhere))
        .expect("reachable");
    let late = ReflectorPacket {
        ssid: U16::new(SSID),
        ..ReflectorPacket::default()
    };
    peer.send_to(late.as_bytes(), from).expect("sent");
    prober.wait_for(|counts| counts.wrong_peer);
}

#[test]
fn a_target_of_the_other_family_is_refused() {
    let mut sockets = ProbeSockets::open(&options(V4, 1), None).expect("ports");
    let other = target("[::1]:862".parse().expect("an address"));
    let refused = Err(TargetError::NoSocket {
        address: other.address,
        local: 0,
    });
    assert_eq!(sockets.set_target(SSID, other), refused);
    assert_eq!(sockets.set_target(0, target(V4)), Err(TargetError::NoSsid));
    let beyond = Target {
        local: 1,
        ..target(V4)
    };
    assert!(sockets.set_target(SSID, beyond).is_err());
}

#[test]
fn a_taken_port_and_an_empty_list_are_errors() {
    let taken = UdpSocket::bind(V4).expect("a port");
    let port = taken.local_addr().expect("bound").port();
    let busy = SocketOptions {
        ports: vec![port],
        ..options(V4, 1)
    };
    assert!(matches!(
        ProbeSockets::open(&busy, None),
        Err(OpenError::Bind { .. })
    ));
    assert!(matches!(
        ProbeSockets::open(&options(V4, 0), None),
        Err(OpenError::Nothing)
    ));
}

fn ask(reflector: SocketAddr, request: &[u8]) -> (Vec<u8>, SocketAddr) {
    let socket = UdpSocket::bind(V4).expect("a port");
    socket.set_read_timeout(Some(PATIENCE)).expect("an option");
    socket.send_to(request, reflector).expect("sent");
    let mut bytes = [0; 2_000];
    let (length, from) = socket.recv_from(&mut bytes).expect("a reply");
    (bytes[..length].to_vec(), from)
}

#[test]
fn a_reply_leaves_from_the_address_that_was_asked() {
    let reflector = reflector(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)));
    let asked = SocketAddr::from((Ipv4Addr::new(127, 0, 0, 2), reflector.locals()[0].port()));
    let (reply, from) = ask(asked, &[0; 14]);
    assert_eq!((reply.len(), from), (BASE_LEN, asked));
}

#[test]
fn a_stranger_gets_no_answer() {
    let reflector = reflector(V4);
    reflector.set_allowed(AllowList::default());
    let socket = UdpSocket::bind(V4).expect("a port");
    socket
        .send_to(&[0; BASE_LEN], reflector.locals()[0])
        .expect("sent");
    for _ in 0..500 {
        if reflector.count(Reason::NotAllowed) == 1 {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("not counted");
}
