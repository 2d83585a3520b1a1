//! The oracle's view of bytes: headers, sums, TLVs and times, by index and without sharing code with anybody.

/// Bytes of a frame that `BPF_PROG_TEST_RUN` makes linear for XDP: a page less headroom and `skb_shared_info`.
pub const XDP_LINEAR: usize = 4096 - 256 - 320;

/// What the oracle makes of a frame's headers.
#[derive(Clone, Copy, Debug)]
pub enum Headers {
    Other,
    Udp(Datagram),
}

#[derive(Clone, Copy, Debug)]
pub struct Datagram {
    pub ip: usize,
    pub udp: usize,
    pub ipv6: bool,
    pub more_fragments: bool,
    pub ttl: u8,
    pub ip_payload: usize,
    pub udp_len: usize,
    pub source: [u8; 16],
    pub destination: [u8; 16],
    pub source_port: u16,
    pub destination_port: u16,
}

impl Datagram {
    pub fn payload(&self) -> usize {
        self.udp + 8
    }

    pub fn end(&self) -> usize {
        self.udp + self.udp_len
    }
}

/// UDP over IP without options or extensions, behind at most two tags; anything else is nothing.
pub fn headers(frame: &[u8]) -> Headers {
    let mut at = 12;
    for _ in 0..2 {
        if frame.len() >= at + 6 && [0x8100, 0x88a8].contains(&be16(frame, at)) {
            at += 4;
        }
    }
    if frame.len() < at + 2 {
        return Headers::Other;
    }
    let ip = at + 2;
    match be16(frame, at) {
        0x0800 if frame.len() >= ip + 28 => ipv4(frame, ip),
        0x86dd if frame.len() >= ip + 48 => ipv6(frame, ip),
        _ => Headers::Other,
    }
}

fn ipv4(frame: &[u8], ip: usize) -> Headers {
    let fragment = be16(frame, ip + 6);
    if frame[ip] != 0x45 || frame[ip + 9] != 17 || fragment & 0x1fff != 0 {
        return Headers::Other;
    }
    let udp = ip + 20;
    Headers::Udp(Datagram {
        ip,
        udp,
        ipv6: false,
        more_fragments: fragment & 0x2000 != 0,
        ttl: frame[ip + 8],
        // A length below the header's own is no length; any value that fits no UDP length will do.
        ip_payload: usize::from(be16(frame, ip + 2))
            .checked_sub(20)
            .unwrap_or(usize::MAX),
        udp_len: usize::from(be16(frame, udp + 4)),
        source: mapped(&frame[ip + 12..ip + 16]),
        destination: mapped(&frame[ip + 16..ip + 20]),
        source_port: be16(frame, udp),
        destination_port: be16(frame, udp + 2),
    })
}

fn ipv6(frame: &[u8], ip: usize) -> Headers {
    if frame[ip] >> 4 != 6 || frame[ip + 6] != 17 {
        return Headers::Other;
    }
    let udp = ip + 40;
    let address = |at: usize| std::array::from_fn(|index| frame[at + index]);
    Headers::Udp(Datagram {
        ip,
        udp,
        ipv6: true,
        more_fragments: false,
        ttl: frame[ip + 7],
        ip_payload: usize::from(be16(frame, ip + 4)),
        udp_len: usize::from(be16(frame, udp + 4)),
        source: address(ip + 8),
        destination: address(ip + 24),
        source_port: be16(frame, udp),
        destination_port: be16(frame, udp + 2),
    })
}

pub fn mapped(address: &[u8]) -> [u8; 16] {
    let mut whole = [0; 16];
    whole[10..12].fill(0xff);
    whole[12..].copy_from_slice(address);
    whole
}

pub fn same_prefix(one: &[u8; 16], other: &[u8; 16], bits: usize) -> bool {
    let bit = |address: &[u8; 16], at: usize| address[at / 8] >> (7 - at % 8) & 1;
    (0..bits).all(|at| bit(one, at) == bit(other, at))
}

