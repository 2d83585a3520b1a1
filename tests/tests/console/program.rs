//! `dt-console` as a process.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Result, ensure};
use dt_tests::{given, wait};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// How a run ended.
pub struct Ended {
    pub status: Option<i32>,
    pub output: String,
    pub errors: String,
}

/// Runs to the end; the commands given here end by themselves.
pub fn run(words: &[impl AsRef<OsStr>]) -> Result<Ended> {
    let output = command(words)?.output()?;
    Ok(Ended {
        status: output.status.code(),
        output: String::from_utf8(output.stdout)?,
        errors: String::from_utf8(output.stderr)?,
    })
}

/// One that runs until it is told to end. Dropped, it is killed.
pub struct Program {
    child: Child,
    output: PathBuf,
}

impl Program {
    /// Starts it with its output in a file, and its messages in one beside it.
    pub fn start(words: &[String], output: &Path) -> Result<Self> {
        let child = command(words)?
            .stdout(File::create(output)?)
            .stderr(File::create(output.with_extension("errors"))?)
            .spawn()?;
        Ok(Self {
            child,
            output: output.to_owned(),
        })
    }

    /// What it printed so far.
    pub fn output(&self) -> Result<String> {
        Ok(fs::read_to_string(&self.output)?)
    }

    /// What it had to say so far.
    pub fn errors(&self) -> Result<String> {
        Ok(fs::read_to_string(self.output.with_extension("errors"))?)
    }

    /// Ctrl-C, after which it ends by itself and well.
    pub fn interrupt(&mut self) -> Result<()> {
        kill(Pid::from_raw(self.child.id() as i32), Signal::SIGINT)?;
        let status = wait::until("end of dt-console", Duration::from_secs(20), || {
            Ok(self.child.try_wait()?)
        })?;
        ensure!(status.success(), "it ended with {status}");
        Ok(())
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn command(words: &[impl AsRef<OsStr>]) -> Result<Command> {
    let mut command = Command::new(given::console()?);
    command
        .args(words)
        .env_remove("KAFKA_BOOTSTRAP_SERVERS")
        .stdin(Stdio::null());
    Ok(command)
}
