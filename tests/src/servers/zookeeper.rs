//! ZooKeeper, alone or as an ensemble, and what its administrative words tell.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::java::Java;
use super::place::Place;
use super::port::Port;
use super::server::{self, Kind, Server};
use crate::process::Proc;
use crate::{given, wait};

/// One ZooKeeper server.
pub type ZooKeeper = Server<Node>;

/// How servers will be started.
#[derive(Clone, Debug)]
pub struct Options {
    class_path: String,
    tick: Duration,
    sessions: Option<(Duration, Duration)>,
    heap_mb: u32,
    optimised: bool,
    lines: Vec<String>,
    flags: Vec<String>,
}

impl Options {
    /// A tick of 500 ms, so that sessions may last from 1 s to 10 s, and all else as ZooKeeper has it.
    #[must_use]
    pub fn new(class_path: &str) -> Self {
        Self {
            class_path: class_path.to_owned(),
            tick: Duration::from_millis(500),
            sessions: None,
            heap_mb: 256,
            optimised: false,
            lines: Vec::new(),
            flags: Vec::new(),
        }
    }

    /// With the class path that `cargo xtask test` names.
    pub fn given() -> Result<Self> {
        Ok(Self::new(&given::zookeeper_class_path()?))
    }

    /// The unit of all its times. Unless told otherwise, sessions last from 2 to 20 ticks.
    #[must_use]
    pub fn tick(mut self, tick: Duration) -> Self {
        self.tick = tick;
        self
    }

    /// The shortest and the longest session that it grants.
    #[must_use]
    pub fn sessions(mut self, shortest: Duration, longest: Duration) -> Self {
        self.sessions = Some((shortest, longest));
        self
    }

    /// Another line of its settings, such as `4lw.commands.whitelist=ruok`; the last one of a name counts.
    #[must_use]
    pub fn line(mut self, line: impl Into<String>) -> Self {
        self.lines.push(line.into());
        self
    }

    /// Another flag of the virtual machine, such as `-Dzookeeper.skipACL=yes`.
    #[must_use]
    pub fn flag(mut self, flag: impl Into<String>) -> Self {
        self.flags.push(flag.into());
        self
    }

    /// For measurements: fast code and so much heap, at the price of a slow start.
    #[must_use]
    pub fn for_load(mut self, heap_mb: u32) -> Self {
        self.heap_mb = heap_mb;
        self.optimised = true;
        self
    }

    /// Starts one server and waits until it serves.
    pub fn start(&self, place: &Place) -> Result<ZooKeeper> {
        let mut server = self.launch(place)?;
        server.wait_until_ready()?;
        Ok(server)
    }

    /// Starts one server and does not wait.
    pub fn launch(&self, place: &Place) -> Result<ZooKeeper> {
        let node = Node::new(self, place, None)?;
        let mut server = Server::new(NAME, place, node)?;
        server.launch()?;
        Ok(server)
    }

    /// Starts `count` servers that elect a leader, and waits until all of them serve.
    pub fn start_ensemble(&self, place: &Place, count: usize) -> Result<Ensemble> {
        let mut members = Vec::new();
        for _ in 0..count {
            members.push([place.reserve_port()?, place.reserve_port()?]);
        }
        let roster: Vec<_> = (1..)
            .zip(&members)
            .map(|(id, [quorum, election])| {
                let port = election.address().port();
                format!("server.{id}={}:{port}", quorum.address())
            })
            .collect();
        let mut servers = Vec::new();
        for (id, ports) in (1..).zip(members) {
            let membership = Membership {
                id,
                roster: roster.clone(),
                _ports: ports,
            };
            let node = Node::new(self, place, Some(membership))?;
            let mut server = Server::new(NAME, place, node)?;
            server.launch()?;
            servers.push(server);
        }
        for server in &mut servers {
            server.wait_until_ready()?;
        }
        Ok(Ensemble { servers })
    }
}

/// Servers that elect a leader.
#[derive(Debug)]
pub struct Ensemble {
    /// Each of them, to be stopped, frozen and started by itself.
    pub servers: Vec<ZooKeeper>,
}

impl Ensemble {
    /// All addresses, as clients want them: `HOST:PORT,HOST:PORT,…`.
    #[must_use]
    pub fn addresses(&self) -> String {
        let addresses = self.servers.iter().map(Server::address);
        let addresses: Vec<_> = addresses.map(|address| address.to_string()).collect();
        addresses.join(",")
    }

    /// Waits until one of those that run leads, and returns its place in [`Ensemble::servers`].
    pub fn leader(&self) -> Result<usize> {
        wait::until("leader", ELECTION_LIMIT, || {
            let leads = |server: &ZooKeeper| {
                // One that is down or has no quorum does not answer with a role.
                server.pid().is_some() && server.role().is_ok_and(|role| role == "leader")
            };
            Ok(self.servers.iter().position(leads))
        })
    }
}

impl ZooKeeper {
    /// What it answers to one of its words of four letters, such as `ruok` or `stat`.
    pub fn four_letters(&self, word: &str) -> Result<String> {
        ask(&self.place, self.address(), word)
    }

    /// Its counters by name, as `mntr` has them: `zk_watch_count`, `zk_packets_sent`, `zk_avg_latency`, ….
    pub fn counters(&self) -> Result<BTreeMap<String, String>> {
        let text = self.four_letters("mntr")?;
        let pairs = text.lines().filter_map(|line| line.split_once('\t'));
        let counters: BTreeMap<_, _> = pairs
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        if counters.is_empty() {
            bail!("mntr was answered with {text:?}");
        }
        Ok(counters)
    }