/// T2 stands where requests have zeros, and T3 at most 16 seconds later.
pub fn is_reply(frame: &[u8], datagram: &Datagram) -> bool {
    let at = datagram.payload();
    if frame.len() < at + 44 {
        return false;
    }
    let (t2, t3) = (be64(frame, at + 16), be64(frame, at + 4));
    t2 != 0 && t3.wrapping_sub(t2) >> 36 == 0
}

/// Sources that no honest request has: groups, broadcast, loopback, unspecified, IPv4 dressed as IPv6.
pub fn impossible_source(datagram: &Datagram) -> Option<&'static str> {
    let source = &datagram.source;
    if datagram.ipv6 {
        let low = source[..15].iter().all(|byte| *byte == 0) && source[15] <= 1;
        let disguised = source[..12] == [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff];
        return match source[0] {
            0xff => Some("multicast"),
            _ if low || disguised => Some("loopback"),
            _ => None,
        };
    }
    match source[12..] {
        [127, ..] | [0, 0, 0, 0] => Some("loopback"),
        [224..=239, ..] | [255, 255, 255, 255] => Some("multicast"),
        _ => None,
    }
}

/// Whether the first TLV is ours: private type 252, 48 bytes, "dt", version 1 or later.
pub fn has_our_tlv(payload: &[u8]) -> bool {
    payload.len() >= 96
        && payload[45] == 252
        && be16(payload, 46) == 48
        && payload[48..50] == *b"dt"
        && payload[50] >= 1
}

/// Bytes before the TLVs of others.
pub fn own_len(ours: bool) -> usize {
    if ours { 96 } else { 44 }
}

pub fn sender_epoch(payload: &[u8], ours: bool) -> u32 {
    if ours { be32(payload, 52) } else { 0 }
}

/// Offsets of the TLV headers from `from` on; the last may claim more than there is.
pub fn tlv_starts(payload: &[u8], from: usize) -> Vec<usize> {
    let mut starts = Vec::new();
    let mut at = from;
    while at + 4 <= payload.len() {
        starts.push(at);
        at += 4 + usize::from(be16(payload, at + 2));
    }
    starts
}

/// Whether the programs leave it to the agent: more TLVs than eight, or bytes too few for a header behind the eighth.
pub fn has_many_tlvs(payload: &[u8], from: usize) -> bool {
    let starts = tlv_starts(payload, from);
    let end = |at: &usize| at + 4 + usize::from(be16(payload, at + 2));
    starts.len() > 8 || starts.get(7).is_some_and(|last| end(last) < payload.len())
}

/// The flags that a reflector has to set (RFC 8972 section 4): U where it does not know the type, M where the length lies,
/// nothing else.
pub fn write_flags(payload: &mut [u8], from: usize) {
    let len = payload.len();
    for at in tlv_starts(payload, from) {
        let lies = at + 4 + usize::from(be16(payload, at + 2)) > len;
        payload[at] = match payload[at + 1] {
            // Who knows what it was to be: what the sender said of it stays.
            _ if lies => payload[at] & 0x80 | 0x40,
            1 => 0,
            _ => 0x80,
        };
    }
}

/// Swaps who and whom, sends with TTL 255, and does not send congestion marks back.
pub fn turn_around(frame: &mut [u8], datagram: &Datagram) {
    let (ip, udp) = (datagram.ip, datagram.udp);
    swap(frame, 0, 6, 6);
    swap(frame, udp, udp + 2, 2);
    if datagram.ipv6 {
        swap(frame, ip + 8, ip + 24, 16);
        frame[ip + 7] = 255;
        if frame[ip + 1] & 0x30 == 0x30 {
            frame[ip + 1] -= 0x10;
        }
    } else {
        swap(frame, ip + 12, ip + 16, 4);
        frame[ip + 8] = 255;
        if frame[ip + 1] & 3 == 3 {
            frame[ip + 1] -= 1;
        }
    }
}

fn swap(frame: &mut [u8], one: usize, other: usize, len: usize) {
    for index in 0..len {
        frame.swap(one + index, other + index);
    }
}

/// Sums of a request that its reply must keep: zero where they are right.
#[derive(Clone, Copy, Debug)]
pub struct Residues {
    ip: u64,
    /// `None` where there is no UDP checksum.
    udp: Option<u64>,
}

