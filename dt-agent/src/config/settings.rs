//! The table of settings: key, variable, kind and default of each, written down once.
//!
//! What a setting means stands beside its flag in `cli::args`; a test holds the two together.

/// One setting.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setting {
    /// Name in the file and in messages; the flag is the same with hyphens.
    pub key: &'static str,
    /// Environment variable.
    pub env: &'static str,
    /// How it is written.
    pub kind: Kind,
    /// Value when nobody says anything; none if there is no such value or it depends on the host.
    pub default: Option<&'static str>,
    /// May stand in the file.
    pub in_file: bool,
}

/// How a setting is written.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Kind {
    /// One value, a string in TOML.
    Text,
    /// One value, a number in TOML.
    Number,
    /// Given or not, a boolean in TOML.
    Switch,
    /// Any number of values, an array in TOML, separated by commas elsewhere.
    List,
    /// Any number of values, an array in TOML, separated by line breaks elsewhere: commas may be part of them.
    Lines,
}

/// The settings of one command, in the order of `--help`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CommandSettings {
    /// Name of the command.
    pub command: &'static str,
    /// Its settings.
    pub settings: &'static [Setting],
}

impl CommandSettings {
    /// The setting of this key.
    pub fn find(self, key: &str) -> Option<&'static Setting> {
        self.settings.iter().find(|setting| setting.key == key)
    }

    /// The settings of the command of this name; none for a name that no command has.
    pub fn of_command(name: &str) -> Option<Self> {
        [RUN, PING, REFLECT, DOCTOR, DETACH, LEAVE]
            .into_iter()
            .find(|settings| settings.command == name)
    }
}

/// Settings of `run`.
pub(crate) const RUN: CommandSettings = CommandSettings {
    command: "run",
    settings: &[
        NODE,
        text("discovery", "DT_DISCOVERY"),
        number("peer_limit", "DT_PEER_LIMIT", "2500"),
        ZOOKEEPER,
        ZOOKEEPER_ROOT,
        ZOOKEEPER_SESSION,
        ZOOKEEPER_AUTH_FILE,
        ZOOKEEPER_SASL_FILE,
        ZOOKEEPER_TLS_CA,
        ZOOKEEPER_TLS_CERT,
        ZOOKEEPER_TLS_KEY,
        text("membership_grace", "DT_MEMBERSHIP_GRACE").default("5m"),
        list("address", "DT_ADDRESS"),
        text("zone", "DT_ZONE"),
        text("rack", "DT_RACK"),
        text("instance_group", "DT_INSTANCE_GROUP"),
        text("bandwidth", "DT_BANDWIDTH"),
        list("label", "DT_LABEL"),
        text("node_labels", "DT_NODE_LABELS").default("none"),
        text("rack_label", "DT_RACK_LABEL").default("topology.kubernetes.io/rack"),
        list("allow_targets", "DT_ALLOW_TARGETS"),
        text("feed", "DT_FEED"),
        list("kafka", "KAFKA_BOOTSTRAP_SERVERS"),
        text("kafka_topic", "DT_KAFKA_TOPIC").default("_distributedTrace"),
        lines("kafka_property", "DT_KAFKA_PROPERTY"),
        number("kafka_partitions", "DT_KAFKA_PARTITIONS", "12"),
        text("kafka_retention", "DT_KAFKA_RETENTION").default("7d"),
        text("spool_bytes", "DT_SPOOL_BYTES").default("1GiB"),
        number("rate", "DT_RATE", "1"),
        text("window", "DT_WINDOW").default("10s"),
        text("timeout", "DT_TIMEOUT").default("1s"),
        text("detail", "DT_DETAIL").default("windows"),
        number("compare_every", "DT_COMPARE_EVERY", "0"),
        text("sender", "DT_SENDER").default("auto"),
        MODE,
        list("interface", "DT_INTERFACE"),
        text("family", "DT_FAMILY").default("auto"),
        PORT,
        text("source_ports", "DT_SOURCE_PORTS").default("61000-61003"),
        number("rotating_ports", "DT_ROTATING_PORTS", "0"),
        text("rotate_every", "DT_ROTATE_EVERY").default("1m"),
        number("size", "DT_SIZE", "96"),
        number("dscp", "DT_DSCP", "0"),
        number("mark", "DT_MARK", "0x64740001"),
        ALLOW,
        RATE_LIMIT_SOURCE,
        RATE_LIMIT_TOTAL,
        text("metrics", "DT_METRICS").default("none"),
        PIN_ROOT,
        STATE_DIR,
        LEASE,
        text("handover", "DT_HANDOVER").default("180s"),
        LOG,
        text("config", "DT_CONFIG").not_in_file(),
        switch("print_config", "DT_PRINT_CONFIG").not_in_file(),
    ],
};

/// Settings of `leave`.
pub(crate) const LEAVE: CommandSettings = CommandSettings {
    command: "leave",
    settings: &[
        NODE,
        ZOOKEEPER,
        ZOOKEEPER_ROOT,
        ZOOKEEPER_SESSION,
        ZOOKEEPER_AUTH_FILE,
        ZOOKEEPER_SASL_FILE,
        ZOOKEEPER_TLS_CA,
        ZOOKEEPER_TLS_CERT,
        ZOOKEEPER_TLS_KEY,
        STATE_DIR,
        text("timeout", "DT_LEAVE_TIMEOUT").default("10s"),
        LOG_QUIET,
    ],
};

