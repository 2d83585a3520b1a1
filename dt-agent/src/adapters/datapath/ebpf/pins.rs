//! Where a node's maps and links are pinned, and who may use them.
//!
//! ```text
//! ROOT/NODE/abi-1/CONFIG …      maps of one ABI version
//! ROOT/NODE/links/eth0-xdp …    links, whatever version their programs have
//! ROOT/NODE/guest-0 …           locked by a guest such as `ping` while it uses ring 0
//! ```
//!
//! Several agents on one machine (network namespaces share one bpffs) have different node names and so never meet.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use aya::maps::MapInfo;
use dt_common::ABI_VERSION;
use dt_common::map::{FIRST_GUEST_SSID, GUEST_SSIDS, MAX_GUESTS};
use nix::fcntl::{Flock, FlockArg};
use nix::mount::{MsFlags, mount};
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};

/// Why a node's pins cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PinsError {
    /// There is no BPF file system and it cannot be mounted.
    #[error("no BPF file system at {path}; mount it with: mount -t bpf bpf {path}")]
    NoBpffs {
        /// Where one is expected.
        path: PathBuf,
        /// Why mounting failed.
        #[source]
        source: io::Error,
    },
    /// A directory cannot be made, read or removed.
    #[error("cannot use the pin directory {path}")]
    Directory {
        /// Directory or pin.
        path: PathBuf,
        /// Cause.
        #[source]
        source: io::Error,
    },
    /// Somebody else holds this node.
    #[error(
        "another agent runs as node {node} with pins in {path}; stop it, or choose another --node"
    )]
    Busy {
        /// Node name.
        node: String,
        /// Its directory.
        path: PathBuf,
    },
    /// All rings for guests are taken.
    #[error("{MAX_GUESTS} guests already use the programs of node {node}; wait until one ends")]
    NoGuestRing {
        /// Node name.
        node: String,
    },
    /// The name would leave the pin directory.
    #[error("node name {node:?} cannot be a directory name")]
    BadName {
        /// Node name.
        node: String,
    },
}

/// The pins of one node.
#[derive(Clone, Debug)]
pub struct NodePins {
    node: String,
    directory: PathBuf,
    abi: u32,
}

/// Proof of being the one agent of a node; released when dropped, also by a crash.
#[derive(Debug)]
pub struct NodeLock(#[expect(dead_code, reason = "held for its drop")] Flock<File>);

/// A guest's place: its ring and its SSIDs.
#[derive(Debug)]
pub struct Guest {
    /// Number of the ring.
    pub number: u16,
    _lock: Flock<File>,
}

impl Guest {
    /// The `index`th of this guest's SSIDs.
    #[must_use]
    pub const fn ssid(&self, index: u16) -> u16 {
        FIRST_GUEST_SSID + self.number * GUEST_SSIDS + index % GUEST_SSIDS
    }
}

impl NodePins {
    /// Finds or mounts the BPF file system above `root` and makes the node's directories.
    ///
    /// # Errors
    /// See [`PinsError`].
    pub fn open(root: &Path, node: &str) -> Result<Self, PinsError> {
        Self::open_version(root, node, ABI_VERSION)
    }

    /// The same for maps of another ABI version than this binary's.
    ///
    /// # Errors
    /// See [`PinsError`].
    pub fn open_version(root: &Path, node: &str, abi: u32) -> Result<Self, PinsError> {
        let pins = Self::existing(root, node, abi)?;
        ensure_bpffs(root)?;
        for directory in [pins.maps(), pins.links()] {
            fs::create_dir_all(&directory).map_err(|source| PinsError::Directory {
                path: directory,
                source,
            })?;
        }
        Ok(pins)
    }

    /// The pins of a node that may or may not be there; makes nothing.
    ///
    /// # Errors
    /// [`PinsError::BadName`].
    pub fn existing(root: &Path, node: &str, abi: u32) -> Result<Self, PinsError> {
        // bpffs refuses dots in names; a slash would leave the directory.
        let node_directory = node.replace('.', "_");
        if node.is_empty() || node_directory.contains(['/', '\0']) {
            return Err(PinsError::BadName {
                node: node.to_owned(),
            });
        }
        Ok(Self {
            node: node.to_owned(),
            directory: root.join(node_directory),
            abi,
        })
    }

    /// The node's name.
    #[must_use]
    pub fn node(&self) -> &str {
        &self.node
    }

    /// Directory of this version's maps.
    #[must_use]
    pub fn maps(&self) -> PathBuf {
        self.directory.join(format!("abi-{}", self.abi))
    }

    /// Names and kernel ids of this version's maps, by name; those that cannot be looked at are left out.
    #[must_use]
    pub fn map_ids(&self) -> Vec<(String, u32)> {
        let id = |path: PathBuf| {
            let name = path.file_name()?.to_string_lossy().into_owned();
            Some((name, MapInfo::from_pin(path).ok()?.id()))
        };
        let mut ids: Vec<_> = list(&self.maps()).into_iter().filter_map(id).collect();
        ids.sort();
        ids
    }

    /// Directory of the links.
    #[must_use]
    pub fn links(&self) -> PathBuf {
        self.directory.join("links")
    }

    /// Whether anything is pinned for this node.
    #[must_use]
    pub fn exist(&self) -> bool {
        self.directory.is_dir()
    }

    /// Becomes the node's only agent.
    ///
    /// # Errors
    /// [`PinsError::Busy`] while another lives.
    pub fn lock(&self) -> Result<NodeLock, PinsError> {
        lock(&self.directory)?
            .map(NodeLock)
            .ok_or_else(|| PinsError::Busy {
                node: self.node.clone(),
                path: self.directory.clone(),
            })
    }

    /// Takes a ring that no other guest uses.
    ///
    /// # Errors
    /// [`PinsError::NoGuestRing`] when all are taken.
    pub fn guest(&self) -> Result<Guest, PinsError> {
        for number in 0..MAX_GUESTS {
            let directory = self.directory.join(format!("guest-{number}"));
            fs::create_dir_all(&directory).map_err(|source| PinsError::Directory {
                path: directory.clone(),
                source,
            })?;
            if let Some(lock) = lock(&directory)? {
                return Ok(Guest {
                    number,
                    _lock: lock,
                });
            }
        }
        Err(PinsError::NoGuestRing {
            node: self.node.clone(),
        })
    }

    /// Removes the maps of other ABI versions, once no link uses their programs any more.
    pub fn remove_other_versions(&self) {
        let own = self.maps();
        for entry in list(&self.directory) {
            let is_maps = entry
                .file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with("abi-"));
            if is_maps && entry != own {
                let _ = remove_flat(&entry);
            }
        }
    }

    /// Removes everything that is pinned for this node, which detaches its programs.
    ///
    /// # Errors
    /// Something could not be removed; the rest is gone.
    pub fn remove_all(&self) -> Result<(), PinsError> {
        let mut first = None;
        // Links first: a program without maps to find is of no use to anybody.
        let mut directories = list(&self.directory);
        directories.sort_by_key(|path| !path.ends_with("links"));
        directories.push(self.directory.clone());
        for path in directories {
            if let Err(source) = remove_flat(&path)
                && source.kind() != io::ErrorKind::NotFound
            {
                first.get_or_insert(PinsError::Directory { path, source });
            }
        }
        first.map_or(Ok(()), Err)
    }
}

