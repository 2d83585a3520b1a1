//! Probes made in the kernel: `tc_egress` turns one packet that lists them into many, see `dt_common::fan`.
//!
//! Each probe is a clone of that packet with other addresses, ports and numbers. It passes `tc_egress` again as any probe
//! does, and gets its T1 there. Where it goes is known from an ordinary probe that went before: routing, neighbours and
//! firewall had their say then, and have it again every ten seconds.

use aya_ebpf::helpers::{
    bpf_clone_redirect, bpf_redirect, bpf_skb_change_tail, bpf_skb_load_bytes,
};
use aya_ebpf::programs::TcContext;
use dt_common::checksum::{fold, udp_form};
use dt_common::fan::{
    FAN_MAGIC, FAN_PORT, FanHead, FanOrder, FanReport, HOP_LIFE_NS, Hop, MAX_FAN_ORDERS,
};
use dt_common::map::{AddressWords, Reason, Target, TargetFlags};
use dt_common::wire::{
    BASE_LEN, DT_TLV_TYPE, DT_TLV_VALUE_LEN, DtFlags, DtTlv, MAGIC, PROBE_LEN, SenderPacket,
    TlvFlags, VERSION,
};
use zerocopy::network_endian::U16;

use crate::atomic::Word;
use crate::headers::{
    Datagram, ETHERNET_LEN, ETHERTYPE_IPV4, ETHERTYPE_IPV6, IPV4_LEN, IPV6_LEN, Ipv4, Ipv6,
    UDP_LEN, Udp, mapped, words,
};
use crate::packet::{Frame, SkbFrame};
use crate::sum::halves;
use crate::wide::{be16, opaque, read16, read32, read64, write16, write32, write64};
use crate::{clock, maps};

const TC_DROP: i32 = 2;
/// What `T1` is in a probe that was made here, until it is stamped: an ordinary one has zero.
const MADE: u64 = 1;
/// Both ends of the way start here, as those of the sockets do.
const TTL: u8 = 255;
const UDP_DATAGRAM: usize = UDP_LEN + PROBE_LEN;
const ORDER: usize = size_of::<FanOrder>();

/// Remembers how this ordinary probe leaves, if nothing on this host changed where it goes. When it was is the caller's to say
/// ([`Learned::at`]), whose clock is to be read last.
#[inline(always)]
pub fn learn<F: Frame>(frame: &F, datagram: &Datagram, ssid: u16) -> Option<Learned> {
    // A tag would have to be put on what is made here, too.
    if datagram.l3 != ETHERNET_LEN || frame.is_tagged() {
        return None;
    }
    let (source, destination) = datagram.addresses(frame)?;
    let target = maps::target(ssid)?.read();
    if !is_active(target)
        || target.address != destination
        || target.port != datagram.destination_port
    {
        return None;
    }
    let ethernet = frame.at::<[[u8; 4]; 3]>(0)?;
    let hop = maps::hop(ssid)?;
    // SAFETY: a live map value; only the probing thread's packets come here, and a torn one costs a probe.
    let hop = unsafe { &mut *hop };
    hop.ifindex = frame.ifindex();
    hop.source = folded(source);
    hop.destination = folded(destination);
    hop.ethernet = [
        read32(&ethernet[0]),
        read32(&ethernet[1]),
        read32(&ethernet[2]),
    ];
    Some(Learned(hop))
}

/// A way that was just learned.
pub struct Learned(*mut Hop);

impl Learned {
    #[inline(always)]
    pub fn at(&self, now: u64) {
        // SAFETY: a live map value, see `learn`.
        unsafe { (*self.0).learned_ns = now };
    }
}

