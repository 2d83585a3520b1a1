//! A real Kubernetes of several nodes on one machine: each node a host of the lab, the control plane one more.
//!
//! A node has network and mount namespaces, a BPF file system, a container runtime and a kubelet of its own. There is no
//! registry: images are archives. What it needs was built or installed by set-up, see `xtask/src/setup`. Nothing enforces
//! network policies here.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::docker::run;
use crate::lab::Lab;
use crate::process::Proc;
use crate::{given, netns, wait};

/// A running cluster. Dropping it ends its processes; what they made goes with the lab.
#[derive(Debug)]
pub struct Cluster<'a> {
    lab: &'a Lab,
    state: PathBuf,
    nodes: Vec<String>,
    processes: Vec<Proc>,
}

/// Name of the host with the control plane.
const CONTROL: &str = "kube";
const CONTROL_ADDRESS: &str = "10.79.0.1";

/// Adds the hosts of a cluster to a lab: the control plane with a bridge, and `kn1`, `kn2`, … with `eth0` on it.
pub fn add_hosts(lab: &mut Lab, nodes: usize) -> Result<Vec<String>> {
    lab.add_host(CONTROL)?;
    let names: Vec<_> = (1..=nodes).map(|number| format!("kn{number}")).collect();
    for name in &names {
        lab.add_host(name)?;
    }
    let control = lab.host(CONTROL);
    let mut lines = vec![
        String::from("link add ktb0 type bridge"),
        format!("addr add {CONTROL_ADDRESS}/24 dev ktb0"),
        String::from("link set ktb0 up"),
    ];
    for (index, name) in names.iter().enumerate() {
        let (port, there) = (format!("to-{name}"), lab.host(name).namespace());
        lines.push(format!(
            "link add {port} type veth peer name eth0 netns {there}"
        ));
        lines.push(format!("link set {port} master ktb0 up"));
        let number = index + 1;
        lines.push(format!(
            "route add 10.78.{number}.0/24 via {}",
            address_of(index)
        ));
    }
    netns::ip_batch(control.namespace(), &lines)?;
    for (index, name) in names.iter().enumerate() {
        let mut lines = vec![
            format!("addr add {}/24 dev eth0", address_of(index)),
            String::from("link set eth0 up"),
            format!("route add default via {CONTROL_ADDRESS}"),
        ];
        let others = (0..nodes).filter(|other| *other != index);
        lines.extend(others.map(|other| {
            format!(
                "route add 10.78.{}.0/24 via {}",
                other + 1,
                address_of(other)
            )
        }));
        netns::ip_batch(lab.host(name).namespace(), &lines)?;
    }
    for name in names.iter().map(String::as_str).chain([CONTROL]) {
        lab.host(name)
            .run(&["sysctl", "-qw", "net.ipv4.ip_forward=1"])?;
    }
    Ok(names)
}

fn address_of(index: usize) -> String {
    format!("10.79.0.{}", 11 + index)
}

impl<'a> Cluster<'a> {
    /// Starts one on the hosts that [`add_hosts`] added. `images` are archives that every node gets.
    pub fn start(lab: &'a Lab, nodes: &[String], images: &[PathBuf]) -> Result<Self> {
        let mut cluster = Self {
            lab,
            state: lab.dir().join("kube"),
            nodes: nodes.to_vec(),
            processes: Vec::new(),
        };
        let files = scripts().join("files.sh");
        run(Command::new(files)
            .arg(&cluster.state)
            .arg(lab.owned_name(""))
            .args(nodes))?;
        for image in images {
            let name = image.file_name().context("an image is a file")?;
            std::fs::hard_link(image, cluster.state.join("images").join(name))?;
        }
        cluster.start_control()?;
        for (index, name) in nodes.iter().enumerate() {
            cluster.start_node(index, name)?;
        }
        // By name: not all of them may have come yet.
        let names: Vec<_> = nodes.iter().map(|name| format!("node/{name}")).collect();
        let mut words = vec!["wait", "--for=condition=Ready", "--timeout=1s"];
        words.extend(names.iter().map(String::as_str));
        cluster.until("all nodes", &words)?;
        Ok(cluster)
    }

