//! The life of one server: what all kinds have in common.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;

use super::place::Place;
use crate::process::Proc;

/// What differs between servers.
pub trait Kind {
    /// Makes what has to be there before a start: settings, formatted data.
    fn prepare(&self, place: &Place, dir: &Path) -> Result<()>;
    /// The program.
    fn command(&self, place: &Place, dir: &Path) -> Result<Command>;
    /// Waits until clients are served.
    fn wait_until_ready(&self, place: &Place, process: &mut Proc, limit: Duration) -> Result<()>;
    /// Where clients find it.
    fn address(&self) -> SocketAddr;
}

/// A server with its data, running or not. Dropping it kills it.
#[derive(Debug)]
pub struct Server<K> {
    pub(super) kind: K,
    pub(super) place: Place,
    name: String,
    dir: PathBuf,
    process: Option<Proc>,
    starts: u32,
    frozen: bool,
}

impl<K: Kind> Server<K> {
    /// `what` and the port make the name; nothing runs yet.
    pub(super) fn new(what: &str, place: &Place, kind: K) -> Result<Self> {
        let name = format!("{what}-{}", kind.address().port());
        let dir = place.dir().join(&name);
        fs::create_dir(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        Ok(Self {
            kind,
            place: place.clone(),
            name,
            dir,
            process: None,
            starts: 0,
            frozen: false,
        })
    }

    /// Where clients find it, the same after each start.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.kind.address()
    }

    /// The directory with its settings, its data and, in the lab's directory beside it, its logs: one file per start.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The process id while it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Proc::pid)
    }

    /// All that it said since its last start.
    pub fn output(&self) -> Result<String> {
        self.running()?.output()
    }

    /// Starts it, with the data that it had, and waits until it serves.
    ///
    /// It dies with the calling thread.
    pub fn start(&mut self) -> Result<()> {
        self.launch()?;
        self.wait_until_ready()
    }

    /// Starts it and does not wait.
    pub fn launch(&mut self) -> Result<()> {
        if self.process.is_some() {
            bail!("{} runs already", self.name);
        }
        self.kind.prepare(&self.place, &self.dir)?;
        self.starts += 1;
        let log = format!("{}-start-{}", self.name, self.starts);
        let mut command = self.kind.command(&self.place, &self.dir)?;
        self.process = Some(Proc::spawn(&log, self.place.dir(), &mut command)?);
        self.frozen = false;
        Ok(())
    }

    /// Waits until it serves; an error shows the end of what it said.
    pub fn wait_until_ready(&mut self) -> Result<()> {
        let process = self.process.as_mut();
        let process = process.with_context(|| format!("{} does not run", self.name))?;
        self.kind
            .wait_until_ready(&self.place, process, START_LIMIT)
            .with_context(|| {
                let words = process.tail();
                format!("{} does not serve; the end of its log:\n{words}", self.name)
            })
    }

    /// Ends it as an operator would, and waits until it is gone.
    pub fn stop(&mut self) -> Result<()> {
        self.thaw()?;
        self.running_mut()?.terminate(STOP_LIMIT)?;
        self.process = None;
        Ok(())
    }

    /// Ends it as a crash would.
    pub fn kill(&mut self) -> Result<()> {
        self.running_mut()?.kill()?;
        self.process = None;
        Ok(())
    }

    /// Halts it, so that its connections stay and nothing is answered.
    pub fn freeze(&mut self) -> Result<()> {
        self.running_mut()?.signal(Signal::SIGSTOP)?;
        self.frozen = true;
        Ok(())
    }

    /// Lets it go on.
    pub fn thaw(&mut self) -> Result<()> {
        if self.frozen {
            self.running_mut()?.signal(Signal::SIGCONT)?;
            self.frozen = false;
        }
        Ok(())
    }

    /// Takes away its data while it is down, as a new disk would.
    pub fn wipe(&mut self) -> Result<()> {
        if self.process.is_some() {
            bail!("{} runs: stop it before its data goes", self.name);
        }
        let data = data_dir(&self.dir);
        let entries = fs::read_dir(&data).with_context(|| format!("no {}", data.display()))?;
        for entry in entries {
            let path = entry?.path();
            if path.is_dir() {
                fs::remove_dir_all(path)?;
            } else {
                fs::remove_file(path)?;
            }
        }
        Ok(())
    }

    fn running(&self) -> Result<&Proc> {
        let process = self.process.as_ref();
        process.with_context(|| format!("{} does not run", self.name))
    }

    fn running_mut(&mut self) -> Result<&mut Proc> {
        let process = self.process.as_mut();
        process.with_context(|| format!("{} does not run", self.name))
    }
}

/// Where a server in `dir` has its data.
pub(super) fn data_dir(dir: &Path) -> PathBuf {
    dir.join("data")
}

/// Many times what it takes on an idle machine: it is shared.
const START_LIMIT: Duration = Duration::from_mins(2);
const STOP_LIMIT: Duration = Duration::from_mins(1);
