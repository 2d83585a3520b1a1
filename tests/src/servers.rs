//! Real servers, ZooKeeper and Kafka, for tests and for the demo.
//!
//! ```no_run
//! use dt_tests::Lab;
//! use dt_tests::servers::{Place, kafka, zookeeper};
//!
//! # fn main() -> anyhow::Result<()> {
//! let lab = Lab::empty()?;
//! let place = Place::local(&lab);
//! let zookeeper = zookeeper::Options::given()?.start(&place)?;
//! let mut kafka = kafka::Options::given()?.start(&place)?;
//! kafka.create_topic("_distributedTrace", 1, &[])?;
//! kafka.freeze()?;
//! # Ok(())
//! # }
//! ```
//!
//! A server runs on this machine or on a host of a lab, on ports that the kernel chose and that stay its own while it is
//! down. Its files are in a directory of the lab. It dies when it is dropped, and with the thread that started it.

mod java;
pub mod kafka;
mod place;
mod port;
mod server;
pub mod zookeeper;

pub use kafka::Kafka;
pub use place::Place;
pub use server::{Kind, Server};
pub use zookeeper::{Ensemble, ZooKeeper};