/// Names of the nodes that have pins under `root`.
#[must_use]
pub fn node_names(root: &Path) -> Vec<String> {
    let mut names: Vec<_> = list(root)
        .into_iter()
        .filter(|path| path.is_dir())
        .filter_map(|path| Some(path.file_name()?.to_string_lossy().into_owned()))
        .collect();
    names.sort();
    names
}

/// A lock on a directory; `None` if somebody else has it.
fn lock(directory: &Path) -> Result<Option<Flock<File>>, PinsError> {
    let wrap = |source| PinsError::Directory {
        path: directory.to_owned(),
        source,
    };
    let file = File::open(directory).map_err(wrap)?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => Ok(Some(lock)),
        Err((_, nix::errno::Errno::EWOULDBLOCK)) => Ok(None),
        Err((_, errno)) => Err(wrap(errno.into())),
    }
}

/// What is in a directory; nothing if it cannot be read.
pub(super) fn list(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten();
    entries.flatten().map(|entry| entry.path()).collect()
}

/// Removes a directory of files.
fn remove_flat(directory: &Path) -> io::Result<()> {
    for entry in list(directory) {
        fs::remove_file(entry)?;
    }
    fs::remove_dir(directory)
}

/// Mounts a BPF file system on the nearest ancestor of `root` that exists, unless `root` already lies on one.
fn ensure_bpffs(root: &Path) -> Result<(), PinsError> {
    let mut existing = root;
    while !existing.exists() {
        existing = existing.parent().unwrap_or(Path::new("/"));
    }
    if statfs(existing).is_ok_and(|stats| stats.filesystem_type() == BPF_FS_MAGIC) {
        return Ok(());
    }
    // `/sys/fs/bpf` is there on every kernel with BPF, mounted or not; elsewhere the directory is ours to make.
    let target = root
        .ancestors()
        .find(|path| path.ends_with("sys/fs/bpf"))
        .unwrap_or(root);
    let wrap = |source| PinsError::NoBpffs {
        path: target.to_owned(),
        source,
    };
    fs::create_dir_all(target).map_err(wrap)?;
    mount(
        Some("bpf"),
        target,
        Some("bpf"),
        MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC,
        None::<&str>,
    )
    .map_err(|errno| wrap(errno.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_name_never_leaves_the_pin_directory() {
        for name in ["", "a/b", "../x"] {
            assert!(
                NodePins::existing(Path::new("/r"), name, 1).is_err(),
                "{name:?}"
            );
        }
        let pins = NodePins::existing(Path::new("/r"), "n1.example", 7).expect("a good name");
        assert_eq!(pins.maps(), Path::new("/r/n1_example/abi-7"));
        assert_eq!(pins.links(), Path::new("/r/n1_example/links"));
    }
}
