//! Many members of one mesh in one process, each with the agent's own discovery and a session of its own: what
//! `cargo xtask bench discovery` runs. It probes nothing.
//!
//! `crowd SERVERS COUNT SESSION_S` reads one word a line and answers each with one line of JSON when it is done:
//! `join` (everybody at once), `one` (one more joins, then says that it restarts), `restart` (everybody says so, ends, and
//! starts again), `idle` (ten seconds in which nothing happens).

use std::collections::BTreeMap;
use std::io::{BufRead, Write};
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use dt_agent::adapters::clock;
use dt_agent::adapters::discovery::zookeeper::{
    OwnMember, Tally, ZookeeperDiscovery, ZookeeperSettings,
};
use dt_agent::engine::mesh::{Labels, MemberState};
use dt_agent::ports::Discovery as _;
use dt_common::time::MonoNanos;
use nix::sys::resource::{Resource, UsageWho, getrlimit, getrusage, setrlimit};
use nix::sys::time::TimeValLike as _;
use serde_json::json;
use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinHandle, LocalSet};

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let mut next = || args.next().context("crowd SERVERS COUNT SESSION_S");
    let (servers, count, session_s) = (next()?, next()?.parse()?, next()?.parse()?);
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most)?;
    let directory = tempfile::tempdir()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let mut crowd = Crowd {
        servers,
        session: Duration::from_secs(session_s),
        directory: directory.path().to_owned(),
        board: Rc::new((0..=count).map(|_| Place::default()).collect()),
        members: BTreeMap::new(),
        count,
    };
    LocalSet::new().block_on(&runtime, async {
        let mut words = words();
        while let Some(word) = words.recv().await {
            let before = usage()?;
            let told = match word.trim() {
                "join" => crowd.join().await?,
                "one" => crowd.one_more().await?,
                "restart" => crowd.restart().await?,
                "idle" => {
                    tokio::time::sleep(IDLE).await;
                    json!({ "seconds": IDLE.as_secs() })
                }
                other => bail!("no such word: {other}"),
            };
            let after = usage()?;
            let answer = json!({
                "told": told,
                "cpu_s": after - before,
                "rss_bytes": rss_bytes()?,
                "requests": crowd.sum(|tally| tally.requests),
                "nodes": crowd.sum(|tally| tally.nodes),
                "node_bytes": crowd.sum(|tally| tally.node_bytes),
                "events": crowd.sum(|tally| tally.events),
            });
            println!("{answer}");
            std::io::stdout().flush()?;
        }
        Ok(())
    })
}

/// Lines of standard input, read elsewhere: sessions have to be kept alive meanwhile.
fn words() -> mpsc::UnboundedReceiver<String> {
    let (sender, receiver) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        let lines = std::io::stdin().lock().lines();
        // Until the other end or the input is gone.
        lines
            .map_while(Result::ok)
            .all(|line| sender.send(line).is_ok())
    });
    receiver
}

struct Crowd {
    servers: String,
    session: Duration,
    directory: std::path::PathBuf,
    /// What each member sees; the last one's is that of the one more.
    board: Rc<Vec<Place>>,
    members: BTreeMap<usize, Live>,
    count: usize,
}

/// What one member sees, and what it cost.
#[derive(Default)]
struct Place {
    alive: AtomicUsize,
    restarting: AtomicUsize,
    tally: std::cell::Cell<Tally>,
    /// Of its earlier starts.
    earlier: std::cell::Cell<Tally>,
}

/// A member that runs.
struct Live {
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<()>>,
}

impl Crowd {
    async fn join(&mut self) -> Result<serde_json::Value> {
        let began = clock::now();
        for index in 0..self.count {
            self.start(index)?;
        }
        self.settle(began).await
    }

    /// Waits until everybody sees everybody.
    async fn settle(&self, began: MonoNanos) -> Result<serde_json::Value> {
        let times = self.wait(began, |place| {
            place.alive.load(Ordering::Relaxed) == self.count
        });
        Ok(json!({ "seconds": spread(times.await?) }))
    }

    async fn one_more(&mut self) -> Result<serde_json::Value> {
        let began = clock::now();
        self.start(self.count)?;
        let sees_more = |place: &Place| place.alive.load(Ordering::Relaxed) == self.count + 1;
        let joined = self.wait(began, sees_more).await?;
        let began = clock::now();
        let last = self.members.remove(&self.count).context("it was started")?;
        end(last).await?;
        let sees_it_go = |place: &Place| place.restarting.load(Ordering::Relaxed) == 1;
        let changed = self.wait(began, sees_it_go).await?;
        Ok(json!({ "join_seconds": spread(joined), "change_seconds": spread(changed) }))
    }

    async fn restart(&mut self) -> Result<serde_json::Value> {
        let began = clock::now();
        let ending: Vec<_> = std::mem::take(&mut self.members).into_values().collect();
        let ending: Vec<_> = ending
            .into_iter()
            .map(|live| tokio::task::spawn_local(end(live)))
            .collect();
        for ended in ending {
            ended.await??;
        }
        let farewell_s = clock::now().since(began) as f64 / 1e9;
        for place in self.board.iter() {
            place.alive.store(0, Ordering::Relaxed);
            let earlier = add(place.earlier.get(), place.tally.take());
            place.earlier.set(earlier);
        }
        let mut told = self.join().await?;
        told["farewell_seconds"] = farewell_s.into();
        Ok(told)
    }

