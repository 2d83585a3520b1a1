//! Numbers that wrap: order and growth the shorter way round (RFC 1982).

/// Whether `a` comes before `b`.
pub(super) const fn is_below(a: u32, b: u32) -> bool {
    (a.wrapping_sub(b) as i32) < 0
}

/// The later of two.
pub(super) const fn later(a: u32, b: u32) -> u32 {
    if is_below(a, b) { b } else { a }
}

/// The earlier of two.
pub(super) const fn earlier(a: u32, b: u32) -> u32 {
    if is_below(a, b) { a } else { b }
}

/// How far a counter rose; one that fell was read out of order or began anew, and says nothing.
pub(super) const fn rise(before: u32, after: u32) -> u32 {
    if is_below(after, before) {
        0
    } else {
        after.wrapping_sub(before)
    }
}

/// The last 64 numbers of a series, and which of them occurred.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Recent {
    /// Bit 63 stands for `newest`, bit 63-i for the number i before.
    occurred: u64,
    newest: u32,
}

impl Recent {
    /// Notes `number`; whether it had occurred before. A number too old to be known counts as new.
    pub const fn repeats(&mut self, number: u32) -> bool {
        if self.occurred == 0 || is_below(self.newest, number) {
            let ahead = number.wrapping_sub(self.newest);
            let kept = if ahead < u64::BITS {
                self.occurred >> ahead
            } else {
                0
            };
            (self.occurred, self.newest) = (kept | NEWEST, number);
            return false;
        }
        let behind = self.newest.wrapping_sub(number);
        if behind >= u64::BITS {
            return false;
        }
        let bit = NEWEST >> behind;
        let before = self.occurred & bit != 0;
        self.occurred |= bit;
        before
    }
}

/// The bit of the newest number in a bitmap of the last 64.
pub(super) const NEWEST: u64 = 1 << 63;
