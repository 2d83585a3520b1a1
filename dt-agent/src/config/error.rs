//! Mistakes in settings.

use std::fmt;

use super::raw::Origin;

/// All mistakes in the settings of one command.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub struct ConfigError {
    /// In the order of the settings in `--help`; never empty.
    pub mistakes: Vec<Mistake>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, mistake) in self.mistakes.iter().enumerate() {
            if number > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{mistake}")?;
        }
        Ok(())
    }
}

/// One mistake, with what the operator needs to find and mend it.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Mistake {
    /// The value makes no sense.
    #[error("{}: `{value}` {reason}", place(setting, origin))]
    BadValue {
        /// The setting's key.
        setting: &'static str,
        /// Where it was written.
        origin: Origin,
        /// The value as written.
        value: String,
        /// What is wrong with it and what would be right, as the end of a sentence.
        reason: String,
    },
    /// A setting that has no default was not given.
    #[error("{setting} is not set: {remedy}")]
    Missing {
        /// The setting's key.
        setting: &'static str,
        /// What to type.
        remedy: String,
    },
    /// Two settings contradict each other.
    #[error("{reason}")]
    Contradiction {
        /// Which and why.
        reason: String,
    },
    /// The file cannot be read.
    #[error("{path}: cannot be read: {reason}")]
    Unreadable {
        /// The file.
        path: String,
        /// What the system says.
        reason: String,
    },
    /// The file is not TOML, has a key that no setting has, or a value of a type that no setting has.
    #[error("{path}:{line}: {reason}")]
    InFile {
        /// The file.
        path: String,
        /// Line of the mistake, from 1.
        line: usize,
        /// What is wrong.
        reason: String,
    },
}

/// Where to look: a flag names its setting by itself.
fn place(setting: &str, origin: &Origin) -> String {
    match origin {
        Origin::Flag(_) | Origin::Variable(_) => origin.to_string(),
        Origin::File { .. } | Origin::Default => format!("{origin}: {setting}"),
        Origin::Derived(from) => format!("{setting} (from {from})"),
    }
}
