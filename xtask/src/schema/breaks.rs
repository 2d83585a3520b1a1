//! What of a released schema the present one does not keep.

use super::model::{Definition, Entry, Kind, Schema};

/// A promise that is broken. Additions are none.
#[derive(Debug, PartialEq, Eq)]
pub enum Break {
    /// No message or enum of the package is left under its name.
    Package { package: String },
    /// A message or an enum is gone, or has another name.
    Type { kind: Kind, name: String },
    /// A message has become an enum or the other way round.
    Kind { name: String },
    /// A field or value is gone.
    Removed { of: String, entry: Entry },
    /// A field or value has another number.
    Renumbered { of: String, entry: Entry, to: i32 },
    /// A number has another name.
    Renamed {
        of: String,
        entry: Entry,
        to: String,
    },
    /// A field has another type or label.
    Retyped {
        of: String,
        entry: Entry,
        to: String,
    },
}

impl Break {
    /// All of them, in the order of the released schema.
    pub fn all(released: &Schema, present: &Schema) -> Vec<Self> {
        let mut breaks = Vec::new();
        for (name, promised) in &released.types {
            match present.types.get(name) {
                Some(found) if found.kind == promised.kind => {
                    let entries = promised.entries.iter();
                    breaks.extend(entries.filter_map(|entry| of_entry(name, entry, found)));
                }
                Some(_) => breaks.push(Self::Kind { name: name.clone() }),
                None => breaks.push(gone(name, promised.kind, present)),
            }
        }
        breaks.dedup();
        breaks
    }
}

fn gone(name: &str, kind: Kind, present: &Schema) -> Break {
    let package = name.rsplit_once('.').map_or("", |(package, _)| package);
    let in_package = |other: &String| other.rsplit_once('.').is_some_and(|(at, _)| at == package);
    if present.types.keys().any(in_package) {
        Break::Type {
            kind,
            name: name.to_owned(),
        }
    } else {
        Break::Package {
            package: package.to_owned(),
        }
    }
}

fn of_entry(of: &str, promised: &Entry, found: &Definition) -> Option<Break> {
    if found.entries.contains(promised) {
        return None;
    }
    let (of, entry) = (of.to_owned(), promised.clone());
    let by_name = |other: &&Entry| other.name == promised.name;
    let by_number = |other: &&Entry| other.number == promised.number;
    // The name first: a field that moved has left another one, or none, at its number.
    if let Some(moved) = found.entries.iter().find(by_name) {
        return Some(if moved.number == promised.number {
            Break::Retyped {
                of,
                entry,
                to: moved.form.clone(),
            }
        } else {
            Break::Renumbered {
                of,
                entry,
                to: moved.number,
            }
        });
    }
    Some(match found.entries.iter().find(by_number) {
        Some(other) => Break::Renamed {
            of,
            entry,
            to: other.name.clone(),
        },
        None => Break::Removed { of, entry },
    })
}

impl std::fmt::Display for Break {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Package { package } => write!(f, "package {package} is gone or renamed"),
            Self::Type { kind, name } => write!(f, "{kind} {name} is gone or renamed"),
            Self::Kind { name } => write!(f, "{name} is no longer what it was, message or enum"),
            Self::Removed { of, entry } => write!(f, "{of}: {entry}: was removed"),
            Self::Renumbered { of, entry, to } => write!(f, "{of}: {entry}: has number {to} now"),
            Self::Renamed { of, entry, to } => write!(f, "{of}: {entry}: is called {to} now"),
            Self::Retyped { of, entry, to } => write!(f, "{of}: {entry}: is of type {to} now"),
        }
    }
}