/// IP version of a marked packet that lists probes; none for one that is a probe.
#[inline(always)]
pub fn listing<F: Frame>(frame: &F) -> Option<bool> {
    let ethertype = be16(frame.at::<U16>(ETHERNET_LEN - 2)?);
    let (l4, ipv6) = match ethertype {
        ETHERTYPE_IPV4 => (ETHERNET_LEN + IPV4_LEN, false),
        ETHERTYPE_IPV6 => (ETHERNET_LEN + IPV6_LEN, true),
        _ => return None,
    };
    let port = be16(&frame.at::<Udp>(l4)?.destination_port);
    if port != FAN_PORT {
        return None;
    }
    let magic = read64(frame.at::<[u8; 8]>(l4 + UDP_LEN)?);
    (magic == u64::from_ne_bytes(FAN_MAGIC)).then_some(ipv6)
}

/// Makes the probes that a packet lists; the program's verdict on what is left of the packet.
#[inline(always)]
pub fn make(ctx: &TcContext, ipv6: bool) -> i32 {
    let last = if ipv6 {
        work::<true>(ctx)
    } else {
        work::<false>(ctx)
    };
    match last {
        // SAFETY: a helper that only records the target.
        Some(ifindex) => unsafe { bpf_redirect(ifindex, 0) as i32 },
        None => TC_DROP,
    }
}

/// The interface by which the last probe is to leave, in the packet's place.
#[inline(always)]
fn work<const IPV6: bool>(ctx: &TcContext) -> Option<u32> {
    let mut frame = SkbFrame::new(ctx);
    let head = frame.at::<[[u8; 8]; 2]>(l4::<IPV6>() + UDP_LEN)?;
    let serial = read64(&head[1]);
    let report = Report::claim(serial)?;
    let last = list::<IPV6>(ctx, &mut frame, &report);
    report.finish(serial);
    last
}

#[inline(always)]
fn list<const IPV6: bool>(
    ctx: &TcContext,
    frame: &mut SkbFrame<'_>,
    report: &Report,
) -> Option<u32> {
    let now = clock::now();
    if now >= maps::config()?.lease_until_ns {
        maps::count(Reason::UnstampedLease);
        return None;
    }
    let count = load::<IPV6>(ctx)?;
    let orders = maps::orders()?;
    let fixed = prepare::<IPV6>(frame)?;
    let (mut ifindex, mut ssid) = (0, 0);
    for index in 0..MAX_FAN_ORDERS {
        if index >= count {
            break;
        }
        // SAFETY: within the map's value, which is this CPU's own while the program runs.
        let order = Order(unsafe { (*orders)[index] });
        let Some((hop, target)) = way::<IPV6>(&order, &fixed, now) else {
            continue;
        };
        if ifindex != 0 && !report.send(ctx, ifindex, ssid, index) && order.ssid() == ssid {
            // The one before goes by a socket, and this one behind it.
            ifindex = 0;
            continue;
        }
        write::<IPV6>(frame, &order, hop, target, &fixed)?;
        (ifindex, ssid) = (hop.ifindex, order.ssid());
        report.note_made(index);
    }
    (ifindex != 0).then_some(ifindex)
}

/// Copies the list out of the packet and cuts the packet to a probe's length; how many it lists.
#[inline(always)]
fn load<const IPV6: bool>(ctx: &TcContext) -> Option<usize> {
    let start = l4::<IPV6>() + UDP_LEN + size_of::<FanHead>();
    let count = (ctx.len() as usize).checked_sub(start)? / ORDER;
    if count == 0 || count > MAX_FAN_ORDERS {
        return None;
    }
    // Between one byte and all, in a form in which the verifier sees it.
    let bytes = (opaque(count * ORDER - 1) & (ORDER * MAX_FAN_ORDERS - 1)) + 1;
    let orders = maps::orders()?;
    let whole = l4::<IPV6>() + UDP_DATAGRAM;
    let skb = ctx.skb.skb;
    // SAFETY: the context is the program's own; the value has room for all orders there can be.
    let failed = unsafe {
        bpf_skb_load_bytes(skb.cast(), start as u32, orders.cast(), bytes as u32) != 0
            || bpf_skb_change_tail(skb, whole as u32, 0) != 0
    };
    (!failed).then_some(count)
}

