//! A thread that keeps the offset right: it wakes when the wall clock is set, and once a second anyway.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use rustix::io::{Errno, read as read_fd};
use rustix::time::{
    ClockId, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, clock_gettime,
    timerfd_create, timerfd_settime,
};

use super::{ClockState, ClockTracker, SharedClock, read};

/// Why the wall clock cannot be watched.
#[derive(Debug, thiserror::Error)]
pub enum ClockError {
    /// The timer that tells of steps could not be made.
    #[error("cannot make a timer that tells of steps of the wall clock")]
    Timer(#[source] io::Error),
    /// The watching thread could not be started.
    #[error("cannot start the thread that watches the wall clock")]
    Thread(#[source] io::Error),
}

/// Watches the wall clock until it is dropped; the thread then ends within a second.
#[derive(Debug)]
pub struct ClockWatch {
    shared: SharedClock,
    stopped: Arc<AtomicBool>,
}

impl ClockWatch {
    /// Reads the clock, publishes it, and goes on doing so from a thread of its own.
    ///
    /// `published` is what an earlier agent left behind, if any. `publish` gets each state in turn, the first ones before
    /// this returns; it must not block for long, because a step is known to others only when it returned.
    ///
    /// # Errors
    /// No timer or no thread is to be had.
    pub fn start(
        published: Option<ClockState>,
        mut publish: impl FnMut(ClockState) + Send + 'static,
    ) -> Result<Self, ClockError> {
        let timer = timerfd_create(TimerfdClockId::Realtime, TimerfdFlags::CLOEXEC)
            .map_err(|errno| ClockError::Timer(errno.into()))?;
        arm(&timer).map_err(ClockError::Timer)?;
        let first = read();
        let mut tracker = match published {
            Some(published) => ClockTracker::resume(published, &first),
            None => ClockTracker::new(&first),
        };
        let shared = SharedClock::new(tracker.state());
        drain(&mut tracker, &shared, &mut publish);
        let stopped = Arc::new(AtomicBool::new(false));
        let watch = Self {
            shared: shared.clone(),
            stopped: Arc::clone(&stopped),
        };
        thread::Builder::new()
            .name("dt-clock".into())
            .spawn(move || watch_steps(&timer, &mut tracker, &shared, &mut publish, &stopped))
            .map_err(ClockError::Thread)?;
        Ok(watch)
    }

    /// The clock as it is now and will be.
    #[must_use]
    pub fn clock(&self) -> SharedClock {
        self.shared.clone()
    }
}

impl Drop for ClockWatch {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
    }
}

fn watch_steps(
    timer: &OwnedFd,
    tracker: &mut ClockTracker,
    shared: &SharedClock,
    publish: &mut impl FnMut(ClockState),
    stopped: &AtomicBool,
) {
    while !stopped.load(Ordering::Relaxed) {
        // ECANCELED means the clock was set, success that a second passed: both end in a new reading.
        let mut expirations = [0; 8];
        match read_fd(timer, &mut expirations) {
            Ok(_) | Err(Errno::CANCELED | Errno::INTR) => {}
            Err(error) => {
                return tracing::error!(%error, "Steps of the wall clock go unnoticed: its timer failed.");
            }
        }
        // Armed before reading, so that a step after the reading still wakes us.
        if let Err(error) = arm(timer) {
            return tracing::error!(%error, "Steps of the wall clock go unnoticed: its timer cannot be set.");
        }
        tracker.handle_reading(&read());
        drain(tracker, shared, publish);
    }
}

fn drain(tracker: &mut ClockTracker, shared: &SharedClock, publish: &mut impl FnMut(ClockState)) {
    while let Some(state) = tracker.poll_state() {
        shared.set(state);
        publish(state);
    }
}

/// Lets the timer fire in a second, or at once when the wall clock is set (`TFD_TIMER_CANCEL_ON_SET`, Linux 3.0).
fn arm(timer: &OwnedFd) -> io::Result<()> {
    let now = clock_gettime(ClockId::Realtime);
    let in_a_second = Itimerspec {
        it_interval: Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        },
        it_value: Timespec {
            tv_sec: now.tv_sec + 1,
            tv_nsec: now.tv_nsec,
        },
    };
    let flags = TimerfdTimerFlags::ABSTIME | TimerfdTimerFlags::CANCEL_ON_SET;
    timerfd_settime(timer, flags, &in_a_second)?;
    Ok(())
}
