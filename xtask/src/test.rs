//! `cargo xtask test`: set up, build, then every test there is, what took how long, and one line with the totals.
//!
//! Several runs of `cargo test`: what needs only a host, the BPF crate's plain functions, and what needs a kernel. All of them
//! run whatever the earlier ones said. Programs that only the last tests run, a Kubernetes above all, take ten minutes to build;
//! meanwhile the other tests, which mostly wait, run beside that.

mod stages;
mod suites;
mod totals;

use std::env;
use std::ffi::OsString;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::panic;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use dt_tests::Interrupt;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use crate::build::{self, Built};
use crate::clock::Stopwatch;
use crate::package;
use crate::process::Beside;
use crate::setup;
use crate::workspace::Workspace;
use stages::Stages;
use suites::Suite;
use totals::Totals;

/// Runs the tests whose name contains `filter`, or all of them.
pub fn run(workspace: &Workspace, filter: Option<&str>) -> Result<()> {
    let mut seen = Seen::default();
    let watch = Stopwatch::start();
    setup::run_for_first_tests(workspace)?;
    seen.stages.add("set-up", watch.elapsed());
    let watch = Stopwatch::start();
    let environment = build_all(workspace)?;
    seen.stages.add("builds", watch.elapsed());
    // From here on Ctrl-C ends the tests and not this program, which then clears away what they left.
    let run = Run {
        workspace,
        filter,
        environment,
        interrupt: Interrupt::catch()?,
    };
    let mut later = Some(start_later(workspace)?);
    let mut failed = Vec::new();
    for suite in suites::all(workspace)? {
        if suite.is_last
            && let Some(later) = later.take()
            && let Err(error) = run.await_later(later, &mut seen)
        {
            eprintln!("{error:#}");
            failed.push("set-up for the last ones");
            break;
        }
        let passed = run.suite(&suite, &mut seen);
        if !passed.with_context(|| format!("the {} tests", suite.name))? {
            failed.push(suite.name);
        }
        if run.interrupt.arrived() {
            break;
        }
    }
    dt_tests::sweep()?;
    let Seen { totals, stages } = seen;
    println!("{stages}\n{totals}");
    if run.interrupt.arrived() {
        bail!("interrupted");
    }
    if !failed.is_empty() {
        bail!("tests failed: {}", failed.join(", "));
    }
    if ci() && totals.skipped > 0 {
        bail!(
            "{} tests were skipped, which CI does not accept",
            totals.skipped
        );
    }
    Ok(())
}

/// Sets up beside the first tests what the last ones need.
fn start_later(workspace: &Workspace) -> Result<Beside> {
    let mut setup = Command::new(env::current_exe()?);
    setup.args(["setup", "--for", "last-tests"]);
    let log = workspace.log("setup-last-tests");
    eprintln!(
        "What only the last tests need is set up beside the others; see {}",
        log.display()
    );
    Beside::start(&log, &setup)
}

/// All that tests run, and where they find it.
fn build_all(workspace: &Workspace) -> Result<Vec<(&'static str, OsString)>> {
    let next_agent = build::run_next(workspace)?;
    let trace_agent = build::run_trace(workspace)?;
    let built = build::run(workspace)?;
    let packages = packages(workspace, &built, &next_agent)?;
    Ok(environment(
        workspace,
        &built,
        next_agent,
        trace_agent,
        packages,
    ))
}

/// What a run has shown so far.
#[derive(Default)]
struct Seen {
    totals: Totals,
    stages: Stages,
}

impl Seen {
    fn count_line(&mut self, line: &str) {
        self.totals.count_line(line);
        self.stages.count_line(line);
    }
}

/// The Debian package, and one of a later version whose agent has the next ABI.
fn packages(workspace: &Workspace, built: &Built, next_agent: &Path) -> Result<[PathBuf; 2]> {
    let version = env!("CARGO_PKG_VERSION");
    let of = |agent| package::Programs {
        agent,
        console: &built.console,
    };
    Ok([
        package::make(workspace, &of(&built.agent), version)?,
        package::make(workspace, &of(next_agent), &format!("{version}+next"))?,
    ])
}

/// What all suites of one run share.
struct Run<'a> {
    workspace: &'a Workspace,
    filter: Option<&'a str>,
    environment: Vec<(&'static str, OsString)>,
    interrupt: Interrupt,
}

