//! What a window says of how its times were taken.

use dt_common::event::{EventFlags, ReplyEvent};
use dt_common::wire::DtFlags;
use dt_feed::proto::StampSource::{
    SocketSoftware, TcEgress, TcIngress, Unspecified, UserSpace, Xdp,
};

use super::*;

/// The sources of a reply whose event has these flags.
fn stamps(flags: u8, tlv_flags: u8) -> StampSources {
    StampSources::of(&ReplyEvent {
        flags: flags | EventFlags::TLV,
        tlv_flags,
        ..ReplyEvent::default()
    })
}

#[test]
fn a_method_names_who_took_each_stamp() {
    let socket = EventFlags::SOCKET;
    let (xdp, user) = (DtFlags::REFLECTOR_XDP, DtFlags::REFLECTOR_SOCKET);
    let table = [
        (
            stamps(EventFlags::XDP, xdp),
            Path::Kernel,
            Method::of(Mode::Xdp, TcEgress, Xdp, Xdp),
        ),
        (
            stamps(0, DtFlags::REFLECTOR_TC),
            Path::Kernel,
            Method::of(Mode::Tc, TcEgress, TcIngress, TcIngress),
        ),
        (
            stamps(socket, user),
            Path::Socket,
            Method::of(Mode::Socket, SocketSoftware, UserSpace, SocketSoftware),
        ),
        (
            stamps(socket | EventFlags::T1_USER, user),
            Path::Socket,
            Method::of(Mode::Socket, UserSpace, UserSpace, SocketSoftware),
        ),
        (
            stamps(socket | EventFlags::T4_USER, user),
            Path::Socket,
            Method::of(Mode::Socket, SocketSoftware, UserSpace, UserSpace),
        ),
        (
            stamps(socket | EventFlags::T1_USER | EventFlags::T4_USER, xdp),
            Path::Socket,
            Method::of(Mode::Socket, UserSpace, Xdp, UserSpace),
        ),
        (
            StampSources::default(),
            Path::Socket,
            Method::of(Mode::Unspecified, SocketSoftware, Unspecified, Unspecified),
        ),
        (
            StampSources::default(),
            Path::Kernel,
            Method::of(Mode::Unspecified, TcEgress, Unspecified, Unspecified),
        ),
    ];
    for (stamps, path, expected) in table {
        assert_eq!(method(stamps, path), expected, "{stamps:?}");
    }
}
