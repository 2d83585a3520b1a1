//! A child that runs beside the test, its output in a file, and that no test outlives.

use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{TimestampingFlag, getsockopt, sockopt};
use nix::unistd::Pid;
use rustix::process::{PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

use crate::wait;

/// A running child. Dropping it kills it; when the test panicked, the end of its output is shown.
///
/// Started by [`Host::command`](crate::Host::command) it also dies with the thread that started it, so that thread has
/// to live as long as the child shall.
#[derive(Debug)]
pub struct Proc {
    name: String,
    child: Child,
    log: PathBuf,
    status: Option<ExitStatus>,
}

impl Proc {
    /// Starts `command` with standard output and error in `DIR/NAME.log`.
    pub fn spawn(name: &str, dir: &Path, command: &mut Command) -> Result<Self> {
        let log = dir.join(format!("{name}.log"));
        let file = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        Ok(Self {
            name: name.to_owned(),
            child,
            log,
            status: None,
        })
    }

    /// The process id, which is the program's own.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// How many of its sockets want to know when datagrams come, for which the kernel stamps every packet of the host.
    pub fn stamping_sockets(&self) -> Result<usize> {
        let pid = rustix::process::Pid::from_child(&self.child);
        let process = pidfd_open(pid, PidfdFlags::empty())?;
        let mut count = 0;
        for entry in fs::read_dir(format!("/proc/{}/fd", self.pid()))? {
            let name = entry?.file_name();
            let number = name.to_string_lossy().parse()?;
            // One that was closed meanwhile is no socket any more.
            let Ok(fd) = pidfd_getfd(&process, number, PidfdGetfdFlags::empty()) else {
                continue;
            };
            // Only sockets have options.
            let flags = getsockopt(&fd, sockopt::Timestamping).unwrap_or(TimestampingFlag::empty());
            count += usize::from(flags.contains(TimestampingFlag::SOF_TIMESTAMPING_RX_SOFTWARE));
        }
        Ok(count)
    }

    /// All it wrote so far.
    pub fn output(&self) -> Result<String> {
        let bytes = fs::read(&self.log)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Waits for a line that contains `text` and returns the first one; an error when the child ends before.
    pub fn wait_for_line(&mut self, text: &str, limit: Duration) -> Result<String> {
        let what = format!("line with {text:?} from {}", self.name);
        let found = wait::until(&what, limit, || {
            // Asked before the output is read, so that the last lines of an ended child are seen.
            let ended = self.poll_status()?;
            let output = self.output()?;
            // Its last line may still be in the making.
            let whole = output.rsplit_once('\n').map_or("", |(whole, _)| whole);
            if let Some(line) = whole.lines().find(|line| line.contains(text)) {
                return Ok(Some(line.to_owned()));
            }
            match ended {
                Some(status) => bail!("{} ended with {status} before", self.name),
                None => Ok(None),
            }
        });
        found.with_context(|| format!("{what}; its output:\n{}", self.tail()))
    }

    /// Waits until the child ended by itself.
    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        let what = format!("end of {}", self.name);
        wait::until(&what, limit, || self.poll_status())
            .with_context(|| format!("its output:\n{}", self.tail()))
    }

    /// Sends a signal.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        if let Some(status) = self.poll_status()? {
            bail!("{} has ended with {status}", self.name);
        }
        // Not reaped yet, so the id is still the child's.
        kill(Pid::from_raw(self.child.id() as i32), signal)?;
        Ok(())
    }

    /// Sends SIGTERM and waits for the end.
    pub fn terminate(&mut self, limit: Duration) -> Result<ExitStatus> {
        self.signal(Signal::SIGTERM)?;
        self.wait(limit)
    }

    /// Kills it at once, as a crash would, and waits until it is gone.
    pub fn kill(&mut self) -> Result<()> {
        if self.poll_status()?.is_none() {
            self.child.kill()?;
            self.status = Some(self.child.wait()?);
        }
        Ok(())
    }

    /// How it ended; `None` while it runs.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        self.poll_status()
    }

    fn poll_status(&mut self) -> Result<Option<ExitStatus>> {
        if self.status.is_none() {
            self.status = self.child.try_wait()?;
        }
        Ok(self.status)
    }

    /// The end of its output.
    pub(crate) fn tail(&self) -> String {
        let output = self.output().unwrap_or_default();
        let lines: Vec<_> = output.lines().collect();
        lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
    }
}

impl Drop for Proc {
    fn drop(&mut self) {
        let _ = self.kill();
        if thread::panicking() {
            let end = self.status.map_or_else(|| "unknown".to_owned(), describe);
            eprintln!("--- {} ({end}):\n{}", self.name, self.tail());
        }
    }
}

fn describe(status: ExitStatus) -> String {
    match status.signal() {
        Some(signal) => format!("killed by signal {signal}"),
        None => status.to_string(),
    }
}

const TAIL_LINES: usize = 40;
