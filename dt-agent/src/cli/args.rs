//! The flags and what they mean. Values are read by name, see [`super::typed`].

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;

use crate::build::LONG_VERSION;

#[derive(Parser)]
#[command(
    name = "dt-agent",
    bin_name = "dt-agent",
    version,
    long_version = LONG_VERSION,
    about = "Measures the network between the hosts of a cluster, in the kernel, all the time",
    long_about = LONG_ABOUT,
    after_help = ROOT_EXAMPLES,
    subcommand_required = true,
    arg_required_else_help = true
)]
pub(super) struct Root {
    #[command(subcommand)]
    pub task: Task,
}

#[derive(Subcommand)]
pub(super) enum Task {
    /// Be a member of a mesh: probe the others, answer all of them, publish what was measured
    Run(Box<RunArgs>),
    /// Probe hosts from the terminal, timed in the kernel
    Ping(Box<PingArgs>),
    /// Only answer probes, in the kernel where possible
    Reflect(ReflectArgs),
    /// Say per interface what this host can do, what it lacks, and what to do about it
    Doctor(DoctorArgs),
    /// Remove programs and maps that an agent left behind
    Detach(DetachArgs),
    /// Tell a mesh by ZooKeeper that this node leaves it for good
    Leave(LeaveArgs),
    /// Print what a shell needs to complete the commands and flags of this program
    Completions(CompletionsArgs),
    /// Write the manual pages of this program, one for each command
    Manual(ManualArgs),
}

#[derive(Args)]
#[command(after_help = COMPLETIONS_EXAMPLES)]
pub(super) struct CompletionsArgs {
    /// The shell
    #[arg(value_enum)]
    pub shell: Shell,
}

#[derive(Args)]
#[command(after_help = MANUAL_EXAMPLES)]
pub(super) struct ManualArgs {
    /// The directory to write to, which is made if it is not there
    #[arg(value_name = "DIR")]
    pub directory: PathBuf,
}

#[derive(Args)]
#[command(after_help = RUN_EXAMPLES)]
pub(super) struct RunArgs {
    /// Name of this node, as the list of members has it; the host's name unless given
    #[arg(long, value_name = "NAME", help_heading = MESH)]
    node: Option<String>,

    /// Where the members come from: `zookeeper` or `file:PATH`; zookeeper if there are servers
    #[arg(long, value_name = "SOURCE", help_heading = MESH, long_help = DISCOVERY_HELP)]
    discovery: Option<String>,

    /// Probe at most so many members, 1 to 16,383; a mesh of more is probed by rack and zone, see --rack and --zone
    #[arg(long, value_name = "N", help_heading = MESH)]
    peer_limit: Option<String>,

    #[command(flatten)]
    zookeeper: ZookeeperArgs,

    /// For how long probing goes on when ZooKeeper is out of reach; answering always goes on
    #[arg(long, value_name = "TIME", help_heading = ZOOKEEPER)]
    membership_grace: Option<String>,

    /// Own address to be probed at, the first of each IP version also to probe from; repeat for more; those of the links unless given
    #[arg(long, value_name = "IP", help_heading = ZOOKEEPER)]
    address: Option<Vec<String>>,

    /// Zone, data centre or site of this node
    #[arg(long, value_name = "ZONE", help_heading = ZOOKEEPER)]
    zone: Option<String>,

    /// Rack or top-of-rack switch of this node
    #[arg(long, value_name = "RACK", help_heading = ZOOKEEPER)]
    rack: Option<String>,

    /// Group of like machines that this node belongs to
    #[arg(long, value_name = "GROUP", help_heading = ZOOKEEPER)]
    instance_group: Option<String>,

    /// Bandwidth of this node's interface, for instance 10G
    #[arg(long, value_name = "TEXT", help_heading = ZOOKEEPER)]
    bandwidth: Option<String>,

    /// Another label of this node; repeat for more
    #[arg(long, value_name = "KEY=VALUE", help_heading = ZOOKEEPER)]
    label: Option<Vec<String>>,

