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
    let Some(probe) = payload_offset(&ctx, fault.port) else {
        return forward(fault);
    };
    let nth = done(direction, 0);
    if due(nth, fault.drop_every) {
        done(direction, 1);
        return TC_DROP;
    }
    if due(nth, fault.duplicate_every) {
        done(direction, 2);
        // SAFETY: the context is the program's own.
        unsafe { bpf_clone_redirect(ctx.skb.skb, fault.out_ifindex, 0) };
    }
    if due(nth, fault.corrupt_every) {
        done(direction, 3);
        flip(&ctx, probe);
    }
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

/// Offset of the UDP payload of a probe or reply, IPv4 or IPv6 without tags or options.
#[inline(always)]
fn payload_offset(ctx: &TcContext, port: u32) -> Option<usize> {
    let l4 = match u16::from_be(ctx.load::<u16>(12).ok()?) {
        0x0800 if ctx.load::<u8>(23).ok()? == 17 => 34,
        0x86dd if ctx.load::<u8>(20).ok()? == 17 => 54,
        _ => return None,
    };
    let source = u32::from(u16::from_be(ctx.load::<u16>(l4).ok()?));
    let destination = u32::from(u16::from_be(ctx.load::<u16>(l4 + 2).ok()?));
    (source == port || destination == port).then_some(l4 + 8)
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
