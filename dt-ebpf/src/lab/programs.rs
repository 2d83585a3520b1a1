//! The programs themselves.

use core::hint::black_box;

use aya_ebpf::Global;
use aya_ebpf::bindings::xdp_action::XDP_PASS;
use aya_ebpf::helpers::{bpf_clone_redirect, bpf_ktime_get_ns, bpf_redirect, bpf_skb_store_bytes};
use aya_ebpf::macros::{classifier, map, xdp};
use aya_ebpf::maps::Array;
use aya_ebpf::programs::{TcContext, XdpContext};

use crate::atomic::Word;

const TC_DROP: i32 = 2;
/// Single probes that the wire remembers in each direction, by the low bits of their sequence numbers.
const FATES_PER_DIRECTION: u32 = 1 << 20;
/// What is added to a probe's entry in `FATES` for each packet of its that went on whole, went on corrupt, was dropped.
const WHOLE: u32 = 1;
const CORRUPT: u32 = 1 << 8;
const DROPPED: u32 = 1 << 16;

/// What a fault program does in one direction; every field counts probes of ours, 0 means never.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Fault {
    /// Interface to which frames go on.
    pub out_ifindex: u32,
    /// The reflector's port: other frames go on untouched and uncounted.
    pub port: u32,
    /// Drop every so many.
    pub drop_every: u64,
    /// Send every so many twice.
    pub duplicate_every: u64,
    /// Flip a bit in every so many.
    pub corrupt_every: u64,
}

/// What was done; index 0 probes seen, 1 dropped, 2 duplicated, 3 corrupted.
#[map]
static FAULTS: Array<Fault> = Array::with_max_entries(2, 0);
#[map]
static DONE: Array<u64> = Array::with_max_entries(8, 0);
/// What became of the packets of each probe, `FATES_PER_DIRECTION` for either direction.
#[map]
static FATES: Array<u32> = Array::with_max_entries(2 * FATES_PER_DIRECTION, 0);
/// Which direction this program is, set by the loader.
#[unsafe(no_mangle)]
static DIRECTION: Global<u32> = Global::new(0);

/// Lets everything pass: what the far end of a veth needs so that native `XDP_TX` works, and the baseline of benchmarks.
#[xdp(frags)]
pub fn xdp_pass(_ctx: XdpContext) -> u32 {
    XDP_PASS
}

/// Two clock reads: what a reflector cannot do without.
#[xdp(frags)]
pub fn xdp_two_clocks(_ctx: XdpContext) -> u32 {
    black_box(now());
    black_box(now());
    XDP_PASS
}

/// Lets everything pass.
#[classifier]
pub fn tc_pass(_ctx: TcContext) -> i32 {
    -1
}

/// Two clock reads.
#[classifier]
pub fn tc_two_clocks(_ctx: TcContext) -> i32 {
    black_box(now());
    black_box(now());
    -1
}

/// A wire: forwards to the other end, with faults counted exactly.
#[classifier]
pub fn fault_forward(ctx: TcContext) -> i32 {
    let direction = DIRECTION.load();
    let Some(fault) = FAULTS.get(direction) else {
        return TC_DROP;
    };
    let Some(probe) = Probe::find(&ctx, fault.port) else {
        return forward(fault);
    };
    // One fault a packet: of a packet sent twice whose copies differ nobody could say what each count should be.
    let nth = done(direction, 0);
    if due(nth, fault.drop_every) {
        done(direction, 1);
        remember(&ctx, direction, &probe, DROPPED);
        return TC_DROP;
    }
    if due(nth, fault.duplicate_every) {
        done(direction, 2);
        remember(&ctx, direction, &probe, WHOLE);
        // SAFETY: the context is the program's own.
        unsafe { bpf_clone_redirect(ctx.skb.skb, fault.out_ifindex, 0) };
    } else if due(nth, fault.corrupt_every) {
        done(direction, 3);
        remember(&ctx, direction, &probe, CORRUPT);
        flip(&ctx, probe.payload);
        return forward(fault);
    }
    remember(&ctx, direction, &probe, WHOLE);
    forward(fault)
}

fn forward(fault: &Fault) -> i32 {
    // SAFETY: the helper only records the target.
    unsafe { bpf_redirect(fault.out_ifindex, 0) as i32 }
}

/// Counts; the number of times it was counted, this one included.
#[inline(always)]
fn done(direction: u32, what: u32) -> u64 {
    let Some(counter) = DONE.get_ptr_mut(direction * 4 + what) else {
        return 0;
    };
    // SAFETY: an aligned word of a map value that outlives the program's run.
    unsafe { Word::new(counter) }.fetch_add(1) + 1
}

#[inline(always)]
fn due(nth: u64, every: u64) -> bool {
    nth.checked_rem(every) == Some(0)
}

/// Where a request or a reply has what the wire looks at.
struct Probe {
    /// Offset of the UDP payload.
    payload: usize,
    /// Offset of the request's sequence number.
    seq: usize,
}

impl Probe {
    /// Finds it, IPv4 or IPv6 without tags or options.
    #[inline(always)]
    fn find(ctx: &TcContext, port: u32) -> Option<Self> {
        let l4 = match u16::from_be(ctx.load::<u16>(12).ok()?) {
            0x0800 if ctx.load::<u8>(23).ok()? == 17 => 34,
            0x86dd if ctx.load::<u8>(20).ok()? == 17 => 54,
            _ => return None,
        };
        let payload = l4 + 8;
        if u32::from(u16::from_be(ctx.load::<u16>(l4 + 2).ok()?)) == port {
            return Some(Self {
                payload,
                seq: payload,
            });
        }
        // A reply repeats the number behind its own header.
        (u32::from(u16::from_be(ctx.load::<u16>(l4).ok()?)) == port).then_some(Self {
            payload,
            seq: payload + 24,
        })
    }
}

/// Notes what became of one packet of a probe.
#[inline(always)]
fn remember(ctx: &TcContext, direction: u32, probe: &Probe, fate: u32) {
    let Ok(seq) = ctx.load::<u32>(probe.seq) else {
        return;
    };
    let index = direction * FATES_PER_DIRECTION + (u32::from_be(seq) & (FATES_PER_DIRECTION - 1));
    if let Some(entry) = FATES.get_ptr_mut(index) {
        // SAFETY: an aligned word of a map value that outlives the program's run.
        unsafe { Word::new(entry) }.fetch_add(fate);
    }
}

/// Flips one bit of the payload behind the checksum's back: in the MBZ field of a request, in T1's echo of a reply.
#[inline(always)]
fn flip(ctx: &TcContext, payload: usize) {
    let Ok(byte) = ctx.load::<u8>(payload + 33) else {
        return;
    };
    let flipped = byte ^ 0x10;
    // SAFETY: the context is the program's own; one byte of the stack is read. No flag: the checksum must stay as it was.
    unsafe {
        bpf_skb_store_bytes(
            ctx.skb.skb.cast(),
            (payload + 33) as u32,
            (&raw const flipped).cast(),
            1,
            0,
        )
    };
}

fn now() -> u64 {
    // SAFETY: the helper has no arguments and cannot fail.
    unsafe { bpf_ktime_get_ns() }
}

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