    /// Take zone, rack and instance group from the labels of this node in `kubernetes`, as far as they are not given
    #[arg(long, value_name = "none|kubernetes", help_heading = ZOOKEEPER, long_help = NODE_LABELS_HELP)]
    node_labels: Option<String>,

    /// The label of a Kubernetes node that names its rack
    #[arg(long, value_name = "KEY", help_heading = ZOOKEEPER)]
    rack_label: Option<String>,

    /// Probe members in this network only; repeat for more; private networks and those of the links unless given
    #[arg(long, value_name = "CIDR", help_heading = ZOOKEEPER)]
    allow_targets: Option<Vec<String>>,

    /// Where the measurements go: `kafka`, `file:DIR` or `none`; kafka if there are servers, else files below the state directory
    #[arg(long, value_name = "TARGET", help_heading = FEED)]
    feed: Option<String>,

    /// Kafka brokers to begin with; repeat or separate by commas
    #[arg(long, value_name = "HOST:PORT", help_heading = FEED)]
    kafka: Option<Vec<String>>,

    /// Topic to write to; created if it is missing and that is allowed
    #[arg(long, value_name = "TOPIC", help_heading = FEED)]
    kafka_topic: Option<String>,

    /// Any property of librdkafka, for TLS, SASL and the rest; repeat for more
    #[arg(long, value_name = "KEY=VALUE", help_heading = FEED, long_help = PROPERTY_HELP)]
    kafka_property: Option<Vec<String>>,

    /// Partitions of the topic, if this agent creates it; later the topic's own number counts
    #[arg(long, value_name = "N", help_heading = FEED)]
    kafka_partitions: Option<String>,

    /// How long the topic keeps what is in it, if this agent creates it
    #[arg(long, value_name = "TIME", help_heading = FEED)]
    kafka_retention: Option<String>,

    /// Disk space below the state directory for what Kafka does not take, from 256KiB on; 0: keep it in memory only
    #[arg(long, value_name = "BYTES", help_heading = FEED)]
    spool_bytes: Option<String>,

    /// Probes per second towards each peer, 0.001 to 20,000
    #[arg(long, value_name = "PPS", help_heading = PROBES)]
    rate: Option<String>,

    /// Length of the windows that counts and histograms are published for, 1 to 60 seconds
    #[arg(long, value_name = "SECS", help_heading = PROBES)]
    window: Option<String>,

    /// How long a probe is waited for before it counts as lost, 1ms to 10s
    #[arg(long, value_name = "TIME", help_heading = PROBES)]
    timeout: Option<String>,

    /// What the feed holds: windows per peer, or in addition every probe
    #[arg(long, value_name = "windows|probes", help_heading = PROBES)]
    detail: Option<String>,

    /// Also time one of every N probes to a peer in user space, for comparison; 0: none
    #[arg(long, value_name = "N", help_heading = PROBES)]
    compare_every: Option<String>,

    /// Who makes the packets: auto lets the programs make probes that leave together, where the way to the peer is known
    #[arg(long, value_name = "auto|sockets|kernel", help_heading = PROBES)]
    sender: Option<String>,

    /// Datapath: auto takes the best that is proved to work and follows changes, any other is had or is an error
    #[arg(long, value_name = "auto|xdp|tc|socket", help_heading = PATH)]
    mode: Option<String>,

    /// Interface to probe and answer on; repeat for more; those that lead to the peers unless given
    #[arg(long, value_name = "IFACE", help_heading = PATH)]
    interface: Option<Vec<String>>,

    /// IP version to probe by; auto prefers IPv4 where both ends have both
    #[arg(long, value_name = "auto|4|6", help_heading = PATH)]
    family: Option<String>,

    /// UDP port on which this node answers, and its peers unless their entry says otherwise
    #[arg(long, value_name = "PORT", help_heading = PATH)]
    port: Option<String>,

    /// UDP source ports that probes take turns with, at most 4,096 from 1024 on; each may take another path
    #[arg(long, value_name = "FIRST-LAST", help_heading = PATH)]
    source_ports: Option<String>,

    /// One more source port, which takes turns with the others and changes: it goes through so many ports behind them; 0: none
    #[arg(long, value_name = "N", help_heading = PATH)]
    rotating_ports: Option<String>,

