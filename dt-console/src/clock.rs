//! The one place in this crate that reads a clock.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Now, ms unix.
#[expect(clippy::disallowed_methods, reason = "this is the crate's clock")]
pub fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis() as u64)
}

/// A point in time that comes; the wall clock does not move it.
#[derive(Clone, Copy, Debug)]
pub struct Deadline(Option<Instant>);

impl Deadline {
    /// The point that is `limit` from now; with a limit beyond all clocks it never comes.
    #[expect(clippy::disallowed_methods, reason = "this is the crate's clock")]
    pub fn after(limit: Duration) -> Self {
        Self(Instant::now().checked_add(limit))
    }

    /// What is left until then; zero afterwards.
    #[expect(clippy::disallowed_methods, reason = "this is the crate's clock")]
    pub fn left(self) -> Duration {
        self.0.map_or(Duration::MAX, |at| {
            at.saturating_duration_since(Instant::now())
        })
    }

    /// Whether the point lies behind us.
    pub fn has_passed(self) -> bool {
        self.left().is_zero()
    }
}
