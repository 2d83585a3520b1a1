//! Ways of making probes in the kernel, as `cargo xtask bench sending` compares them: what each costs at the least.
//!
//! A probe here is 96 bytes of UDP over IPv4 with a number and T1 written in; nobody answers it.

use core::hint::black_box;

use aya_ebpf::bindings::xdp_action::{XDP_ABORTED, XDP_DROP, XDP_PASS};
use aya_ebpf::helpers::{
    bpf_clone_redirect, bpf_csum_diff, bpf_ktime_get_ns, bpf_redirect, bpf_skb_change_tail,
    bpf_skb_load_bytes, bpf_skb_pull_data,
};
use aya_ebpf::macros::{classifier, map, xdp};
use aya_ebpf::maps::{Array, PerCpuArray};
use aya_ebpf::programs::{TcContext, XdpContext};

use crate::atomic::Word;

/// Ethernet, IPv4, UDP, then the probe.
const PAYLOAD: usize = 42;
const FRAME: usize = PAYLOAD + 96;
const UDP: usize = 34;
const ORDER: usize = 16;
const MAX_ORDERS: usize = 64;
/// Mark of a probe, and of a packet that says which probes to make.
const PROBE_MARK: u32 = 0x6474_0001;
const ORDER_MARK: u32 = 0x6474_0002;
/// Where live frames seem to come from.
const LOOPBACK: usize = 1;
const TC_DROP: i32 = 2;
const TC_NEXT: i32 = -1;

/// 0: interface that frames leave by; 1: number of the next frame.
#[map]
static SENDING: Array<u64> = Array::with_max_entries(2, 0);
/// Probes that reached the far end.
#[map]
static SUNK: Array<u64> = Array::with_max_entries(1, 0);
#[map]
static ORDERS: PerCpuArray<[u8; ORDER * MAX_ORDERS]> = PerCpuArray::with_max_entries(1, 0);

/// The far end: counts probes and drops them.
#[xdp(frags)]
pub fn xdp_sink(ctx: XdpContext) -> u32 {
    let (start, end) = (ctx.data(), ctx.data_end());
    if start + FRAME > end {
        return XDP_PASS;
    }
    // SAFETY: within the frame, see above.
    let port = unsafe { ((start + UDP + 2) as *const [u8; 2]).read() };
    if u16::from_be_bytes(port) != 862 {
        return XDP_PASS;
    }
    if let Some(sunk) = SUNK.get_ptr_mut(0) {
        // SAFETY: an aligned word of a map value that outlives the program's run.
        unsafe { Word::new(sunk) }.fetch_add(1);
    }
    XDP_DROP
}

/// Live frames: writes number, T1 and checksum into a frame that user space gave, and sends it.
///
/// Attached to the interface as well, where it lets all pass: `BPF_PROG_RUN` puts a program that is attached nowhere into the
/// kernel's XDP dispatcher for each call of more than one frame, and waits for RCU, which takes milliseconds.
#[xdp]
pub fn live_send(ctx: XdpContext) -> u32 {
    if ctx.ingress_ifindex() != LOOPBACK {
        return XDP_PASS;
    }
    let (start, end) = (ctx.data(), ctx.data_end());
    if start + FRAME > end {
        return XDP_ABORTED;
    }
    let (Some(out), Some(next)) = (SENDING.get(0), SENDING.get_ptr_mut(1)) else {
        return XDP_ABORTED;
    };
    // SAFETY: one thread runs this program; the words are aligned and within the map's value and the frame.
    unsafe {
        let number = *next;
        *next = number + 1;
        ((start + PAYLOAD) as *mut u32).write_unaligned((number as u32).to_be());
        ((start + PAYLOAD + 4) as *mut u64).write_unaligned(bpf_ktime_get_ns().to_be());
        ((start + UDP + 6) as *mut u16).write_unaligned(0);
        let head = start + UDP;
        let sum = bpf_csum_diff(
            core::ptr::null_mut(),
            0,
            head as *mut u32,
            (FRAME - UDP) as u32,
            0,
        ) as u64;
        let sum = (sum & 0xffff) + ((sum >> 16) & 0xffff);
        let sum = (sum & 0xffff) + (sum >> 16);
        ((start + UDP + 6) as *mut u16).write_unaligned(!(sum as u16));
        bpf_redirect(*out as u32, 0) as u32
    }
}

/// Fan-out: stamps probes, and makes many of one packet that lists their numbers.
#[classifier]
pub fn fan_out(ctx: TcContext) -> i32 {
    // SAFETY: a plain load from the program's context.
    match unsafe { (*ctx.skb.skb).mark } {
        PROBE_MARK => {
            write(&ctx, None);
            TC_NEXT
        }
        ORDER_MARK => {
            make(&ctx);
            TC_DROP
        }
        _ => TC_NEXT,
    }
}

fn make(ctx: &TcContext) -> Option<()> {
    let orders = ORDERS.get_ptr_mut(0)?;
    let skb = ctx.skb.skb;
    let count = (ctx.len() as usize).checked_sub(PAYLOAD)? / ORDER;
    if count == 0 || count > MAX_ORDERS {
        return None;
    }
    // Between one byte and all, in a form in which the verifier sees it.
    let bytes = (black_box(count * ORDER - 1) & (ORDER * MAX_ORDERS - 1)) + 1;
    // SAFETY: the context is the program's own; the value has room for all orders there can be.
    let failed = unsafe {
        bpf_skb_load_bytes(skb.cast(), PAYLOAD as u32, orders.cast(), bytes as u32) != 0
            || bpf_skb_change_tail(skb, FRAME as u32, 0) != 0
    };
    if failed {
        return None;
    }
    // SAFETY: as above.
    unsafe { (*skb).mark = PROBE_MARK };
    for index in 0..MAX_ORDERS {
        if index >= count {
            break;
        }
        // The frame is shared with the clone that left last: make it ours again.
        // SAFETY: as above; views are taken anew.
        if unsafe { bpf_skb_pull_data(skb, FRAME as u32) } != 0 {
            return None;
        }
        // SAFETY: within the map's value.
        let order = unsafe { orders.cast::<[u64; 2]>().add(index).read_unaligned() };
        write(ctx, Some(order))?;
        // SAFETY: as above. The clone passes this program again, as a probe.
        unsafe { bpf_clone_redirect(skb, (*skb).ifindex, 0) };
    }
    Some(())
}

/// Writes an order's number, or else T1.
#[inline(always)]
fn write(ctx: &TcContext, order: Option<[u64; 2]>) -> Option<()> {
    let (start, end) = (ctx.data(), ctx.data_end());
    if start + FRAME > end {
        return None;
    }
    // SAFETY: within the frame.
    unsafe {
        match order {
            Some([number, rest]) => {
                ((start + PAYLOAD) as *mut u32).write_unaligned((number as u32).to_be());
                ((start + PAYLOAD + 12) as *mut u32).write_unaligned(rest as u32);
            }
            None => {
                ((start + PAYLOAD + 4) as *mut u64).write_unaligned(bpf_ktime_get_ns().to_be());
            }
        }
    }
    Some(())
}
