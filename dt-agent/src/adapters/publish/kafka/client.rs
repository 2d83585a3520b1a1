//! What librdkafka is told, and what it tells.

use std::sync::Mutex;
use std::sync::mpsc::Sender;

use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, DeliveryResult, ProducerContext};

use super::{KafkaSettings, lock};
use crate::adapters::clock;
use crate::engine::outbox::Ticket;

/// A producer that reports by events.
pub(super) type Producer = BaseProducer<Reports>;

/// What came from the client library, or from the thread that looks after the topic.
#[derive(Debug)]
pub(super) enum Event {
    /// The broker has written this batch.
    Written(Ticket),
    /// It did not, and why.
    Unwritten(Ticket, RDKafkaErrorCode),
    /// Something is wrong; the library goes on trying.
    Trouble(Trouble),
    /// The library gave up.
    Fatal,
    /// The topic is there, as this attempt to connect found out.
    TopicReady(u64),
}

/// Something that keeps batches from being taken.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Trouble {
    /// Two troubles of one key are the same.
    pub key: String,
    /// For the operator: what and where.
    pub text: String,
    /// It does not pass by itself within seconds, as a restarted broker does.
    pub is_definite: bool,
}

/// Hands what the library says to the publishing thread.
#[derive(Debug)]
pub(super) struct Reports {
    events: Sender<Event>,
    lines: Mutex<Lines>,
}

/// Lines of the library's log in the present second.
#[derive(Debug, Default)]
struct Lines {
    second: u64,
    count: u32,
}

impl Reports {
    pub fn new(events: Sender<Event>) -> Self {
        Self {
            events,
            lines: Mutex::default(),
        }
    }

    fn tell(&self, event: Event) {
        // Nobody is left to listen while the process ends.
        let _ = self.events.send(event);
    }

    /// Whether this line may be shown.
    fn admits_line(&self) -> bool {
        let second = clock::now().0 / 1_000_000_000;
        let mut lines = lock(&self.lines);
        if lines.second != second {
            *lines = Lines { second, count: 0 };
        }
        lines.count += 1;
        lines.count <= LINES_A_SECOND
    }
}

impl ClientContext for Reports {
    /// What matters comes as an error or as a delivery too, so this is for those who look closely.
    fn log(&self, level: RDKafkaLogLevel, fac: &str, log_message: &str) {
        if self.admits_line() {
            tracing::debug!(?level, "librdkafka: {fac}: {log_message}");
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::Fatal) => self.tell(Event::Fatal),
            // Each broker's own trouble has been told.
            Some(RDKafkaErrorCode::AllBrokersDown) => {}
            code => self.tell(Event::Trouble(Trouble {
                key: format!("{code:?}"),
                text: shorten(reason).to_owned(),
                is_definite: code.is_some_and(is_definite),
            })),
        }
    }
}

impl ProducerContext for Reports {
    type DeliveryOpaque = usize;

    fn delivery(&self, delivery_result: &DeliveryResult<'_>, ticket: usize) {
        let ticket = Ticket(ticket as u64);
        match delivery_result {
            Ok(_) => self.tell(Event::Written(ticket)),
            Err((error, message)) => {
                let code = error.rdkafka_error_code();
                tracing::debug!(
                    ?code,
                    bytes = message.payload_len(),
                    "Kafka did not take a batch."
                );
                self.tell(Event::Unwritten(
                    ticket,
                    code.unwrap_or(RDKafkaErrorCode::Fail),
                ));
            }
        }
    }
}

/// The library's settings: ours, and over them the operator's.
pub(super) fn config(settings: &KafkaSettings) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", settings.servers.join(","));
    for (key, value) in OURS {
        config.set(*key, *value);
    }
    for (key, value) in &settings.properties {
        config.set(key, value);
    }
    let is_debugged = settings.properties.iter().any(|(key, _)| key == "debug");
    config.set_log_level(if is_debugged {
        RDKafkaLogLevel::Debug
    } else {
        RDKafkaLogLevel::Info
    });
    config
}

/// Whether the broker will never take this message.
pub(super) const fn is_rejection(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::MessageSizeTooLarge
            | RDKafkaErrorCode::InvalidMessageSize
            | RDKafkaErrorCode::InvalidMessage
            | RDKafkaErrorCode::InvalidRecord
    )
}

/// Whether a message comes back only because its client was given up.
pub(super) const fn is_withdrawal(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::PurgeQueue
            | RDKafkaErrorCode::PurgeInflight
            | RDKafkaErrorCode::Fatal
            | RDKafkaErrorCode::GaplessGuarantee
    )
}

const fn is_definite(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::Authentication
            | RDKafkaErrorCode::SSL
            | RDKafkaErrorCode::ClusterAuthorizationFailed
            | RDKafkaErrorCode::TopicAuthorizationFailed
            | RDKafkaErrorCode::SaslAuthenticationFailed
    )
}

/// Without what changes from time to time: "(after 3ms in state CONNECT, 5 identical error(s) suppressed)".
fn shorten(reason: &str) -> &str {
    reason.split(" (after ").next().unwrap_or(reason)
}

const OURS: &[(&str, &str)] = &[
    ("client.id", "dt-agent"),
    ("enable.idempotence", "true"),
    // Any failure of one message is then fatal for the client: nothing overtakes it.
    ("enable.gapless.guarantee", "true"),
    // The library never gives up a message by itself: the outbox bounds what it holds.
    ("message.timeout.ms", "0"),
    ("compression.type", "zstd"),
    ("linger.ms", "20"),
    // As the Java client does it, so that other producers of the same keys agree.
    ("partitioner", "murmur2"),
    ("allow.auto.create.topics", "false"),
    ("topic.metadata.propagation.max.ms", "5000"),
    // A broker that vanished without a word is given up after this, and one that is back is found as soon.
    ("socket.timeout.ms", "10000"),
    ("reconnect.backoff.max.ms", "2000"),
    ("socket.keepalive.enable", "true"),
    ("enable.metrics.push", "false"),
    ("log.connection.close", "false"),
];
const LINES_A_SECOND: u32 = 20;
