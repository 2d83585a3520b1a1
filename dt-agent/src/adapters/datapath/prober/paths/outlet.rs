//! The sockets of one way, of which one may change its port, and whoever listens at them.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use dt_common::time::MonoNanos;

use super::PathError;
use crate::adapters::clock::SharedClock;
use crate::adapters::datapath::socket::{
    Collector, CollectorError, ProbeSocket, ProbeSockets, Received,
};

/// Sockets to send by, and the replies that came up to them.
pub(super) struct Outlet {
    pub sockets: ProbeSockets,
    pub received: Mailbox,
    /// By which replies are timed; none where nobody listens, because programs take them.
    clock: Option<SharedClock>,
    _staying: Option<Collector>,
    changing: Ear,
    retired: VecDeque<Retired>,
}

/// Sockets, and who listens at them. They are closed once he is gone.
#[derive(Default)]
struct Ear {
    _collector: Option<Collector>,
    sockets: Vec<Arc<ProbeSocket>>,
}

/// The sockets of a port whose turn is over, while replies may be on their way to it.
struct Retired {
    until: MonoNanos,
    _ear: Ear,
}

impl Outlet {
    /// Listens at the sockets if there is a clock.
    pub fn new(sockets: ProbeSockets, clock: Option<SharedClock>) -> Result<Self, CollectorError> {
        let received = Mailbox::default();
        let listen = |at: &[Arc<ProbeSocket>]| match &clock {
            Some(clock) if !at.is_empty() => received.collect(&sockets, at, clock).map(Some),
            _ => Ok(None),
        };
        let changing = sockets.changing();
        let (staying, collector) = (listen(&sockets.staying())?, listen(&changing)?);
        Ok(Self {
            received: received.clone(),
            _staying: staying,
            changing: Ear {
                _collector: collector,
                sockets: changing,
            },
            retired: VecDeque::new(),
            sockets,
            clock,
        })
    }

    /// Changes the port that changes, if its time has come, and keeps that of before for so long.
    ///
    /// # Errors
    /// No port is free, or nobody can listen.
    pub fn rotate(&mut self, keep_ns: u64, now: MonoNanos) -> Result<(), PathError> {
        while self
            .retired
            .pop_front_if(|first| first.until <= now)
            .is_some()
        {}
        if self.sockets.rotate(now)?.is_empty() {
            return Ok(());
        }
        let sockets = self.sockets.changing();
        let collector = match &self.clock {
            Some(clock) => Some(self.received.collect(&self.sockets, &sockets, clock)?),
            None => None,
        };
        let fresh = Ear {
            _collector: collector,
            sockets,
        };
        let before = std::mem::replace(&mut self.changing, fresh);
        tracing::debug!(
            from = before.port(),
            to = self.changing.port(),
            "The rotating source port changed."
        );
        self.retired.push_back(Retired {
            until: now.plus(keep_ns),
            _ear: before,
        });
        Ok(())
    }
}

impl Ear {
    fn port(&self) -> Option<u16> {
        self.sockets.first().map(|socket| socket.local().port())
    }
}

/// Replies between the collecting threads and the probing one. Bounded: what finds no room is as good as lost in a ring.
#[derive(Clone, Debug, Default)]
pub(super) struct Mailbox(Arc<Mutex<Vec<Received>>>);

impl Mailbox {
    fn collect(
        &self,
        sockets: &ProbeSockets,
        at: &[Arc<ProbeSocket>],
        clock: &SharedClock,
    ) -> Result<Collector, CollectorError> {
        let mailbox = self.clone();
        Collector::start_at(sockets, at, clock.clone(), move |replies: &[Received]| {
            let mut held = mailbox.0.lock().unwrap_or_else(PoisonError::into_inner);
            let room = MAX_HELD.saturating_sub(held.len()).min(replies.len());
            held.extend_from_slice(&replies[..room]);
        })
    }

    /// Takes everything, in exchange for the memory of `into`, which is cleared.
    pub fn swap(&self, into: &mut Vec<Received>) {
        into.clear();
        std::mem::swap(
            &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner),
            into,
        );
    }
}

const MAX_HELD: usize = 65_536;