/// What all probes of one packet have in common.
struct Fixed {
    /// Own address, folded.
    source: u32,
    /// Sum of the IPv4 header without checksum and destination.
    ip: u64,
    /// Sum of what is covered by the UDP checksum and the same in all probes.
    udp: u64,
}

/// Writes what is the same in all probes.
#[inline(always)]
fn prepare<const IPV6: bool>(frame: &mut SkbFrame<'_>) -> Option<Fixed> {
    let l4 = l4::<IPV6>();
    let len = UDP_DATAGRAM as u16;
    let (source, ip) = if IPV6 {
        (prepare_ipv6(frame, len)?, 0)
    } else {
        prepare_ipv4(frame, len)?
    };
    let udp = frame.at_mut::<Udp>(l4)?;
    write16(&mut udp.len, len.to_be());
    for word in frame.at_mut::<[[u8; 8]; PROBE_LEN / 8]>(l4 + UDP_LEN)? {
        write64(word, 0);
    }
    let packet = frame.at_mut::<SenderPacket>(l4 + UDP_LEN)?;
    write64(&mut packet.timestamp, MADE.to_be());
    let tlv = frame.at_mut::<DtTlv>(l4 + UDP_LEN + BASE_LEN)?;
    (tlv.header.flags, tlv.header.kind) = (TlvFlags::UNRECOGNISED, DT_TLV_TYPE);
    write16(&mut tlv.header.length, DT_TLV_VALUE_LEN.to_be());
    write16(&mut tlv.magic, MAGIC.to_be());
    tlv.version = VERSION;
    let own = if IPV6 {
        halves(source[0]) + halves(source[1])
    } else {
        u64::from(low(source))
    };
    let pseudo = own + u64::from(17_u16.to_be());
    let head = u16::from_ne_bytes([TlvFlags::UNRECOGNISED, DT_TLV_TYPE]);
    Some(Fixed {
        source: folded(source),
        ip,
        // The length stands in the pseudo-header, too.
        udp: pseudo
            + 2 * u64::from(len.to_be())
            + halves(MADE.to_be())
            + u64::from(head)
            + u64::from(DT_TLV_VALUE_LEN.to_be())
            + u64::from(MAGIC.to_be()),
    })
}

/// The own address, and the sum of the header without checksum and destination.
#[inline(always)]
fn prepare_ipv4(frame: &mut SkbFrame<'_>, udp_len: u16) -> Option<(AddressWords, u64)> {
    let ip = frame.at_mut::<Ipv4>(ETHERNET_LEN)?;
    write16(&mut ip.total_len, (udp_len + IPV4_LEN as u16).to_be());
    ip.ttl = TTL;
    let source = read32(&ip.source);
    let sum = u64::from(u16::from_ne_bytes([ip.version_ihl, ip.tos]))
        + u64::from(read16(&ip.total_len))
        + u64::from(read16(&ip.id))
        + u64::from(read16(&ip.fragment))
        + u64::from(u16::from_ne_bytes([ip.ttl, ip.protocol]))
        + u64::from(source);
    Some((mapped(source), sum))
}

/// The own address. No flow label, as probes of the sockets have none.
#[inline(always)]
fn prepare_ipv6(frame: &mut SkbFrame<'_>, udp_len: u16) -> Option<AddressWords> {
    let ip = frame.at_mut::<Ipv6>(ETHERNET_LEN)?;
    write16(&mut ip.payload_len, udp_len.to_be());
    ip.hop_limit = TTL;
    ip.version_class[1] &= 0xf0;
    ip.version_class[2] = 0;
    ip.version_class[3] = 0;
    Some(words(&ip.source))
}

/// One order as two words, see [`FanOrder`].
struct Order([u64; 2]);

