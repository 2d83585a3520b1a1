//! The kernel programs, run on made frames: verdicts, counters and bytes, against a second opinion.

#![forbid(unsafe_code)]

mod collect;
mod dice;
mod egress;
mod fan;
mod foreign;
mod fuzz;
mod limits;
mod oracle;
mod packet;
mod proof;
mod record;
mod replies;
mod rig;
mod scapy;
mod sessions;
mod table;
mod user_space;
mod verdicts;
mod veth;
