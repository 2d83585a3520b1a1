//! Which of the missing probes the reflector saw.
//!
//! A reflector that keeps a counter for each session proves by its replies where a missing probe was lost: it names the
//! last 64 sequence numbers that it saw, and it counts all of them. What the bitmaps leave out, because more than 64
//! probes went without a reply, the counters still split ([`tally`]).
//!
//! A reflector that is not ours has only its own sequence number (RFC 8762 section 4.3). One that ever differs from the
//! sender's proves that it counts; then it serves as the counter, without names.
//!
//! One limit is left: a request that arrives after more than 64 later ones is in no bitmap but its own reply's. If that
//! reply is lost too, it is taken for lost on the way there.

mod ripening;
mod tally;

use dt_common::event::{EventFlags, ReplyEvent};
use dt_common::time::MonoNanos;
use dt_common::wire::DtFlags;

use self::ripening::Ripening;
use self::tally::Tally;
use super::flight::{Flight, Marks};
use super::serial::{NEWEST, Recent, earlier, is_below, later, rise};

/// What the replies so far prove about the missing probes.
#[derive(Debug)]
pub(super) struct Evidence {
    basis: Basis,
    latest: Latest,
    tally: Tally,
    /// The highest sequence number with a reply.
    top: u32,
    /// By how many numbers requests were seen to overtake each other.
    overtaken: u32,
    /// Bit 63-i: `top - i` is known by name to have been seen.
    named: u64,
    answers: Recent,
    ripening: Ripening,
}

/// What a reply said beside its own return.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Advance {
    /// Copies of requests that reached the reflector.
    pub duplicate_forward: u32,
    /// This answer to a copied request is itself a copy, made on the way back.
    pub duplicate_return: bool,
    /// Requests thrown away for their checksum...
    pub corrupt: u32,
    /// ...or refused by a rate limit, both of them sent after `after` and before `before`.
    pub refused: u32,
    pub after: u32,
    pub before: u32,
}

/// What is known of a missing probe.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Side {
    /// The reflector did not see it.
    Forward,
    /// The reflector saw it.
    Return,
    /// The reflector lost its memory of it.
    Restarted,
    /// Nothing.
    Unknown,
}

/// What the counters in the replies are.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Basis {
    /// No reply yet.
    Nothing,
    /// Our TLV, with counters of this epoch, and what came before.
    Counters { epoch: u32, previous: Option<u32> },
    /// The reflector's own sequence numbers, for replies to one source port.
    Numbers {
        base: u32,
        source_port: u16,
        proven: bool,
    },
    /// Reflector's numbers that make no series: another series per source port, or begun anew.
    Spoiled,
}

/// Whether a series of counters begins with a reply.
enum Beginning {
    None,
    /// The reflector has counted this session from its first request on.
    FirstContact,
    /// Other counters came before, so these say nothing about the probes before this number.
    Anew {
        from: u32,
    },
}

/// The latest request that was answered, in the reflector's order, and the counters then.
#[derive(Clone, Copy, Debug, Default)]
struct Latest {
    seq: u32,
    received: u32,
    duplicates: u32,
    corrupt: u32,
    refused: u32,
}

impl Evidence {
    /// None yet; `first` is the first sequence number that will be sent.
    pub fn new(first: u32) -> Self {
        let before = first.wrapping_sub(1);
        Self {
            basis: Basis::Nothing,
            latest: Latest {
                seq: before,
                ..Latest::default()
            },
            tally: Tally::default(),
            top: before,
            overtaken: 0,
            named: 0,
            answers: Recent::default(),
            ripening: Ripening::new(before),
        }
    }

    /// As if `count` requests had been answered before `first`, so that tests need not send them to see counters wrap.
    #[cfg(test)]
    pub fn after(first: u32, count: u32) -> Self {
        let mut evidence = Self::new(first);
        evidence.latest.received = count;
        evidence.tally = Tally::after(count);
        evidence
    }

    /// The highest sequence number with a reply.
    pub const fn top(&self) -> u32 {
        self.top
    }

