//! A node that goes without a word.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use dt_tests::{docker, wait};
use serde_json::Value;

use super::{LIMIT, Mesh, Window};

impl Mesh<'_> {
    /// Its agent is killed and its wire is cut, as if it had lost its power: the others know it from ZooKeeper, and the topic
    /// says so.
    pub(super) fn dead_node_is_failed_in_time(&self) -> Result<()> {
        let node = self.last_node();
        let port = format!("to-{node}");
        let wire = |state| {
            self.lab
                .host("kube")
                .run(&["ip", "link", "set", &port, state])
        };
        let agents = self.agents_on(node)?;
        let agent = agents.first().context("no agent runs there")?;
        wire("down")?;
        self.lab.host(node).run(&["kill", "-KILL", agent])?;
        let began = wait::unix_now_ns()?;
        let outcome = wait::until("failed node on the topic", LIMIT, || {
            let Ok(picture) = self.picture("all") else {
                return Ok(None);
            };
            Ok((state_of(&picture, node) == Some("failed")).then_some(()))
        });
        wire("up")?;
        outcome?;
        // When the others wrote it, which is sooner than it was read.
        let windows = self.windows()?;
        let says_so = |window: &&Window| window.peer == node && window.peer_state == "failed";
        let first = windows
            .iter()
            .filter(says_so)
            .map(|window| window.end_ns)
            .min();
        let took = first
            .context("a window that says so")?
            .saturating_sub(began);
        println!(
            "{node} killed: failed on the topic after {} ms",
            took / 1_000_000
        );
        ensure!(
            u128::from(took) <= (SESSION + BEYOND).as_nanos(),
            "{took} ns"
        );
        wait::until("the node is back", RETURN, || {
            let Ok(picture) = self.picture("10s") else {
                return Ok(None);
            };
            Ok((state_of(&picture, node) == Some("alive")).then_some(()))
        })?;
        self.cluster.until(
            "the node",
            &[
                "wait",
                "--for=condition=Ready",
                "--timeout=1s",
                &format!("node/{node}"),
            ],
        )
    }

    /// The agents among the processes in the node's network.
    pub(super) fn agents_on(&self, node: &str) -> Result<Vec<String>> {
        let namespace = self.lab.host(node).namespace();
        let pids = docker::run(Command::new("ip").args(["netns", "pids", namespace]))?;
        let is_agent = |pid: &&str| {
            std::fs::read_to_string(format!("/proc/{pid}/comm"))
                .is_ok_and(|name| name.trim() == "dt-agent")
        };
        Ok(pids
            .split_whitespace()
            .filter(is_agent)
            .map(str::to_owned)
            .collect())
    }
}

fn state_of<'a>(picture: &'a Value, node: &str) -> Option<&'a str> {
    let groups = picture["groups"].as_array()?;
    let group = groups.iter().find(|group| group["name"] == node)?;
    group["state"].as_str()
}

/// As the agents have it unless told otherwise.
const SESSION: Duration = Duration::from_secs(10);
/// What the others may take to hear of it and to write it.
const BEYOND: Duration = Duration::from_secs(5);
/// Kubernetes starts it anew after a while.
const RETURN: Duration = LIMIT.saturating_mul(2);
