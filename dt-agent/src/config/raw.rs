//! Settings as somebody wrote them, and where.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;

use super::document::{Document, Flaw};
use super::error::Mistake;
use super::settings::{CommandSettings, Kind, Setting};

/// What the command line says, by setting.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Typed {
    values: BTreeMap<&'static str, Vec<String>>,
}

impl Typed {
    /// Adds what was typed for a setting.
    pub fn insert(&mut self, key: &'static str, values: Vec<String>) {
        self.values.insert(key, values);
    }
}

/// What the host knows and the command line does not.
pub struct Surroundings<'a> {
    /// Value of an environment variable.
    pub env: &'a dyn Fn(&str) -> Option<String>,
    /// Name of this host, if it has one.
    pub hostname: Option<String>,
}

impl Surroundings<'static> {
    /// Those of this process.
    #[must_use]
    pub fn of_process() -> Self {
        let hostname = fs::read_to_string("/proc/sys/kernel/hostname")
            .ok()
            .map(|name| name.trim().to_owned())
            .filter(|name| !name.is_empty());
        Self {
            env: &|variable| std::env::var(variable).ok(),
            hostname,
        }
    }
}

/// Where a value was written.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Origin {
    /// On the command line.
    Flag(&'static str),
    /// In this environment variable.
    Variable(&'static str),
    /// In the configuration file.
    File {
        /// Its path.
        path: String,
        /// Line, from 1.
        line: usize,
    },
    /// Nowhere: the built-in value.
    Default,
    /// Nowhere: taken from this host or from another setting.
    Derived(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(key) => write!(f, "--{}", key.replace('_', "-")),
            Self::Variable(name) => f.write_str(name),
            Self::File { path, line } => write!(f, "{path}:{line}"),
            Self::Default => f.write_str("default"),
            Self::Derived(from) => f.write_str(from),
        }
    }
}

/// All settings of one command with their origins, not yet checked.
#[derive(Clone, Debug)]
pub(super) struct RawConfig {
    pub(super) command: CommandSettings,
    pub(super) values: BTreeMap<&'static str, RawValue>,
    /// Mistakes in the file as a whole.
    pub(super) mistakes: Vec<Mistake>,
}

/// The value of one setting; switches hold `true` or `false`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct RawValue {
    pub texts: Vec<String>,
    pub origin: Origin,
}

impl RawConfig {
    /// Puts flags over environment over file over defaults.
    ///
    /// An empty environment variable counts as not set. Mistakes in the file are kept for the check.
    #[must_use]
    pub fn gather(
        command: CommandSettings,
        typed: &Typed,
        surroundings: &Surroundings<'_>,
    ) -> Self {
        let mut raw = Self {
            command,
            values: BTreeMap::new(),
            mistakes: Vec::new(),
        };
        for setting in command.settings {
            raw.take(setting, RawValue::typed(setting, typed));
            raw.take(setting, RawValue::from_environment(setting, surroundings));
        }
        raw.read_file();
        for setting in command.settings {
            raw.take(setting, RawValue::default_of(setting));
        }
        raw.derive("node", surroundings.hostname.clone(), "hostname");
        raw
    }

    /// Sets what is still unset.
    pub(super) fn derive(&mut self, key: &str, text: Option<String>, from: &'static str) {
        let value = text.map(|text| RawValue {
            texts: vec![text],
            origin: Origin::Derived(from),
        });
        if let Some(setting) = self.command.find(key) {
            self.take(setting, value);
        }
    }

    /// The value of a setting.
    pub(super) fn get(&self, key: &str) -> Option<&RawValue> {
        self.values.get(key)
    }

    /// The first text of a setting.
    pub(super) fn text(&self, key: &str) -> Option<&str> {
        self.texts(key).first().map(String::as_str)
    }

    fn texts(&self, key: &str) -> &[String] {
        self.get(key).map_or(&[], |value| &value.texts)
    }

    /// Keys whose values differ.
    pub(super) fn differences(&self, other: &Self) -> Vec<&'static str> {
        let keys = self.command.settings.iter().map(|setting| setting.key);
        keys.filter(|key| self.texts(key) != other.texts(key))
            .collect()
    }

    /// Takes these settings from `newer`, also where they are not set there.
    pub(super) fn replace(&mut self, keys: &[&'static str], newer: &Self) {
        for key in keys {
            match newer.get(key) {
                Some(value) => self.values.insert(key, value.clone()),
                None => self.values.remove(key),
            };
        }
    }

    fn take(&mut self, setting: &'static Setting, value: Option<RawValue>) {
        if let Some(value) = value {
            self.values.entry(setting.key).or_insert(value);
        }
    }

    fn read_file(&mut self) {
        let Some(path) = self.text("config").map(str::to_owned) else {
            return;
        };
        match fs::read_to_string(&path) {
            Ok(text) => self.take_file(&path, &text),
            Err(error) => self.mistakes.push(Mistake::Unreadable {
                path,
                reason: error.to_string(),
            }),
        }
    }

    pub(super) fn take_file(&mut self, path: &str, text: &str) {
        let document = match Document::parse(text) {
            Ok(document) => document,
            Err(flaw) => return self.note(path, flaw),
        };
        let settings: Vec<_> = self
            .command
            .settings
            .iter()
            .filter(|setting| setting.in_file)
            .collect();
        let known: Vec<_> = settings.iter().map(|setting| setting.key).collect();
        let table = document.table();
        table
            .unknown_keys(&known)
            .into_iter()
            .for_each(|flaw| self.note(path, flaw));
        for setting in settings {
            match table.texts(setting.key) {
                Ok(None) => {}
                Ok(Some((texts, line))) => {
                    let origin = Origin::File {
                        path: path.to_owned(),
                        line,
                    };
                    self.take(setting, Some(RawValue { texts, origin }));
                }
                Err(flaw) => self.note(path, flaw),
            }
        }
    }

    fn note(&mut self, path: &str, Flaw { line, reason }: Flaw) {
        self.mistakes.push(Mistake::InFile {
            path: path.to_owned(),
            line,
            reason,
        });
    }
}

impl RawValue {
    fn typed(setting: &'static Setting, typed: &Typed) -> Option<Self> {
        let texts = typed.values.get(setting.key)?.clone();
        Some(Self {
            texts: split(setting.kind, texts),
            origin: Origin::Flag(setting.key),
        })
    }

    fn from_environment(
        setting: &'static Setting,
        surroundings: &Surroundings<'_>,
    ) -> Option<Self> {
        let text = (surroundings.env)(setting.env).filter(|text| !text.is_empty())?;
        Some(Self {
            texts: split(setting.kind, vec![text]),
            origin: Origin::Variable(setting.env),
        })
    }

    fn default_of(setting: &'static Setting) -> Option<Self> {
        let texts = match setting.kind {
            Kind::List | Kind::Lines => Vec::new(),
            Kind::Switch => vec![String::from("false")],
            Kind::Text | Kind::Number => vec![setting.default?.to_owned()],
        };
        Some(Self {
            texts,
            origin: Origin::Default,
        })
    }
}

/// Lists may be separated by commas, or lines by breaks, instead of being repeated.
fn split(kind: Kind, texts: Vec<String>) -> Vec<String> {
    let separator = match kind {
        Kind::List => ',',
        Kind::Lines => '\n',
        Kind::Text | Kind::Number | Kind::Switch => return texts,
    };
    let parts = texts.iter().flat_map(|text| text.split(separator));
    parts
        .map(|part| part.trim().to_owned())
        .filter(|part| !part.is_empty())
        .collect()
}