    /// How long it stays the same
    #[arg(long, value_name = "TIME", help_heading = PATH)]
    rotate_every: Option<String>,

    /// UDP payload of probes in bytes, 96 to 9,000; several with their weights, as in 96:9,1472, each with windows of its own
    #[arg(long, value_name = "BYTES[:WEIGHT],…", help_heading = PATH)]
    size: Option<String>,

    /// Differentiated services code point of probes, 0 to 63; several with their weights, as in 0:3,46
    #[arg(long, value_name = "DSCP[:WEIGHT],…", help_heading = PATH)]
    dscp: Option<String>,

    /// Firewall mark by which probes are known on their way out; change it if something else uses it
    #[arg(long, value_name = "MARK", help_heading = PATH)]
    mark: Option<String>,

    /// Answer this network too, not only the members; repeat for more
    #[arg(long, value_name = "CIDR", help_heading = ANSWERS)]
    allow: Option<Vec<String>>,

    /// Answer at most so many packets per second of one source
    #[arg(long, value_name = "PPS", help_heading = ANSWERS)]
    rate_limit_source: Option<String>,

    /// Answer at most so many packets per second in all
    #[arg(long, value_name = "PPS", help_heading = ANSWERS)]
    rate_limit_total: Option<String>,

    /// Serve /metrics, /healthz and /readyz there, for instance 0.0.0.0:9862; `none`: nowhere
    #[arg(long, value_name = "IP:PORT", help_heading = HOUSE)]
    metrics: Option<String>,

    /// Directory on a BPF file system in which programs and maps outlive the agent, below the node's name
    #[arg(long, value_name = "DIR", help_heading = HOUSE)]
    pin_root: Option<String>,

    /// Directory for what must outlive a restart
    #[arg(long, value_name = "DIR", help_heading = HOUSE)]
    state_dir: Option<String>,

    /// Stamping and answering stop by themselves when no agent renewed them for so long, 3s to 1h
    #[arg(long, value_name = "TIME", help_heading = HOUSE)]
    lease: Option<String>,

    /// The same after a clean stop: how long an upgrade may take without a lost reply, 3s to 1h
    #[arg(long, value_name = "TIME", help_heading = HOUSE)]
    handover: Option<String>,

    /// Least severity of messages, on standard error
    #[arg(long, value_name = "error|warn|info|debug|trace", help_heading = HOUSE)]
    log: Option<String>,

    /// Read settings from this TOML file; its keys are the long flags with _ for -
    #[arg(long, value_name = "FILE", help_heading = HOUSE)]
    config: Option<String>,

    /// Print the effective settings and where each comes from, as a file for --config, and end
    #[arg(long, help_heading = HOUSE)]
    print_config: bool,
}

#[derive(Args)]
#[expect(clippy::struct_excessive_bools, reason = "each of them is a flag")]
#[command(override_usage = "dt-agent ping [OPTIONS] HOST...", after_help = PING_EXAMPLES)]
pub(super) struct PingArgs {
    /// Hosts to probe, by name or address: dt-agent nodes or any STAMP or TWAMP-Light reflector
    #[arg(value_name = "HOST")]
    host: Option<Vec<String>>,

    /// End after so many probes to each host; goes on until interrupted unless given
    #[arg(short, long, value_name = "N")]
    count: Option<String>,

    /// Time from probe to probe, in seconds or with a unit, from 50us on
    #[arg(short, long, value_name = "TIME")]
    interval: Option<String>,

    /// End after so long, whatever was sent or answered
    #[arg(short = 'w', long, value_name = "TIME")]
    deadline: Option<String>,

    /// How long a probe is waited for before it counts as lost
    #[arg(short = 'W', long, value_name = "TIME")]
    timeout: Option<String>,

    /// UDP payload of a probe in bytes, 96 to 9,000
    #[arg(short, long, value_name = "BYTES")]
    size: Option<String>,

    /// Use IPv4 only
    #[arg(short = '4', long)]
    ipv4: bool,

    /// Use IPv6 only
    #[arg(short = '6', long)]
    ipv6: bool,

    /// Print nothing but the summary
    #[arg(short, long)]
    quiet: bool,