impl Run<'_> {
    fn await_later(&self, later: Beside, seen: &mut Seen) -> Result<()> {
        let watch = Stopwatch::start();
        let label = "set-up for the last tests";
        let waited = later.wait(label, || self.interrupt.arrived());
        seen.stages.add("waited for set-up", watch.elapsed());
        waited.context(
            "set-up for the last tests failed; to see it alone: cargo xtask setup --for last-tests",
        )
    }

    /// Whether all tests of the suite passed.
    fn suite(&self, suite: &Suite, seen: &mut Seen) -> Result<bool> {
        let mut cargo = self.workspace.cargo();
        cargo
            .args(["test", "--locked", "--no-fail-fast"])
            .args(&suite.targets)
            .args(self.filter)
            .arg("--")
            .args(suite.options)
            .envs(self.environment.iter().map(|(name, value)| (name, value)));
        let (watch, before) = (Stopwatch::start(), seen.stages.total());
        let passed = run_counted(&mut cargo, seen, &self.interrupt)?;
        let tests = seen.stages.total().saturating_sub(before);
        let name = format!("cargo around the {} tests", suite.name);
        seen.stages
            .add(&name, watch.elapsed().saturating_sub(tests));
        Ok(passed)
    }
}

/// Runs `command` with its output passed on line by line and counted on the way.
fn run_counted(command: &mut Command, seen: &mut Seen, interrupt: &Interrupt) -> Result<bool> {
    // One pipe for both, so that results stand behind the name of the program that they are of.
    let (output, input) = std::io::pipe()?;
    let mut child = command
        .stdin(Stdio::null())
        .stdout(input.try_clone()?)
        .stderr(input)
        // Its own group, so that cargo and the test that it runs are ended together.
        .process_group(0)
        .spawn()?;
    // The command holds the writing ends, which are to be closed when its children have ended.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let group = Pid::from_raw(child.id() as i32);
    thread::scope(|scope| {
        let reader = scope.spawn(|| pass_on(BufReader::new(output), std::io::stdout(), seen));
        let status = loop {
            if let Some(status) = child.try_wait()? {
                break status;
            }
            if interrupt.arrived() {
                // Not reaped yet, so the group is still the child's.
                killpg(group, Signal::SIGTERM)?;
            }
            thread::sleep(Duration::from_millis(50));
        };
        reader
            .join()
            .unwrap_or_else(|panic| panic::resume_unwind(panic))?;
        Ok(status.success())
    })
}

fn pass_on(from: impl BufRead, mut to: impl Write, seen: &mut Seen) -> Result<()> {
    for line in from.split(b'\n') {
        let mut line = line?;
        seen.count_line(&String::from_utf8_lossy(&line));
        line.push(b'\n');
        to.write_all(&line)?;
    }
    Ok(())
}

fn environment(
    workspace: &Workspace,
    built: &Built,
    next_agent: PathBuf,
    trace_agent: PathBuf,
    [package, next_package]: [PathBuf; 2],
) -> Vec<(&'static str, OsString)> {
    let mut environment = vec![
        ("DT_AGENT_BIN", built.agent.clone().into()),
        ("DT_AGENT_NEXT_BIN", next_agent.into()),
        ("DT_AGENT_TRACE_BIN", trace_agent.into()),
        ("DT_PACKAGE", package.into()),
        ("DT_PACKAGE_NEXT", next_package.into()),
        ("DT_CONSOLE_BIN", built.console.clone().into()),
        ("DT_BPF_OBJECT", built.datapath_object.clone().into()),
        ("DT_LAB_OBJECT", built.lab_object.clone().into()),
        ("DT_TOOLS_DIR", workspace.tools().into()),
        ("DT_VENV", workspace.venv().into()),
        ("DT_ZOOKEEPER_CP", setup::zookeeper_class_path().into()),
        ("DT_KAFKA_LIBS", setup::kafka_libs(workspace).into()),
        ("DT_DOCKER_DIR", workspace.target().join("docker").into()),
        ("DT_TARGET_DIR", workspace.target().into()),
    ];
    if ci() {
        environment.push(("DT_NO_SKIP", "1".into()));
    }
    environment
}

fn ci() -> bool {
    env::var("CI").is_ok_and(|value| value == "true")
}
