//! One client of Kafka after the other: opened, used until it fails, closed, opened again.
//!
//! ```text
//!   Opening ── topic is there ──> Open ── a message failed, fatal error ──> Closing ── it is gone ──> Waiting ──> Opening
//! ```
//!
//! A client is closed on a thread of its own, because that may wait for a name server. What it had and had not acknowledged is
//! handed over again, to the next one.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use dt_common::time::MonoNanos;
use rdkafka::config::FromClientConfigAndContext as _;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseRecord, Producer as _};

use super::KafkaSettings;
use super::client::{self, Event, Producer, Reports, Trouble};
use super::topic::Search;
use crate::adapters::clock;
use crate::engine::outbox::{Complaints, Failure, Outbox, Parcel, Ticket};

pub(super) struct Link {
    settings: Arc<KafkaSettings>,
    events: Receiver<Event>,
    sender: Sender<Event>,
    state: State,
    attempt: u64,
    backoff_ns: u64,
    /// Why the present client has to go.
    is_broken: bool,
    cause: Option<Trouble>,
    complaints: Complaints,
    rejections: Complaints,
    /// Since when there is no way.
    shut_since: MonoNanos,
}

enum State {
    Opening(Client),
    Open(Client),
    Closing(JoinHandle<()>),
    Waiting { until: MonoNanos },
}

struct Client {
    producer: Arc<Producer>,
    search: JoinHandle<()>,
    is_given_up: Arc<AtomicBool>,
}

impl Link {
    /// Begins to connect.
    pub fn open(settings: KafkaSettings) -> Result<Self, KafkaError> {
        let (sender, events) = channel();
        let settings = Arc::new(settings);
        let client = Client::open(&settings, &sender, 0)?;
        Ok(Self {
            settings,
            events,
            sender,
            state: State::Opening(client),
            attempt: 0,
            backoff_ns: FIRST_BACKOFF_NS,
            is_broken: false,
            cause: None,
            complaints: Complaints::default(),
            rejections: Complaints::default(),
            shut_since: clock::now(),
        })
    }

    /// Waits for events; false at once when there is no client that could have any.
    pub fn wait(&self, limit: Duration) -> bool {
        match &self.state {
            State::Opening(client) | State::Open(client) => {
                client.producer.poll(limit);
                true
            }
            State::Closing(_) | State::Waiting { .. } => false,
        }
    }

    /// Hands one batch to the client.
    pub fn send(&mut self, ticket: Ticket, parcel: &Parcel, outbox: &mut Outbox) {
        let State::Open(client) = &self.state else {
            outbox.handle_failed(ticket, Failure::Again);
            outbox.handle_shut();
            return;
        };
        let record = BaseRecord::with_opaque_to(&self.settings.topic, ticket.0 as usize)
            .key(parcel.source.as_bytes())
            .payload(&parcel.bytes[..]);
        if let Err((error, _)) = client.producer.send(record) {
            let code = error.rdkafka_error_code();
            self.handle_unwritten(ticket, code.unwrap_or(RDKafkaErrorCode::Fail), outbox);
        }
    }

    /// Takes what the client said, and goes on to the next state where that is due.
    pub fn turn(&mut self, outbox: &mut Outbox, now: MonoNanos) {
        while let Ok(event) = self.events.try_recv() {
            self.handle_event(event, outbox, now);
        }
        if self.is_broken {
            self.close(outbox);
        }
        match &self.state {
            State::Closing(thread) if thread.is_finished() => {
                // All that it had to say is in the channel by now.
                while let Ok(event) = self.events.try_recv() {
                    self.handle_event(event, outbox, now);
                }
                self.is_broken = false;
                outbox.handle_closed();
                self.state = State::Waiting {
                    until: now.plus(self.backoff_ns),
                };
                self.backoff_ns = (self.backoff_ns * 2).min(LAST_BACKOFF_NS);
            }
            State::Waiting { until } if now >= *until => self.reopen(now),
            State::Opening(_) | State::Open(_) | State::Closing(_) | State::Waiting { .. } => {}
        }
        self.complain(outbox, now);
    }

    /// Gives up the client at once, for the end of the process.
    pub fn end(self) {
        if let State::Opening(client) | State::Open(client) = self.state {
            client.close();
        }
    }

    fn handle_event(&mut self, event: Event, outbox: &mut Outbox, now: MonoNanos) {
        match event {
            Event::Written(ticket) => {
                outbox.handle_acked(ticket, now);
                self.backoff_ns = FIRST_BACKOFF_NS;
                self.cause = None;
                if let Some(lasted_ns) = self.complaints.handle_well(now) {
                    let lasted = Duration::from_secs(lasted_ns / 1_000_000_000);
                    tracing::info!(topic = %self.settings.topic, ?lasted, spooled_bytes = outbox.shelf_bytes(), "Kafka takes batches again.");
                }
            }
            Event::Unwritten(ticket, code) => self.handle_unwritten(ticket, code, outbox),
            Event::Trouble(trouble) => self.note(trouble),
            Event::Fatal => self.handle_fatal(),
            Event::TopicReady(attempt) if attempt == self.attempt => {
                self.state = match std::mem::replace(&mut self.state, State::Waiting { until: now })
                {
                    State::Opening(client) => {
                        outbox.handle_open(now);
                        State::Open(client)
                    }
                    other => other,
                };
            }
            Event::TopicReady(_) => {}
        }
    }

