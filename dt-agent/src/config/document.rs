//! TOML with line numbers, for files that operators write by hand.
//!
//! Mistakes are found one by one instead of at the first, and each knows its line. Unknown keys are mistakes, because a
//! misspelt setting that is silently ignored is found only when it is needed.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// A parsed file.
pub(crate) struct Document<'a> {
    text: &'a str,
    root: DeTable<'a>,
}

/// Something wrong in a file.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("line {line}: {reason}")]
pub(crate) struct Flaw {
    /// From 1.
    pub line: usize,
    /// What is wrong, without a full stop.
    pub reason: String,
}

impl<'a> Document<'a> {
    /// Reads TOML.
    pub fn parse(text: &'a str) -> Result<Self, Flaw> {
        match DeTable::parse(text) {
            Ok(root) => Ok(Self {
                text,
                root: root.into_inner(),
            }),
            Err(error) => {
                let line = error.span().map_or(1, |span| line_of(text, &span));
                Err(Flaw {
                    line,
                    reason: error.message().to_owned(),
                })
            }
        }
    }

    /// The outermost table.
    pub fn table(&self) -> Table<'_> {
        Table {
            text: self.text,
            entries: &self.root,
        }
    }
}

/// A table of the file.
#[derive(Clone, Copy)]
pub(crate) struct Table<'a> {
    text: &'a str,
    entries: &'a DeTable<'a>,
}

impl<'a> Table<'a> {
    /// Every key of this table that is not in `known`, in the order of the file.
    pub fn unknown_keys(self, known: &[&str]) -> Vec<Flaw> {
        let mut unknown: Vec<_> = self
            .entries
            .keys()
            .filter(|key| !known.contains(&key.get_ref().as_ref()))
            .collect();
        unknown.sort_by_key(|key| key.span().start);
        unknown
            .into_iter()
            .map(|key| self.flaw(&key.span(), unknown_key(key.get_ref(), known)))
            .collect()
    }

    /// A string, number, boolean or array of these as texts, with the line of its beginning.
    pub fn texts(self, key: &str) -> Result<Option<(Vec<String>, usize)>, Flaw> {
        let Some(value) = self.entries.get(key) else {
            return Ok(None);
        };
        let texts = match value.get_ref() {
            DeValue::Array(items) => items
                .iter()
                .map(|item| scalar(item.get_ref()).ok_or_else(|| self.wrong_type(key, item)))
                .collect::<Result<_, _>>()?,
            single => vec![scalar(single).ok_or_else(|| self.wrong_type(key, value))?],
        };
        Ok(Some((texts, line_of(self.text, &value.span()))))
    }

    /// A string.
    pub fn string(self, key: &str) -> Result<Option<String>, Flaw> {
        let Some(value) = self.entries.get(key) else {
            return Ok(None);
        };
        value
            .get_ref()
            .as_str()
            .map(|text| Some(text.to_owned()))
            .ok_or_else(|| self.wrong_type(key, value))
    }

    /// An array of strings, or one string.
    pub fn strings(self, key: &str) -> Result<Vec<String>, Flaw> {
        let Some(value) = self.entries.get(key) else {
            return Ok(Vec::new());
        };
        let text = |value: &Spanned<DeValue<'_>>| {
            value
                .get_ref()
                .as_str()
                .map(str::to_owned)
                .ok_or_else(|| self.wrong_type(key, value))
        };
        match value.get_ref().as_array() {
            Some(items) => items.iter().map(text).collect(),
            None => Ok(vec![text(value)?]),
        }
    }

    /// A boolean.
    pub fn boolean(self, key: &str) -> Result<Option<bool>, Flaw> {
        let Some(value) = self.entries.get(key) else {
            return Ok(None);
        };
        value
            .get_ref()
            .as_bool()
            .map(Some)
            .ok_or_else(|| self.wrong_type(key, value))
    }

    /// A UDP port.
    pub fn port(self, key: &str) -> Result<Option<u16>, Flaw> {
        let Some(value) = self.entries.get(key) else {
            return Ok(None);
        };
        let number = value
            .get_ref()
            .as_integer()
            .ok_or_else(|| self.wrong_type(key, value))?;
        let port = number.to_string().parse().ok().filter(|port| *port != 0);
        port.map(Some).ok_or_else(|| {
            self.flaw(
                &value.span(),
                format!("`{key}` is not a port from 1 to 65535"),
            )
        })
    }

    /// A table.
    pub fn table(self, key: &str) -> Result<Option<Self>, Flaw> {
        let Some(value) = self.entries.get(key) else {
            return Ok(None);
        };
        let entries = value
            .get_ref()
            .as_table()
            .ok_or_else(|| self.wrong_type(key, value))?;
        Ok(Some(Table {
            text: self.text,
            entries,
        }))
    }

    /// An array of tables, each with the line of its beginning.
    pub fn tables(self, key: &str) -> Result<Vec<(usize, Self)>, Flaw> {
        let Some(value) = self.entries.get(key) else {
            return Ok(Vec::new());
        };
        let items = value
            .get_ref()
            .as_array()
            .ok_or_else(|| self.wrong_type(key, value))?;
        let table = |item: &'a Spanned<DeValue<'a>>| {
            let entries = item
                .get_ref()
                .as_table()
                .ok_or_else(|| self.wrong_type(key, item))?;
            Ok((
                line_of(self.text, &item.span()),
                Table {
                    text: self.text,
                    entries,
                },
            ))
        };
        items.iter().map(table).collect()
    }

    /// The keys of this table, in alphabetical order.
    pub fn keys(self) -> impl Iterator<Item = &'a str> {
        self.entries.keys().map(|key| key.get_ref().as_ref())
    }

    fn wrong_type(self, key: &str, value: &Spanned<DeValue<'_>>) -> Flaw {
        let kind = value.get_ref().type_str();
        let article = if kind.starts_with(['a', 'e', 'i', 'o', 'u']) {
            "an"
        } else {
            "a"
        };
        self.flaw(&value.span(), format!("`{key}` cannot be {article} {kind}"))
    }

    fn flaw(self, span: &Range<usize>, reason: String) -> Flaw {
        Flaw {
            line: line_of(self.text, span),
            reason,
        }
    }
}

fn unknown_key(key: &str, known: &[&str]) -> String {
    let hint = nearest(key, known).map_or_else(String::new, |nearest| {
        format!(", did you mean `{nearest}`?")
    });
    format!("unknown key `{key}`{hint}")
}

fn scalar(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::String(text) => Some(text.to_string()),
        DeValue::Integer(number) => Some(number.to_string()),
        DeValue::Float(number) => Some(number.as_str().to_owned()),
        DeValue::Boolean(flag) => Some(flag.to_string()),
        DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_) => None,
    }
}

/// Number of the line in which something begins, from 1.
fn line_of(text: &str, span: &Range<usize>) -> usize {
    1 + text
        .get(..span.start)
        .map_or(0, |before| before.matches('\n').count())
}

/// The known key most like `key`; none if even that one shares little with it.
fn nearest(key: &str, known: &[&str]) -> Option<String> {
    known
        .iter()
        .map(|candidate| {
            (
                strsim::jaro_winkler(&key.replace('-', "_"), candidate),
                candidate,
            )
        })
        .max_by(|one, other| one.0.total_cmp(&other.0))
        .filter(|(likeness, _)| *likeness >= LEAST_LIKENESS)
        .map(|(_, candidate)| (*candidate).to_owned())
}

/// Jaro-Winkler similarity below which a suggestion would confuse more than it helps; the value that clap uses.
const LEAST_LIKENESS: f64 = 0.7;

#[cfg(test)]
mod tests;