impl Residues {
    pub fn of(frame: &[u8], datagram: &Datagram) -> Self {
        let udp = sum(&frame[datagram.udp..datagram.end()]) + pseudo_sum(frame, datagram);
        let has_checksum = be16(frame, datagram.udp + 6) != 0;
        Self {
            ip: sum(&frame[datagram.ip..datagram.udp]) % 0xffff,
            udp: has_checksum.then_some(udp % 0xffff),
        }
    }

    /// A right IP checksum stays right, a wrong one as wrong as it was (RFC 1624). Of UDP none stays none; XDP completes
    /// what it gets; at tc the kernel may have to complete it later, so the difference from a right one stays.
    pub fn hold(self, reply: &[u8], datagram: &Datagram, complete: bool) -> Result<(), String> {
        if !datagram.ipv6 && sum(&reply[datagram.ip..datagram.udp]) % 0xffff != self.ip {
            return Err(format!(
                "IP checksum {:#06x} is wrong",
                be16(reply, datagram.ip + 10)
            ));
        }
        let checksum = be16(reply, datagram.udp + 6);
        let Some(residue) = self.udp else {
            return if checksum == 0 {
                Ok(())
            } else {
                Err("a checksum where there was none".to_owned())
            };
        };
        let whole = sum(&reply[datagram.udp..datagram.end()]) + pseudo_sum(reply, datagram);
        let demanded = if complete { 0 } else { residue };
        if checksum == 0 || whole % 0xffff != demanded {
            return Err(format!("UDP checksum {checksum:#06x} is wrong"));
        }
        Ok(())
    }
}

/// Checksums are judged by [`Residues::hold`], not by their bytes.
pub fn take_checksums(wanted: &mut [u8], reply: &[u8], datagram: &Datagram) {
    let ip = (!datagram.ipv6).then_some(datagram.ip + 10);
    for at in [Some(datagram.udp + 6), ip].into_iter().flatten() {
        wanted[at..at + 2].copy_from_slice(&reply[at..at + 2]);
    }
}

/// T2 and T3 lie between two readings of the clock, given in nanoseconds since 1900, in this order.
pub fn check_times(received: u64, sent: u64, before_ns: u64, after_ns: u64) -> Result<(), String> {
    // Units of 2^-32 s, wrapping with the era; two of them for rounding down twice.
    let ntp = |nanos: u64| ((u128::from(nanos) << 32) / 1_000_000_000) as u64;
    let (before, after) = (
        ntp(before_ns).wrapping_sub(2),
        ntp(after_ns).wrapping_add(2),
    );
    let span = after.wrapping_sub(before);
    let (received_after, sent_after) = (received.wrapping_sub(before), sent.wrapping_sub(before));
    if received_after <= sent_after && sent_after <= span {
        return Ok(());
    }
    Err(format!(
        "T2 {received:#x} and T3 {sent:#x} are not between {before:#x} and {after:#x}"
    ))
}

pub fn pseudo_sum(frame: &[u8], datagram: &Datagram) -> u64 {
    let addresses = if datagram.ipv6 {
        &frame[datagram.ip + 8..datagram.ip + 40]
    } else {
        &frame[datagram.ip + 12..datagram.ip + 20]
    };
    sum(addresses) + 17 + datagram.udp_len as u64
}

/// Sum of big-endian words, an odd last byte as the higher one.
pub fn sum(bytes: &[u8]) -> u64 {
    let word = |pair: &[u8]| u64::from(pair[0]) * 256 + u64::from(*pair.get(1).unwrap_or(&0));
    bytes.chunks(2).map(word).sum()
}

pub fn be16(bytes: &[u8], at: usize) -> u16 {
    u16::from(bytes[at]) << 8 | u16::from(bytes[at + 1])
}

pub fn be32(bytes: &[u8], at: usize) -> u32 {
    u32::from(be16(bytes, at)) << 16 | u32::from(be16(bytes, at + 2))
}

pub fn be64(bytes: &[u8], at: usize) -> u64 {
    u64::from(be32(bytes, at)) << 32 | u64::from(be32(bytes, at + 4))
}
