//! Children: run to the end, with their output shown, kept in a log file, or returned.

use std::fs::{self, File};
use std::io::{IsTerminal, Write};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};

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
    if status.success() {
        return Ok(());
    }
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<_> = text.lines().collect();
    let tail = lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n");
    bail!(
        "{} ended with {status}; all of its output is in {}, the end of it:\n{tail}",
        line(command),
        log.display()
    )
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
    let mut file = create_log(log)?;
    writeln!(file, "$ {}", line(command))?;
    let mut child = command
        .stdin(Stdio::null())
        .stdout(file.try_clone()?)
        .stderr(file)
        .spawn()
        .with_context(|| format!("cannot start {}", line(command)))?;
    let mut progress = Progress::new(label);
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        thread::sleep(Duration::from_millis(50));
        progress.tick();
    };
    progress.clear();
    Ok(status)
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