    fn start(&mut self, index: usize) -> Result<()> {
        let settings = self.settings(index);
        let discovery = ZookeeperDiscovery::start(settings)?;
        let (stop, stopped) = oneshot::channel();
        let board = Rc::clone(&self.board);
        let task = tokio::task::spawn_local(live(discovery, board, index, stopped));
        self.members.insert(index, Live { stop, task });
        Ok(())
    }

    fn settings(&self, index: usize) -> ZookeeperSettings {
        let bits = u32::try_from(index).unwrap_or(u32::MAX);
        let address = IpAddr::from(Ipv4Addr::from_bits(0x0a00_0001 + bits));
        let state_dir: &Path = &self.directory;
        ZookeeperSettings {
            servers: self.servers.clone(),
            root: String::from("/distributed-trace"),
            session: self.session,
            grace: Duration::from_mins(5),
            auth: None,
            tls: None,
            targets: ["10.0.0.0/8".parse().ok()].into_iter().flatten().collect(),
            state_dir: state_dir.join(index.to_string()),
            own: OwnMember {
                name: format!("node-{index:05}.example"),
                addresses: vec![address],
                port: 862,
                labels: Labels {
                    zone: Some(format!("zone-{}", index % 3)),
                    rack: Some(format!("rack-{}", index % 40)),
                    instance_group: Some(String::from("general")),
                    bandwidth: Some(String::from("25G")),
                    ..Labels::default()
                },
                handover: Duration::from_mins(3),
            },
            seed: u64::from(bits).wrapping_mul(0x9e37_79b9_7f4a_7c15),
        }
    }

    /// Waits until each of the crowd meets a condition; after how many seconds each did.
    async fn wait(&self, began: MonoNanos, met: impl Fn(&Place) -> bool) -> Result<Vec<f64>> {
        let mut times = vec![None; self.count];
        loop {
            let passed_s = clock::now().since(began) as f64 / 1e9;
            for (time, place) in times.iter_mut().zip(self.board.iter()) {
                if time.is_none() && met(place) {
                    *time = Some(passed_s);
                }
            }
            if times.iter().all(Option::is_some) {
                return Ok(times.into_iter().flatten().collect());
            }
            ensure!(
                passed_s < LIMIT_S,
                "{} of {} have not seen it within {LIMIT_S} s",
                times.iter().filter(|time| time.is_none()).count(),
                self.count
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    fn sum(&self, field: impl Fn(Tally) -> u64) -> u64 {
        let places = self.board.iter();
        places
            .map(|place| field(add(place.earlier.get(), place.tally.get())))
            .sum()
    }
}

/// One member, as the agent does it: it announces itself when it knows the mesh.
async fn live(
    mut discovery: ZookeeperDiscovery,
    board: Rc<Vec<Place>>,
    index: usize,
    mut stopped: oneshot::Receiver<()>,
) -> Result<()> {
    let place = &board[index];
    let mut announced = false;
    loop {
        tokio::select! {
            biased;
            _ = &mut stopped => {
                discovery.suspend().await;
                return Ok(());
            }
            found = discovery.next_change() => match found {
                Ok(found) => {
                    let in_state = |state| {
                        let members = found.membership.members.iter();
                        members.filter(|member| member.state == state).count()
                    };
                    let alive = in_state(MemberState::Alive);
                    place.alive.store(alive, Ordering::Relaxed);
                    place.restarting.store(in_state(MemberState::Restarting), Ordering::Relaxed);
                    if !std::mem::replace(&mut announced, true) {
                        discovery.announce();
                    }
                }
                Err(error) => eprintln!("{index}: {:#}", anyhow::Error::from(error)),
            },
        }
        place.tally.set(discovery.tally());
    }
}

async fn end(live: Live) -> Result<()> {
    // One that ended by itself says why below.
    let _ = live.stop.send(());
    live.task.await?
}

fn add(one: Tally, other: Tally) -> Tally {
    Tally {
        requests: one.requests + other.requests,
        nodes: one.nodes + other.nodes,
        node_bytes: one.node_bytes + other.node_bytes,
        events: one.events + other.events,
    }
}

fn spread(mut times: Vec<f64>) -> serde_json::Value {
    times.sort_by(f64::total_cmp);
    let at = |part: usize| times.get((times.len() - 1) * part / 100).copied();
    json!({ "p50": at(50), "p99": at(99), "last": at(100) })
}

/// CPU time of this process, s.
fn usage() -> Result<f64> {
    let usage = getrusage(UsageWho::RUSAGE_SELF)?;
    let micros = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    Ok(micros as f64 / 1e6)
}

fn rss_bytes() -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib: u64 = line
        .and_then(|line| line.split_whitespace().next())
        .context("no VmRSS")?
        .parse()?;
    Ok(kib * 1_024)
}

const IDLE: Duration = Duration::from_secs(10);
/// Many times what anything takes.
const LIMIT_S: f64 = 300.0;