    /// Print one JSON object a line, for each probe and for the summary
    #[arg(long)]
    json: bool,

    /// Also show what user space saw of the same packets
    #[arg(long)]
    compare: bool,

    /// UDP port of the reflectors
    #[arg(short, long, value_name = "PORT")]
    port: Option<String>,

    /// UDP source port of the probes, from 1024 on; any free one unless given
    #[arg(long, value_name = "PORT")]
    source_port: Option<String>,

    /// Datapath: auto joins a running agent's, else takes the best that is proved to work
    #[arg(long, value_name = "auto|xdp|tc|socket")]
    mode: Option<String>,

    /// Interface to send from; the one that leads to the host unless given
    #[arg(short = 'I', long, value_name = "IFACE")]
    interface: Option<String>,

    /// Node whose running agent is joined; the host's name unless given
    #[arg(long, value_name = "NAME")]
    node: Option<String>,

    /// Directory of that agent's programs and maps
    #[arg(long, value_name = "DIR")]
    pin_root: Option<String>,

    /// Least severity of messages, on standard error
    #[arg(long, value_name = "error|warn|info|debug|trace")]
    log: Option<String>,
}

#[derive(Args)]
#[command(after_help = REFLECT_EXAMPLES)]
pub(super) struct ReflectArgs {
    /// Interface to answer on; repeat for more
    #[arg(long, value_name = "IFACE")]
    interface: Option<Vec<String>>,

    /// UDP port on which requests are answered
    #[arg(long, value_name = "PORT")]
    port: Option<String>,

    /// Answer this network or address; repeat for more; without any, nobody is answered
    #[arg(long, value_name = "CIDR")]
    allow: Option<Vec<String>>,

    /// Datapath: auto takes the best that is proved to work, any other is had or is an error
    #[arg(long, value_name = "auto|xdp|tc|socket")]
    mode: Option<String>,

    /// Answer at most so many packets per second of one source
    #[arg(long, value_name = "PPS")]
    rate_limit_source: Option<String>,

    /// Answer at most so many packets per second in all
    #[arg(long, value_name = "PPS")]
    rate_limit_total: Option<String>,

    /// Answering stops by itself when this process did not renew it for so long, 3s to 1h
    #[arg(long, value_name = "TIME")]
    lease: Option<String>,

    /// Name of the directory of pins; the host's name unless given
    #[arg(long, value_name = "NAME")]
    node: Option<String>,

    /// Directory on a BPF file system for programs and maps
    #[arg(long, value_name = "DIR")]
    pin_root: Option<String>,

    /// Least severity of messages, on standard error
    #[arg(long, value_name = "error|warn|info|debug|trace")]
    log: Option<String>,
}

#[derive(Args)]
#[command(after_help = DOCTOR_EXAMPLES)]
pub(super) struct DoctorArgs {
    /// Print one JSON object instead of text
    #[arg(long)]
    json: bool,

    /// Interface to look at; repeat for more; all that could carry probes unless given
    #[arg(long, value_name = "IFACE")]
    interface: Option<Vec<String>>,

    /// UDP port on which this node would answer
    #[arg(long, value_name = "PORT")]
    port: Option<String>,

    /// Node whose programs and maps are looked at; the host's name unless given
    #[arg(long, value_name = "NAME")]
    node: Option<String>,

    /// Directory of its programs and maps
    #[arg(long, value_name = "DIR")]
    pin_root: Option<String>,

    /// Least severity of messages, on standard error
    #[arg(long, value_name = "error|warn|info|debug|trace")]
    log: Option<String>,
}

#[derive(Args)]
#[command(after_help = DETACH_EXAMPLES)]
pub(super) struct DetachArgs {
    /// Node whose programs and maps are removed; the host's name unless given
    #[arg(long, value_name = "NAME")]
    node: Option<String>,

    /// Remove those of every node on this machine
    #[arg(long, conflicts_with = "node")]
    all: bool,

    /// Remove nothing here, but wait until this Kubernetes DaemonSet of `detach` is done on every node, for at most 3 minutes
    #[arg(long, value_name = "NAMESPACE/NAME", conflicts_with_all = ["node", "all"])]
    daemonset: Option<String>,