    /// Takes in a reply to a probe in `flight`.
    pub fn handle_reply(
        &mut self,
        event: &ReplyEvent,
        flight: &mut Flight,
        now: MonoNanos,
    ) -> Advance {
        let top = self.top;
        let counts = event.flags & EventFlags::TLV != 0 && event.tlv_flags & DtFlags::STATEFUL != 0;
        let advance = if counts {
            self.handle_counters(event, flight)
        } else {
            self.handle_number(event, flight)
        };
        if self.top != top {
            self.ripening.handle_rise(now);
        }
        advance
    }

    /// Lets evidence settle.
    pub fn handle_time(&mut self, now: MonoNanos, settle_ns: u64) {
        self.ripening.handle_time(self.top, now, settle_ns);
    }

    /// A window with this many replies has ended.
    pub fn handle_window_end(&mut self, replies: u32, flight: &Flight) {
        self.tally.write_off(replies, flight);
        // Reordering ends some day; the bounds of credits become narrow again.
        self.overtaken /= 2;
    }

    /// On which side a missing probe was lost. Probes must be asked for in the order of their numbers, each once.
    pub fn side(&mut self, seq: u32, flight: &mut Flight) -> Side {
        let Some(probe) = flight.get(seq) else {
            return Side::Unknown;
        };
        let marks = probe.marks;
        if marks.has(Marks::SEEN) {
            return Side::Return;
        }
        if marks.has(Marks::ORPHANED) {
            return Side::Restarted;
        }
        if marks.has(Marks::UNSEEN) {
            return Side::Forward;
        }
        if !is_below(seq, self.top) {
            self.tally.give_up_blindly();
            return Side::Unknown;
        }
        if !self.is_conclusive() {
            return Side::Unknown;
        }
        if is_covered(seq, flight) {
            return Side::Forward;
        }
        let side = self.tally.claim();
        if side == Side::Return {
            self.know(seq, flight);
        }
        side
    }

    /// Whether the evidence about `seq` has settled.
    pub const fn is_ripe(&self, seq: u32) -> bool {
        self.is_conclusive() && self.ripening.is_past(seq)
    }

    /// When the evidence about `seq` may have settled; `None` while there is none.
    pub fn ripe_at(&self, seq: u32, settle_ns: u64) -> Option<MonoNanos> {
        if self.is_conclusive() && is_below(seq, self.top) {
            Some(self.ripening.past_at(seq, settle_ns))
        } else {
            None
        }
    }

    /// Whether the basis tells directions at all.
    const fn is_conclusive(&self) -> bool {
        match self.basis {
            Basis::Counters { .. } => true,
            Basis::Numbers { proven, .. } => proven,
            Basis::Nothing | Basis::Spoiled => false,
        }
    }

    fn handle_counters(&mut self, event: &ReplyEvent, flight: &mut Flight) -> Advance {
        let beginning = match self.basis {
            Basis::Counters { epoch, .. } if epoch == event.epoch => Beginning::None,
            Basis::Counters { previous, .. } if previous == Some(event.epoch) => {
                // From before the restart: its names are still true, its counters are of no use any more.
                note_straggler(event, flight);
                return Advance::default();
            }
            Basis::Nothing => Beginning::FirstContact,
            Basis::Counters { .. } => Beginning::Anew { from: event.seq },
            Basis::Numbers { .. } | Basis::Spoiled => Beginning::Anew { from: self.top },
        };
        self.begin(&beginning, event.epoch, flight);
        self.rise_to(event.seq, u64::BITS, flight);
        let advance = self.advance(event);
        self.name(event.seq, bitmap(event, flight), flight);
        self.mark_witness(event, flight);
        match beginning {
            Beginning::None | Beginning::FirstContact => self.tally.weigh(),
            Beginning::Anew { .. } => self.tally.begin_here(),
        }
        advance
    }

    fn begin(&mut self, beginning: &Beginning, epoch: u32, flight: &mut Flight) {
        let previous = match (beginning, self.basis) {
            (Beginning::None, _) => return,
            (_, Basis::Counters { epoch, .. }) => Some(epoch),
            (_, Basis::Nothing | Basis::Numbers { .. } | Basis::Spoiled) => None,
        };
        if let Beginning::Anew { from } = *beginning {
            self.part_from(from, flight);
        }
        self.basis = Basis::Counters { epoch, previous };
    }

