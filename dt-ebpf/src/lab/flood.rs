//! A flood of probes from many sources, by live frames, for `cargo xtask bench traffic`.

use aya_ebpf::bindings::xdp_action::{XDP_ABORTED, XDP_PASS};
use aya_ebpf::helpers::{bpf_csum_diff, bpf_redirect};
use aya_ebpf::macros::{map, xdp};
use aya_ebpf::maps::Array;
use aya_ebpf::programs::XdpContext;

/// Ethernet, IPv4, UDP, and a probe of 96 bytes.
const IP: usize = 14;
const UDP: usize = 34;
const PAYLOAD: usize = 42;
const FRAME: usize = PAYLOAD + 96;
/// Where live frames seem to come from.
const LOOPBACK: usize = 1;

/// 0: interface that frames leave by; 1: number of the next frame; 2: first source address, host byte order; 3: sources.
#[map]
static FLOOD: Array<u64> = Array::with_max_entries(4, 0);

/// Writes source address, number and both checksums into a frame that user space gave, and sends it.
///
/// Attached to an interface as well, where it lets all pass, see `live_send`.
#[xdp]
pub fn flood_send(ctx: XdpContext) -> u32 {
    if ctx.ingress_ifindex() != LOOPBACK {
        return XDP_PASS;
    }
    send(&ctx).unwrap_or(XDP_ABORTED)
}

fn send(ctx: &XdpContext) -> Option<u32> {
    let (start, end) = (ctx.data(), ctx.data_end());
    if start + FRAME > end {
        return None;
    }
    let out = *FLOOD.get(0)?;
    let next = FLOOD.get_ptr_mut(1)?;
    let (first, sources) = (*FLOOD.get(2)?, *FLOOD.get(3)?);
    // SAFETY: one thread runs this program; the words are within the map's value and the frame.
    unsafe {
        let number = *next;
        *next = number + 1;
        let source = first + number.checked_rem(sources)?;
        ((start + IP + 12) as *mut u32).write_unaligned((source as u32).to_be());
        ((start + PAYLOAD) as *mut u32).write_unaligned((number as u32).to_be());
        ((start + IP + 10) as *mut u16).write_unaligned(0);
        let sum = bpf_csum_diff(core::ptr::null_mut(), 0, (start + IP) as *mut u32, 20, 0);
        ((start + IP + 10) as *mut u16).write_unaligned(!fold(sum as u64 & 0xffff_ffff));
        ((start + UDP + 6) as *mut u16).write_unaligned(0);
        let datagram = (start + UDP) as *mut u32;
        let len = (FRAME - UDP) as u32;
        let sum = bpf_csum_diff(core::ptr::null_mut(), 0, datagram, len, 0);
        // Source and destination address; then protocol and length of the pseudo-header (RFC 768).
        let sum = bpf_csum_diff(
            core::ptr::null_mut(),
            0,
            (start + IP + 12) as *mut u32,
            8,
            sum as u32,
        );
        let pseudo = u64::from(17_u16.to_be()) + u64::from((len as u16).to_be());
        let sum = fold((sum as u64 & 0xffff_ffff) + pseudo);
        ((start + UDP + 6) as *mut u16).write_unaligned(if sum == 0xffff { 0xffff } else { !sum });
        Some(bpf_redirect(out as u32, 0) as u32)
    }
}

fn fold(sum: u64) -> u16 {
    let sum = (sum >> 16) + (sum & 0xffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    ((sum >> 16) + (sum & 0xffff)) as u16
}
