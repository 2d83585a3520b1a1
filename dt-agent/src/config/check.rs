//! Walks through gathered settings and collects every mistake on the way.

use super::error::{ConfigError, Mistake};
use super::raw::{RawConfig, RawValue};
use super::secret;

/// The check of one command's settings.
///
/// After a mistake a method returns a stand-in, so that the check can go on; [`Self::finish`] lets none of them out.
pub(super) struct Checker<'a> {
    raw: &'a RawConfig,
    mistakes: Vec<Mistake>,
    bad: Vec<&'static str>,
}

impl<'a> Checker<'a> {
    /// Begins with the mistakes that were found while gathering.
    pub fn new(raw: &'a RawConfig) -> Self {
        Self {
            raw,
            mistakes: raw.mistakes.clone(),
            bad: Vec::new(),
        }
    }

    /// A setting that has a value.
    pub fn one<T: Default>(&mut self, key: &'static str, parse: Parse<T>) -> T {
        self.one_or(key, T::default(), parse)
    }

    /// A setting that has a value; `stand_in` is returned after a mistake.
    pub fn one_or<T>(&mut self, key: &'static str, stand_in: T, parse: Parse<T>) -> T {
        match self.optional(key, parse) {
            Some(value) => value,
            None if self.bad.contains(&key) => stand_in,
            None => {
                self.missing(key, format!("give --{}", key.replace('_', "-")));
                stand_in
            }
        }
    }

    /// A setting that may have no value; none after a mistake too.
    pub fn optional<T>(&mut self, key: &'static str, parse: Parse<T>) -> Option<T> {
        let value = self.raw.get(key)?;
        match value.texts.as_slice() {
            [text] => self.parsed(key, value, text, parse),
            texts => {
                let reason = format!("has {} values where one is wanted", texts.len());
                self.bad_value(key, value, &texts.join(","), reason);
                None
            }
        }
    }

    /// A setting with any number of values.
    pub fn list<T>(&mut self, key: &'static str, parse: Parse<T>) -> Vec<T> {
        let Some(value) = self.raw.get(key) else {
            return Vec::new();
        };
        value
            .texts
            .iter()
            .filter_map(|text| self.parsed(key, value, text, parse))
            .collect()
    }

    /// A setting that is given or not.
    pub fn switch(&mut self, key: &'static str) -> bool {
        self.one(key, super::parse::boolean)
    }

    /// Notes that a setting without a default was not given.
    pub fn missing(&mut self, setting: &'static str, remedy: String) {
        self.bad.push(setting);
        self.mistakes.push(Mistake::Missing { setting, remedy });
    }

    /// Notes a contradiction among settings, unless one of them is a mistake by itself.
    pub fn contradiction(
        &mut self,
        keys: &[&'static str],
        holds: bool,
        reason: impl FnOnce() -> String,
    ) {
        if holds && !keys.iter().any(|key| self.bad.contains(key)) {
            self.mistakes
                .push(Mistake::Contradiction { reason: reason() });
        }
    }

    /// Whether this value was given, or is a default.
    pub fn has(&self, key: &str) -> bool {
        self.raw
            .get(key)
            .is_some_and(|value| !value.texts.is_empty())
    }

    /// The checked configuration, if there were no mistakes.
    pub fn finish<T>(self, config: T) -> Result<T, ConfigError> {
        if self.mistakes.is_empty() {
            Ok(config)
        } else {
            Err(ConfigError {
                mistakes: self.mistakes,
            })
        }
    }

    fn parsed<T>(
        &mut self,
        key: &'static str,
        value: &RawValue,
        text: &str,
        parse: Parse<T>,
    ) -> Option<T> {
        parse(text)
            .map_err(|reason| self.bad_value(key, value, text, reason))
            .ok()
    }

    fn bad_value(&mut self, key: &'static str, value: &RawValue, text: &str, reason: String) {
        self.bad.push(key);
        let origin = value.origin.clone();
        self.mistakes.push(Mistake::BadValue {
            setting: key,
            origin,
            value: secret::hidden(key, text),
            reason,
        });
    }
}

/// Reads one value, or says as the end of a sentence what is wrong with it.
pub(super) type Parse<T> = fn(&str) -> Result<T, String>;
