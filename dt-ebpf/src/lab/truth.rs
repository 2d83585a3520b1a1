//! When each probe passed one place, by programs that share no code with the product's.

use aya_ebpf::Global;
use aya_ebpf::bindings::xdp_action::XDP_PASS;
use aya_ebpf::helpers::bpf_ktime_get_ns;
use aya_ebpf::macros::{classifier, map, xdp};
use aya_ebpf::maps::Array;
use aya_ebpf::programs::{TcContext, XdpContext};

use crate::atomic::Word;

/// Probes that are remembered, by the low bits of their sequence numbers.
const PROBES: u32 = 1 << 20;
const PORT: u16 = 862;

/// Whether replies are looked for instead of requests, set by the loader.
#[unsafe(no_mangle)]
static REPLIES: Global<u32> = Global::new(0);

/// Whether the clock is read last, for a place before the product's programs, set by the loader: the time that it takes to look at
/// a packet would else be between the two readings, and is no error of theirs.
#[unsafe(no_mangle)]
static BEFORE: Global<u32> = Global::new(0);

/// When the first packet of a probe passed, monotonic ns; 0: none did.
#[map]
static PASSED: Array<u64> = Array::with_max_entries(PROBES, 0);

/// Before or after the product's programs at tc, as it was attached.
#[classifier]
pub fn truth_tc(ctx: TcContext) -> i32 {
    let first = now();
    if let Some(seq) = seq_at_tc(&ctx) {
        note(seq, first);
    }
    -1
}

/// Where the XDP slot is free.
#[xdp(frags)]
pub fn truth_xdp(ctx: XdpContext) -> u32 {
    let first = now();
    if let Some(seq) = seq_at_xdp(&ctx) {
        note(seq, first);
    }
    XDP_PASS
}

#[inline(always)]
fn now() -> u64 {
    // SAFETY: the helper has no arguments and cannot fail.
    unsafe { bpf_ktime_get_ns() }
}

#[inline(always)]
fn note(seq: u32, first: u64) {
    let Some(entry) = PASSED.get_ptr_mut(seq & (PROBES - 1)) else {
        return;
    };
    // SAFETY: an aligned word of a map value that outlives the program's run.
    let entry = unsafe { Word::new(entry) };
    // Where it is not in the cache, it comes there before the clock is read.
    if entry.load() == 0 {
        let passed = if BEFORE.load() == 0 { first } else { now() };
        entry.compare_exchange(0, passed);
    }
}

/// The number of the probe that a packet belongs to: the first word of a request, the seventh of a reply.
#[inline(always)]
fn place(ethertype: u16, ports: impl Fn(usize) -> Option<(u16, u16)>) -> Option<usize> {
    let udp = match u16::from_be(ethertype) {
        0x0800 => 34,
        0x86dd => 54,
        _ => return None,
    };
    let (source, destination) = ports(udp)?;
    if REPLIES.load() != 0 {
        (u16::from_be(source) == PORT).then_some(udp + 8 + 24)
    } else {
        (u16::from_be(destination) == PORT).then_some(udp + 8)
    }
}

#[inline(always)]
fn seq_at_tc(ctx: &TcContext) -> Option<u32> {
    let at = place(ctx.load(12).ok()?, |udp| {
        Some((ctx.load(udp).ok()?, ctx.load(udp + 2).ok()?))
    })?;
    Some(u32::from_be(ctx.load(at).ok()?))
}

#[inline(always)]
fn seq_at_xdp(ctx: &XdpContext) -> Option<u32> {
    let at = place(load(ctx, 12)?, |udp| {
        Some((load(ctx, udp)?, load(ctx, udp + 2)?))
    })?;
    Some(u32::from_be(load(ctx, at)?))
}

#[inline(always)]
fn load<T: Copy>(ctx: &XdpContext, offset: usize) -> Option<T> {
    let start = ctx.data() + offset;
    if start + size_of::<T>() > ctx.data_end() {
        return None;
    }
    // SAFETY: within the frame, see above; integers of any bytes are read.
    Some(unsafe { (start as *const T).read_unaligned() })
}
