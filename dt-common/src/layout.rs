//! The layouts as numbers. Change one here only together with [`crate::ABI_VERSION`]; never change the wire's.

use core::mem::offset_of;

use crate::event::ReplyEvent;
use crate::fan::{FanHead, FanOrder, FanReport, Hop};
use crate::map::{
    Allowed, COUNTER_SLOTS, Config, ForeignKey, Iface, Proof, Reason, Session, Target,
};
use crate::wire::{BASE_LEN, DT_TLV_LEN, DtTlv, ReflectorPacket, SenderPacket};

const _: () = {
    assert!(size_of::<SenderPacket>() == BASE_LEN && align_of::<SenderPacket>() == 1);
    assert!(size_of::<ReflectorPacket>() == BASE_LEN && align_of::<ReflectorPacket>() == 1);
    assert!(offset_of!(ReflectorPacket, receive_timestamp) == 16);
    assert!(offset_of!(ReflectorPacket, sender_seq) == 24);
    assert!(offset_of!(ReflectorPacket, sender_ttl) == 40);
    assert!(size_of::<DtTlv>() == DT_TLV_LEN && align_of::<DtTlv>() == 1);
    assert!(offset_of!(DtTlv, sender_epoch) == 8);
    assert!(offset_of!(DtTlv, epoch) == 12);
    assert!(offset_of!(DtTlv, seen) == 32);
    assert!(offset_of!(DtTlv, sender_generation) == 40);
    assert!(offset_of!(DtTlv, tag) == 44);
};

const _: () = {
    assert!(size_of::<ReplyEvent>() == 96);
    assert!(offset_of!(ReplyEvent, seq) == 48);
    assert!(offset_of!(ReplyEvent, ssid) == 80);
    assert!(offset_of!(ReplyEvent, reply_ttl) == 92);
};

const _: () = {
    assert!(size_of::<Config>() == 200);
    assert!(offset_of!(Config, lease_until_ns) == 8);
    assert!(offset_of!(Config, error_estimate) == 28);
    assert!(offset_of!(Config, source_interval_ns) == 40);
    assert!(offset_of!(Config, locals) == 72);
    assert!(size_of::<Iface>() == 16);
    assert!(size_of::<Proof>() == 24);
    assert!(size_of::<Target>() == 32);
    assert!(size_of::<Allowed>() == 8);
    assert!(size_of::<ForeignKey>() == 40);
    assert!(size_of::<Session>() == 64);
    assert!(offset_of!(Session, seen) == 24);
    assert!(size_of::<FanHead>() == 16);
    assert!(size_of::<FanOrder>() == 16);
    assert!(size_of::<FanReport>() == 32);
    assert!(size_of::<Hop>() == 32);
    assert!(Reason::ALL.len() <= COUNTER_SLOTS as usize);
};
