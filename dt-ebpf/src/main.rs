//! The kernel side of distributed-trace: three programs around one parser.
//!
//! `xdp_ingress` and `tc_ingress` answer probes and collect replies, `tc_egress` writes T1 into probes that leave. What is
//! not ours is passed untouched; malformed packets go to the stack; only what policy refuses is dropped. Each verdict on
//! a packet of ours has a counter. The hard fact: a panic path is an unverifiable program, so nothing here indexes,
//! unwraps or divides by a variable.

#![cfg_attr(target_arch = "bpf", no_std, no_main)]
#![cfg_attr(
    target_arch = "bpf",
    feature(asm_experimental_arch, core_intrinsics, adt_const_params)
)]
#![cfg_attr(
    target_arch = "bpf",
    expect(internal_features, reason = "atomics with results, see `atomic`")
)]
#![expect(
    clippy::needless_pass_by_value,
    reason = "what the macros of aya-ebpf demand of an entry"
)]

mod atomic;
mod clock;
mod collect;
mod fan;
mod headers;
mod maps;
mod packet;
mod policy;
mod proof;
mod reflect;
mod session;
mod stamp;
mod sum;
mod tlvs;
#[cfg(feature = "trace")]
mod trace;
mod verdict;
mod wide;

use aya_ebpf::macros::{classifier, xdp};
use aya_ebpf::programs::{TcContext, XdpContext};

use crate::headers::Arrival;
use crate::packet::{Frame, SkbFrame, XdpFrame};
use crate::verdict::Verdict;

/// Reflects and collects at the earliest point a packet can be had.
///
/// In line, because the macro's own entry would call it, and a return costs 5 ns where returns are guarded.
#[xdp(frags)]
#[inline(always)]
pub fn xdp_ingress(ctx: XdpContext) -> u32 {
    let mut frame = XdpFrame::new(&ctx);
    let verdict = ingress(&mut frame);
    verdict.to_xdp()
}

/// The same where XDP cannot attach or was not proved.
#[classifier]
#[inline(always)]
pub fn tc_ingress(ctx: TcContext) -> i32 {
    let mut frame = SkbFrame::new(&ctx);
    let verdict = ingress(&mut frame);
    verdict.to_tc(&ctx)
}

/// Writes T1 into probes that carry our mark, and makes the probes that a packet with our mark lists.
#[classifier]
pub fn tc_egress(ctx: TcContext) -> i32 {
    if packet::mark(&ctx) != maps::PROBE_MARK.load() {
        return verdict::TC_NEXT;
    }
    let mut frame = SkbFrame::new(&ctx);
    if let Some(ipv6) = fan::listing(&frame) {
        return fan::make(&ctx, ipv6);
    }
    stamp::stamp(&mut frame);
    verdict::TC_NEXT
}

#[inline(always)]
fn ingress<F: Frame>(frame: &mut F) -> Verdict {
    let Some(config) = maps::config() else {
        return Verdict::Untouched;
    };
    match headers::classify(frame, config) {
        Arrival::Foreign => Verdict::Untouched,
        Arrival::Request(datagram) => match reflect::reflect(frame, &datagram, config) {
            Ok(verdict) => verdict,
            Err(refusal) => refusal.count(),
        },
        Arrival::Reply(datagram) => match collect::collect(frame, &datagram, config) {
            Ok(verdict) => verdict,
            Err(refusal) => refusal.count(),
        },
        Arrival::Neighbour(kind) => proof::turn(frame, kind),
    }
}

#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    // Unreachable by construction; the verifier refuses the object should it ever be reachable.
    loop {}
}

#[cfg(target_arch = "bpf")]
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[cfg(not(target_arch = "bpf"))]
fn main() {}