impl Order {
    #[inline(always)]
    fn seq(&self) -> u32 {
        self.half(0, 0) as u32
    }

    #[inline(always)]
    fn sender_epoch(&self) -> u32 {
        self.half(0, 32) as u32
    }

    #[inline(always)]
    fn ssid(&self) -> u16 {
        self.half(1, 0) as u16
    }

    #[inline(always)]
    fn source_port(&self) -> u16 {
        self.half(1, 16) as u16
    }

    #[inline(always)]
    fn flags(&self) -> u8 {
        self.half(1, 32) as u8 | DtFlags::SUMMED
    }

    /// A word from its `offset`th bit in memory on.
    #[inline(always)]
    fn half(&self, word: usize, offset: u32) -> u64 {
        if cfg!(target_endian = "little") {
            self.0[word] >> offset
        } else {
            // Fields of 32, 16 and 8 bits end where the next begins.
            self.0[word] >> (64 - offset - Self::width(word, offset))
        }
    }

    #[inline(always)]
    fn width(word: usize, offset: u32) -> u32 {
        match (word, offset) {
            (0, _) => 32,
            (_, 32) => 8,
            _ => 16,
        }
    }
}

/// How a probe gets to its target, if that is known.
#[inline(always)]
fn way<const IPV6: bool>(
    order: &Order,
    fixed: &Fixed,
    now: u64,
) -> Option<(&'static Hop, &'static Target)> {
    let hop = maps::hop(order.ssid())?;
    // SAFETY: a live map value.
    let hop = unsafe { &*hop };
    let target = maps::target(order.ssid())?.read();
    let is_fresh = hop.learned_ns != 0 && now.wrapping_sub(hop.learned_ns) < HOP_LIFE_NS;
    let is_same = hop.source == fixed.source && hop.destination == folded(target.address);
    let is_ipv6 = mapped(low(target.address)) != target.address;
    (is_fresh && is_same && is_active(target) && is_ipv6 == IPV6 && hop.ifindex != 0)
        .then_some((hop, target))
}

/// Makes the packet this probe.
#[inline(always)]
fn write<const IPV6: bool>(
    frame: &mut SkbFrame<'_>,
    order: &Order,
    hop: &Hop,
    target: &Target,
    fixed: &Fixed,
) -> Option<()> {
    let l4 = l4::<IPV6>();
    let ethernet = frame.at_mut::<[[u8; 4]; 3]>(0)?;
    for (place, word) in ethernet.iter_mut().zip(hop.ethernet) {
        write32(place, word);
    }
    if IPV6 {
        let ip = frame.at_mut::<Ipv6>(ETHERNET_LEN)?;
        write64(&mut ip.destination[0], target.address[0]);
        write64(&mut ip.destination[1], target.address[1]);
    } else {
        let ip = frame.at_mut::<Ipv4>(ETHERNET_LEN)?;
        let destination = low(target.address);
        write32(&mut ip.destination, destination);
        write16(&mut ip.checksum, !fold(fixed.ip + u64::from(destination)));
    }
    let (source_port, port) = (order.source_port().to_be(), target.port.to_be());
    let (seq, ssid) = (order.seq().to_be(), order.ssid().to_be());
    let epoch = order.sender_epoch().to_be();
    let sum = fixed.udp
        + if IPV6 {
            halves(target.address[0]) + halves(target.address[1])
        } else {
            u64::from(low(target.address))
        }
        + u64::from(source_port)
        + u64::from(port)
        + u64::from(seq)
        + u64::from(ssid)
        + u64::from(epoch)
        + u64::from(u16::from_ne_bytes([VERSION, order.flags()]));
    let udp = frame.at_mut::<Udp>(l4)?;
    write16(&mut udp.source_port, source_port);
    write16(&mut udp.destination_port, port);
    write16(&mut udp.checksum, udp_form(!fold(sum)));
    let packet = frame.at_mut::<SenderPacket>(l4 + UDP_LEN)?;
    write32(&mut packet.seq, seq);
    write16(&mut packet.ssid, ssid);
    let tlv = frame.at_mut::<DtTlv>(l4 + UDP_LEN + BASE_LEN)?;
    tlv.flags = order.flags();
    write32(&mut tlv.sender_epoch, epoch);
    Some(())
}

