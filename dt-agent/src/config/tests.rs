//! From what was written to what is run, for all commands.

use std::collections::HashMap;
use std::fs;

use std::path::PathBuf;
use std::time::Duration;

use proptest::prelude::*;
use tracing::level_filters::LevelFilter;

use super::*;
use crate::engine::ladder::{Mode, ModeRequest};
use crate::engine::mesh::{Family, MeshSettings};

fn typed(values: &[(&'static str, &str)]) -> Typed {
    let mut typed = Typed::default();
    for (key, text) in values {
        typed.insert(key, vec![(*text).to_owned()]);
    }
    typed
}

/// Loads `run` with flags, variables and a file.
fn load(
    flags: &[(&'static str, &str)],
    variables: &[(&str, &str)],
    file: Option<&str>,
) -> Result<RunConfig, ConfigError> {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("agent.toml");
    let mut typed = typed(flags);
    if let Some(text) = file {
        fs::write(&path, text).expect("written");
        typed.insert("config", vec![path.display().to_string()]);
    }
    in_surroundings(variables, |surroundings| {
        RunConfig::load_in(&typed, surroundings)
    })
}

fn in_surroundings<T>(variables: &[(&str, &str)], then: impl FnOnce(&Surroundings<'_>) -> T) -> T {
    let variables: HashMap<_, _> = variables.iter().copied().collect();
    let env = |name: &str| variables.get(name).map(ToString::to_string);
    then(&Surroundings {
        env: &env,
        hostname: Some(String::from("host-1")),
    })
}

const DISCOVERY: (&str, &str) = ("discovery", "file:/peers.toml");

fn good(flags: &[(&'static str, &str)]) -> RunConfig {
    load(&[&[DISCOVERY], flags].concat(), &[], None).expect("good")
}

/// The size of the first class of probes.
fn size(config: &RunConfig) -> u16 {
    config.paths.mix.classes()[0].payload_bytes
}

/// Its code point.
fn dscp(config: &RunConfig) -> u8 {
    config.paths.mix.classes()[0].dscp
}

fn mistakes(flags: &[(&'static str, &str)]) -> Vec<String> {
    let error = load(&[&[DISCOVERY], flags].concat(), &[], None).expect_err("bad");
    error.mistakes.iter().map(ToString::to_string).collect()
}

#[test]
fn the_defaults_are_those_that_the_documents_promise() {
    let config = good(&[]);
    assert_eq!(config.node, "host-1");
    assert_eq!(
        config.discovery,
        DiscoverySource::File("/peers.toml".into())
    );
    assert_eq!(
        config.feed,
        FeedTarget::File("/var/lib/distributed-trace/feed".into())
    );
    assert_eq!(config.peer_limit, MeshSettings::DEFAULT_PEER_LIMIT);
    assert!((config.rate - 1.0).abs() < f64::EPSILON);
    assert_eq!(
        (config.window, config.timeout),
        (Duration::from_secs(10), Duration::from_secs(1))
    );
    assert_eq!((config.detail, config.compare_every), (Detail::Windows, 0));
    assert_eq!(
        (config.mode, config.family),
        (ModeRequest::Auto, Family::Auto)
    );
    assert_eq!(
        (config.port, config.paths.source_ports),
        (
            862,
            SourcePorts {
                first: 61_000,
                last: 61_003
            }
        )
    );
    assert_eq!(
        (size(&config), dscp(&config), config.mark),
        (96, 0, 0x6474_0001)
    );
    assert_eq!(
        config.rate_limits,
        RateLimits {
            source_pps: 50_000,
            total_pps: 1_000_000
        }
    );
    assert_eq!(
        (config.lease, config.handover),
        (Duration::from_secs(30), Duration::from_mins(3))
    );
    assert_eq!(
        config.pin_root,
        PathBuf::from("/sys/fs/bpf/distributed-trace")
    );
    assert_eq!(
        config.state_dir,
        PathBuf::from("/var/lib/distributed-trace")
    );
    assert!(config.interfaces.is_empty() && config.allow.is_empty() && !config.print_config);
    assert_eq!(config.log, LevelFilter::INFO);
}

#[test]
fn flags_beat_variables_beat_the_file_beats_defaults() {
    let file = "rate = 2\nwindow = 2\ndscp = 2\n";
    let variables = [("DT_RATE", "3"), ("DT_WINDOW", "3s"), ("DT_PORT", "")];
    let config = load(&[DISCOVERY, ("rate", "4")], &variables, Some(file)).expect("good");
    assert!((config.rate - 4.0).abs() < f64::EPSILON);
    assert_eq!(config.window, Duration::from_secs(3));
    assert_eq!(dscp(&config), 2);
    assert_eq!(config.port, 862, "an empty variable is as good as none");
}

#[test]
fn the_file_may_be_named_by_a_variable() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("agent.toml");
    fs::write(&path, "dscp = 7\ndiscovery = \"file:/p\"\n").expect("written");
    let path = path.display().to_string();
    let config = in_surroundings(&[("DT_CONFIG", &path)], |surroundings| {
        RunConfig::load_in(&Typed::default(), surroundings)
    });
    assert_eq!(dscp(&config.expect("good")), 7);
}

#[test]
fn the_feed_follows_the_state_directory_unless_it_is_named() {
    assert_eq!(
        good(&[("state_dir", "/state")]).feed,
        FeedTarget::File("/state/feed".into())
    );
    assert_eq!(good(&[("feed", "none")]).feed, FeedTarget::None);
    assert_eq!(
        good(&[("feed", "file:relative")]).feed,
        FeedTarget::File("relative".into())
    );
}

#[test]
fn servers_alone_make_kafka_the_feed() {
    let config = good(&[("kafka", "k-1:9092,k-2:9092")]);
    assert_eq!(config.feed, FeedTarget::Kafka);
    assert_eq!(config.kafka.servers, ["k-1:9092", "k-2:9092"]);
    assert_eq!(config.kafka.topic, "_distributedTrace");
    assert_eq!(
        (config.kafka.partitions, config.kafka.spool_bytes),
        (12, 1 << 30)
    );
    assert_eq!(config.kafka.retention, Duration::from_hours(7 * 24));
    let both = good(&[("kafka", "k:9092"), ("feed", "none")]);
    assert_eq!(both.feed, FeedTarget::None);
    let variables = [("KAFKA_BOOTSTRAP_SERVERS", "k:1,k:2")];
    let config = load(&[DISCOVERY], &variables, None).expect("good");
    assert_eq!(
        (config.feed, config.kafka.servers.len()),
        (FeedTarget::Kafka, 2)
    );
    assert_eq!(
        mistakes(&[("feed", "kafka")]),
        ["kafka is not set: say where the brokers are, with --kafka HOST:PORT"]
    );
}

#[test]
fn properties_are_one_a_line_because_commas_belong_to_them() {
    let file =
        "kafka = [\"k:9092\"]\nkafka_property = [\"sasl.password=a,b=c\", \"debug=broker,msg\"]\n";
    let config = load(&[DISCOVERY], &[], Some(file)).expect("good");
    let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    let expected = [pair("sasl.password", "a,b=c"), pair("debug", "broker,msg")];
    assert_eq!(config.kafka.properties, expected);
    let variables = [(
        "DT_KAFKA_PROPERTY",
        "sasl.password=a,b=c\ndebug=broker,msg\n",
    )];
    let config = load(&[DISCOVERY], &variables, None).expect("good");
    assert_eq!(config.kafka.properties, expected);
}

#[test]
fn secrets_are_shown_nowhere() {
    for secret in [
        "sasl.password=hunter2",
        "ssl.key.password=hunter2",
        "ssl.key.pem=hunter2",
        "sasl.oauthbearer.config=hunter2",
    ] {
        let config = good(&[("kafka", "k:9092"), ("kafka_property", secret)]);
        let text = config.to_toml();
        assert!(
            !text.contains("hunter2") && text.contains("=********\""),
            "{text}"
        );
        let again = load(&[], &[], Some(&text)).expect_err("masked").to_string();
        assert!(again.contains("write the secret itself"), "{again}");
    }
    let shown = good(&[
        ("kafka", "k:9092"),
        ("kafka_property", "ssl.key.location=/key"),
    ]);
    assert!(shown.to_toml().contains("ssl.key.location=/key"));
    for mistake in ["sasl.passwort=hunter2", "sasl.pasword=hunter2"] {
        let text = mistakes(&[("kafka_property", mistake)]).join("\n");
        assert!(text.contains("No such configuration property"), "{text}");
        assert!(!text.contains("hunter2"), "{text}");
    }
}

#[test]
fn values_are_read_in_every_way_they_may_be_written() {
    let config = good(&[
        ("timeout", "250ms"),
        ("window", "1m"),
        ("lease", "5"),
        ("source_ports", "5000"),
        ("mark", "17"),
        ("mode", "tc"),
        ("family", "6"),
        ("allow", "10.1.2.3/8, fd00::/8,192.0.2.7"),
        ("interface", "eth0,eth1"),
        ("size", "9_000"),
        ("detail", "probes"),
    ]);
    assert_eq!(
        (config.timeout, config.window),
        (Duration::from_millis(250), Duration::from_mins(1))
    );
    assert_eq!(config.lease, Duration::from_secs(5));
    assert_eq!(
        config.paths.source_ports,
        SourcePorts {
            first: 5_000,
            last: 5_000
        }
    );
    assert_eq!(config.mark, 17);
    assert_eq!(
        (config.mode, config.family),
        (ModeRequest::Only(Mode::Tc), Family::V6)
    );
    let allowed: Vec<_> = config.allow.iter().map(ToString::to_string).collect();
    assert_eq!(allowed, ["10.0.0.0/8", "fd00::/8", "192.0.2.7/32"]);
    assert_eq!(config.interfaces, ["eth0", "eth1"]);
    assert_eq!((size(&config), config.detail), (9_000, Detail::Probes));
}

#[test]
fn each_bound_holds_at_its_edge_and_not_beyond() {
    let cases: &[Bounds] = &[
        (
            "rate",
            &["0.001", "20000"],
            &["0", "0.0009", "20000.1", "NaN", "inf", "-1", "x"],
        ),
        ("peer_limit", &["1", "16383"], &["0", "16384", "all", "-1"]),
        ("window", &["1", "60s"], &["0.9", "61", "x", "-1"]),
        ("timeout", &["1ms", "10"], &["0", "0.9ms", "10.1"]),
        ("compare_every", &["0", "1"], &["-1", "0.5"]),
        (
            "sender",
            &["auto", "sockets", "kernel"],
            &["", "xdp", "Auto"],
        ),
        ("port", &["1", "65535"], &["0", "65536", "http"]),
        (
            "source_ports",
            &["1024-1024", "1024-5119"],
            &["1023-2000", "2000-1999", "1024-5120", "1-", "-", "x"],
        ),
        (
            "size",
            &["96", "3400", "96:9,1472", "96 : 2 , 200 :62"],
            &[
                "95", "3401", "9001", "96,95", "96:0", "96:65", "96,96", "96,", "", "96:9:1",
                "96:64,97",
            ],
        ),
        (
            "dscp",
            &["0", "63", "0:3,46", "0,1,2,3,4,5,6,7"],
            &["64", "-1", "0,64", "46,46", "0,1,2,3,4,5,6,7,8"],
        ),
        (
            "rotating_ports",
            &["0", "2", "4000"],
            &["1", "4095", "-1", "4000-4100"],
        ),
        ("rotate_every", &["1s", "1d"], &["0.9", "2d", "x"]),
        ("mark", &["1", "0xffffffff"], &["0", "0x100000000"]),
        ("lease", &["3s", "180s"], &["2.9s", "61m"]),
        (
            "rate_limit_source",
            &["1", "100000000"],
            &["0", "100000001"],
        ),
        (
            "mode",
            &["auto", "xdp", "tc", "socket"],
            &["XDP", "generic", ""],
        ),
        ("family", &["auto", "4", "6"], &["5", "v4"]),
        ("detail", &["windows", "probes"], &["all"]),
        ("log", &["error", "trace"], &["loud"]),
        (
            "node",
            &["n1", "a.b-c_d", "9"],
            &["", "..", ".hidden", "a/b", "a b", "-a"],
        ),
        (
            "interface",
            &["eth0", "a23456789012345"],
            &["a234567890123456", "a/b", "..", "a b"],
        ),
        ("allow", &["10.0.0.0/8", "::/0"], &["10.0.0.0/33", "host"]),
        (
            "discovery",
            &["file:/p", "file:p"],
            &["file:", "/p", "none", "zookeeper:z"],
        ),
        (
            "feed",
            &["file:/d", "none"],
            &["file:", "/d", "kafka:k", "kafka"],
        ),
        ("pin_root", &["/sys/fs/bpf/x"], &["relative", ""]),
        ("state_dir", &["/x"], &["x"]),
    ];
    check_bounds(cases);
}

#[test]
fn the_bounds_of_the_way_to_kafka_hold_too() {
    check_bounds(&[
        (
            "kafka",
            &["k:9092", "10.0.0.1:1,k-2.example:65535", "[fd00::1]:9092"],
            &["k", "k:0", "k:x", ":9092", "fd00::1:9092", "k:1 k:2"],
        ),
        ("kafka_topic", &["_t", "a.b-c"], &["", ".", "a/b", "a b"]),
        (
            "kafka_property",
            &[
                "security.protocol=ssl",
                "ssl.cipher.suites=a,b",
                "linger.ms=1",
            ],
            &[
                "x",
                "=x",
                "no.such.property=1",
                "linger.ms=soon",
                "bootstrap.servers=k:1",
                "enable.idempotence=false",
            ],
        ),
        ("kafka_partitions", &["1", "10000"], &["0", "10001"]),
        ("kafka_retention", &["1m", "7d"], &["59s", "11y"]),
        (
            "spool_bytes",
            &["0", "256KiB", "16777216", "2g", "16TiB"],
            &["1", "255KiB", "17TiB", "-1", "1.5GiB", "x"],
        ),
    ]);
}

type Bounds = (
    &'static str,
    &'static [&'static str],
    &'static [&'static str],
);

fn check_bounds(cases: &[Bounds]) {
    for (key, right, wrong) in cases {
        for text in *right {
            assert!(
                load(&[DISCOVERY, (*key, *text)], &[], None).is_ok(),
                "{key} {text}"
            );
        }
        for text in *wrong {
            let error = load(&[DISCOVERY, (*key, *text)], &[], None);
            assert!(error.is_err(), "{key} `{text}`");
        }
    }
}

#[test]
fn all_mistakes_are_reported_together_in_the_order_of_the_settings() {
    let file = "rat = 1\nmode = 5\nwindow = 1979-05-27\nsource_ports = \"900-1000\"\n";
    let error = load(&[("dscp", "64")], &[("DT_SIZE", "1")], Some(file)).expect_err("bad");
    let text = error.to_string();
    let path_end = "agent.toml";
    let lines: Vec<_> = text
        .lines()
        .map(|line| line.split_once(path_end).map_or(line, |(_, rest)| rest))
        .collect();
    assert_eq!(
        lines,
        [
            ":1: unknown key `rat`, did you mean `rate`?",
            ":3: `window` cannot be a datetime",
            "discovery is not set: say where the members are, with --zookeeper HOST:PORT or --discovery file:PATH",
            ":2: mode: `5` is none of auto, xdp, tc, socket",
            ":4: source_ports: `900-1000` is not a range of at most 4096 ports from 1024 on, such as 61000-61003",
            "DT_SIZE: `1` is not a whole number from 96 to 9000",
            "--dscp: `64` is not a whole number from 0 to 63",
        ]
    );
}

#[test]
fn settings_that_contradict_each_other_are_a_mistake() {
    assert_eq!(
        mistakes(&[
            ("source_ports", "61000-61003"),
            ("port", "61002"),
            ("lease", "200s")
        ]),
        [
            "port 61002 is one of source_ports 61000-61003: a probe would look like a request",
            "handover 3m is shorter than lease 3m 20s: a clean stop would be worse than a crash"
        ]
    );
    assert_eq!(
        mistakes(&[("source_ports", "x"), ("port", "61002")]).len(),
        1,
        "no contradiction with a mistake"
    );
}

#[test]
fn sizes_and_code_points_make_classes_and_ports_follow_each_other() {
    let config = good(&[
        ("size", "96:2,1000"),
        ("dscp", "0,46"),
        ("source_ports", "61000-61007"),
        ("rotating_ports", "56"),
        ("rotate_every", "30s"),
    ]);
    let PathConfig { rotating, mix, .. } = &config.paths;
    let classes: Vec<_> = mix
        .classes()
        .iter()
        .map(|class| (class.payload_bytes, class.dscp))
        .collect();
    assert_eq!(classes, [(96, 0), (96, 46), (1_000, 0), (1_000, 46)]);
    assert_eq!(config.paths.longest_payload(), 1_000);
    let expected = RotatingSourcePorts {
        count: 56,
        every: Duration::from_secs(30),
    };
    assert_eq!(*rotating, Some(expected));
    let all = config.paths.all_ports();
    assert_eq!((all.first, all.last), (61_000, 61_063));
    assert_eq!(config.paths.port_count(), 9);
    let read = good(&[("size", "96"), ("rotating_ports", "0")]);
    assert_eq!((read.paths.rotating, read.paths.port_count()), (None, 4));
}

#[test]
fn what_is_wrong_with_one_of_several_values_is_said_of_that_one() {
    for (flags, reason) in [
        (
            vec![("size", "96:9,95")],
            "--size: `96:9,95` has `95`, which is not a whole number from 96 to 9000",
        ),
        (
            vec![("dscp", "0:0,46")],
            "--dscp: `0:0,46` has the weight `0`, which is not a whole number from 1 to 64",
        ),
        (
            vec![("size", "96,200,300"), ("dscp", "0,10,46")],
            "size and dscp together make 9 classes of probes, where 1 to 8 are possible",
        ),
        (
            vec![("source_ports", "65000-65003"), ("rotating_ports", "600")],
            "behind source_ports 65000-65003 there are no 600 more ports",
        ),
        (
            vec![("rotating_ports", "8"), ("port", "61010")],
            "port 61010 is one of the rotating ports up to 61011: a probe would look like a request",
        ),
        (
            vec![("source_ports", "1024-5000"), ("rotating_ports", "200")],
            "4177 source ports with the rotating ones, at most 4096 are possible",
        ),
    ] {
        assert_eq!(mistakes(&flags), [reason]);
    }
}

#[test]
fn a_list_where_one_value_is_wanted_is_a_mistake() {
    let error = load(&[DISCOVERY], &[], Some("rate = [1, 2]\n")).expect_err("bad");
    assert!(
        error
            .to_string()
            .ends_with("agent.toml:1: rate: `1,2` has 2 values where one is wanted"),
        "{error}"
    );
}

#[test]
fn a_file_that_cannot_be_read_is_a_mistake_beside_the_others() {
    let error = load(
        &[("config", "/nonexistent/agent.toml"), ("dscp", "99")],
        &[],
        None,
    )
    .expect_err("bad");
    assert!(
        matches!(&error.mistakes[0], Mistake::Unreadable { path, .. } if path == "/nonexistent/agent.toml")
    );
    assert_eq!(error.mistakes.len(), 3, "{error}");
}

#[test]
fn commands_that_only_the_command_line_may_give_are_unknown_in_the_file() {
    let error = load(&[DISCOVERY], &[], Some("print_config = true\n")).expect_err("bad");
    assert!(
        error.to_string().contains("unknown key `print_config`"),
        "{error}"
    );
}

#[test]
fn a_host_without_a_name_must_be_given_one() {
    let surroundings = Surroundings {
        env: &|_| None,
        hostname: None,
    };
    let error = RunConfig::load_in(&typed(&[DISCOVERY]), &surroundings).expect_err("bad");
    assert_eq!(error.to_string(), "node is not set: give --node");
    let surroundings = Surroundings {
        env: &|_| None,
        hostname: Some(String::from("-strange")),
    };
    let error = RunConfig::load_in(&typed(&[DISCOVERY]), &surroundings)
        .expect_err("bad")
        .to_string();
    assert!(
        error.starts_with("node (from hostname): `-strange` is not a node name"),
        "{error}"
    );
}

#[test]
fn the_printed_settings_name_their_origins() {
    let flags = [DISCOVERY, ("rate", "007"), ("allow", "10.0.0.0/8,fd00::/8")];
    let text = load(&flags, &[("DT_DSCP", "7")], None)
        .expect("good")
        .to_toml();
    for line in [
        "node = \"host-1\"                                        # hostname",
        "discovery = \"file:/peers.toml\"                         # --discovery",
        "feed = \"file:/var/lib/distributed-trace/feed\"          # below state_dir",
        "rate = \"007\"                                           # --rate",
        "dscp = 7                                               # DT_DSCP",
        "allow = [\"10.0.0.0/8\", \"fd00::/8\"]                     # --allow",
        "mark = 0x64740001                                      # default",
    ] {
        let wanted: String = line.split_whitespace().collect::<Vec<_>>().join(" ");
        let found = text
            .lines()
            .any(|line| line.split_whitespace().collect::<Vec<_>>().join(" ") == wanted);
        assert!(found, "{wanted}\n{text}");
    }
    assert!(
        !text.contains("print_config") && !text.contains("config ="),
        "{text}"
    );
}

#[test]
fn a_reload_knows_what_is_different() {
    let one = good(&[("rate", "1"), ("dscp", "0")]);
    let other = good(&[("rate", "2")]);
    assert_eq!(one.differences(&other), ["rate"]);
    assert_eq!(one.differences(&one), [""; 0]);
}

#[test]
fn a_reload_takes_what_can_change_and_names_what_cannot() {
    let mut running = good(&[("rate", "1"), ("allow", "10.0.0.0/8"), ("dscp", "0")]);
    let newer = good(&[
        ("rate", "2"),
        ("log", "debug"),
        ("dscp", "7"),
        ("window", "5s"),
    ]);
    let Reloaded { taken, waiting } = running.reload(&newer);
    assert_eq!(taken, ["rate", "allow", "log"]);
    assert_eq!(waiting, ["window", "dscp"]);
    assert_eq!((running.rate, running.allow.len()), (2.0, 0));
    assert_eq!(running.log, LevelFilter::DEBUG);
    // What waits for a restart is in use no sooner, and is named as long as it waits.
    assert_eq!(dscp(&running), 0);
    let again = running.reload(&newer);
    assert_eq!(
        (again.taken, again.waiting),
        (vec![], vec!["window", "dscp"])
    );
}

proptest! {
    #[test]
    fn the_printed_settings_can_be_fed_back(
        rate in 0.001..20_000.0_f64,
        dscp in 0..64_u8,
        node in "[a-zA-Z0-9][a-zA-Z0-9._-]{0,20}",
        directory in "/[ -~]{0,20}",
        interfaces in prop::collection::vec("[a-z]{1,8}", 0..4),
    ) {
        let (rate, dscp, directory) = (rate.to_string(), dscp.to_string(), directory.clone());
        let interfaces = interfaces.join(",");
        let first = good(&[
            ("rate", &rate), ("dscp", &dscp), ("node", &node), ("state_dir", &directory), ("interface", &interfaces),
        ]);
        let second = load(&[], &[], Some(&first.to_toml())).expect("it can be fed back");
        // `config` itself is no part of what is fed back.
        prop_assert_eq!(first.differences(&second), ["config"]);
        prop_assert_eq!(&first.feed, &second.feed);
        prop_assert_eq!(first.interfaces, second.interfaces);
    }
}

#[test]
fn ping_has_the_defaults_that_users_of_ping_expect() {
    let config = in_surroundings(&[], |surroundings| {
        PingConfig::load_in(&typed(&[("host", "10.0.0.1")]), surroundings)
    });
    let config = config.expect("good");
    assert_eq!(config.hosts, ["10.0.0.1"]);
    assert_eq!(
        (config.count, config.deadline, config.source_port),
        (None, None, None)
    );
    assert_eq!(
        (config.interval, config.timeout),
        (Duration::from_secs(1), Duration::from_secs(1))
    );
    assert_eq!(
        (config.family, config.mode),
        (Family::Auto, ModeRequest::Auto)
    );
    assert_eq!(
        (config.node.as_str(), config.log),
        ("host-1", LevelFilter::WARN)
    );
}

#[test]
fn ping_beside_an_agent_finds_it_by_the_same_variables() {
    let variables = [
        ("DT_NODE", "n7"),
        ("DT_PIN_ROOT", "/pins"),
        ("DT_PORT", "8620"),
        ("DT_INTERFACE", "eth0,eth1"),
    ];
    let config = in_surroundings(&variables, |surroundings| {
        PingConfig::load_in(&typed(&[("host", "h")]), surroundings)
    });
    let config = config.expect("good");
    assert_eq!(
        (config.node.as_str(), config.pin_root, config.port),
        ("n7", PathBuf::from("/pins"), 8_620)
    );
    assert_eq!(
        config.interface, None,
        "the agent's interfaces say nothing about one host"
    );
}

#[test]
fn ping_reports_its_mistakes_together() {
    let flags = [
        ("ipv4", "true"),
        ("ipv6", "true"),
        ("interval", "1us"),
        ("count", "0"),
        ("source_port", "862"),
    ];
    let error = in_surroundings(&[], |surroundings| {
        PingConfig::load_in(&typed(&flags), surroundings)
    })
    .expect_err("bad");
    let text = error.to_string();
    for part in [
        "-4 and -6",
        "--interval",
        "--count",
        "--source-port",
        "name at least one host",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
}

#[test]
fn reflect_answers_nobody_unless_told() {
    let load = |flags: &[(&'static str, &str)]| {
        in_surroundings(&[], |surroundings| {
            ReflectConfig::load_in(&typed(flags), surroundings)
        })
    };
    let config = load(&[("interface", "eth0")]).expect("good");
    assert!(config.allow.is_empty());
    assert_eq!(config.interfaces, ["eth0"]);
    let error = load(&[]).expect_err("bad").to_string();
    assert_eq!(
        error,
        "interface is not set: say where to answer, with --interface IFACE"
    );
}

#[test]
fn doctor_and_detach_look_at_this_host_unless_told() {
    in_surroundings(&[], |surroundings| {
        let doctor = DoctorConfig::load_in(&Typed::default(), surroundings).expect("good");
        assert!(doctor.interfaces.is_empty() && !doctor.json);
        let detach = DetachConfig::load_in(&Typed::default(), surroundings).expect("good");
        assert_eq!(detach.target, DetachTarget::Node(String::from("host-1")));
        let all = DetachConfig::load_in(&typed(&[("all", "true")]), surroundings).expect("good");
        assert_eq!(all.target, DetachTarget::All);
    });
}
