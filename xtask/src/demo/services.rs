//! The servers of `demo --full`: a ZooKeeper by which the agents find each other, a Kafka broker that takes what they measured,
//! and the console that reads it there.
//!
//! They run on a host of their own beside those that are measured. What the demo says of the mesh then comes out of the topic:
//! `dt-console save` writes the topic's batches where the demo reads an agent's files otherwise.

use std::fs;
use std::io::{IsTerminal, stdout};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use dt_tests::servers::{Kafka, Place, ZooKeeper, kafka, zookeeper};
use dt_tests::{Host, Lab, Proc, SERVERS};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::clock::Stopwatch;
use crate::setup;
use crate::workspace::Workspace;

/// The running servers, and whoever reads the topic.
pub struct Services {
    // In the order of removal: who uses a thing goes before it.
    matrix: Option<Child>,
    archive: Proc,
    console: PathBuf,
    host: Host,
    dir: PathBuf,
    kafka: Kafka,
    zookeeper: ZooKeeper,
}

impl Services {
    /// Starts both servers beside the hosts of `lab`, and says how long each took.
    pub fn start(lab: &mut Lab, workspace: &Workspace, console: &Path) -> Result<Self> {
        lab.add_servers()?;
        let place = Place::on(lab, SERVERS);
        let watch = Stopwatch::start();
        eprintln!("{:<28} starting", "ZooKeeper and Kafka");
        // Both at once: each is a Java that takes its time.
        let mut kafka = kafka::Options::new(&setup::kafka_libs(workspace)).launch(&place)?;
        let class_path = setup::zookeeper_class_path();
        let zookeeper = zookeeper::Options::new(&class_path).start(&place)?;
        eprintln!("{:<28} {} ({watch})", "ZooKeeper", zookeeper.address());
        kafka.wait_until_ready()?;
        eprintln!("{:<28} {} ({watch})", "Kafka", kafka.address());
        let (host, dir) = (lab.host(SERVERS).clone(), lab.dir());
        let mut services = Self {
            matrix: None,
            archive: Proc::spawn(
                "archive",
                &dir,
                &mut save(&host, console, &kafka, &dir.join(LIVE)),
            )?,
            console: console.to_owned(),
            host,
            dir,
            kafka,
            zookeeper,
        };
        if stdout().is_terminal() {
            services.matrix = Some(services.draw()?);
        }
        Ok(services)
    }

    /// Flags of an agent that uses them.
    pub fn flags(&self) -> [String; 2] {
        [
            format!("--zookeeper={}", self.zookeeper.address()),
            format!("--kafka={}", self.kafka.address()),
        ]
    }

    /// Where the topic is written while the demo runs, and once more when all is in it.
    pub fn feed_dirs(&self) -> Vec<PathBuf> {
        vec![self.dir.join(LIVE), self.dir.join(WHOLE)]
    }

    /// Whether the console draws the matrix on the terminal.
    pub fn draws(&self) -> bool {
        self.matrix.is_some()
    }

    /// After the agents have ended: the whole topic, and the last picture of the console.
    pub fn finish(&mut self) -> Result<()> {
        self.stop_drawing();
        let mut whole = save(
            &self.host,
            &self.console,
            &self.kafka,
            &self.dir.join(WHOLE),
        );
        let output = whole.arg("--once").output()?;
        ensure!(
            output.status.success(),
            "dt-console save ended with {}: {}",
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        );
        println!("What dt-console says of the topic:");
        let status = self
            .read("matrix")
            .args(["--once", "--span", "all"])
            .status()?;
        ensure!(status.success(), "dt-console matrix ended with {status}");
        // It is of no use any more, and would say that the broker is gone.
        self.archive.kill().context("cannot end dt-console save")?;
        // All of it is in the other one, and bytes are counted once.
        fs::remove_dir_all(self.dir.join(LIVE)).context("cannot remove what was read meanwhile")
    }

    fn draw(&self) -> Result<Child> {
        let mut command = self.read("matrix");
        command.args(["--span", "5s"]).stdin(Stdio::null());
        Ok(command.spawn()?)
    }

    fn stop_drawing(&mut self) {
        if let Some(mut matrix) = self.matrix.take() {
            // It may have ended by itself; then there is nobody to signal and the wait returns at once.
            let _ = kill(Pid::from_raw(matrix.id() as i32), Signal::SIGTERM);
            let _ = matrix.wait();
        }
    }

    fn read(&self, task: &str) -> Command {
        console(&self.host, &self.console, &self.kafka, task)
    }
}

impl Drop for Services {
    fn drop(&mut self) {
        self.stop_drawing();
    }
}

fn save(host: &Host, program: &Path, kafka: &Kafka, out: &Path) -> Command {
    let mut command = console(host, program, kafka, "save");
    command.arg("--out").arg(out);
    command
}

fn console(host: &Host, program: &Path, kafka: &Kafka, task: &str) -> Command {
    let mut command = host.command(&program.to_string_lossy());
    command
        .arg(task)
        .arg(format!("--kafka={}", kafka.address()))
        // The first agent makes the topic.
        .arg(format!("--wait={}s", WAIT.as_secs()));
    command
}

const LIVE: &str = "topic";
const WHOLE: &str = "topic-whole";
const WAIT: Duration = Duration::from_mins(1);
