//! A Kafka broker that is its own controller, and what an administrator does with it.

mod admin;
mod disk;
mod request;
mod settings;

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::java::Java;
use super::place::Place;
use super::port::Port;
use super::server::{self, Kind, Server};
use crate::given;
use crate::process::Proc;

/// One Kafka broker.
pub type Kafka = Server<Broker>;

/// How a broker will be started.
#[derive(Clone, Debug)]
pub struct Options {
    libs: PathBuf,
    heap_mb: u32,
    optimised: bool,
    disk_mb: Option<u32>,
    users: Vec<(String, String)>,
    lines: Vec<String>,
}

impl Options {
    /// Topics are created by whoever asks for them, as in Kafka's own defaults; no passwords, the lab's disk.
    ///
    /// `libs` is the directory with Kafka's jars.
    #[must_use]
    pub fn new(libs: &Path) -> Self {
        Self {
            libs: libs.to_path_buf(),
            heap_mb: 512,
            optimised: false,
            disk_mb: None,
            users: Vec::new(),
            lines: Vec::new(),
        }
    }

    /// With the jars that `cargo xtask test` names.
    pub fn given() -> Result<Self> {
        Ok(Self::new(&given::kafka_libs()?))
    }

    /// Another line of its settings, such as `auto.create.topics.enable=false`, `message.max.bytes=…` or
    /// `log.retention.ms=…`; the last one of a name counts.
    #[must_use]
    pub fn line(mut self, line: impl Into<String>) -> Self {
        self.lines.push(line.into());
        self
    }

    /// A user with a password, by SASL PLAIN at [`Kafka::sasl_address`]. From the first one on, users may do what
    /// [`Kafka::allow`] says and nothing else; whoever comes by [`Kafka::address`] may still do everything.
    #[must_use]
    pub fn user(mut self, name: &str, password: &str) -> Self {
        self.users.push((name.to_owned(), password.to_owned()));
        self
    }

    /// A disk of its own of so many MB, in memory: one that gets full.
    #[must_use]
    pub fn disk_mb(mut self, disk_mb: u32) -> Self {
        self.disk_mb = Some(disk_mb);
        self
    }

    /// For measurements: fast code and so much heap, at the price of a slow start.
    #[must_use]
    pub fn for_load(mut self, heap_mb: u32) -> Self {
        self.heap_mb = heap_mb;
        self.optimised = true;
        self
    }

    /// Starts a broker and waits until it serves.
    pub fn start(&self, place: &Place) -> Result<Kafka> {
        let mut kafka = self.launch(place)?;
        kafka.wait_until_ready()?;
        Ok(kafka)
    }

    /// Starts a broker and does not wait.
    pub fn launch(&self, place: &Place) -> Result<Kafka> {
        let mut kafka = self.prepare(place)?;
        kafka.launch()?;
        Ok(kafka)
    }

    /// A broker that does not run yet, and whose address nobody else gets.
    pub fn prepare(&self, place: &Place) -> Result<Kafka> {
        let broker = Broker {
            options: self.clone(),
            clients: place.reserve_port()?,
            sasl: place.reserve_port()?,
            controller: place.reserve_port()?,
        };
        let kafka = Server::new("kafka", place, broker)?;
        if let Some(disk_mb) = self.disk_mb {
            disk::mount(&server::data_dir(kafka.dir()), disk_mb)?;
        }
        Ok(kafka)
    }
}

/// What makes a server a Kafka broker.
#[derive(Debug)]
pub struct Broker {
    options: Options,
    clients: Port,
    sasl: Port,
    controller: Port,
}

impl Broker {
    fn java(&self, dir: &Path) -> Java {
        Java {
            class_path: self.options.libs.join("*").display().to_string(),
            heap_mb: self.options.heap_mb,
            flags: vec![format!(
                "-Dlog4j2.configurationFile={}",
                dir.join(LOGGING).display()
            )],
            optimised: self.options.optimised,
        }
    }

    /// A command for one of Kafka's own classes, with its talk on standard output.
    fn tool(&self, place: &Place, dir: &Path, class: &str) -> Result<Command> {
        let mut java = self.java(dir);
        java.optimised = false;
        java.command(place, dir, class)
    }

    fn is_formatted(dir: &Path) -> bool {
        server::data_dir(dir).join("meta.properties").is_file()
    }
}

impl Kind for Broker {
    fn prepare(&self, place: &Place, dir: &Path) -> Result<()> {
        fs::create_dir_all(server::data_dir(dir))?;
        fs::write(dir.join(SETTINGS), settings::text(self, dir))?;
        fs::write(dir.join(LOGGING), LOGGING_TEXT)?;
        if Self::is_formatted(dir) {
            return Ok(());
        }
        let mut format = self.tool(place, dir, "kafka.tools.StorageTool")?;
        format.args(["format", "--cluster-id", CLUSTER_ID, "--config", SETTINGS]);
        admin::run(&mut format).context("cannot format Kafka's data directory")?;
        Ok(())
    }

    fn command(&self, place: &Place, dir: &Path) -> Result<Command> {
        let mut command = self.java(dir).command(place, dir, "kafka.Kafka")?;
        command.arg(SETTINGS);
        Ok(command)
    }

    fn wait_until_ready(&self, place: &Place, process: &mut Proc, limit: Duration) -> Result<()> {
        process.wait_for_line("Kafka Server started", limit)?;
        if !place.enter(|| request::is_answered(self.clients.address()))? {
            bail!("it says that it started and does not answer");
        }
        Ok(())
    }

    fn address(&self) -> SocketAddr {
        self.clients.address()
    }
}

/// Any 16 bytes in base 64 for the web: each broker is a cluster of its own.
const CLUSTER_ID: &str = "ZGlzdHJpYnV0ZWQtdHJhYw";
const SETTINGS: &str = "server.properties";
const LOGGING: &str = "log4j2.properties";
const LOGGING_TEXT: &str = "\
rootLogger.level=INFO
rootLogger.appenderRef.console.ref=console
appender.console.type=Console
appender.console.name=console
appender.console.target=SYSTEM_ERR
appender.console.layout.type=PatternLayout
appender.console.layout.pattern=%d{ISO8601} %-5p %c{1} %m%n
";
