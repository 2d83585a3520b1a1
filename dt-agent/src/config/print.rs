//! Gathered settings as a file, for `--print-config`.

use std::fmt::Write as _;

use toml::Value;
use toml::de::DeValue;

use super::raw::{RawConfig, RawValue};
use super::secret;
use super::settings::{Kind, Setting};

/// All settings that may stand in a file, each with its origin; reading that file yields the same settings.
pub(super) fn to_toml(raw: &RawConfig) -> String {
    let mut text = format!(
        "# Effective settings of `dt-agent {}`, each with its origin.\n",
        raw.command.command
    );
    let in_file = |setting: &&Setting| setting.in_file;
    for setting in raw.command.settings.iter().filter(in_file) {
        if let Some(value) = raw.get(setting.key) {
            let value = &secret::hide(setting.key, value);
            let assignment = format!("{} = {}", setting.key, literal(setting.kind, value));
            // A path may hold anything, a comment may not.
            let origin = value.origin.to_string().replace(char::is_control, "?");
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{assignment:<56} # {origin}");
        }
    }
    text
}

fn literal(kind: Kind, value: &RawValue) -> String {
    let first = value.texts.first().map_or("", String::as_str);
    match kind {
        Kind::Number if is_toml_number(first) => first.to_owned(),
        Kind::Text | Kind::Number => Value::from(first).to_string(),
        Kind::Switch => super::parse::boolean(first).unwrap_or_default().to_string(),
        Kind::List | Kind::Lines => Value::from(value.texts.clone()).to_string(),
    }
}

/// What we take for a number TOML may not, for instance with leading zeros.
fn is_toml_number(text: &str) -> bool {
    DeValue::parse(text)
        .is_ok_and(|value| value.get_ref().is_integer() || value.get_ref().is_float())
}
