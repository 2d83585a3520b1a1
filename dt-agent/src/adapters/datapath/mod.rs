//! How probes reach the wire and come back: BPF programs, or plain sockets where no BPF is allowed.

pub mod ebpf;
pub mod prober;
pub mod socket;
