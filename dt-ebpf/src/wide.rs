//! Packet fields as whole words.
//!
//! Fields of a packet are unaligned, and for those the compiler emits a load for each byte: an IPv6 address costs 32
//! instructions instead of two. The kernel reads packets in words of any alignment wherever the machine does. (The
//! compiler's own switch for that would also misalign the stack, which the verifier refuses.) Values are in memory order.

use zerocopy::Unaligned;

macro_rules! word {
    ($read:ident, $write:ident, $int:ty, $kind:literal) => {
        /// The field as one word, in memory order.
        #[inline(always)]
        pub fn $read<T: Unaligned + Copy>(field: &T) -> $int {
            const { assert!(size_of::<T>() == size_of::<$int>()) };
            #[cfg(target_arch = "bpf")]
            {
                let value: u64;
                // SAFETY: the reference is to readable bytes of this very size; BPF needs no alignment.
                unsafe {
                    core::arch::asm!(
                        concat!("{value} = *(", $kind, " *)({at} + 0)"),
                        value = out(reg) value,
                        at = in(reg) core::ptr::from_ref(field),
                        options(nostack, preserves_flags, readonly, pure),
                    );
                }
                value as $int
            }
            #[cfg(not(target_arch = "bpf"))]
            // SAFETY: as above, with a read that needs no alignment either.
            unsafe {
                core::ptr::from_ref(field).cast::<$int>().read_unaligned()
            }
        }

        /// Writes the field as one word, in memory order.
        #[inline(always)]
        pub fn $write<T: Unaligned + Copy>(field: &mut T, value: $int) {
            const { assert!(size_of::<T>() == size_of::<$int>()) };
            #[cfg(target_arch = "bpf")]
            // SAFETY: the reference is to writable bytes of this very size; BPF needs no alignment.
            unsafe {
                core::arch::asm!(
                    concat!("*(", $kind, " *)({at} + 0) = {value}"),
                    at = in(reg) core::ptr::from_mut(field),
                    value = in(reg) u64::from(value),
                    options(nostack, preserves_flags),
                );
            }
            #[cfg(not(target_arch = "bpf"))]
            // SAFETY: as above, with a write that needs no alignment either.
            unsafe {
                core::ptr::from_mut(field).cast::<$int>().write_unaligned(value);
            }
        }
    };
}

word!(read16, write16, u16, "u16");
word!(read32, write32, u32, "u32");
word!(read64, write64, u64, "u64");

/// A 16-bit field in network order as a number.
#[inline(always)]
pub fn be16<T: Unaligned + Copy>(field: &T) -> u16 {
    u16::from_be(read16(field))
}

/// A 32-bit field in network order as a number.
#[inline(always)]
pub fn be32<T: Unaligned + Copy>(field: &T) -> u32 {
    u32::from_be(read32(field))
}

/// A 64-bit field in network order as a number.
#[inline(always)]
pub fn be64<T: Unaligned + Copy>(field: &T) -> u64 {
    u64::from_be(read64(field))
}

/// The same number, of which the compiler knows nothing.
#[inline(always)]
pub fn opaque(number: usize) -> usize {
    #[cfg(target_arch = "bpf")]
    {
        let same: usize;
        // SAFETY: copies a register.
        unsafe {
            core::arch::asm!("{same} = {number}", same = out(reg) same, number = in(reg) number, options(nostack, nomem, preserves_flags));
        }
        same
    }
    #[cfg(not(target_arch = "bpf"))]
    number
}
