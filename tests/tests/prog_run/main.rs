//! The kernel programs, run on made frames: verdicts, counters and bytes, against a second opinion.

#![forbid(unsafe_code)]

mod oracle;
mod packet;
mod rig;
mod sessions;
mod verdicts;
