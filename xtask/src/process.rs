//! Children: run to the end, with their output shown, kept in a log file, or returned.

use std::fs::{self, File};
use std::io::{IsTerminal, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use crate::clock::Stopwatch;

/// Runs `command` on this terminal.
pub fn run_shown(command: &mut Command) -> Result<()> {
    let status = command
        .status()
        .with_context(|| format!("cannot start {}", line(command)))?;
    if status.success() {
        return Ok(());
    }
    bail!("{} ended with {status}", line(command))
}

/// Runs `command` with its output in `log`, and shows `label` and the time meanwhile. On failure the end of the output is
/// in the error.
pub fn run_logged(label: &str, log: &Path, command: &mut Command) -> Result<()> {
    let status = run_to_log(label, log, command)?;
    judge(status, &line(command), log)
}

/// An error with the end of what the command wrote to `log`, unless it ended well.
fn judge(status: ExitStatus, line: &str, log: &Path) -> Result<()> {
    if status.success() {
        return Ok(());
    }
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<_> = text.lines().collect();
    let tail = lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n");
    bail!(
        "{line} ended with {status}; all of its output is in {}, the end of it:\n{tail}",
        log.display()
    )
}

/// A child that works while others do, with its output in a log; dropping it ends it and all that it started.
pub struct Beside {
    child: Child,
    line: String,
    log: PathBuf,
}

impl Beside {
    /// Starts `command`, which gives way to whatever else wants the CPUs.
    pub fn start(log: &Path, command: &Command) -> Result<Self> {
        let mut nice = Command::new("nice");
        nice.args(["-n", "19"])
            .arg(command.get_program())
            .args(command.get_args())
            .process_group(0);
        Ok(Self {
            child: spawn_logged(log, &mut nice)?,
            line: line(command),
            log: log.to_owned(),
        })
    }

    /// Waits for its end, or for `gives_up`. On failure the end of its output is in the error.
    pub fn wait(mut self, label: &str, gives_up: impl Fn() -> bool) -> Result<()> {
        match watch(&mut self.child, label, gives_up)? {
            Some(status) => judge(status, &self.line, &self.log),
            None => bail!("{} was not waited for", self.line),
        }
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            // Not reaped yet, so the group is still the child's.
            let _ = killpg(Pid::from_raw(self.child.id() as i32), Signal::SIGTERM);
            let _ = self.child.wait();
        }
    }
}

/// Like [`run_logged`], but a failure has all of the output and nothing else: for commands whose output is the finding.
pub fn run_judged(label: &str, log: &Path, command: &mut Command) -> Result<()> {
    if run_to_log(label, log, command)?.success() {
        return Ok(());
    }
    bail!("{}", fs::read_to_string(log)?.trim_end())
}

/// Runs `command` and returns what it wrote to its standard output.
pub fn capture(command: &mut Command) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot start {}", line(command)))?;
    if !output.status.success() {
        let talk = String::from_utf8_lossy(&output.stderr);
        bail!(
            "{} ended with {}: {}",
            line(command),
            output.status,
            talk.trim()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// `command` as one would type it.
pub fn line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let words: Vec<_> = words.map(|word| word.to_string_lossy()).collect();
    words.join(" ")
}

fn run_to_log(label: &str, log: &Path, command: &mut Command) -> Result<ExitStatus> {
    let mut child = spawn_logged(log, command)?;
    let status = watch(&mut child, label, || false)?;
    status.context("nobody gave up")
}

/// Shows `label` and the time until the child ends; its status, none when `gives_up` says so before.
fn watch(
    child: &mut Child,
    label: &str,
    gives_up: impl Fn() -> bool,
) -> Result<Option<ExitStatus>> {
    let mut progress = Progress::new(label);
    while !gives_up() {
        if let Some(status) = child.try_wait()? {
            progress.clear();
            return Ok(Some(status));
        }
        thread::sleep(Duration::from_millis(50));
        progress.tick();
    }
    progress.clear();
    Ok(None)
}

fn spawn_logged(log: &Path, command: &mut Command) -> Result<Child> {
    let mut file = create_log(log)?;
    writeln!(file, "$ {}", line(command))?;
    command
        .stdin(Stdio::null())
        .stdout(file.try_clone()?)
        .stderr(file)
        .spawn()
        .with_context(|| format!("cannot start {}", line(command)))
}

fn create_log(log: &Path) -> Result<File> {
    if let Some(dir) = log.parent() {
        fs::create_dir_all(dir)?;
    }
    File::create(log).with_context(|| format!("cannot write {}", log.display()))
}

/// Shows that a long child is still running: a counting line on a terminal, a line now and then elsewhere.
struct Progress<'a> {
    label: &'a str,
    watch: Stopwatch,
    shown_s: u64,
    terminal: bool,
}

impl<'a> Progress<'a> {
    fn new(label: &'a str) -> Self {
        Self {
            label,
            watch: Stopwatch::start(),
            shown_s: 0,
            terminal: std::io::stderr().is_terminal(),
        }
    }

    fn tick(&mut self) {
        let now_s = self.watch.elapsed().as_secs();
        let step_s = if self.terminal { 1 } else { 30 };
        if now_s < self.shown_s + step_s {
            return;
        }
        self.shown_s = now_s;
        if self.terminal {
            eprint!("\r  {} … {now_s} s", self.label);
        } else {
            eprintln!("  {} … {now_s} s", self.label);
        }
    }

    fn clear(&self) {
        if self.terminal && self.shown_s > 0 {
            eprint!("\r\x1b[K");
        }
    }
}

const TAIL_LINES: usize = 20;
