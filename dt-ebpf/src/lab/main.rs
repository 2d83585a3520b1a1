//! Programs of the laboratory, not of the product: baselines for benchmarks, and a wire with scripted faults.

#![cfg_attr(target_arch = "bpf", no_std, no_main)]
#![cfg_attr(target_arch = "bpf", feature(core_intrinsics, adt_const_params))]
#![cfg_attr(
    target_arch = "bpf",
    expect(internal_features, reason = "atomics with results, see `atomic`")
)]

#[cfg(target_arch = "bpf")]
#[path = "../atomic.rs"]
mod atomic;
#[cfg(target_arch = "bpf")]
mod flood;
#[cfg(target_arch = "bpf")]
mod programs;
#[cfg(target_arch = "bpf")]
mod sending;
#[cfg(target_arch = "bpf")]
mod truth;

#[cfg(not(target_arch = "bpf"))]
fn main() {}
