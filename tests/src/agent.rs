//! A real agent on a host of a lab: `dt-agent run` with a list of members, a feed, and pins that go with the lab.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::Signal;

use crate::feed::Feed;
use crate::host::Host;
use crate::lab::Lab;
use crate::process::Proc;
use crate::{given, wait};

/// How an agent will be started.
#[derive(Clone, Debug)]
pub struct Launch<'a> {
    lab: &'a Lab,
    host: &'a Host,
    binary: PathBuf,
    through: Vec<String>,
    settings: Vec<(&'static str, String)>,
    flags: Vec<String>,
}

/// A running agent; dropping it kills it, and its programs go with the lab.
#[derive(Debug)]
pub struct Agent {
    /// The process.
    pub process: Proc,
    feed: PathBuf,
}

impl<'a> Launch<'a> {
    /// An agent on `host`, with the host's name as its node's, the list [`peers_path`], and a feed of its own.
    pub fn on(lab: &'a Lab, host: &str) -> Result<Self> {
        Ok(Self::of(lab, host, given::agent()?))
    }

    /// The same with this program.
    #[must_use]
    pub fn of(lab: &'a Lab, host: &str, binary: PathBuf) -> Self {
        let host = lab.host(host);
        let name = host.name();
        let dir = lab.dir();
        // As variables, so that flags of a test win over them.
        let settings = vec![
            ("DT_NODE", name.to_owned()),
            (
                "DT_DISCOVERY",
                format!("file:{}", peers_path(lab).display()),
            ),
            (
                "DT_FEED",
                format!("file:{}", dir.join("feed").join(name).display()),
            ),
            ("DT_PIN_ROOT", lab.pin_dir().display().to_string()),
            (
                "DT_STATE_DIR",
                dir.join("state").join(name).display().to_string(),
            ),
            ("DT_RATE", "100".to_owned()),
            ("DT_WINDOW", "1s".to_owned()),
            ("DT_FAMILY", "4".to_owned()),
        ];
        Self {
            lab,
            host,
            binary,
            through: Vec::new(),
            settings,
            flags: Vec::new(),
        }
    }

    /// Adds flags of `run`.
    #[must_use]
    pub fn flags(mut self, flags: &[&str]) -> Self {
        self.flags
            .extend(flags.iter().map(|flag| (*flag).to_owned()));
        self
    }

    /// Adds a variable, or replaces one of those that [`Launch::on`] sets.
    #[must_use]
    pub fn setting(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.settings.retain(|(known, _)| *known != name);
        self.settings.push((name, value.into()));
        self
    }

    /// Starts another build of the agent.
    #[must_use]
    pub fn binary(mut self, binary: PathBuf) -> Self {
        self.binary = binary;
        self
    }

    /// Starts it by way of a command, such as `setpriv`, that becomes what it is given.
    #[must_use]
    pub fn through(mut self, words: &[&str]) -> Self {
        self.through = words.iter().map(|word| (*word).to_owned()).collect();
        self
    }

    /// Starts it. Its output goes to a file by the name of `log`, which no other process of the lab has.
    pub fn start(&self, log: &str) -> Result<Agent> {
        let feed = self.lab.dir().join("feed").join(self.host.name());
        fs::create_dir_all(&feed)?;
        let binary = self.binary.display().to_string();
        let mut words = self.through.iter().chain([&binary]);
        let program = words.next().context("there is a program")?;
        let mut command = self.host.command(program);
        command.args(words).arg("run").args(&self.flags);
        for (name, value) in &self.settings {
            command.env(name, value);
        }
        Ok(Agent {
            process: Proc::spawn(log, &self.lab.dir(), &mut command)?,
            feed,
        })
    }
}

impl Agent {
    /// What it published, from its host's first batch on.
    #[must_use]
    pub fn feed(&self) -> Feed {
        Feed::follow(&self.feed)
    }

    /// Where it publishes.
    #[must_use]
    pub fn feed_dir(&self) -> &Path {
        &self.feed
    }

    /// Waits until the agent has said `text`.
    pub fn wait_until_said(&mut self, text: &str) -> Result<String> {
        self.process.wait_for_line(text, LIMIT)
    }

    /// Waits until some interface was given this mode, and returns the line that says so and why.
    pub fn wait_for_mode(&mut self, mode: &str) -> Result<String> {
        // Without colours, because its output is a file.
        let line = self
            .process
            .wait_for_line(&format!("mode=\"{mode}\""), LIMIT)?;
        Ok(line)
    }

    /// Ends it as an operator would.
    pub fn stop(&mut self) -> Result<ExitStatus> {
        self.process.terminate(LIMIT)
    }

    /// Ends it as a crash would.
    pub fn kill(&mut self) -> Result<()> {
        self.process.kill()
    }

    /// Sends a signal.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        self.process.signal(signal)
    }
}

/// The list of members that agents read unless told otherwise.
#[must_use]
pub fn peers_path(lab: &Lab) -> PathBuf {
    lab.dir().join("peers.toml")
}

/// Writes the list of members, by rename, as an operator's tool would.
pub fn write_peers(lab: &Lab, text: &str) -> Result<()> {
    let part = lab.dir().join("peers.part");
    fs::write(&part, text)?;
    fs::rename(part, peers_path(lab))?;
    Ok(())
}

/// All hosts of the lab as members.
#[must_use]
pub fn all_members(lab: &Lab) -> String {
    lab.hosts().into_iter().map(member).collect()
}

/// One host's entry.
#[must_use]
pub fn member(host: &Host) -> String {
    format!(
        "[[peer]]\nname = \"{}\"\naddresses = [\"{}\", \"{}\"]\n",
        host.name(),
        host.ipv4(),
        host.ipv6()
    )
}

/// Waits until `found` finds something in a feed that grows.
///
/// # Panics
/// Nothing was found in time: a panic, not an error, so that the words of the agents are shown as well.
pub fn wait_for_feed<T>(
    what: &str,
    feed: &mut Feed,
    mut found: impl FnMut(&Feed) -> Option<T>,
) -> Result<T> {
    let result = wait::until(what, LIMIT, || {
        feed.read()?;
        Ok(found(feed))
    });
    // A panic, not an error, so that the words of the agents are shown as well.
    Ok(result.unwrap_or_else(|error| panic!("{error:#}; the feed has: {feed:#?}")))
}

/// An agent on every host, each of which has all of them for members.
pub fn start_all(lab: &Lab, flags: &[&str]) -> Result<Vec<Agent>> {
    write_peers(lab, &all_members(lab))?;
    let start = |host: &Host| {
        Launch::on(lab, host.name())?
            .flags(flags)
            .start(host.name())
    };
    lab.hosts().into_iter().map(start).collect()
}

/// Waits until all that was sent to a peer by now has its outcome: deadline, time to settle, and a window that began after
/// these.
pub fn settle(feed: &mut Feed, peer: &str) -> Result<()> {
    let now = wait::unix_now_ns()?;
    wait_for_feed("window in which all is settled", feed, |feed| {
        let pair = feed.pair(peer)?;
        let last = pair.history.last()?;
        // More in flight than one window sends is undecided still.
        let decided = pair.counters.in_flight <= last.sent;
        (last.start_unix_ns > now + SETTLED_NS && decided).then_some(())
    })
}

/// Deadline and settling are 1.2 s by default.
const SETTLED_NS: u64 = 3_000_000_000;
/// For whatever has to happen; generous, because the machine may be busy with something else.
pub const LIMIT: Duration = Duration::from_mins(1);
