//! What must not be shown of settings: passwords and keys among the properties of clients.

use super::raw::RawValue;

/// The value as it may be printed.
pub(super) fn hide(setting: &str, value: &RawValue) -> RawValue {
    RawValue {
        texts: value
            .texts
            .iter()
            .map(|text| hidden(setting, text))
            .collect(),
        origin: value.origin.clone(),
    }
}

/// One text of a setting as it may be printed.
pub(super) fn hidden(setting: &str, text: &str) -> String {
    match text.split_once('=') {
        Some((key, _)) if setting.ends_with("_property") && is_secret(key) => {
            format!("{key}={MASK}")
        }
        _ => text.to_owned(),
    }
}

/// A property that is not known not to be a secret is one, if its name sounds like that.
fn is_secret(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    // Places of files are none; what is in the files is.
    let last = key.rsplit('.').next().unwrap_or_default();
    let is_place = matches!(last, "location" | "file" | "url");
    !is_place && WORDS.iter().any(|word| key.contains(word))
}

/// Stands for a secret; [`super::kafka`] refuses it as a value.
pub(super) const MASK: &str = "********";

/// `pas` also finds most misspelt passwords.
const WORDS: &[&str] = &[
    "pas",
    "pwd",
    "secret",
    "token",
    "pem",
    "oauthbearer.config",
    "key",
    "credential",
];
