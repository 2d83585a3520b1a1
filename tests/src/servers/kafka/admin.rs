//! What an administrator does with a broker, by Kafka's own commands. Each takes a second or two.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::{Kafka, disk, request};
use crate::servers::server;

impl Kafka {
    /// Where users with passwords come in.
    #[must_use]
    pub fn sasl_address(&self) -> SocketAddr {
        self.kind.sasl.address()
    }

    /// Whether it answers a request within 2 s.
    #[must_use]
    pub fn answers(&self) -> bool {
        let address = self.address();
        let asked = self.place.enter(|| request::is_answered(address));
        asked.unwrap_or(false)
    }

    /// Makes a topic; `settings` are those of the topic, such as `retention.ms=60000`.
    pub fn create_topic(&self, topic: &str, partitions: u32, settings: &[&str]) -> Result<()> {
        let partitions = partitions.to_string();
        let mut words = vec!["--create", "--topic", topic, "--partitions", &partitions];
        words.extend(settings.iter().flat_map(|setting| ["--config", *setting]));
        self.administer("org.apache.kafka.tools.TopicCommand", &words)?;
        Ok(())
    }

    /// Takes a topic away.
    pub fn delete_topic(&self, topic: &str) -> Result<()> {
        let words = ["--delete", "--topic", topic];
        self.administer("org.apache.kafka.tools.TopicCommand", &words)?;
        Ok(())
    }

    /// The names of all topics.
    pub fn topics(&self) -> Result<Vec<String>> {
        let text = self.administer("org.apache.kafka.tools.TopicCommand", &["--list"])?;
        let names = text.lines().filter(|line| !line.trim().is_empty());
        Ok(names.map(str::to_owned).collect())
    }

    /// By partition of a topic, the offset of the message that comes next.
    pub fn offsets(&self, topic: &str) -> Result<BTreeMap<u32, u64>> {
        let class = "org.apache.kafka.tools.GetOffsetShell";
        let text = self.administer(class, &["--topic", topic])?;
        // TOPIC:PARTITION:OFFSET
        let lines = text.lines().filter(|line| !line.trim().is_empty());
        let offsets: BTreeMap<_, _> = lines
            .map(|line| {
                let mut fields = line.trim().rsplit(':');
                let offset = fields.next().unwrap_or_default().parse();
                let partition = fields.next().unwrap_or_default().parse();
                let both = offset.ok().zip(partition.ok());
                let (offset, partition) = both.with_context(|| format!("no offset: {line:?}"))?;
                Ok((partition, offset))
            })
            .collect::<Result<_>>()?;
        if offsets.is_empty() {
            bail!("there is no topic {topic}");
        }
        Ok(offsets)
    }

    /// Lets a user do `operation` (`Write`, `Describe`, `Create`, …) with a topic.
    pub fn allow(&self, user: &str, operation: &str, topic: &str) -> Result<()> {
        let principal = format!("User:{user}");
        let words = [
            "--add",
            "--allow-principal",
            &principal,
            "--operation",
            operation,
            "--topic",
            topic,
        ];
        self.administer("org.apache.kafka.tools.AclCommand", &words)?;
        Ok(())
    }

    /// Gives the disk of [`Options::disk_mb`](super::Options::disk_mb) another size; what is on it stays.
    pub fn resize_disk(&self, size_mb: u32) -> Result<()> {
        disk::resize(&server::data_dir(self.dir()), size_mb)
    }

    /// Runs one of Kafka's own commands against this broker and returns what it printed.
    pub fn administer(&self, class: &str, words: &[&str]) -> Result<String> {
        let mut command = self.kind.tool(&self.place, self.dir(), class)?;
        command
            .args(["--bootstrap-server", &self.address().to_string()])
            .args(words);
        run(&mut command)
    }
}

/// Runs `command` to its end and returns its standard output; its failure is an error with its words.
pub(super) fn run(command: &mut Command) -> Result<String> {
    let output = command.output().context("cannot start java")?;
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        bail!("{command:?} ended with {}\n{stdout}{stderr}", output.status);
    }
    Ok(stdout)
}
