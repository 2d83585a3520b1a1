//! A topic of a test, and what is written into it.

use std::time::Duration;

use anyhow::{Result, anyhow};
use dt_feed::Histogram;
use dt_feed::proto::{Batch, Counters, Method, Mode, Peer, PeerState, StampSource, Window};
use prost::Message as _;
use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};

/// A topic with a producer of its own, which makes it by the first message.
pub struct Topic {
    name: String,
    producer: BaseProducer,
}

impl Topic {
    pub fn new(broker: &str, name: &str) -> Result<Self> {
        let producer = ClientConfig::new()
            .set("bootstrap.servers", broker)
            .set("linger.ms", "1")
            .create()?;
        Ok(Self {
            name: name.to_owned(),
            producer,
        })
    }

    /// Sends a batch under its source, as agents do; with the time of the message, ms unix, if it matters.
    pub fn send(&self, batch: &Batch, time_ms: Option<u64>) -> Result<()> {
        let bytes = batch.encode_to_vec();
        let mut record = BaseRecord::to(&self.name)
            .key(&batch.source)
            .payload(&bytes);
        if let Some(time_ms) = time_ms {
            record = record.timestamp(i64::try_from(time_ms)?);
        }
        self.producer
            .send(record)
            .map_err(|(error, _)| anyhow!(error))
    }

    /// Sends anything to a partition.
    pub fn send_bytes(&self, bytes: &[u8], partition: Option<i32>) -> Result<()> {
        let mut record = BaseRecord::<(), [u8]>::to(&self.name).payload(bytes);
        record.partition = partition;
        self.producer
            .send(record)
            .map_err(|(error, _)| anyhow!(error))
    }

    /// Waits until the broker has it all.
    pub fn flush(&self) -> Result<()> {
        Ok(self.producer.flush(Duration::from_secs(30))?)
    }
}

/// A batch with the names of `n1` to `n3`, and a window about each of them that is not its source, or about the last two:
/// ten probes, nine of them back after 5 us but one after 9 us, one lost on the way back.
pub fn batch(source: &str, rack: &str, sequence: u64, end_unix_ns: u64) -> Batch {
    let names = [("n1", "r1"), ("n2", "r1"), ("n3", "r2")];
    let peer = |(index, (name, rack)): (usize, &(&str, &str))| {
        Peer::new(index as u32, name, [10, 0, 0, index as u8].into(), "", rack)
    };
    let own = names
        .iter()
        .position(|(name, _)| *name == source)
        .unwrap_or(0);
    let others = (0..names.len()).filter(|index| *index != own);
    Batch {
        source: source.to_owned(),
        source_rack: rack.to_owned(),
        start_id: 0xC0,
        sequence,
        closed_unix_ns: end_unix_ns,
        peers: names.iter().enumerate().map(peer).collect(),
        windows: others
            .map(|index| window(index as u32, end_unix_ns))
            .collect(),
        ..Batch::default()
    }
}

fn window(peer: u32, end_unix_ns: u64) -> Window {
    let rtt: Histogram = [5_000; 8].into_iter().chain([9_000]).collect();
    Window {
        peer,
        start_unix_ns: end_unix_ns - 1_000_000_000,
        end_unix_ns,
        method: Some(Method::of(
            Mode::Xdp,
            StampSource::TcEgress,
            StampSource::Xdp,
            StampSource::Xdp,
        )),
        peer_state: PeerState::Alive.into(),
        counters: Some(Counters {
            sent: 10,
            received: 9,
            lost_return: 1,
            ..Counters::default()
        }),
        rtt: Some((&rtt).into()),
        ..Window::default()
    }
}
