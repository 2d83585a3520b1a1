//! What is found in a file, and how mistakes in it are named.

use super::*;

fn flaws(text: &str, known: &[&str]) -> Vec<String> {
    let document = Document::parse(text).expect("TOML");
    document
        .table()
        .unknown_keys(known)
        .iter()
        .map(ToString::to_string)
        .collect()
}

#[test]
fn unknown_keys_are_named_with_line_and_nearest_key() {
    let known = ["rate", "source_ports", "state_dir"];
    assert_eq!(
        flaws(
            "# comment\nrat = 1\n\nsource-ports = \"1-2\"\nxyzzy = 0\n",
            &known
        ),
        [
            "line 2: unknown key `rat`, did you mean `rate`?",
            "line 4: unknown key `source-ports`, did you mean `source_ports`?",
            "line 5: unknown key `xyzzy`"
        ]
    );
}

#[test]
fn broken_toml_is_named_with_its_line() {
    let flaw = Document::parse("a = 1\nb = = 2\n").err().expect("broken");
    assert_eq!(flaw.line, 2);
}

#[test]
fn a_key_that_stands_twice_is_a_mistake() {
    let flaw = Document::parse("a = 1\na = 2\n").err().expect("broken");
    assert_eq!(
        (flaw.line, flaw.reason.contains("duplicate")),
        (2, true),
        "{flaw}"
    );
}

#[test]
fn values_are_read_as_texts_whatever_their_type() {
    let document =
        Document::parse("a = \"x\"\nb = [1, 2.5, true]\nc = 0x10\nd = 1979-05-27\n").expect("TOML");
    let table = document.table();
    assert_eq!(table.texts("a"), Ok(Some((vec![String::from("x")], 1))));
    assert_eq!(
        table.texts("b"),
        Ok(Some((["1", "2.5", "true"].map(String::from).to_vec(), 2)))
    );
    assert_eq!(table.texts("c"), Ok(Some((vec![String::from("0x10")], 3))));
    assert_eq!(
        table.texts("d").map_err(|flaw| flaw.to_string()),
        Err(String::from("line 4: `d` cannot be a datetime"))
    );
    assert_eq!(table.texts("e"), Ok(None));
}

#[test]
fn values_of_the_wrong_type_are_named_with_their_line() {
    let document =
        Document::parse("a = 1\nb = \"x\"\nc = [\"x\",\n2]\nd = 99999\ne = [1]").expect("TOML");
    let table = document.table();
    let texts = [
        table.string("a").err(),
        table.boolean("b").err(),
        table.strings("c").err(),
        table.port("d").err(),
        table.tables("e").err(),
        table.table("a").err(),
    ];
    assert_eq!(
        texts.map(|flaw| flaw.map_or_else(String::new, |flaw| flaw.to_string())),
        [
            "line 1: `a` cannot be an integer",
            "line 2: `b` cannot be a string",
            "line 4: `c` cannot be an integer",
            "line 5: `d` is not a port from 1 to 65535",
            "line 6: `e` cannot be an integer",
            "line 1: `a` cannot be an integer"
        ]
    );
}