/// Settings of `ping`.
pub(crate) const PING: CommandSettings = CommandSettings {
    command: "ping",
    settings: &[
        list("host", "DT_PING_HOST"),
        text("count", "DT_PING_COUNT"),
        text("interval", "DT_PING_INTERVAL").default("1s"),
        text("deadline", "DT_PING_DEADLINE"),
        text("timeout", "DT_PING_TIMEOUT").default("1s"),
        number("size", "DT_PING_SIZE", "96"),
        switch("ipv4", "DT_PING_IPV4"),
        switch("ipv6", "DT_PING_IPV6"),
        switch("quiet", "DT_PING_QUIET"),
        switch("json", "DT_PING_JSON"),
        switch("compare", "DT_PING_COMPARE"),
        PORT,
        text("source_port", "DT_PING_SOURCE_PORT"),
        MODE,
        text("interface", "DT_PING_INTERFACE"),
        NODE,
        PIN_ROOT,
        LOG_QUIET,
    ],
};

/// Settings of `reflect`.
pub(crate) const REFLECT: CommandSettings = CommandSettings {
    command: "reflect",
    settings: &[
        list("interface", "DT_INTERFACE"),
        PORT,
        ALLOW,
        MODE,
        RATE_LIMIT_SOURCE,
        RATE_LIMIT_TOTAL,
        LEASE,
        NODE,
        PIN_ROOT,
        LOG,
    ],
};

/// Settings of `doctor`.
pub(crate) const DOCTOR: CommandSettings = CommandSettings {
    command: "doctor",
    settings: &[
        switch("json", "DT_DOCTOR_JSON"),
        list("interface", "DT_INTERFACE"),
        PORT,
        NODE,
        PIN_ROOT,
        LOG_QUIET,
    ],
};

/// Settings of `detach`.
pub(crate) const DETACH: CommandSettings = CommandSettings {
    command: "detach",
    settings: &[
        NODE,
        switch("all", "DT_DETACH_ALL"),
        text("daemonset", "DT_DETACH_DAEMONSET"),
        PIN_ROOT,
        LOG_QUIET,
    ],
};

const NODE: Setting = text("node", "DT_NODE");
const MODE: Setting = text("mode", "DT_MODE").default("auto");
const PORT: Setting = number("port", "DT_PORT", "862");
const ALLOW: Setting = list("allow", "DT_ALLOW");
const ZOOKEEPER: Setting = list("zookeeper", "ZOOKEEPER_SERVERS");
const ZOOKEEPER_ROOT: Setting =
    text("zookeeper_root", "DT_ZOOKEEPER_ROOT").default("/distributed-trace");
const ZOOKEEPER_SESSION: Setting = text("zookeeper_session", "DT_ZOOKEEPER_SESSION").default("10s");
const ZOOKEEPER_AUTH_FILE: Setting = text("zookeeper_auth_file", "DT_ZOOKEEPER_AUTH_FILE");
const ZOOKEEPER_SASL_FILE: Setting = text("zookeeper_sasl_file", "DT_ZOOKEEPER_SASL_FILE");
const ZOOKEEPER_TLS_CA: Setting = text("zookeeper_tls_ca", "DT_ZOOKEEPER_TLS_CA");
const ZOOKEEPER_TLS_CERT: Setting = text("zookeeper_tls_cert", "DT_ZOOKEEPER_TLS_CERT");
const ZOOKEEPER_TLS_KEY: Setting = text("zookeeper_tls_key", "DT_ZOOKEEPER_TLS_KEY");
const STATE_DIR: Setting = text("state_dir", "DT_STATE_DIR").default("/var/lib/distributed-trace");
const RATE_LIMIT_SOURCE: Setting = number("rate_limit_source", "DT_RATE_LIMIT_SOURCE", "50000");
const RATE_LIMIT_TOTAL: Setting = number("rate_limit_total", "DT_RATE_LIMIT_TOTAL", "1000000");
const PIN_ROOT: Setting = text("pin_root", "DT_PIN_ROOT").default("/sys/fs/bpf/distributed-trace");
const LEASE: Setting = text("lease", "DT_LEASE").default("30s");
const LOG: Setting = text("log", "DT_LOG").default("info");
/// Commands whose result is read on a terminal talk only when something is odd.
const LOG_QUIET: Setting = text("log", "DT_LOG").default("warn");

const fn text(key: &'static str, env: &'static str) -> Setting {
    Setting {
        key,
        env,
        kind: Kind::Text,
        default: None,
        in_file: true,
    }
}

const fn number(key: &'static str, env: &'static str, default: &'static str) -> Setting {
    Setting {
        key,
        env,
        kind: Kind::Number,
        default: Some(default),
        in_file: true,
    }
}

const fn switch(key: &'static str, env: &'static str) -> Setting {
    Setting {
        key,
        env,
        kind: Kind::Switch,
        default: None,
        in_file: true,
    }
}

const fn list(key: &'static str, env: &'static str) -> Setting {
    Setting {
        key,
        env,
        kind: Kind::List,
        default: None,
        in_file: true,
    }
}

const fn lines(key: &'static str, env: &'static str) -> Setting {
    Setting {
        key,
        env,
        kind: Kind::Lines,
        default: None,
        in_file: true,
    }
}

impl Setting {
    const fn default(self, value: &'static str) -> Self {
        Self {
            default: Some(value),
            ..self
        }
    }

    const fn not_in_file(self) -> Self {
        Self {
            in_file: false,
            ..self
        }
    }
}
