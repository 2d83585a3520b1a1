//! Peers that are not ours: `stamp-suite` on either end, reflectors without TLVs, TWAMP-Light senders; and `ping` beside a
//! running agent and alone.

mod field;
mod guest;
mod reflectors;
mod senders;
