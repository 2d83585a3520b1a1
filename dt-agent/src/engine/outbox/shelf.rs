//! The ledger of the spool: which segments there are, how far each was read, and what may be deleted.
//!
//! ```text
//!   segments   [ acknowledged | with the broker (pinned) | unread ] [ unread ] [ unread, being written ]
//!   removed when all of it is read and nothing pinned; given up, oldest first, when nothing of it is pinned
//! ```

use std::collections::VecDeque;

use dt_common::time::MonoNanos;

/// A place between two batches on the shelf.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Place {
    /// Number of the segment; later ones have greater numbers.
    pub segment: u64,
    /// First byte after the batch.
    pub end: u64,
}

/// A segment that an earlier start left.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Found {
    /// Its number.
    pub segment: u64,
    /// Its length.
    pub bytes: u64,
}

#[derive(Debug)]
pub(super) struct Shelf {
    budget: u64,
    segments: VecDeque<Segment>,
    bytes: u64,
    marked: Option<Place>,
    mark_due: MonoNanos,
}

#[derive(Debug)]
struct Segment {
    number: u64,
    bytes: u64,
    /// All before it is in memory, or was.
    read_to: u64,
    /// All before it is acknowledged.
    released_to: u64,
    /// Batches of it that are in memory.
    pinned: usize,
}

impl Shelf {
    pub fn new(budget: u64, found: &[Found], mark: Option<Place>) -> Self {
        let mut shelf = Self {
            budget,
            segments: VecDeque::new(),
            bytes: 0,
            marked: None,
            mark_due: MonoNanos(0),
        };
        for Found { segment, bytes } in found {
            let done = mark.map_or(0, |mark| match segment.cmp(&mark.segment) {
                std::cmp::Ordering::Less => *bytes,
                std::cmp::Ordering::Equal => mark.end.min(*bytes),
                std::cmp::Ordering::Greater => 0,
            });
            shelf.segments.push_back(Segment {
                number: *segment,
                bytes: *bytes,
                read_to: done,
                released_to: done,
                pinned: 0,
            });
            shelf.bytes += bytes;
        }
        shelf
    }

    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    pub const fn has_room(&self, bytes: u64) -> bool {
        self.bytes + bytes <= self.budget
    }

    /// Where the oldest batch begins that is on the shelf alone.
    pub fn next_unread(&self) -> Option<(u64, u64)> {
        let segment = self.segments.iter().find(|segment| segment.has_unread())?;
        Some((segment.number, segment.read_to))
    }

    /// The oldest segment of which nothing is in memory, and where its unread part begins.
    pub fn oldest_idle(&self) -> Option<(u64, u64)> {
        let idle = |segment: &&Segment| segment.pinned == 0 && segment.has_unread();
        let segment = self.segments.iter().find(idle)?;
        Some((segment.number, segment.read_to))
    }

    /// A segment that is not needed any more; it is forgotten with this call.
    pub fn poll_finished(&mut self) -> Option<u64> {
        let finished = |segment: &Segment| segment.pinned == 0 && !segment.has_unread();
        let number = self
            .segments
            .iter()
            .find(|segment| finished(segment))?
            .number;
        self.handle_removed(number);
        Some(number)
    }

    /// How far all is acknowledged, when the next start should be told: not at every batch, at once when `now_or_never`.
    pub fn poll_mark(&mut self, now: MonoNanos, now_or_never: bool) -> Option<Place> {
        let first = self.segments.front()?;
        let mark = Place {
            segment: first.number,
            end: first.released_to,
        };
        let is_due = now >= self.mark_due || now_or_never;
        if mark.end == 0 || self.marked == Some(mark) || !is_due {
            return None;
        }
        self.marked = Some(mark);
        self.mark_due = now.plus(MARK_EVERY_NS);
        Some(mark)
    }

    /// A batch was appended; `in_memory` if it is still needed there.
    pub fn handle_stored(&mut self, place: Place, in_memory: bool) {
        if self
            .segments
            .back()
            .is_none_or(|last| last.number != place.segment)
        {
            self.segments.push_back(Segment {
                number: place.segment,
                bytes: 0,
                read_to: 0,
                released_to: 0,
                pinned: 0,
            });
        }
        let Some(last) = self.segments.back_mut() else {
            return;
        };
        self.bytes += place.end.saturating_sub(last.bytes);
        last.bytes = place.end;
        if in_memory {
            last.read_to = place.end;
            last.pinned += 1;
        }
    }

    pub fn handle_loaded(&mut self, place: Place) {
        if let Some(segment) = self.find(place.segment) {
            segment.read_to = place.end;
            segment.pinned += 1;
        }
    }

    /// What is unread of this segment cannot be read.
    pub fn handle_damaged(&mut self, number: u64) {
        if let Some(segment) = self.find(number) {
            segment.read_to = segment.bytes;
        }
    }

    /// A batch of the shelf is done.
    pub fn handle_released(&mut self, place: Place) {
        if let Some(segment) = self.find(place.segment) {
            segment.pinned = segment.pinned.saturating_sub(1);
            segment.released_to = place.end;
        }
    }

    pub fn handle_removed(&mut self, number: u64) {
        if let Some(index) = self
            .segments
            .iter()
            .position(|segment| segment.number == number)
        {
            let segment = self.segments.remove(index);
            self.bytes -= segment.map_or(0, |segment| segment.bytes);
        }
    }

    fn find(&mut self, number: u64) -> Option<&mut Segment> {
        self.segments
            .iter_mut()
            .find(|segment| segment.number == number)
    }
}

impl Segment {
    const fn has_unread(&self) -> bool {
        self.read_to < self.bytes
    }
}

/// What is acknowledged in between is sent again after a crash.
const MARK_EVERY_NS: u64 = 100_000_000;
