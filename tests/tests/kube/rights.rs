//! The least rights: what is lost without each of them.

use anyhow::{Context, Result, ensure};
use dt_tests::wait;
use serde_json::{Value, json};

use super::{LIMIT, Mesh};

impl Mesh<'_> {
    /// Takes each capability away from the agent of one node and asks it what it can do now.
    pub(super) fn each_capability_is_necessary(&self) -> Result<()> {
        // Only the Pod that is deleted comes back with other rights.
        self.patch(&json!([{"op": "replace", "path": "/spec/updateStrategy", "value": {"type": "OnDelete"}}]))?;
        let whole = self.with_capabilities(&ALL)?;
        ensure!(
            whole.contains(IN_KERNEL) && whole.contains(WHOLE),
            "with all of them:\n{whole}"
        );
        for missing in ALL {
            let rest: Vec<_> = ALL.into_iter().filter(|one| *one != missing).collect();
            let said = self.with_capabilities(&rest)?;
            println!("without {missing}:\n{said}");
            ensure!(
                !(said.contains(IN_KERNEL) && said.contains(WHOLE)),
                "{missing} is not necessary:\n{said}"
            );
        }
        let whole = self.with_capabilities(&ALL)?;
        ensure!(
            whole.contains(IN_KERNEL) && whole.contains(WHOLE),
            "with all of them again:\n{whole}"
        );
        Ok(())
    }

    /// What the agent says of its readiness with these.
    fn with_capabilities(&self, capabilities: &[&str]) -> Result<String> {
        let path = "/spec/template/spec/containers/0/securityContext/capabilities/add";
        self.patch(&json!([{"op": "replace", "path": path, "value": capabilities}]))?;
        let node = &self.cluster.nodes()[0];
        let old = self.agent_on(node)?.context("an agent runs")?;
        self.cluster.kubectl(&["delete", "pod", &old])?;
        wait::until("what the agent says", LIMIT, || {
            if self.agent_on(node)?.is_none_or(|name| name == old) {
                return Ok(None);
            }
            let Ok(said) = self.get(node, "/readyz?verbose") else {
                return Ok(None);
            };
            Ok(said.ends_with("\nready\n").then_some(said))
        })
    }

    fn agent_on(&self, node: &str) -> Result<Option<String>> {
        let on = format!("--field-selector=spec.nodeName={node}");
        let words = [
            "get",
            "pods",
            "--selector=app.kubernetes.io/component=agent",
            &on,
            "-o",
            "json",
        ];
        let pods: Value = serde_json::from_str(&self.cluster.kubectl(&words)?)?;
        let name = pods["items"][0]["metadata"]["name"].as_str();
        Ok(name.map(str::to_owned))
    }

    fn patch(&self, patch: &Value) -> Result<()> {
        let patch = patch.to_string();
        let words = [
            "patch",
            "daemonset/distributed-trace-agent",
            "--type=json",
            "--patch",
            &patch,
        ];
        self.cluster.kubectl(&words)?;
        Ok(())
    }
}

/// As the chart gives them.
const ALL: [&str; 4] = ["BPF", "PERFMON", "NET_ADMIN", "NET_BIND_SERVICE"];
/// Of an interface whose probes are stamped and answered by programs.
const IN_KERNEL: &str = "[+]interface eth0 tc";
/// Of a reflector whose port is its own: what the programs pass up is answered too.
const WHOLE: &str = "[+]reflector ok";
