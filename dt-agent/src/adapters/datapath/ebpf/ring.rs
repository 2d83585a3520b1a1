//! The ring through which the collector's events arrive.

use std::os::fd::{AsFd, BorrowedFd};

use aya::maps::{MapData, RingBuf};
use dt_common::event::ReplyEvent;
use zerocopy::FromBytes;

/// Reads events in the order in which the collector made them. One reader a ring.
pub struct EventRing(RingBuf<MapData>);

impl EventRing {
    pub(super) const fn new(ring: RingBuf<MapData>) -> Self {
        Self(ring)
    }

    /// The next event, if one is there. Records of another size cannot come from programs of our ABI and are passed over.
    pub fn poll_event(&mut self) -> Option<ReplyEvent> {
        loop {
            let item = self.0.next()?;
            if let Ok(event) = ReplyEvent::read_from_bytes(&item) {
                return Some(event);
            }
        }
    }

    /// Throws away what nobody waited for, such as the replies to an agent that ended.
    pub fn clear(&mut self) {
        while self.0.next().is_some() {}
    }
}

impl AsFd for EventRing {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