/// What user space is told of the packet at work.
struct Report(*mut FanReport);

impl Report {
    // Where the words stand, see `FanReport`.
    const SERIAL: usize = 0;
    const DONE: usize = 1;
    const MADE: usize = 2;
    const CONGESTED: usize = 3;

    /// Takes a packet on, unless it was taken on before or user space took it back.
    #[inline(always)]
    fn claim(serial: u64) -> Option<Self> {
        let report = Self(maps::fan()?);
        let last = report.word(Self::SERIAL).load();
        if serial <= last || !report.word(Self::SERIAL).compare_exchange(last, serial) {
            return None;
        }
        report.word(Self::MADE).store(0);
        report.word(Self::CONGESTED).store(0);
        // After the exchange, which is a full barrier: either this sees the revocation, or who revoked sees the claim.
        (serial > maps::revoked()?.load()).then_some(report)
    }

    #[inline(always)]
    fn note_made(&self, index: usize) {
        let made = self.word(Self::MADE);
        made.store(made.load() | 1 << index);
        maps::count(Reason::Made);
    }

    /// Sends the probe that the packet is now, which was made before the order at `next`; false when its interface takes none.
    #[inline(always)]
    fn send(&self, ctx: &TcContext, ifindex: u32, ssid: u16, next: usize) -> bool {
        // SAFETY: the context is the program's own; views of the packet are taken anew after this.
        let result = unsafe { bpf_clone_redirect(ctx.skb.skb, ifindex, 0) };
        // The newest bit is this probe's.
        let before = self.word(Self::MADE).load() & ((1 << next) - 1);
        let bit = highest(before);
        if result < 0 {
            // This and what follows to that target goes by sockets, in order.
            self.word(Self::MADE).store(before & !bit);
            if let Some(hop) = maps::hop(ssid) {
                // SAFETY: a live map value.
                unsafe { (*hop).learned_ns = 0 };
            }
        } else if result > 0 {
            let congested = self.word(Self::CONGESTED);
            congested.store(congested.load() | bit);
        }
        result >= 0
    }

    #[inline(always)]
    fn finish(&self, serial: u64) {
        self.word(Self::DONE).store(serial);
    }

    #[inline(always)]
    fn word(&self, index: usize) -> Word<u64> {
        // SAFETY: four aligned words of a live map value.
        unsafe { Word::new(self.0.cast::<u64>().add(index & 3)) }
    }
}

/// The highest bit that is set.
#[inline(always)]
fn highest(bits: u64) -> u64 {
    let mut spread = bits;
    spread |= spread >> 1;
    spread |= spread >> 2;
    spread |= spread >> 4;
    spread |= spread >> 8;
    spread |= spread >> 16;
    spread |= spread >> 32;
    spread ^ (spread >> 1)
}

#[inline(always)]
const fn l4<const IPV6: bool>() -> usize {
    ETHERNET_LEN + if IPV6 { IPV6_LEN } else { IPV4_LEN }
}

#[inline(always)]
fn is_active(target: &Target) -> bool {
    target.flags & TargetFlags::ACTIVE != 0
}

/// The last four bytes of an address, as they lie in memory: an IPv4 address where it is one.
#[inline(always)]
fn low(address: AddressWords) -> u32 {
    if cfg!(target_endian = "little") {
        (address[1] >> 32) as u32
    } else {
        address[1] as u32
    }
}

/// An address in one word, distinct for all IPv4 addresses.
#[inline(always)]
fn folded(address: AddressWords) -> u32 {
    let word = address[0] ^ address[1];
    (word ^ (word >> 32)) as u32
}