    /// One of its counters; fractions are cut off.
    pub fn counter(&self, name: &str) -> Result<u64> {
        let counters = self.counters()?;
        let text = counters.get(name);
        let text = text.with_context(|| format!("ZooKeeper has no counter {name}"))?;
        let whole = text.split('.').next().unwrap_or(text);
        whole
            .parse()
            .with_context(|| format!("{name} is not a number but {text:?}"))
    }

    /// `standalone`, `leader` or `follower`.
    pub fn role(&self) -> Result<String> {
        role(&self.four_letters("srvr")?).context("it serves nobody yet")
    }
}

/// What makes a server a ZooKeeper.
#[derive(Debug)]
pub struct Node {
    options: Options,
    client: Port,
    membership: Option<Membership>,
}

/// What a member of an ensemble knows of it.
#[derive(Debug)]
struct Membership {
    id: u8,
    /// The lines about all members.
    roster: Vec<String>,
    /// For its followers and for elections.
    _ports: [Port; 2],
}

impl Node {
    fn new(options: &Options, place: &Place, membership: Option<Membership>) -> Result<Self> {
        Ok(Self {
            options: options.clone(),
            client: place.reserve_port()?,
            membership,
        })
    }

    fn settings(&self, dir: &Path) -> String {
        let client = self.client.address();
        let mut lines = vec![
            format!("tickTime={}", self.options.tick.as_millis()),
            format!("dataDir={}", server::data_dir(dir).display()),
            format!("clientPort={}", client.port()),
            format!("clientPortAddress={}", client.ip()),
            "initLimit=20".to_owned(),
            "syncLimit=10".to_owned(),
            "maxClientCnxns=0".to_owned(),
            "admin.enableServer=false".to_owned(),
            "4lw.commands.whitelist=*".to_owned(),
        ];
        if let Some((shortest, longest)) = self.options.sessions {
            lines.push(format!("minSessionTimeout={}", shortest.as_millis()));
            lines.push(format!("maxSessionTimeout={}", longest.as_millis()));
        }
        if let Some(membership) = &self.membership {
            lines.extend(membership.roster.iter().cloned());
        }
        lines.extend(self.options.lines.iter().cloned());
        lines.join("\n") + "\n"
    }
}

impl Kind for Node {
    fn prepare(&self, _: &Place, dir: &Path) -> Result<()> {
        let data = server::data_dir(dir);
        fs::create_dir_all(&data)?;
        fs::write(dir.join(SETTINGS), self.settings(dir))?;
        if let Some(membership) = &self.membership {
            fs::write(data.join("myid"), membership.id.to_string())?;
        }
        Ok(())
    }

    fn command(&self, place: &Place, dir: &Path) -> Result<Command> {
        let mut flags = vec![
            "-Dorg.slf4j.simpleLogger.showDateTime=true".to_owned(),
            "-Dorg.slf4j.simpleLogger.dateTimeFormat=HH:mm:ss.SSS".to_owned(),
            // A log file of 64 MB each would be a lot for so many small servers; the unit is KiB.
            "-Dzookeeper.preAllocSize=1024".to_owned(),
            format!("-Dzookeeper.DigestAuthenticationProvider.superDigest={SUPER_DIGEST}"),
        ];
        flags.extend(self.options.flags.iter().cloned());
        let java = Java {
            class_path: self.options.class_path.clone(),
            heap_mb: self.options.heap_mb,
            flags,
            optimised: self.options.optimised,
        };
        let class = match self.membership {
            None => "org.apache.zookeeper.server.ZooKeeperServerMain",
            Some(_) => "org.apache.zookeeper.server.quorum.QuorumPeerMain",
        };
        let mut command = java.command(place, dir, class)?;
        command.arg(dir.join(SETTINGS));
        Ok(command)
    }

    fn wait_until_ready(&self, place: &Place, process: &mut Proc, limit: Duration) -> Result<()> {
        wait::until("answer from ZooKeeper", limit, || {
            if let Some(status) = process.ended()? {
                bail!("it ended with {status}");
            }
            let answer = ask(place, self.client.address(), "srvr").ok();
            Ok(answer.as_deref().and_then(role).map(|_| ()))
        })
    }

    fn address(&self) -> SocketAddr {
        self.client.address()
    }
}

fn ask(place: &Place, address: SocketAddr, word: &str) -> Result<String> {
    place.enter(|| {
        let mut stream = TcpStream::connect_timeout(&address, ANSWER_LIMIT)?;
        stream.set_read_timeout(Some(ANSWER_LIMIT))?;
        stream.write_all(word.as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    })?
}

/// The role in an answer to `srvr`; without a quorum there is none.
fn role(answer: &str) -> Option<String> {
    let role = answer.lines().find_map(|line| line.strip_prefix("Mode: "));
    role.map(str::to_owned)
}

/// May do everything everywhere: authenticate by `digest` as this.
pub const SUPER: &str = "super:dt-tests";
/// The user's name, and SHA-1 of [`SUPER`] in base 64.
const SUPER_DIGEST: &str = "super:0+JNUxHpUaCxklTs0yZeUaKNyD4=";

const NAME: &str = "zookeeper";
const SETTINGS: &str = "zoo.cfg";
const ANSWER_LIMIT: Duration = Duration::from_secs(2);
const ELECTION_LIMIT: Duration = Duration::from_mins(1);