    /// Directory of the programs and maps
    #[arg(long, value_name = "DIR")]
    pin_root: Option<String>,

    /// Least severity of messages, on standard error
    #[arg(long, value_name = "error|warn|info|debug|trace")]
    log: Option<String>,
}

#[derive(Args)]
struct ZookeeperArgs {
    /// ZooKeeper servers; repeat or separate by commas
    #[arg(long, value_name = "HOST:PORT", help_heading = ZOOKEEPER)]
    zookeeper: Option<Vec<String>>,

    /// Path in ZooKeeper below which the mesh is kept
    #[arg(long, value_name = "PATH", help_heading = ZOOKEEPER)]
    zookeeper_root: Option<String>,

    /// How soon a dead agent is known to be dead: the session timeout that is asked for, 1s to 1h
    #[arg(long, value_name = "TIME", help_heading = ZOOKEEPER)]
    zookeeper_session: Option<String>,

    /// File with one line USER:PASSWORD, for a mesh that only those who know it may join
    #[arg(long, value_name = "FILE", help_heading = ZOOKEEPER)]
    zookeeper_auth_file: Option<String>,

    /// The same for a user that the servers know, by SASL DIGEST-MD5: one line USER:PASSWORD
    #[arg(long, value_name = "FILE", help_heading = ZOOKEEPER)]
    zookeeper_sasl_file: Option<String>,

    /// Talk with ZooKeeper by TLS, and trust the authorities whose certificates are in this PEM file
    #[arg(long, value_name = "FILE", help_heading = ZOOKEEPER)]
    zookeeper_tls_ca: Option<String>,

    /// This host's certificate, for servers that want one (PEM, with what vouches for it)
    #[arg(long, value_name = "FILE", help_heading = ZOOKEEPER)]
    zookeeper_tls_cert: Option<String>,

    /// The key of that certificate (PEM)
    #[arg(long, value_name = "FILE", help_heading = ZOOKEEPER)]
    zookeeper_tls_key: Option<String>,
}

#[derive(Args)]
#[command(after_help = LEAVE_EXAMPLES)]
pub(super) struct LeaveArgs {
    /// Name of the node; the host's name unless given
    #[arg(long, value_name = "NAME")]
    node: Option<String>,

    #[command(flatten)]
    zookeeper: ZookeeperArgs,

    /// Directory in which the agent keeps this host's identity
    #[arg(long, value_name = "DIR")]
    state_dir: Option<String>,

    /// How long ZooKeeper is waited for
    #[arg(long, value_name = "TIME")]
    timeout: Option<String>,

    /// Least severity of messages, on standard error
    #[arg(long, value_name = "error|warn|info|debug|trace")]
    log: Option<String>,
}

const MESH: &str = "The mesh";
const FEED: &str = "Where it goes";
const ZOOKEEPER: &str = "Members by ZooKeeper";
const PROBES: &str = "What is measured";
const PATH: &str = "How probes travel";
const ANSWERS: &str = "Who is answered";
const HOUSE: &str = "The agent itself";

const LONG_ABOUT: &str = "\
Measures the network between the hosts of a cluster, in the kernel, all the time.

Every host runs an agent. Agents send each other small UDP probes (STAMP, RFC 8762). The send time is written by a \
program on the sender's egress, the peer answers before its network stack sees the packet, and the receive time is \
taken as early. So the figures are those of the network and the drivers, also while the hosts are short of CPU.";

const ROOT_EXAMPLES: &str = "\
A first look:
  dt-agent doctor                                          what can this host do?
  dt-agent reflect --interface eth0 --allow 10.0.0.0/8     on one host, and
  dt-agent ping 10.0.0.1                                   from another

Settings come from flags, then environment variables, then --config FILE, then defaults.
Exit status: 0 well, 64 mistakes in settings (all are listed), other values as each command says.";

const DISCOVERY_HELP: &str = r#"Where the members come from: `zookeeper`, or `file:PATH`, read again when it changes and on SIGHUP

zookeeper if servers are given. Each agent then says there itself who and where it is.