    /// Decides what only the evidence of the old counters can decide. Whatever was sent since is nobody's loss.
    fn part_from(&mut self, new_seq: u32, flight: &mut Flight) {
        let waiting: Vec<u32> = flight.waiting_before(later(self.top, new_seq)).collect();
        for seq in waiting {
            let side = if is_below(seq, self.top) {
                self.side(seq, flight)
            } else {
                Side::Restarted
            };
            let mark = match side {
                Side::Forward => Marks::UNSEEN,
                Side::Return => Marks::SEEN,
                Side::Restarted | Side::Unknown => Marks::ORPHANED,
            };
            if let Some(probe) = flight.get_mut(seq) {
                probe.marks.set(mark);
            }
        }
        self.latest = Latest {
            seq: self.top,
            ..Latest::default()
        };
        self.tally = Tally::default();
        self.answers = Recent::default();
    }

    /// Takes the counters of a request that the reflector answered after all others so far.
    fn advance(&mut self, event: &ReplyEvent) -> Advance {
        let copied = event.tlv_flags & DtFlags::DUPLICATE != 0;
        let duplicate_return = copied && self.answers.repeats(event.received);
        let last = self.latest;
        if !is_below(last.received, event.received) {
            return Advance {
                duplicate_return,
                ..Advance::default()
            };
        }
        self.latest = Latest {
            seq: event.seq,
            received: event.received,
            duplicates: later(last.duplicates, event.duplicates),
            corrupt: later(last.corrupt, event.corrupt),
            refused: later(last.refused, event.refused),
        };
        self.tally
            .count(event.received.wrapping_sub(self.latest.duplicates));
        let (after, before) = self.bounds(last.seq, event.seq);
        Advance {
            duplicate_forward: rise(last.duplicates, event.duplicates),
            duplicate_return,
            corrupt: rise(last.corrupt, event.corrupt),
            refused: rise(last.refused, event.refused),
            after,
            before,
        }
    }

    /// Between which numbers a request lies that arrived between these two: exactly, or as loosely as requests overtake.
    /// That the two themselves lie between does no harm, for they were answered.
    fn bounds(&mut self, last: u32, seq: u32) -> (u32, u32) {
        if is_below(seq, last) {
            let overtaken = last.wrapping_sub(seq).min(u64::BITS);
            self.overtaken = self.overtaken.max(overtaken);
        }
        (
            earlier(last, seq).wrapping_sub(self.overtaken + 1),
            later(last, seq).wrapping_add(self.overtaken + 1),
        )
    }

    fn handle_number(&mut self, event: &ReplyEvent, flight: &mut Flight) -> Advance {
        self.follow_series(event);
        let Basis::Numbers { base, .. } = self.basis else {
            return Advance::default();
        };
        let repeated = self.answers.repeats(event.reflector_seq);
        self.rise_to(event.seq, 1, flight);
        let received = event.reflector_seq.wrapping_add(1);
        if is_below(self.latest.received, received) {
            (self.latest.seq, self.latest.received) = (event.seq, received);
            self.tally.count(received.wrapping_sub(base));
        }
        self.tally.know(u32::from(!repeated));
        self.tally.weigh();
        let answered = flight
            .get(event.seq)
            .is_some_and(|probe| probe.marks.has(Marks::ANSWERED));
        Advance {
            // A second number for one probe is a second request.
            duplicate_forward: u32::from(answered && !repeated),
            ..Advance::default()
        }
    }

    /// Finds out whether the reflector's numbers are a count, a copy of ours, or neither.
    fn follow_series(&mut self, event: &ReplyEvent) {
        let number = event.reflector_seq;
        self.basis = match self.basis {
            // A counter that is ahead of the first answered probe counted an earlier life; one behind has seen loss.
            Basis::Nothing => {
                let base = rise(event.seq, number);
                self.latest.received = base;
                Basis::Numbers {
                    base,
                    source_port: event.source_port,
                    proven: number != event.seq,
                }
            }
            Basis::Numbers { source_port, .. }
                if source_port != event.source_port || self.begins_anew(event) =>
            {
                Basis::Spoiled
            }
            Basis::Numbers {
                base,
                source_port,
                proven,
            } => Basis::Numbers {
                base,
                source_port,
                proven: proven || number != event.seq,
            },
            // One odd reply is no reason to forget counters.
            Basis::Counters { .. } | Basis::Spoiled => self.basis,
        };
    }

