use clap::CommandFactory as _;

use super::value::{duration, moment, percent, property, span};
use super::*;
use crate::source::Begin;

fn parse(arguments: &[&str]) -> Result<Cli, clap::Error> {
    Cli::try_parse_from([&["dt-console"], arguments].concat())
}

#[test]
fn the_commands_are_sound() {
    Cli::command().debug_assert();
}

#[test]
fn every_shell_gets_completions_and_each_command_has_a_page() {
    for shell in [
        Shell::Bash,
        Shell::Elvish,
        Shell::Fish,
        Shell::PowerShell,
        Shell::Zsh,
    ] {
        let script = String::from_utf8(completions(shell)).expect("text");
        for word in ["inspect", "completions", "kafka-property"] {
            assert!(script.contains(word), "{shell}: no {word}");
        }
    }
    let directory = tempfile::tempdir().expect("a directory");
    write_manual(&directory.path().join("man1")).expect("pages");
    let page = |name: &str| {
        std::fs::read_to_string(directory.path().join("man1").join(name)).expect("a page")
    };
    for command in Cli::command().get_subcommands() {
        assert!(page(&format!("dt-console-{}.1", command.get_name())).contains(".SH OPTIONS"));
    }
    assert!(page("dt-console-tail.1").contains("kafka"));
}

#[test]
fn every_example_of_the_help_is_a_command() {
    for text in [
        help::ROOT,
        help::TAIL,
        help::MATRIX,
        help::EXPORT,
        help::INSPECT,
    ] {
        for line in text.lines().filter(|line| line.starts_with("  dt-console")) {
            let words = line.split_whitespace().skip(1);
            // Up to the comment, the pipe or what only explains.
            let end = line
                .trim_start()
                .split("   ")
                .next()
                .map_or(0, |command| command.split_whitespace().count());
            let words: Vec<&str> = words
                .take(end - 1)
                .take_while(|word| *word != "|")
                .collect();
            assert!(
                parse(&words).is_ok(),
                "{words:?}: {:?}",
                parse(&words).err()
            );
        }
    }
}

#[test]
fn loss_may_stand_alone() {
    for (arguments, expected) in [
        (&["tail", "--dir", "d"][..], None),
        (&["tail", "--dir", "d", "--loss"], Some(0.0)),
        (&["tail", "--loss", "50%", "--dir", "d"], Some(0.5)),
    ] {
        let Task::Tail(tail) = parse(arguments).expect("it is right").task else {
            panic!("{arguments:?}");
        };
        assert_eq!(tail.loss, expected);
    }
}

#[test]
fn mistakes_are_refused() {
    for arguments in [
        &["tail", "--kafka", "b", "--dir", "d"][..],
        &["tail", "--loss", "101"],
        &["matrix", "--by", "host"],
        &["matrix", "--span", "0"],
        &["export", "--dir", "d"],
        &["export", "--dir", "d", "--out", "o", "--from", "yesterday"],
        &["inspect"],
        &["tail", "--kafka-property", "nothing"],
    ] {
        assert!(parse(arguments).is_err(), "{arguments:?}");
    }
}

#[test]
fn moments_are_places_in_time() {
    const NOW: u64 = 1_800_000_000_000;
    for (text, begin, unix_ms) in [
        ("start", Begin::Earliest, 0),
        ("end", Begin::Latest, NOW),
        ("10m", Begin::At(NOW - 600_000), NOW - 600_000),
        ("1.5", Begin::At(NOW - 1_500), NOW - 1_500),
        ("1970-01-01T00:00:01Z", Begin::At(1_000), 1_000),
        ("1970-01-02 00:00:00", Begin::At(86_400_000), 86_400_000),
    ] {
        let moment = moment(text).expect(text);
        assert_eq!(
            (moment.begin(NOW), moment.unix_ms(NOW)),
            (begin, unix_ms),
            "{text}"
        );
    }
    assert!(moment("never").is_err());
}

#[test]
fn values_mean_what_they_say() {
    assert_eq!(duration("200us"), Ok(Duration::from_micros(200)));
    assert_eq!(duration("2"), Ok(Duration::from_secs(2)));
    assert!(duration("-1").is_err() && duration("1e300").is_err());
    assert_eq!(span("all"), Ok(SpanArg(None)));
    assert_eq!(percent("0.1%"), Ok(0.001));
    assert!(percent("NaN").is_err());
    let expected = ("a".to_owned(), "b=c".to_owned());
    assert_eq!(property("a=b=c"), Ok(expected));
}
