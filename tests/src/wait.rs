//! Waiting for an event with a limit; the only place in this crate that reads a clock.

use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Result, bail};

/// Asks `event` until it returns something, at most for `limit`.
///
/// `what` completes the sentence "no … within 5 s".
pub fn until<T>(
    what: &str,
    limit: Duration,
    mut event: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let deadline = Deadline::after(limit);
    let mut pause = Duration::from_millis(1);
    loop {
        if let Some(value) = event()? {
            return Ok(value);
        }
        if deadline.has_passed() {
            bail!("no {what} within {limit:?}");
        }
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}

/// The time as feeds have it, ns unix.
#[expect(clippy::disallowed_methods, reason = "this is the crate's clock")]
pub fn unix_now_ns() -> Result<u64> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH)?;
    Ok(u64::try_from(since.as_nanos())?)
}

/// A point in time that comes.
#[derive(Clone, Copy, Debug)]
pub struct Deadline(Instant);

impl Deadline {
    /// The point that is `limit` from now.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is the crate's clock")]
    pub fn after(limit: Duration) -> Self {
        Self(Instant::now() + limit)
    }

    /// What is left until then; zero afterwards.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is the crate's clock")]
    pub fn left(&self) -> Duration {
        self.0.saturating_duration_since(Instant::now())
    }

    /// Whether the point lies behind us.
    #[must_use]
    pub fn has_passed(&self) -> bool {
        self.left().is_zero()
    }
}
