//! Socket options that the libraries do not name.

use nix::{libc, setsockopt_impl, sockopt_impl};

sockopt_impl!(
    /// IPv4 UDP without a checksum (RFC 768 allows zero).
    NoCheck, SetOnly, libc::SOL_SOCKET, libc::SO_NO_CHECK, bool
);
sockopt_impl!(
    /// IPv6 UDP without a checksum (RFC 6935).
    NoCheck6, SetOnly, libc::SOL_UDP, UDP_NO_CHECK6_TX, bool
);
sockopt_impl!(
    /// Whether the kernel draws a flow label from addresses and ports (RFC 6437).
    AutoFlowLabel, SetOnly, libc::IPPROTO_IPV6, IPV6_AUTOFLOWLABEL, bool
);

/// Linux `uapi/linux/udp.h`.
const UDP_NO_CHECK6_TX: libc::c_int = 101;
/// Linux `uapi/linux/in6.h`.
const IPV6_AUTOFLOWLABEL: libc::c_int = 70;