The file is TOML:

  stop = false                 # true stops the probing of the whole mesh
  [[peer]]
  name = "n1"                  # this node is in the list too, by its --node name
  addresses = ["10.0.0.1", "fd00::1"]   # or host names
  port = 862                   # this and all below may be left out
  zone = "z1"
  rack = "r1"
  instance_group = "g1"
  bandwidth = "10G"
  labels = { owner = "net" }"#;

const NODE_LABELS_HELP: &str = "\
Take zone, rack and instance group from the labels of this node in `kubernetes`, as far as they are not given

The zone is topology.kubernetes.io/zone, the instance group node.kubernetes.io/instance-type, the rack the label that
--rack-label names. They are read once, at start, from the API server by the service account of the pod, which needs the
right `get` on `nodes`; --node has to be the node's name there. While the API server does not answer, those of the last
start are taken.";

const PROPERTY_HELP: &str = "\
Any property of librdkafka, for TLS, SASL and the rest; repeat for more

For instance security.protocol=sasl_ssl, sasl.mechanism=SCRAM-SHA-512, sasl.username=dt, ssl.ca.location=/etc/ssl/ca.pem. \
All are listed in librdkafka's CONFIGURATION.md. Flags are seen by everybody on the host: put passwords into the file of \
--config, or into the variable, one property a line.";

const RUN_EXAMPLES: &str = "\
Examples:
  dt-agent run --discovery file:/etc/distributed-trace/peers.toml
  dt-agent run --discovery file:peers.toml --node n1 --rate 10 --feed file:/tmp/feed
  dt-agent run --discovery file:peers.toml --kafka kafka-1:9092,kafka-2:9092
  dt-agent run --config agent.toml --print-config > effective.toml

Signals: SIGTERM and SIGINT flush the feed and end within 2 s; SIGHUP reads members and settings again:
rate, allow and log change at once, and the log names what needs a restart.
Programs stay attached and go on answering until the lease ends; `dt-agent detach` removes them at once.";

const PING_EXAMPLES: &str = "\
Examples:
  dt-agent ping 10.0.0.1                      until Ctrl-C
  dt-agent ping -c 1000 -i 1ms -q 10.0.0.1    a thousand probes in a second, only the summary
  dt-agent ping --compare 10.0.0.1            what the kernel and what user space saw of the same packets
  dt-agent ping --mode socket -p 8620 host    without privilege
Times are seconds, or have a unit: 0.2, 200ms, 1m.
Exit status: 0 each host answered, 1 one did not, 64 mistakes in settings.";

const REFLECT_EXAMPLES: &str = "\
Examples:
  dt-agent reflect --interface eth0 --allow 10.0.0.0/8
  dt-agent reflect --interface eth0 --interface eth1 --allow 10.0.0.0/8,fd00::/8 --mode tc

Without --allow nobody is answered: a reflector open to the world can be abused against others.";

const DOCTOR_EXAMPLES: &str = "\
Examples:
  dt-agent doctor
  dt-agent doctor --json --interface eth0

Exit status: 0 if xdp or tc works on some interface, 1 if not, 64 mistakes in settings.";

const LEAVE_EXAMPLES: &str = "\
Examples:
  dt-agent leave --zookeeper zookeeper-1:2181
  dt-agent leave --zookeeper zookeeper-1:2181 --node n1

Others stop probing the node at once. An agent that runs as this node ends. Without this, a node whose agent was stopped is
expected back for the hand-over time, and one that vanished is kept as failed for ten minutes.
Exit status: 0 the node had been a member, 1 it was none or ZooKeeper was not reached, 64 mistakes in settings.";

const DETACH_EXAMPLES: &str = "\
Examples:
  dt-agent detach             this host's node
  dt-agent detach --node n1
  dt-agent detach --all";

const COMPLETIONS_EXAMPLES: &str = "\
Examples:
  dt-agent completions bash > /usr/share/bash-completion/completions/dt-agent
  dt-agent completions zsh > /usr/share/zsh/vendor-completions/_dt-agent";

const MANUAL_EXAMPLES: &str = "\
Examples:
  dt-agent manual /usr/local/share/man/man1";
