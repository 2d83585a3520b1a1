//! The only file with packet pointers: bounds-checked views into a frame.
//!
//! The verifier proves a range per comparison with `data_end`, so each view makes its own; compilers fold the repeated
//! loads. Offsets must be provably below 2^16 (kernel: `MAX_PACKET_OFF`).

use aya_ebpf::EbpfContext as _;
use aya_ebpf::helpers::{
    bpf_l4_csum_replace, bpf_redirect, bpf_skb_pull_data, bpf_xdp_get_buff_len,
};
use aya_ebpf::programs::{TcContext, XdpContext};
use dt_common::event::EventFlags;
use dt_common::map::IfaceMode;
use dt_common::wire::DtFlags;
use zerocopy::{FromBytes, Immutable, IntoBytes, Unaligned};

/// `BPF_F_MARK_MANGLED_0`: a zero UDP checksum means none and stays, a computed zero is sent as all ones.
const MARK_MANGLED_ZERO: u64 = 0x20;

/// A frame in one of the two hooks.
pub trait Frame {
    /// The interface mode in which this hook is the one that acts.
    const MODE: u32;
    /// What a reply of ours says of where it was stamped.
    const TLV_FLAG: u8;
    /// What an event says of where T4 was taken.
    const EVENT_FLAG: u8;
    /// Whether checksums are repaired by the kernel, which knows if they are complete (`ip_summed`).
    const KERNEL_CHECKSUM: bool;

    /// The interface it came by.
    fn ifindex(&self) -> u32;
    /// First byte.
    fn start(&self) -> usize;
    /// Behind the last byte of the linear part.
    fn end(&self) -> usize;
    /// Makes `len` bytes from the start linear; false when the frame is shorter.
    fn pull(&mut self, len: u32) -> bool;
    /// Whether `len` bytes exist at all, linear or not.
    fn holds(&self, len: u32) -> bool;
    /// Whether it has a VLAN tag beside its bytes.
    fn is_tagged(&self) -> bool;
    /// Adds `difference` to the UDP checksum at `offset` where it is complete. Invalidates views.
    fn repair_checksum(&mut self, offset: usize, difference: u32);

    /// A view of `T` at `offset`.
    #[inline(always)]
    fn at<T: FromBytes + Immutable + Unaligned>(&self, offset: usize) -> Option<&T> {
        let start = self.start() + offset;
        if start + size_of::<T>() > self.end() {
            return None;
        }
        let start = not_null(start);
        // SAFETY: the range ends before `data_end`; `T` admits any address and any bytes; writing needs `&mut self`.
        Some(unsafe { &*(start as *const T) })
    }

    /// A view of `T` at `offset` to write through.
    #[inline(always)]
    fn at_mut<T: FromBytes + IntoBytes + Unaligned>(&mut self, offset: usize) -> Option<&mut T> {
        let start = self.start() + offset;
        if start + size_of::<T>() > self.end() {
            return None;
        }
        let start = not_null(start);
        // SAFETY: as in `at`, and `&mut self` makes this the only view.
        Some(unsafe { &mut *(start as *mut T) })
    }
}

/// Spares the compiler the question whether a view is `None`: asked of the pointer itself, it takes `CAP_PERFMON` ("pointer
/// comparison prohibited").
#[inline(always)]
fn not_null(start: usize) -> usize {
    // SAFETY: something lies between this address and the end of the frame, so it is a packet's.
    unsafe { core::hint::assert_unchecked(start != 0) };
    start
}

/// A frame in native XDP.
pub struct XdpFrame<'a>(&'a XdpContext);

impl<'a> XdpFrame<'a> {
    #[inline(always)]
    pub fn new(ctx: &'a XdpContext) -> Self {
        Self(ctx)
    }
}

impl Frame for XdpFrame<'_> {
    const MODE: u32 = IfaceMode::XDP;
    const TLV_FLAG: u8 = DtFlags::REFLECTOR_XDP;
    const EVENT_FLAG: u8 = EventFlags::XDP;
    const KERNEL_CHECKSUM: bool = false;

    #[inline(always)]
    fn ifindex(&self) -> u32 {
        self.0.ingress_ifindex() as u32
    }

    #[inline(always)]
    fn start(&self) -> usize {
        pointer::<0>(self.0.ctx.cast())
    }

    #[inline(always)]
    fn end(&self) -> usize {
        pointer::<4>(self.0.ctx.cast())
    }

    #[inline(always)]
    fn pull(&mut self, len: u32) -> bool {
        // Only tc can make a frame linear.
        self.start() + len as usize <= self.end()
    }

    #[inline(always)]
    fn holds(&self, len: u32) -> bool {
        // SAFETY: the context is the program's own. Helper since 5.18 (0165cc817075), as frags are.
        unsafe { bpf_xdp_get_buff_len(self.0.ctx) >= u64::from(len) }
    }

    #[inline(always)]
    fn is_tagged(&self) -> bool {
        false
    }

    #[inline(always)]
    fn repair_checksum(&mut self, _offset: usize, _difference: u32) {}
}

