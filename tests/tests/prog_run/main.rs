//! The kernel programs, run on made frames: verdicts, counters and bytes, against a second opinion.

#![forbid(unsafe_code)]

mod collect;
mod egress;
mod foreign;
mod limits;
mod oracle;
mod packet;
mod replies;
mod rig;
mod sessions;
mod verdicts;
