//! The charts, on a real Kubernetes of three nodes.

mod absence;
mod rights;
mod upgrade;

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use dt_tests::docker::images::Images;
use dt_tests::kube::{self, Cluster};
use dt_tests::{Lab, skip_unless_equipped, skip_unless_served, wait};
use serde_json::Value;

#[test]
fn the_two_commands_make_every_node_measure_every_other_one() -> Result<()> {
    skip_unless_equipped!();
    skip_unless_served!();
    let mut lab = Lab::empty()?;
    let nodes = kube::add_hosts(&mut lab, NODES)?;
    let images = Images::prepare(&lab)?.archives(&lab, env!("CARGO_PKG_VERSION"))?;
    let cluster = Cluster::start(&lab, &nodes, &images)?;
    let mesh = Mesh {
        lab: &lab,
        cluster: &cluster,
    };
    let outcome = mesh.check();
    if outcome.is_err() {
        mesh.say_how_it_is();
    }
    outcome
}

struct Mesh<'a> {
    lab: &'a Lab,
    cluster: &'a Cluster<'a>,
}

impl Mesh<'_> {
    fn check(&self) -> Result<()> {
        self.label_nodes()?;
        self.server_takes_what_is_rendered()?;
        self.keep_servers_off_the_last_node()?;
        self.install("privileged", "")?;
        println!(
            "{}",
            self.cluster
                .helm(&["test", "distributed-trace", "--timeout=3m"])?
        );
        self.all_pairs_are_measured()?;
        self.metrics_are_served()?;
        self.restart_loses_nothing()?;
        self.pods_cost()?;
        self.other_abi_and_back_lose_nothing()?;
        self.dead_node_is_failed_in_time()?;
        self.uninstall()?;
        self.install_with_secrets("capabilities")?;
        self.all_pairs_are_measured()?;
        self.restart_loses_nothing()?;
        self.each_capability_is_necessary()?;
        self.uninstall()
    }

    /// So that it can fail alone; the agents run everywhere.
    fn keep_servers_off_the_last_node(&self) -> Result<()> {
        self.cluster.kubectl(&["cordon", self.last_node()])?;
        Ok(())
    }

    fn last_node(&self) -> &str {
        self.cluster.nodes().last().map_or("", String::as_str)
    }

    /// One zone of two nodes and one of one, and a rack for each.
    fn label_nodes(&self) -> Result<()> {
        for (index, node) in self.cluster.nodes().iter().enumerate() {
            let zone = format!("topology.kubernetes.io/zone=z{}", index / 2);
            let rack = format!("topology.kubernetes.io/rack=r{index}");
            self.cluster
                .kubectl(&["label", "node", node, &zone, &rack])?;
        }
        Ok(())
    }

    /// A dry run on the API server, which knows more of its objects than Helm does.
    fn server_takes_what_is_rendered(&self) -> Result<()> {
        for chart in [
            "helm-charts/kafka",
            "helm-charts/zookeeper",
            "helm-charts/dt-chart",
        ] {
            for mode in ["privileged", "capabilities"] {
                let mode = format!("securityContext.mode={mode}");
                let mut words = vec!["template", "release", chart];
                if chart.ends_with("dt-chart") {
                    words.extend(["--set", &mode]);
                }
                let rendered = self.cluster.helm(&words)?;
                let mut apply = self
                    .cluster
                    .client("kubectl", &["apply", "--dry-run=server", "-f", "-"])?;
                let mut apply = apply.stdin(Stdio::piped()).stdout(Stdio::null()).spawn()?;
                apply
                    .stdin
                    .take()
                    .context("it is piped")?
                    .write_all(rendered.as_bytes())?;
                ensure!(
                    apply.wait()?.success(),
                    "the API server refuses {chart} in {mode}"
                );
            }
        }
        Ok(())
    }

    /// The two commands, but for persistence, which wants a provisioner.
    fn install(&self, mode: &str, more: &str) -> Result<()> {
        let began = wait::unix_now_ns()?;
        let kafka = [
            "install",
            "service-kafka",
            "helm-charts/kafka",
            "--set",
            "persistence.enabled=false",
        ];
        self.cluster.helm(&kafka)?;
        let settings = format!(
            "zookeeper.persistence.enabled=false,agent.window=1s,agent.rate=10,securityContext.mode={mode}{more}"
        );
        let agents = [
            "install",
            "distributed-trace",
            "helm-charts/dt-chart",
            "--set",
            &settings,
        ];
        println!(
            "{}",
            self.cluster
                .helm(&[&agents[..], &["--wait", "--timeout=4m"]].concat())?
        );
        let seconds = wait::unix_now_ns()?.saturating_sub(began) / 1_000_000_000;
        println!("both charts installed and all agents ready, {mode}: {seconds} s");
        Ok(())
    }

    /// The same with a variable and a file that only Secrets have.
    fn install_with_secrets(&self, mode: &str) -> Result<()> {
        for (name, literal) in [
            ("variables", "DT_KAFKA_PROPERTY=client.id=of-a-secret"),
            ("files", "ca.crt=a certificate"),
        ] {
            let literal = format!("--from-literal={literal}");
            self.cluster
                .kubectl(&["create", "secret", "generic", name, &literal])?;
        }
        self.install(mode, ",secrets.variables=variables,secrets.files=files")?;
        let show = "cat /etc/distributed-trace/secret/ca.crt; echo \" $DT_KAFKA_PROPERTY\"";
        for who in [
            "daemonset/distributed-trace-agent",
            "deploy/distributed-trace-console",
        ] {
            let said = self
                .cluster
                .kubectl(&["exec", who, "--", "sh", "-c", show])?;
            ensure!(
                said.trim() == "a certificate client.id=of-a-secret",
                "{who}: {said}"
            );
        }
        Ok(())
    }

    fn all_pairs_are_measured(&self) -> Result<()> {
        let picture = wait::until("all pairs on the topic", LIMIT, || {
            // The console starts anew until it finds Kafka, and ends what was typed into it meanwhile.
            let Ok(picture) = self.picture("all") else {
                return Ok(None);
            };
            Ok((measured(&picture).len() == NODES * (NODES - 1)).then_some(picture))
        })?;
        for cell in cells(&picture) {
            println!("{cell}");
        }
        ensure!(picture["total"]["lost"] == 0, "{picture}");
        Ok(())
    }

    /// What the console says of the topic.
    fn picture(&self, span: &str) -> Result<Value> {
        let console = [
            "exec",
            "deploy/distributed-trace-console",
            "--",
            "dt-console",
            "matrix",
        ];
        let words = [&console[..], &["--once", "--json", "--span", span]].concat();
        Ok(serde_json::from_str(&self.cluster.kubectl(&words)?)?)
    }

    fn metrics_are_served(&self) -> Result<()> {
        for node in self.cluster.nodes() {
            let metrics = self.get(node, "/metrics")?;
            for line in [
                "dt_peers 2",
                "dt_feed_connected 1",
                "dt_discovery_connected 1",
            ] {
                ensure!(
                    metrics
                        .lines()
                        .any(|found| found.trim_end_matches(".0") == line),
                    "{node}: no {line}:\n{metrics}"
                );
            }
            // The labels of the nodes are those of the agents.
            let zone = if node == "kn3" { "z1" } else { "z0" };
            let other = if node == "kn3" { "z0" } else { "z1" };
            let labels = format!("dt_rtt_seconds_count{{zone=\"{zone}\",peer_zone=\"{other}\"}}");
            ensure!(metrics.contains(&labels), "{node}: no {labels}");
            let ready = self.get(node, "/readyz?verbose")?;
            println!("{node}:\n{ready}");
        }
        Ok(())
    }

    fn uninstall(&self) -> Result<()> {
        self.cluster
            .helm(&["uninstall", "distributed-trace", "--wait", "--timeout=2m"])?;
        self.cluster
            .helm(&["uninstall", "service-kafka", "--wait", "--timeout=2m"])?;
        wait::until("no Pod left", LIMIT, || {
            let pods =
                self.cluster
                    .kubectl(&["get", "pods", "--no-headers", "--ignore-not-found"])?;
            Ok(pods.trim().is_empty().then_some(()))
        })?;
        for node in self.cluster.nodes() {
            // Seen from the node itself: pins, and programs on its interface. The kernel has files of its own at the top.
            let find = ["find", "/sys/fs/bpf", "-mindepth", "2"];
            let pins = self.cluster.on_node(node, &find)?;
            ensure!(pins.is_empty(), "pins left on {node}:\n{pins}");
            let link = self
                .lab
                .host(node)
                .run(&["ip", "-details", "link", "show", "eth0"])?;
            ensure!(!link.contains("xdp"), "a program is left on {node}: {link}");
            let agents = self
                .lab
                .host(node)
                .run(&["bpftool", "net", "show", "dev", "eth0"])?;
            // Those of Pods with a network of their own.
            let list = ["find", "/run", "-maxdepth", "2", "-path", "/run/netns/*"];
            let networks = self.cluster.on_node(node, &list)?;
            ensure!(
                networks.is_empty(),
                "namespaces left on {node}:\n{networks}"
            );
            let left = self.agents_on(node)?;
            ensure!(left.is_empty(), "agents run on {node}: {left:?}");
            ensure!(
                !agents.contains("tc_egress"),
                "a program is left on {node}: {agents}"
            );
        }
        let objects = [
            "get",
            "all,serviceaccounts,roles,rolebindings,configmaps",
            "--output=name",
        ];
        let left = self.cluster.kubectl(&objects)?;
        let ours: Vec<_> = left
            .lines()
            .filter(|name| name.contains("distributed-trace"))
            .collect();
        ensure!(ours.is_empty(), "left behind: {ours:?}");
        let releases = self.cluster.helm(&["list", "--short"])?;
        ensure!(releases.trim().is_empty(), "{releases}");
        Ok(())
    }

    /// What a user would ask first, of agents that found ZooKeeper and Kafka running: how soon, and how much of the machine.
    fn pods_cost(&self) -> Result<()> {
        let before = self.costs()?;
        let windows = self.windows()?;
        let sent = upgrade::sent(&windows);
        wait::until("more windows", LIMIT, || {
            let windows = self.windows().unwrap_or_default();
            Ok((upgrade::sent(&windows) > sent + 600).then_some(()))
        })?;
        for ((node, before), (_, after)) in before.iter().zip(self.costs()?) {
            let own = windows.iter().filter(|window| window.source == *node);
            let began = (before.started_s * 1e9) as u64;
            let measured = own.filter(|window| window.received > 0 && window.end_ns > began);
            let first = measured
                .map(|window| window.start_ns.max(began))
                .min()
                .context("it measured")?;
            println!(
                "{node}: {} ms from the start of the agent to its first window with a round trip, {:.1} MB, {:.2} % of a CPU at 20 probes a second",
                (first - began) / 1_000_000,
                after.memory_mb,
                (after.cpu_s - before.cpu_s) / (after.seen_s - before.seen_s) * 100.0
            );
        }
        Ok(())
    }

    /// By node, as the agents tell it.
    fn costs(&self) -> Result<Vec<(String, Cost)>> {
        let nodes = self.cluster.nodes().iter();
        nodes
            .map(|node| {
                let metrics = self.get(node, "/metrics")?;
                let of = |name: &str| {
                    let mut values = metrics.lines().filter_map(|line| line.strip_prefix(name));
                    let found = values.find_map(|value| value.trim().parse::<f64>().ok());
                    found.with_context(|| format!("no {name}"))
                };
                let cost = Cost {
                    started_s: of("process_start_time_seconds ")?,
                    seen_s: wait::unix_now_ns()? as f64 / 1e9,
                    cpu_s: of("process_cpu_seconds_total ")?,
                    memory_mb: of("process_resident_memory_bytes ")? / 1e6,
                };
                Ok((node.clone(), cost))
            })
            .collect()
    }

    /// All windows on the topic, as the console reads them.
    fn windows(&self) -> Result<Vec<Window>> {
        let console = [
            "exec",
            "deploy/distributed-trace-console",
            "--",
            "dt-console",
        ];
        let words = [
            &console[..],
            &["tail", "--json", "--since", "start", "--once"],
        ]
        .concat();
        let said = self.cluster.kubectl(&words)?;
        said.lines().map(Window::read).collect()
    }

    fn get(&self, node: &str, path: &str) -> Result<String> {
        let address = format!("{}:9862", self.cluster.address(node));
        let request = format!("GET {path} HTTP/1.0\r\nHost: agent\r\n\r\n");
        self.lab.host("kube").enter(|| {
            let mut stream = TcpStream::connect(&address)?;
            stream.set_read_timeout(Some(LIMIT))?;
            stream.write_all(request.as_bytes())?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok(answer)
        })?
    }

    /// For whoever has to find out why the test failed.
    fn say_how_it_is(&self) {
        for words in [
            &["get", "pods", "-A", "-o", "wide"][..],
            &["get", "events", "-A", "--sort-by=.lastTimestamp"],
            &[
                "logs",
                "daemonset/distributed-trace-agent",
                "--all-pods",
                "--tail=30",
            ],
        ] {
            let said = self.cluster.kubectl(words);
            eprintln!(
                "kubectl {}:\n{}",
                words.join(" "),
                said.unwrap_or_else(|error| error.to_string())
            );
        }
    }
}

