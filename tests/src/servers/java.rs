//! How a Java program is started: small, soon, and with nothing left when it is killed.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::Result;

use super::place::Place;

/// A virtual machine and what it finds its classes in.
pub(super) struct Java {
    pub class_path: String,
    pub heap_mb: u32,
    /// Properties and other flags of the virtual machine.
    pub flags: Vec<String>,
    /// Takes a second longer to start and computes several times as fast.
    pub optimised: bool,
}

impl Java {
    /// A command for `class`, its arguments to follow; it runs in `dir`.
    pub fn command(&self, place: &Place, dir: &Path, class: &str) -> Result<Command> {
        // Native libraries are unpacked there, which no killed program takes away.
        let scratch = dir.join("tmp");
        fs::create_dir_all(&scratch)?;
        let mut command = place.command("java");
        command
            .arg(format!("-Xmx{}m", self.heap_mb))
            .args(FLAGS)
            .arg(format!("-Djava.io.tmpdir={}", scratch.display()))
            .args((!self.optimised).then_some("-XX:TieredStopAtLevel=1"))
            .args(&self.flags)
            .args(["-cp", &self.class_path, class])
            .current_dir(dir);
        Ok(command)
    }
}

const FLAGS: &[&str] = &[
    "-XX:+UseSerialGC",
    "-XX:+ExitOnOutOfMemoryError",
    "-Xshare:auto",
    // Or a file below /tmp by the process id, for `jps`.
    "-XX:-UsePerfData",
    "-Djava.awt.headless=true",
];
