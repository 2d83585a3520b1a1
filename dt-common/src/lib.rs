//! What the kernel side and the user side of distributed-trace agree on.
//!
//! `no_std`, and compiled for the BPF target as well as for hosts: wire format, clocks as types, ring events, map keys
//! and values. Nothing here does I/O. The one hard fact: every byte layout below is a contract, either with other
//! versions on the wire (`wire`) or with programs pinned by an earlier agent (`event`, `map`), see [`ABI_VERSION`].

#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod checksum;
pub mod event;
pub mod fan;
mod layout;
pub mod map;
pub mod seen;
pub mod time;
pub mod wire;

/// Version of the contract between programs and agent: map keys and values, ring events, program constants.
///
/// Pinned maps live in a directory of this number; a change in `layout.rs` demands a new one.
pub const ABI_VERSION: u32 = 1 + cfg!(feature = "next-abi") as u32;

/// The UDP port of STAMP reflectors (RFC 8762 section 4.1, IANA "twamp-control" for UDP test packets).
pub const STAMP_PORT: u16 = 862;