    fn start_control(&mut self) -> Result<()> {
        let etcd = "--data-dir etcd --listen-client-urls http://127.0.0.1:2379 --advertise-client-urls http://127.0.0.1:2379 \
             --listen-peer-urls http://127.0.0.1:2380 --initial-advertise-peer-urls http://127.0.0.1:2380 \
             --initial-cluster default=http://127.0.0.1:2380";
        self.spawn("etcd", Path::new("etcd"), etcd)?;
        let server = format!(
            "--etcd-servers=http://127.0.0.1:2379 --secure-port=6443 --bind-address={CONTROL_ADDRESS} \
             --advertise-address={CONTROL_ADDRESS} --service-cluster-ip-range=10.96.0.0/16 --allow-privileged=true \
             --authorization-mode=Node,RBAC --enable-admission-plugins=NodeRestriction --token-auth-file=pki/tokens.csv \
             --client-ca-file=pki/ca.crt --tls-cert-file=pki/apiserver.crt --tls-private-key-file=pki/apiserver.key \
             --kubelet-client-certificate=pki/kubelet-client.crt --kubelet-client-key=pki/kubelet-client.key \
             --kubelet-preferred-address-types=InternalIP --service-account-issuer=https://kubernetes.default.svc \
             --service-account-key-file=pki/sa.key --service-account-signing-key-file=pki/sa.key"
        );
        self.spawn("apiserver", &given::tool("kube-apiserver")?, &server)?;
        self.until("the API server", &["get", "--raw", "/readyz"])?;
        let manager = "--kubeconfig=cm.conf --service-account-private-key-file=pki/sa.key --root-ca-file=pki/ca.crt \
             --use-service-account-credentials=true --leader-elect=false --node-monitor-grace-period=20s";
        self.spawn(
            "controller-manager",
            &given::tool("kube-controller-manager")?,
            manager,
        )?;
        let scheduler = "--kubeconfig=scheduler.conf --leader-elect=false";
        self.spawn("scheduler", &given::tool("kube-scheduler")?, scheduler)?;
        self.spawn("coredns", &given::tool("coredns")?, "-conf Corefile")
    }

    fn spawn(&mut self, name: &str, program: &Path, words: &str) -> Result<()> {
        let mut command = self
            .lab
            .host(CONTROL)
            .command(&program.display().to_string());
        command
            .args(words.split_whitespace())
            .current_dir(&self.state);
        self.processes
            .push(Proc::spawn(name, &self.state, &mut command)?);
        Ok(())
    }

    fn start_node(&mut self, index: usize, name: &str) -> Result<()> {
        let programs = given::tool("kubelet")?;
        let programs = programs.parent().context("set-up built a kubelet")?;
        let mut command = self.lab.host(name).command("unshare");
        command
            .args(["--mount", "--propagation", "private", "bash"])
            .arg(scripts().join("node.sh"))
            .arg(&self.state)
            .args([name, &address_of(index), &self.lab.owned_name(name)])
            .arg(programs);
        self.processes
            .push(Proc::spawn(name, &self.state, &mut command)?);
        Ok(())
    }

    /// The nodes' names.
    #[must_use]
    pub fn nodes(&self) -> &[String] {
        &self.nodes
    }

    /// The address of a node.
    #[must_use]
    pub fn address(&self, node: &str) -> String {
        let index = self
            .nodes
            .iter()
            .position(|name| name == node)
            .unwrap_or_default();
        address_of(index)
    }

    /// Runs `kubectl` to its end; what it printed.
    pub fn kubectl(&self, words: &[&str]) -> Result<String> {
        run(&mut self.client("kubectl", words)?)
    }

    /// Runs `helm` to its end; what it printed.
    pub fn helm(&self, words: &[&str]) -> Result<String> {
        run(&mut self.client("helm", words)?)
    }

    /// A command on the host of the control plane that knows the cluster.
    pub fn client(&self, program: &str, words: &[&str]) -> Result<Command> {
        let program = given::tool(program)?.display().to_string();
        let mut command = self.lab.host(CONTROL).command(&program);
        command
            .args(words)
            .env("KUBECONFIG", self.state.join("admin.conf"))
            // Caches and the like; not those of whoever runs the tests.
            .env("HOME", &self.state)
            .current_dir(crate::docker::root());
        Ok(command)
    }

    /// Runs a command in a node's mount namespace, where its files and its programs are.
    pub fn on_node(&self, node: &str, words: &[&str]) -> Result<String> {
        let index = self.nodes.iter().position(|name| name == node);
        let first = self.processes.len() - self.nodes.len();
        let process = &self.processes[first + index.context("no such node")?];
        let pid = process.pid().to_string();
        let mut command = self.lab.host(node).command("nsenter");
        run(command
            .args(["--mount", "--target", &pid, "--"])
            .args(words))
    }

    /// Waits until `kubectl` succeeds with these words.
    pub fn until(&self, what: &str, words: &[&str]) -> Result<()> {
        wait::until(what, LIMIT, || {
            for process in &self.processes {
                ensure_runs(process)?;
            }
            Ok(self.kubectl(words).ok())
        })?;
        Ok(())
    }
}

/// Fails where a part of the cluster has ended, with its last words.
fn ensure_runs(process: &Proc) -> Result<()> {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", process.pid())).unwrap_or_default();
    // The state stands behind the name, which is in parentheses; Z is an ended process that nobody has asked about.
    let state = stat.rsplit_once(") ").map(|(_, rest)| rest.chars().next());
    ensure!(
        !matches!(state, None | Some(Some('Z'))),
        "a part of the cluster ended:\n{}",
        process.tail()
    );
    Ok(())
}

impl Drop for Cluster<'_> {
    fn drop(&mut self) {
        // Kubelets first, so that they do not start anew what ends.
        while let Some(mut process) = self.processes.pop() {
            let _ = process.kill();
        }
    }
}

fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("kube")
}

const LIMIT: Duration = Duration::from_mins(2);