struct Cost {
    started_s: f64,
    seen_s: f64,
    cpu_s: f64,
    memory_mb: f64,
}

/// Of one pair, as far as it matters here.
struct Window {
    source: String,
    /// Of the agent that measured it.
    start: String,
    peer: String,
    /// What the membership said of it.
    peer_state: String,
    start_ns: u64,
    end_ns: u64,
    sent: u64,
    received: u64,
    lost: u64,
}

impl Window {
    fn read(line: &str) -> Result<Self> {
        let row: Value = serde_json::from_str(line)?;
        let text = |key: &str| row[key].as_str().map(str::to_owned);
        let number = |key: &str| {
            row[key]
                .as_u64()
                .with_context(|| format!("no {key} in {line}"))
        };
        Ok(Self {
            source: text("source").context("source")?,
            start: text("start_id").context("start_id")?,
            peer: text("peer").context("peer")?,
            peer_state: text("peer_state").unwrap_or_default(),
            start_ns: number("start_unix_ns")?,
            end_ns: number("end_unix_ns")?,
            sent: number("sent")?,
            received: number("received")?,
            lost: number("lost_forward")? + number("lost_return")? + number("lost_unknown")?,
        })
    }
}

fn cells(picture: &Value) -> impl Iterator<Item = &Value> {
    picture["cells"].as_array().into_iter().flatten()
}

/// Pairs from which an answer came.
fn measured(picture: &Value) -> BTreeSet<(String, String)> {
    let answered = cells(picture).filter(|cell| cell["received"].as_u64() > Some(0));
    answered
        .map(|cell| (cell["from"].to_string(), cell["to"].to_string()))
        .collect()
}

const NODES: usize = 3;
const LIMIT: Duration = Duration::from_mins(1);
