//! The peers file: TOML that operators write by hand.

use std::net::IpAddr;
use std::sync::Arc;

use crate::config::document::{Document, Flaw, Table};
use crate::engine::mesh::{LabelPool, Labels};

/// What the file says, names not yet resolved.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct PeersFile {
    /// The mesh is told to stop.
    pub stop: bool,
    /// In the order of the file.
    pub entries: Vec<Entry>,
}

/// One member as written.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Entry {
    pub name: Arc<str>,
    pub hosts: Vec<Host>,
    pub port: u16,
    pub labels: Arc<Labels>,
}

/// An address, or a name that has to be resolved.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Host {
    Address(IpAddr),
    Name(String),
}

impl PeersFile {
    /// Reads the file; members without a port get `default_port`.
    ///
    /// # Errors
    ///
    /// All mistakes, in the order of the file.
    pub fn parse(text: &str, default_port: u16) -> Result<Self, Vec<Flaw>> {
        let document = Document::parse(text).map_err(|flaw| vec![flaw])?;
        let root = document.table();
        let mut reader = Reader {
            flaws: root.unknown_keys(&["stop", "peer"]),
            pool: LabelPool::default(),
        };
        let stop = reader.take(root.boolean("stop")).unwrap_or_default();
        let entries = reader
            .take(root.tables("peer"))
            .into_iter()
            .map(|(line, table)| reader.entry(line, table, default_port))
            .collect();
        reader.flaws.sort_by_key(|flaw| flaw.line);
        if reader.flaws.is_empty() {
            Ok(Self { stop, entries })
        } else {
            Err(reader.flaws)
        }
    }

    /// All names that have to be resolved, perhaps repeatedly.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.entries
            .iter()
            .flat_map(|entry| &entry.hosts)
            .filter_map(|host| match host {
                Host::Name(name) => Some(name.as_str()),
                Host::Address(_) => None,
            })
    }
}

/// Collects mistakes and goes on.
struct Reader {
    flaws: Vec<Flaw>,
    pool: LabelPool,
}

impl Reader {
    fn entry(&mut self, line: usize, table: Table<'_>, default_port: u16) -> Entry {
        self.flaws.extend(table.unknown_keys(KEYS));
        let name = self.take(table.string("name")).unwrap_or_default();
        if name.is_empty() {
            self.flaws.push(Flaw {
                line,
                reason: String::from("this peer has no `name`"),
            });
        }
        let hosts = self.take(table.strings("addresses"));
        if hosts.is_empty() || hosts.iter().any(String::is_empty) {
            self.flaws.push(Flaw {
                line,
                reason: format!("peer `{name}` has no `addresses`, or an empty one"),
            });
        }
        let labels = Arc::new(self.labels(table));
        Entry {
            name: name.into(),
            hosts: hosts.into_iter().map(Host::from).collect(),
            port: self.take(table.port("port")).unwrap_or(default_port),
            labels: self.pool.share(labels),
        }
    }

    fn labels(&mut self, table: Table<'_>) -> Labels {
        let mut other = std::collections::BTreeMap::new();
        if let Some(labels) = self.take(table.table("labels")) {
            for key in labels.keys() {
                other.extend(
                    self.take(labels.string(key))
                        .map(|value| (key.to_owned(), value)),
                );
            }
        }
        Labels {
            zone: self.take(table.string("zone")),
            rack: self.take(table.string("rack")),
            instance_group: self.take(table.string("instance_group")),
            bandwidth: self.take(table.string("bandwidth")),
            other,
        }
    }

    fn take<T: Default>(&mut self, value: Result<T, Flaw>) -> T {
        value.unwrap_or_else(|flaw| {
            self.flaws.push(flaw);
            T::default()
        })
    }
}

impl From<String> for Host {
    fn from(text: String) -> Self {
        text.parse().map_or(Self::Name(text), Self::Address)
    }
}

const KEYS: &[&str] = &[
    "name",
    "addresses",
    "port",
    "zone",
    "rack",
    "instance_group",
    "bandwidth",
    "labels",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn flaws(text: &str) -> Vec<String> {
        PeersFile::parse(text, 862)
            .err()
            .unwrap_or_default()
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    #[test]
    fn everything_that_may_be_said_is_read() {
        let text = r#"
            stop = true
            [[peer]]
            name = "n1"
            addresses = ["10.77.0.1", "fd77::1"]
            port = 8620
            zone = "z"
            rack = "r"
            instance_group = "g"
            bandwidth = "10G"
            [peer.labels]
            owner = "net"
            [[peer]]
            name = "n2"
            addresses = "n2.example"
        "#;
        let file = PeersFile::parse(text, 862).expect("good");
        assert!(file.stop);
        let [one, two] = &file.entries[..] else {
            panic!("{file:?}")
        };
        assert_eq!(one.hosts.len(), 2);
        assert_eq!((one.port, two.port), (8620, 862));
        assert_eq!(one.labels.instance_group.as_deref(), Some("g"));
        assert_eq!(one.labels.other["owner"], "net");
        assert_eq!(two.hosts, [Host::Name(String::from("n2.example"))]);
        assert_eq!(file.names().collect::<Vec<_>>(), ["n2.example"]);
    }

    #[test]
    fn an_empty_file_is_an_empty_mesh() {
        assert_eq!(PeersFile::parse("", 862), Ok(PeersFile::default()));
    }

    #[test]
    fn all_mistakes_are_named_with_their_lines() {
        let text = "stopp = true\n[[peer]]\nname = \"a\"\nadresses = [\"10.0.0.1\"]\n[[peer]]\naddresses = []\nport = 0\n";
        assert_eq!(
            flaws(text),
            [
                "line 1: unknown key `stopp`, did you mean `stop`?",
                "line 2: peer `a` has no `addresses`, or an empty one",
                "line 4: unknown key `adresses`, did you mean `addresses`?",
                "line 5: this peer has no `name`",
                "line 5: peer `` has no `addresses`, or an empty one",
                "line 7: `port` is not a port from 1 to 65535"
            ]
        );
    }

    #[test]
    fn values_of_the_wrong_type_are_mistakes() {
        assert_eq!(
            flaws("stop = \"yes\"\npeer = 3\n"),
            [
                "line 1: `stop` cannot be a string",
                "line 2: `peer` cannot be an integer"
            ]
        );
        assert_eq!(
            flaws("[[peer]]\nname = 1\naddresses = [2]\nlabels = { a = 1 }\n").len(),
            5
        );
    }
}