    fn handle_unwritten(&mut self, ticket: Ticket, code: RDKafkaErrorCode, outbox: &mut Outbox) {
        if client::is_rejection(code) {
            outbox.handle_failed(ticket, Failure::Rejected);
            if self
                .rejections
                .handle_trouble(&format!("{code:?}"), clock::now())
            {
                tracing::error!(topic = %self.settings.topic, %code, "Kafka refuses a batch for good; it is lost, and counted.");
            }
            return;
        }
        outbox.handle_failed(ticket, Failure::Again);
        // At once: what is refused now would be offered again and again until the client is closed.
        outbox.handle_shut();
        self.is_broken = true;
        if !client::is_withdrawal(code) {
            self.note(Trouble {
                key: format!("{code:?}"),
                text: format!("topic {}: {code}", self.settings.topic),
                is_definite: true,
            });
        }
    }

    fn handle_fatal(&mut self) {
        self.is_broken = true;
        let (State::Opening(client) | State::Open(client)) = &self.state else {
            return;
        };
        // A message that failed is told by itself; only that its client ends with it is told here.
        let fatal = client.producer.client().fatal_error();
        if let Some((code, text)) =
            fatal.filter(|(code, _)| *code != RDKafkaErrorCode::GaplessGuarantee)
        {
            self.note(Trouble {
                key: format!("{code:?}"),
                text,
                is_definite: true,
            });
        }
    }

    /// Remembers the cause; what is definite is not replaced by what merely follows from it.
    fn note(&mut self, mut trouble: Trouble) {
        if trouble.key.contains("ClusterAuthorizationFailed") {
            // What an idempotent producer is told that may not write to any topic.
            trouble.text += ": this user needs the right to write to topic ";
            trouble.text += &self.settings.topic;
        }
        let is_less = self
            .cause
            .as_ref()
            .is_some_and(|cause| cause.is_definite && !trouble.is_definite);
        if !is_less {
            self.cause = Some(trouble);
        }
    }

    fn close(&mut self, outbox: &mut Outbox) {
        outbox.handle_shut();
        let state = std::mem::replace(
            &mut self.state,
            State::Waiting {
                until: MonoNanos(u64::MAX),
            },
        );
        self.state = match state {
            State::Opening(client) | State::Open(client) => {
                self.shut_since = clock::now();
                State::Closing(thread::spawn(move || client.close()))
            }
            other => other,
        };
    }

    fn reopen(&mut self, now: MonoNanos) {
        self.attempt += 1;
        self.state = match Client::open(&self.settings, &self.sender, self.attempt) {
            Ok(client) => State::Opening(client),
            Err(error) => {
                self.note(Trouble {
                    key: String::from("create"),
                    text: error.to_string(),
                    is_definite: true,
                });
                State::Waiting {
                    until: now.plus(LAST_BACKOFF_NS),
                }
            }
        };
    }

    /// Says once what keeps batches from being taken.
    fn complain(&mut self, outbox: &Outbox, now: MonoNanos) {
        let silent_ns = if matches!(self.state, State::Open(_)) {
            outbox.stalled_ns(now)
        } else {
            now.since(self.shut_since)
        };
        let is_definite = self.cause.as_ref().is_some_and(|cause| cause.is_definite);
        if silent_ns < SILENCE_NS && !is_definite {
            return;
        }
        let (key, text) = self
            .cause
            .as_ref()
            .map_or(("silent", "no answer"), |cause| (&cause.key, &cause.text));
        if self.complaints.handle_trouble(key, now) {
            let servers = self.settings.servers.join(",");
            let kept = if self.settings.spool_bytes == 0 {
                PathBuf::from("memory only")
            } else {
                self.settings.spool.clone()
            };
            tracing::error!(%servers, topic = %self.settings.topic, kept_in = %kept.display(), spooled_bytes = outbox.shelf_bytes(), "Kafka takes no batches: {text}");
        }
    }
}

impl Client {
    fn open(
        settings: &Arc<KafkaSettings>,
        events: &Sender<Event>,
        attempt: u64,
    ) -> Result<Self, KafkaError> {
        let reports = Reports::new(events.clone());
        let producer = Producer::from_config_and_context(&client::config(settings), reports)?;
        let producer = Arc::new(producer);
        let is_given_up = Arc::new(AtomicBool::new(false));
        let search = Search {
            settings: Arc::clone(settings),
            producer: Arc::clone(&producer),
            attempt,
            events: events.clone(),
            is_given_up: Arc::clone(&is_given_up),
        };
        Ok(Self {
            producer,
            search: thread::spawn(move || search.run()),
            is_given_up,
        })
    }

    /// Takes back what the broker did not acknowledge, as events, and ends the library's threads. May block for seconds.
    fn close(self) {
        self.is_given_up.store(true, Ordering::Relaxed);
        // It holds the producer too, which ends with its last holder.
        let _ = self.search.join();
        drop(self.producer);
    }
}

/// Nothing is said of a broker that is silent for less.
const SILENCE_NS: u64 = 2_000_000_000;
const FIRST_BACKOFF_NS: u64 = 500_000_000;
const LAST_BACKOFF_NS: u64 = 30_000_000_000;
