use anyhow::Result;

use super::*;

const RELEASE: &str = r#"
syntax = "proto3";
package p.v1;
message Batch {
  string source = 1;
  repeated Peer peers = 2;
  optional uint32 dscp = 3;
  uint64 sequence = 4;
  Mode mode = 5;
  message Inner { bool set = 1; }
  Inner inner = 6;
}
message Peer { string name = 1; }
enum Mode { MODE_UNSPECIFIED = 0; MODE_XDP = 1; MODE_TC = 2; }
"#;

fn schema(text: &str) -> Result<Schema> {
    let dir = tempfile::tempdir()?;
    fs::write(dir.path().join("a.proto"), text)?;
    compile(dir.path(), dir.path())
}

/// What the release's readers would say when `from` in it had become `to`.
fn breaks(from: &str, to: &str) -> Result<Vec<String>> {
    ensure!(RELEASE.contains(from), "{from} is not in the release");
    let breaks = Break::all(&schema(RELEASE)?, &schema(&RELEASE.replacen(from, to, 1))?);
    Ok(breaks.iter().map(Break::to_string).collect())
}

#[test]
fn the_schema_keeps_what_was_released() -> Result<()> {
    check(&Workspace::find()?)
}

#[test]
fn every_kind_of_break_is_named() -> Result<()> {
    let cases = [
        (
            "string source = 1;",
            "",
            "p.v1.Batch: 1 source string: was removed",
        ),
        (
            "string source = 1;",
            "reserved 1;",
            "p.v1.Batch: 1 source string: was removed",
        ),
        (
            "source = 1",
            "source = 7",
            "p.v1.Batch: 1 source string: has number 7 now",
        ),
        (
            "source = 1",
            "origin = 1",
            "p.v1.Batch: 1 source string: is called origin now",
        ),
        (
            "string source",
            "bytes source",
            "p.v1.Batch: 1 source string: is of type bytes now",
        ),
        (
            "string source",
            "repeated string source",
            "p.v1.Batch: 1 source string: is of type repeated string now",
        ),
        (
            "optional uint32",
            "uint32",
            "p.v1.Batch: 3 dscp optional uint32: is of type uint32 now",
        ),
        (
            "uint64 sequence = 4;",
            "oneof at { uint64 sequence = 4; }",
            "p.v1.Batch: 4 sequence uint64: is of type oneof:at uint64 now",
        ),
        (
            "repeated Peer",
            "repeated Inner",
            "p.v1.Batch: 2 peers repeated p.v1.Peer: is of type repeated p.v1.Batch.Inner now",
        ),
        (
            "bool set = 1;",
            "",
            "p.v1.Batch.Inner: 1 set bool: was removed",
        ),
        ("MODE_TC = 2;", "", "p.v1.Mode: 2 MODE_TC: was removed"),
        (
            "MODE_TC = 2",
            "MODE_TC = 3",
            "p.v1.Mode: 2 MODE_TC: has number 3 now",
        ),
        (
            "MODE_TC = 2",
            "MODE_OTHER = 2",
            "p.v1.Mode: 2 MODE_TC: is called MODE_OTHER now",
        ),
        (
            "package p.v1;",
            "package p.v2;",
            "package p.v1 is gone or renamed",
        ),
    ];
    for (from, to, expected) in cases {
        let found = breaks(from, to)?;
        assert!(
            found.iter().any(|line| line == expected),
            "{from} to {to}: {found:?}"
        );
    }
    Ok(())
}

#[test]
fn two_fields_that_change_places_are_two_breaks() -> Result<()> {
    let swapped = RELEASE
        .replace("source = 1", "source = 4")
        .replace("sequence = 4", "sequence = 1");
    let breaks = Break::all(&schema(RELEASE)?, &schema(&swapped)?);
    let renumbered = breaks
        .iter()
        .filter(|one| matches!(one, Break::Renumbered { .. }));
    assert_eq!((renumbered.count(), breaks.len()), (2, 2));
    Ok(())
}

#[test]
fn a_message_that_is_gone_is_named() -> Result<()> {
    let without = RELEASE
        .replace(
            "message Peer { string name = 1; }",
            "message Node { string name = 1; }",
        )
        .replace("repeated Peer", "repeated Node");
    let breaks = Break::all(&schema(RELEASE)?, &schema(&without)?);
    let lines: Vec<_> = breaks.iter().map(Break::to_string).collect();
    assert_eq!(
        lines,
        [
            "p.v1.Batch: 2 peers repeated p.v1.Peer: is of type repeated p.v1.Node now",
            "message p.v1.Peer is gone or renamed",
        ]
    );
    Ok(())
}

#[test]
fn additions_pass() -> Result<()> {
    for (from, to) in [
        ("string source = 1;", "string source = 1; string zone = 9;"),
        ("MODE_TC = 2;", "MODE_TC = 2; MODE_SOCKET = 3;"),
        (
            "message Peer",
            "message Window { uint32 peer = 1; } message Peer",
        ),
        (
            "string source = 1;",
            "string source = 1 [deprecated = true];",
        ),
    ] {
        assert_eq!(breaks(from, to)?, Vec::<String>::new(), "{from} to {to}");
    }
    Ok(())
}

#[test]
fn the_released_form_says_everything_that_is_compared() -> Result<()> {
    let schema = schema(RELEASE)?;
    assert_eq!(Schema::parse(&schema.to_string())?, schema);
    Ok(())
}

#[test]
fn a_damaged_released_form_is_named_by_its_line() {
    let error = Schema::parse("message A\n  one field uint32\n").expect_err("no number");
    assert!(format!("{error:#}").contains("line 2"), "{error:#}");
}

#[test]
fn what_is_new_is_told() -> Result<()> {
    let later = RELEASE.replace("MODE_TC = 2;", "MODE_TC = 2; MODE_SOCKET = 3;");
    assert_eq!(
        schema(&later)?.added_since(&schema(RELEASE)?),
        ["p.v1.Mode: 3 MODE_SOCKET"]
    );
    Ok(())
}