/// A frame at tc ingress or egress.
pub struct SkbFrame<'a>(&'a TcContext);

impl<'a> SkbFrame<'a> {
    #[inline(always)]
    pub fn new(ctx: &'a TcContext) -> Self {
        Self(ctx)
    }
}

impl Frame for SkbFrame<'_> {
    const MODE: u32 = IfaceMode::TC;
    const TLV_FLAG: u8 = DtFlags::REFLECTOR_TC;
    const EVENT_FLAG: u8 = 0;
    const KERNEL_CHECKSUM: bool = true;

    #[inline(always)]
    fn ifindex(&self) -> u32 {
        // SAFETY: a plain load from the program's context.
        unsafe { (*self.0.skb.skb).ifindex }
    }

    #[inline(always)]
    fn start(&self) -> usize {
        pointer::<76>(self.0.skb.skb.cast_const().cast())
    }

    #[inline(always)]
    fn end(&self) -> usize {
        pointer::<80>(self.0.skb.skb.cast_const().cast())
    }

    #[inline(always)]
    fn pull(&mut self, len: u32) -> bool {
        if self.start() + len as usize <= self.end() {
            return true;
        }
        // SAFETY: the context is the program's own; views taken before are not used after (`&mut self`).
        unsafe { bpf_skb_pull_data(self.0.as_ptr().cast(), len) == 0 }
    }

    #[inline(always)]
    fn holds(&self, len: u32) -> bool {
        self.0.len() >= len
    }

    #[inline(always)]
    fn is_tagged(&self) -> bool {
        // SAFETY: a plain load from the program's context.
        unsafe { (*self.0.skb.skb).vlan_present != 0 }
    }

    #[inline(always)]
    fn repair_checksum(&mut self, offset: usize, difference: u32) {
        // Size 0: `to` is a difference. Without BPF_F_PSEUDO_HDR the helper leaves CHECKSUM_PARTIAL fields alone
        // (inet_proto_csum_replace_by_diff), which hold the pseudo-header's sum only.
        // SAFETY: the context is the program's own; views taken before are not used after (`&mut self`).
        unsafe {
            bpf_l4_csum_replace(
                self.0.as_ptr().cast(),
                offset as u32,
                0,
                u64::from(difference),
                MARK_MANGLED_ZERO,
            );
        }
    }
}

/// A packet pointer from a context: `data` and `data_end` of `xdp_md` are at 0 and 4, of `__sk_buff` at 76 and 80.
///
/// The fields are 32 bits wide in the context and pointers only to the verifier. Plain loads are zero-extended wherever
/// the compiler likes, which turns the pointer into a number (`R5 invalid mem access 'scalar'`): so the load is written
/// out, 64 bits wide from the start.
#[cfg(target_arch = "bpf")]
#[inline(always)]
fn pointer<const OFFSET: i32>(ctx: *const u8) -> usize {
    let pointer: usize;
    // SAFETY: the offsets are those of `data` and `data_end` in a live context.
    unsafe {
        core::arch::asm!(
            "{pointer} = *(u32 *)({ctx} + {offset})",
            pointer = out(reg) pointer,
            ctx = in(reg) ctx,
            offset = const OFFSET,
            options(nostack, preserves_flags, readonly, pure),
        );
    }
    pointer
}

#[cfg(not(target_arch = "bpf"))]
fn pointer<const OFFSET: i32>(_ctx: *const u8) -> usize {
    0
}

/// The mark that the sending socket put on a packet.
#[inline(always)]
pub fn mark(ctx: &TcContext) -> u32 {
    // SAFETY: a plain load from the program's context.
    unsafe { (*ctx.skb.skb).mark }
}

/// Sends a packet back out of the interface it came in by; its verdict.
#[inline(always)]
pub fn redirect_back(ctx: &TcContext) -> i32 {
    // SAFETY: a plain load from the program's context, and a helper that only records the target.
    unsafe { bpf_redirect((*ctx.skb.skb).ifindex, 0) as i32 }
}
