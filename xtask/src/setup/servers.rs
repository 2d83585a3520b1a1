//! ZooKeeper and Kafka: the first from Debian, the second from Maven, because Debian has none.
//!
//! Neither becomes a service: Debian's `zookeeper` has no init script (that is in `zookeeperd`).

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::process;
use crate::workspace::Workspace;

/// What both need: ZooKeeper with its jars and a Java that runs it, and Maven to fetch Kafka.
pub const PACKAGES: &[&str] = &["zookeeper", "default-jre-headless", "maven"];

/// ZooKeeper and what it uses, as `java -cp` takes them.
pub fn zookeeper_class_path() -> String {
    let jars = ZOOKEEPER_JARS.iter();
    let paths: Vec<_> = jars
        .map(|jar| format!("/usr/share/java/{jar}.jar"))
        .collect();
    paths.join(":")
}

/// The directory with Kafka's jars.
pub fn kafka_libs(workspace: &Workspace) -> PathBuf {
    workspace.servers().join("kafka-libs")
}

pub fn find_kafka(workspace: &Workspace) -> Option<String> {
    let libs = kafka_libs(workspace);
    let done = fs::read_to_string(libs.join(DONE)).ok()?;
    (done == POM).then(|| format!("{KAFKA_VERSION} in {}", libs.display()))
}

pub fn install_kafka(workspace: &Workspace) -> Result<()> {
    let (dir, libs) = (workspace.servers(), kafka_libs(workspace));
    if libs.exists() {
        // Of another version, or half of one.
        fs::remove_dir_all(&libs)?;
    }
    fs::create_dir_all(&dir)?;
    let pom = dir.join("pom.xml");
    fs::write(&pom, POM)?;
    let mut maven = Command::new("mvn");
    maven
        .args(["--batch-mode", "--file"])
        .arg(&pom)
        .arg(format!(
            "-Dmaven.repo.local={}",
            dir.join("maven").display()
        ))
        .arg(format!("-DoutputDirectory={}", libs.display()))
        .arg("dependency:copy-dependencies");
    process::run_logged(
        "mvn dependency:copy-dependencies",
        &workspace.log("kafka"),
        &mut maven,
    )?;
    mark_done(&libs)
}

fn mark_done(libs: &Path) -> Result<()> {
    fs::write(libs.join(DONE), POM).with_context(|| format!("no jars in {}", libs.display()))
}

pub const KAFKA_VERSION: &str = "4.1.1";
/// Says what the directory was filled from.
const DONE: &str = "pom.xml";
const POM: &str = include_str!("kafka-pom.xml");
/// ZooKeeper, whose manifest names what it uses, and a logger that needs no settings. Not all of that directory: much in it
/// is of other programs.
const ZOOKEEPER_JARS: &[&str] = &["zookeeper", "slf4j-simple", "netty-codec", "netty-resolver"];
