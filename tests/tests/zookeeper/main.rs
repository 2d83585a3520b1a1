//! Agents that find each other through a real ZooKeeper: how they come and go, and what is promised when it fails.
//!
//! Each fault prints one line, `promised: … | seen: …`, from which the table in `docs/reliability.md` is made.

mod absences;
mod diary;
mod goings;
mod rolling;
mod secured;
mod strangers;

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use dt_tests::{Agent, Lab, Launch, SERVERS, given};
use zookeeper_client::Client;

use diary::Diary;

/// A running agent and what it writes.
struct Node {
    agent: Agent,
    diary: Diary,
}

impl Node {
    fn start(lab: &Lab, host: &str, servers: &str) -> Result<Self> {
        Self::of(&launch(lab, host, servers)?, host, host)
    }

    fn of(launch: &Launch<'_>, host: &str, log: &str) -> Result<Self> {
        let agent = launch.start(log)?;
        let diary = Diary::of(host, &agent);
        Ok(Self { agent, diary })
    }
}

/// An agent that finds the others through ZooKeeper and reports every probe.
fn launch<'a>(lab: &'a Lab, host: &str, servers: &str) -> Result<Launch<'a>> {
    Ok(Launch::on(lab, host)?
        .setting("DT_DISCOVERY", "zookeeper")
        .setting("ZOOKEEPER_SERVERS", servers)
        .setting("DT_ZOOKEEPER_SESSION", "2s")
        .setting("DT_DETAIL", "probes")
        .flags(&["--mode=tc"]))
}

/// Hosts that probe each other, and one for servers beside them.
fn lab(hosts: u16) -> Result<Lab> {
    let mut lab = Lab::mesh(hosts)?;
    lab.add_servers()?;
    Ok(lab)
}

/// Types `dt-agent leave` on a host; what it says.
fn leave(lab: &Lab, host: &str, servers: &str) -> Result<String> {
    let output = lab
        .host(host)
        .command(&given::agent()?.display().to_string())
        .args(["leave", "--node", host, "--zookeeper", servers])
        .arg("--state-dir")
        .arg(lab.dir().join("state").join(host))
        .output()?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(
        output.status.success(),
        "{said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(said)
}

/// Does something in ZooKeeper from the host it is on, as `USER:PASSWORD` if any.
fn in_zookeeper<T: Send>(
    lab: &Lab,
    server: SocketAddr,
    auth: Option<&str>,
    work: impl AsyncFnOnce(Client) -> Result<T> + Send,
) -> Result<T> {
    lab.host(SERVERS).enter(|| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(async {
            let mut connector = Client::connector().with_session_timeout(Duration::from_secs(5));
            if let Some(auth) = auth {
                connector = connector.with_auth("digest", auth.as_bytes());
            }
            work(connector.connect(&server.to_string()).await?).await
        })
    })?
}

/// The names of the members' nodes.
fn nodes(lab: &Lab, server: SocketAddr) -> Result<Vec<String>> {
    in_zookeeper(lab, server, None, async |client| {
        Ok(client.list_children(MEMBERS).await?)
    })
}

/// The path of the only node of a host.
fn node_of(lab: &Lab, server: SocketAddr, host: &str) -> Result<String> {
    let nodes = nodes(lab, server)?;
    let prefix = format!("{host}:");
    let mut of_host = nodes.iter().filter(|name| name.starts_with(&prefix));
    let name = of_host
        .next()
        .with_context(|| format!("{host} has no node: {nodes:?}"))?;
    ensure!(
        of_host.next().is_none(),
        "{host} has several nodes: {nodes:?}"
    );
    Ok(format!("{MEMBERS}/{name}"))
}

/// What a step of a test returned.
///
/// # Panics
/// The step failed: a panic, not an error, so that the words of the agents are shown as well.
fn show<T>(result: Result<T>) -> T {
    result.unwrap_or_else(|error| panic!("{error:#}"))
}

fn seconds(from_ns: u64, to_ns: u64) -> f64 {
    to_ns.saturating_sub(from_ns) as f64 / 1e9
}

fn verdict(promised: &str, seen: &str) {
    println!("promised: {promised} | seen: {seen}");
}

const MEMBERS: &str = "/distributed-trace/members";
const STOP: &str = "/distributed-trace/stop";
const SECOND: u64 = 1_000_000_000;
/// What the agents ask for, s.
const SESSION_S: f64 = 2.0;
