//! What `cargo xtask test` built and passes on in the environment.

use std::env;
use std::path::PathBuf;

use anyhow::{Context, Result};

/// The agent, `DT_AGENT_BIN`.
pub fn agent() -> Result<PathBuf> {
    path("DT_AGENT_BIN")
}

/// The console, `DT_CONSOLE_BIN`.
pub fn console() -> Result<PathBuf> {
    path("DT_CONSOLE_BIN")
}

/// The agent under the next ABI version's number, `DT_AGENT_NEXT_BIN`.
pub fn next_agent() -> Result<PathBuf> {
    path("DT_AGENT_NEXT_BIN")
}

/// The agent whose programs log each verdict, `DT_AGENT_TRACE_BIN`.
pub fn trace_agent() -> Result<PathBuf> {
    path("DT_AGENT_TRACE_BIN")
}

/// The Debian package, `DT_PACKAGE`.
pub fn package() -> Result<PathBuf> {
    path("DT_PACKAGE")
}

/// One of a later version whose agent has the next ABI version, `DT_PACKAGE_NEXT`.
pub fn next_package() -> Result<PathBuf> {
    path("DT_PACKAGE_NEXT")
}

/// The object with the programs under test, `DT_BPF_OBJECT`.
pub fn datapath_object() -> Result<PathBuf> {
    path("DT_BPF_OBJECT")
}

/// The object with fault programs and the like, `DT_LAB_OBJECT`.
pub fn lab_object() -> Result<PathBuf> {
    path("DT_LAB_OBJECT")
}

/// An executable that set-up installed or that is in `PATH`, `DT_TOOLS_DIR`.
pub fn tool(name: &str) -> Result<PathBuf> {
    let ours = path("DT_TOOLS_DIR")?.join("bin").join(name);
    Ok(if ours.is_file() {
        ours
    } else {
        PathBuf::from(name)
    })
}

/// The Python that has scapy, confluent-kafka, protobuf, duckdb and pyarrow, `DT_VENV`.
pub fn python() -> Result<PathBuf> {
    Ok(path("DT_VENV")?.join("bin/python"))
}

/// ZooKeeper's jars, as Java takes them, `DT_ZOOKEEPER_CP`.
pub fn zookeeper_class_path() -> Result<String> {
    let path = path("DT_ZOOKEEPER_CP")?;
    Ok(path.display().to_string())
}

/// The directory with Kafka's jars, `DT_KAFKA_LIBS`.
pub fn kafka_libs() -> Result<PathBuf> {
    path("DT_KAFKA_LIBS")
}

/// Where the tests' own Docker engine keeps its images, `DT_DOCKER_DIR`.
pub fn docker_dir() -> Result<PathBuf> {
    path("DT_DOCKER_DIR")
}

/// What cargo compiled, `DT_TARGET_DIR`.
pub fn target_dir() -> Result<PathBuf> {
    path("DT_TARGET_DIR")
}

/// Why real servers cannot be started here, if they cannot.
#[must_use]
pub fn missing_servers() -> Option<String> {
    missing_of(SERVERS)
}

/// Why kernel tests cannot run here, if they cannot.
#[must_use]
pub fn missing() -> Option<String> {
    missing_of(ALL)
}

fn missing_of(variables: &[&str]) -> Option<String> {
    if !nix::unistd::geteuid().is_root() {
        return Some("not root".to_owned());
    }
    let unset = variables.iter().find(|name| env::var_os(name).is_none())?;
    Some(format!(
        "{unset} is not set: run the tests by `cargo xtask test`"
    ))
}

fn path(variable: &str) -> Result<PathBuf> {
    env::var_os(variable)
        .map(PathBuf::from)
        .with_context(|| format!("{variable} is not set: run the tests by `cargo xtask test`"))
}

const ALL: &[&str] = &[
    "DT_AGENT_BIN",
    "DT_AGENT_NEXT_BIN",
    "DT_PACKAGE",
    "DT_PACKAGE_NEXT",
    "DT_BPF_OBJECT",
    "DT_LAB_OBJECT",
    "DT_TOOLS_DIR",
    "DT_VENV",
];

const SERVERS: &[&str] = &[
    "DT_ZOOKEEPER_CP",
    "DT_KAFKA_LIBS",
    "DT_DOCKER_DIR",
    "DT_TARGET_DIR",
];