    fn begins_anew(&self, event: &ReplyEvent) -> bool {
        let number = event.reflector_seq;
        is_below(self.top, event.seq)
            && is_below(number.wrapping_add(u64::BITS), self.latest.received)
    }

    /// Follows the highest answered number; a reply to it covers the last `reach` numbers.
    fn rise_to(&mut self, seq: u32, reach: u32, flight: &Flight) {
        if !is_below(self.top, seq) {
            return;
        }
        let ahead = seq.wrapping_sub(self.top);
        self.named = self.named.checked_shr(ahead).unwrap_or(0);
        self.top = seq;
        if ahead > reach {
            self.tally.open_gap(seq.wrapping_sub(reach), flight);
        } else {
            self.tally.close_up();
        }
    }

    fn name(&mut self, seq: u32, bitmap: u64, flight: &mut Flight) {
        let behind = self.top.wrapping_sub(seq);
        if behind >= u64::BITS {
            self.name_one_by_one(seq, bitmap, flight);
            return;
        }
        let fresh = (bitmap >> behind) & !self.named;
        self.named |= fresh;
        self.tally.know(fresh.count_ones());
        mark_seen(self.top, fresh, flight);
        if behind > 0 {
            let below = self.top.wrapping_sub(u64::BITS);
            self.name_one_by_one(below, bitmap << (u64::BITS - behind), flight);
        }
    }

    /// Names below the reach of `named`, where the probes themselves must remember.
    fn name_one_by_one(&mut self, newest: u32, bitmap: u64, flight: &mut Flight) {
        for back in set_bits(bitmap) {
            self.know(newest.wrapping_sub(back), flight);
        }
    }

    fn know(&mut self, seq: u32, flight: &mut Flight) {
        let Some(probe) = flight.get_mut(seq) else {
            return;
        };
        if !probe.marks.has(Marks::SEEN) {
            probe.marks.set(Marks::SEEN);
            self.tally.know(1);
        }
    }

    /// From now on what the reply's bitmap leaves out counts as not seen.
    fn mark_witness(&self, event: &ReplyEvent, flight: &mut Flight) {
        // Far behind the newest request the reflector's ring has already lost some of the numbers before this one.
        let whole = event.seen & NEWEST != 0 && self.top.wrapping_sub(event.seq) < u64::BITS / 2;
        if let Some(probe) = flight.get_mut(event.seq).filter(|_| whole) {
            probe.marks.set(Marks::WITNESS);
        }
    }
}

/// The reflector's bitmap, its own request added, without numbers that were never given out.
fn bitmap(event: &ReplyEvent, flight: &Flight) -> u64 {
    let given = flight.given_up_to(event.seq).min(u64::BITS);
    let mask = u64::MAX.checked_shl(u64::BITS - given).unwrap_or(0);
    (event.seen | NEWEST) & mask
}

/// Whether a bitmap that came with a later reply covers `seq`.
fn is_covered(seq: u32, flight: &Flight) -> bool {
    (1..u64::BITS)
        .map_while(|ahead| flight.get(seq.wrapping_add(ahead)))
        .any(|probe| probe.marks.has(Marks::WITNESS))
}

fn note_straggler(event: &ReplyEvent, flight: &mut Flight) {
    mark_seen(event.seq, bitmap(event, flight), flight);
}

fn mark_seen(newest: u32, bitmap: u64, flight: &mut Flight) {
    for back in set_bits(bitmap) {
        if let Some(probe) = flight.get_mut(newest.wrapping_sub(back)) {
            probe.marks.set(Marks::SEEN);
        }
    }
}

/// How far behind the highest bit each set bit lies, nearest first.
fn set_bits(mut bitmap: u64) -> impl Iterator<Item = u32> {
    std::iter::from_fn(move || {
        let back = bitmap.leading_zeros();
        (back < u64::BITS).then(|| {
            bitmap &= !(NEWEST >> back);
            back
        })
    })
}
