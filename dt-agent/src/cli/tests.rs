//! Command lines and what they say.

use clap::{ArgAction, Command};

use super::*;

fn parsed(line: &str) -> Result<Cli, clap::Error> {
    Cli::parse_from(line.split_whitespace())
}

fn values(values: &[(&'static str, &[&str])]) -> Typed {
    let mut typed = Typed::default();
    for (key, texts) in values {
        typed.insert(key, texts.iter().map(ToString::to_string).collect());
    }
    typed
}

/// All but those that only say what the command line is.
fn with_settings(root: &Command) -> impl Iterator<Item = &Command> {
    root.get_subcommands()
        .filter(|command| !["completions", "manual"].contains(&command.get_name()))
}

#[test]
fn every_shell_gets_completions_of_every_command_and_flag() {
    for shell in [
        Shell::Bash,
        Shell::Elvish,
        Shell::Fish,
        Shell::PowerShell,
        Shell::Zsh,
    ] {
        let script = String::from_utf8(completions(shell)).expect("text");
        for word in ["detach", "completions", "kafka-property", "allow-targets"] {
            assert!(script.contains(word), "{shell}: no {word}");
        }
    }
}

#[test]
fn each_command_has_a_page_with_its_variables() {
    let directory = tempfile::tempdir().expect("a directory");
    write_manual(&directory.path().join("man1")).expect("pages");
    let page = |name: &str| {
        std::fs::read_to_string(directory.path().join("man1").join(name)).expect("a page")
    };
    for command in Root::command().get_subcommands() {
        assert!(page(&format!("dt-agent-{}.1", command.get_name())).contains(".SH OPTIONS"));
    }
    assert!(page("dt-agent.1").contains("dt\\-agent\\-run(1)"));
    assert!(page("dt-agent-run.1").contains("DT_ALLOW_TARGETS"));
    assert!(!page("dt-agent.1").contains("BPF object"));
}

#[test]
fn the_long_version_says_what_was_built() {
    let said = parsed("dt-agent --version")
        .expect_err("it only says so")
        .to_string();
    for line in [
        concat!("dt-agent ", env!("CARGO_PKG_VERSION")),
        "commit ",
        "BPF object ",
    ] {
        assert!(said.contains(line), "{said}");
    }
}

#[test]
fn the_command_line_is_well_formed() {
    help::annotated(Root::command()).debug_assert();
}

#[test]
fn flags_and_settings_are_the_same() {
    let root = Root::command();
    for command in with_settings(&root) {
        let settings = CommandSettings::of_command(command.get_name())
            .expect("settings")
            .settings;
        let flags: Vec<_> = command
            .get_arguments()
            .map(|arg| arg.get_id().as_str())
            .collect();
        assert_eq!(
            flags,
            settings
                .iter()
                .map(|setting| setting.key)
                .collect::<Vec<_>>(),
            "{}",
            command.get_name()
        );
        for (arg, setting) in command.get_arguments().zip(settings) {
            let many =
                arg.get_action().takes_values() && matches!(arg.get_action(), ArgAction::Append);
            let may_be_many = matches!(setting.kind, Kind::List | Kind::Lines);
            assert_eq!(many, may_be_many, "{}", setting.key);
            assert_eq!(
                !arg.get_action().takes_values(),
                setting.kind == Kind::Switch,
                "{}",
                setting.key
            );
            let long =
                arg.is_positional() || arg.get_long() == Some(&setting.key.replace('_', "-"));
            assert!(long, "{}", setting.key);
        }
    }
}

#[test]
fn each_flag_has_a_sentence_and_a_variable_of_its_own() {
    let root = help::annotated(Root::command());
    for command in with_settings(&root) {
        let mut variables = std::collections::BTreeSet::new();
        for arg in command.get_arguments() {
            let setting = CommandSettings::of_command(command.get_name())
                .and_then(|all| all.find(arg.get_id().as_str()));
            let setting = setting.expect("a setting");
            let help = arg.get_help().expect("help").to_string();
            assert!(help.contains(&format!("[env: {}]", setting.env)), "{help}");
            // Those that everybody else calls by the same name, too.
            let is_known = ["KAFKA_BOOTSTRAP_SERVERS", "ZOOKEEPER_SERVERS"].contains(&setting.env);
            assert!(setting.env.starts_with("DT_") || is_known);
            assert!(variables.insert(setting.env), "{} twice", setting.env);
            assert!(
                help.len() > 30 && help.starts_with(char::is_uppercase),
                "{help}"
            );
        }
    }
}

#[test]
fn run_keeps_what_was_typed() {
    let cli =
        parsed("dt-agent run --rate 10 --interface eth0 --interface eth1 --print-config --node n1")
            .expect("good");
    let wanted = values(&[
        ("rate", &["10"]),
        ("interface", &["eth0", "eth1"]),
        ("print_config", &["true"]),
        ("node", &["n1"]),
    ]);
    assert_eq!(cli, Cli::Run(wanted));
}

#[test]
fn ping_takes_what_users_of_ping_type() {
    let cli =
        parsed("dt-agent ping -c 3 -i 0.2 -w 5 -W 1 -s 128 -4 -q 10.0.0.1 host").expect("good");
    let wanted = values(&[
        ("host", &["10.0.0.1", "host"]),
        ("count", &["3"]),
        ("interval", &["0.2"]),
        ("deadline", &["5"]),
        ("timeout", &["1"]),
        ("size", &["128"]),
        ("ipv4", &["true"]),
        ("quiet", &["true"]),
    ]);
    assert_eq!(cli, Cli::Ping(wanted));
}

#[test]
fn the_small_commands_are_there() {
    assert_eq!(
        parsed("dt-agent reflect --interface eth0").expect("good"),
        Cli::Reflect(values(&[("interface", &["eth0"])]))
    );
    assert_eq!(
        parsed("dt-agent doctor --json").expect("good"),
        Cli::Doctor(values(&[("json", &["true"])]))
    );
    assert_eq!(
        parsed("dt-agent detach --all").expect("good"),
        Cli::Detach(values(&[("all", &["true"])]))
    );
}

#[test]
fn unknown_flags_name_the_nearest_one() {
    let error = parsed("dt-agent run --rat 1")
        .expect_err("unknown")
        .to_string();
    assert!(error.contains("--rate"), "{error}");
    assert!(
        parsed("dt-agent rum")
            .expect_err("unknown")
            .to_string()
            .contains("run")
    );
    assert!(parsed("dt-agent detach --all --node n1").is_err());
}

#[test]
fn help_teaches_by_examples() {
    for command in ["run", "ping", "reflect", "doctor", "detach"] {
        let help = parsed(&format!("dt-agent {command} --help"))
            .expect_err("help")
            .to_string();
        assert!(
            help.contains("Examples:") && help.contains("[env: DT_"),
            "{help}"
        );
    }
}

#[test]
fn examples_in_help_are_valid_command_lines() {
    let root = Root::command();
    let mut checked = 0;
    for command in root.get_subcommands().chain([&root]) {
        let examples = command.get_after_help().expect("examples").to_string();
        for line in examples
            .lines()
            .filter_map(|line| line.strip_prefix("  dt-agent "))
        {
            let line = line
                .split("  ")
                .next()
                .unwrap_or(line)
                .split(" >")
                .next()
                .unwrap_or(line);
            parsed(&format!("dt-agent {line}")).unwrap_or_else(|error| panic!("{line}: {error}"));
            checked += 1;
        }
    }
    assert!(checked > 10, "{checked}");
}
