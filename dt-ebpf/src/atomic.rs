//! Atomic words of map values.
//!
//! `core::sync::atomic` has only loads and stores for BPF targets, because old instruction sets know no more. Ours is v3
//! (kernel 5.12, 5ffa25502b5a): fetch-and-add and compare-and-swap exist, and the compiler's intrinsics reach them.

/// A 32- or 64-bit word that several CPUs use.
pub struct Word<T>(*mut T);

/// The widths that BPF has atomics for.
pub trait Width: Copy + Eq {
    /// `*at += by`, returning what was there.
    ///
    /// # Safety
    /// `at` is an aligned word of a live map value.
    unsafe fn fetch_add(at: *mut Self, by: Self) -> Self;
    /// `*at = new` if it is `old`; whether it was.
    ///
    /// # Safety
    /// As for `fetch_add`.
    unsafe fn compare_exchange(at: *mut Self, old: Self, new: Self) -> bool;
}

macro_rules! width {
    ($int:ty, $atomic:ident) => {
        impl Width for $int {
            #[cfg(target_arch = "bpf")]
            #[inline(always)]
            unsafe fn fetch_add(at: *mut Self, by: Self) -> Self {
                // Not `Relaxed`: for that LLVM 22 emits an add without BPF_FETCH and takes the operand for the result.
                use core::intrinsics::{AtomicOrdering::AcqRel, atomic_xadd};
                // SAFETY: promised by the caller.
                unsafe { atomic_xadd::<_, _, { AcqRel }>(at, by) }
            }

            #[cfg(target_arch = "bpf")]
            #[inline(always)]
            unsafe fn compare_exchange(at: *mut Self, old: Self, new: Self) -> bool {
                use core::intrinsics::{AtomicOrdering::Relaxed, atomic_cxchg};
                // SAFETY: promised by the caller.
                unsafe { atomic_cxchg::<_, { Relaxed }, { Relaxed }>(at, old, new).1 }
            }

            #[cfg(not(target_arch = "bpf"))]
            unsafe fn fetch_add(at: *mut Self, by: Self) -> Self {
                use core::sync::atomic::{Ordering::Relaxed, $atomic};
                // SAFETY: promised by the caller.
                unsafe { $atomic::from_ptr(at) }.fetch_add(by, Relaxed)
            }

            #[cfg(not(target_arch = "bpf"))]
            unsafe fn compare_exchange(at: *mut Self, old: Self, new: Self) -> bool {
                use core::sync::atomic::{Ordering::Relaxed, $atomic};
                // SAFETY: promised by the caller.
                unsafe { $atomic::from_ptr(at) }
                    .compare_exchange(old, new, Relaxed, Relaxed)
                    .is_ok()
            }
        }
    };
}

width!(u32, AtomicU32);
width!(u64, AtomicU64);

impl<T: Width> Word<T> {
    /// Takes a word of a map value.
    ///
    /// # Safety
    /// `at` is an aligned word of a map value that outlives the program's run.
    #[inline(always)]
    pub unsafe fn new(at: *mut T) -> Self {
        Self(at)
    }

    #[inline(always)]
    pub fn load(&self) -> T {
        // SAFETY: promised to `new`; aligned loads of a word are atomic on every machine BPF runs on.
        unsafe { self.0.read_volatile() }
    }

    #[inline(always)]
    pub fn store(&self, value: T) {
        // SAFETY: as above.
        unsafe { self.0.write_volatile(value) }
    }

    #[inline(always)]
    pub fn fetch_add(&self, by: T) -> T {
        // SAFETY: promised to `new`.
        unsafe { T::fetch_add(self.0, by) }
    }

    #[inline(always)]
    pub fn compare_exchange(&self, old: T, new: T) -> bool {
        // SAFETY: promised to `new`.
        unsafe { T::compare_exchange(self.0, old, new) }
    }
}
