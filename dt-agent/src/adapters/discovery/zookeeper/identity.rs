//! Which host this is, whatever it is called: a random number in the state directory, and a secret that goes with it.
//!
//! The secret lets nobody but this host change what its node in ZooKeeper says, also an agent that was started anew. It is
//! readable by its owner only and never leaves the host but as ZooKeeper's `digest` authentication.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest, Sha1};

use crate::engine::registry::Identity;

/// An identity and its secret.
#[derive(Clone)]
pub struct Key {
    /// Public.
    pub identity: Identity,
    secret: [u8; 16],
}

/// The identity cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A file cannot be read or written.
    #[error("cannot keep this host's identity in {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Cause.
        #[source]
        source: io::Error,
    },
    /// No agent that finds others through ZooKeeper has ever run with this directory.
    #[error("there is no identity in {}, so no agent of this host ever joined a mesh; is --state-dir right?", directory.display())]
    Missing {
        /// The directory.
        directory: PathBuf,
    },
    /// The file holds something else.
    #[error("{} does not hold an identity; remove it to begin anew under another one", path.display())]
    Broken {
        /// The file.
        path: PathBuf,
    },
}

impl Key {
    /// The identity that is kept in this directory, drawn now if there is none.
    ///
    /// # Errors
    ///
    /// The directory cannot be used, or the file is broken.
    pub fn load(state_dir: &Path) -> Result<Self, IdentityError> {
        let path = state_dir.join(FILE);
        let failed = |source| IdentityError::File {
            path: path.clone(),
            source,
        };
        match fs::read(&path) {
            Ok(bytes) => <[u8; 32]>::try_from(bytes)
                .map(Self::of)
                .map_err(|_| IdentityError::Broken { path }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let drawn = draw(state_dir, &path).map_err(failed)?;
                Ok(Self::of(drawn))
            }
            Err(error) => Err(failed(error)),
        }
    }

    /// The identity that is kept in this directory.
    ///
    /// # Errors
    ///
    /// There is none, the directory cannot be used, or the file is broken.
    pub fn find(state_dir: &Path) -> Result<Self, IdentityError> {
        if state_dir.join(FILE).exists() {
            return Self::load(state_dir);
        }
        Err(IdentityError::Missing {
            directory: state_dir.to_owned(),
        })
    }

    /// As ZooKeeper's scheme `digest` takes it.
    pub(super) fn digest_auth(&self) -> String {
        // Of the same form, so it is written like one.
        format!("{}:{}", self.identity, Identity(self.secret))
    }

    /// As ZooKeeper's access lists name whoever authenticated so.
    pub(super) fn digest_id(&self) -> String {
        digest_id(&self.digest_auth())
    }

    fn of(bytes: [u8; 32]) -> Self {
        let (mut identity, mut secret) = ([0; 16], [0; 16]);
        identity.copy_from_slice(&bytes[..16]);
        secret.copy_from_slice(&bytes[16..]);
        Self {
            identity: Identity(identity),
            secret,
        }
    }
}

/// `user:base64(sha1(user:password))`, which is how ZooKeeper writes a `digest` user down.
pub(super) fn digest_id(user_password: &str) -> String {
    let user = user_password.split(':').next().unwrap_or_default();
    let hash = STANDARD.encode(Sha1::digest(user_password.as_bytes()));
    format!("{user}:{hash}")
}

/// Written aside and renamed, so that a crash leaves the whole of it or nothing.
fn draw(directory: &Path, path: &Path) -> io::Result<[u8; 32]> {
    let mut bytes = [0; 32];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    fs::create_dir_all(directory)?;
    let part = path.with_extension("part");
    let mut options = File::options();
    let mut file = options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&part)?;
    file.write_all(&bytes)?;
    file.sync_all()?;
    fs::rename(&part, path)?;
    Ok(bytes)
}

const FILE: &str = "identity";

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn an_identity_stays_and_is_its_owners_alone() {
        let dir = tempfile::tempdir().expect("a directory");
        let first = Key::load(dir.path()).expect("it is drawn");
        let again = Key::load(dir.path()).expect("it is read");
        assert_eq!(first.identity, again.identity);
        assert_eq!(first.digest_auth(), again.digest_auth());
        let mode = fs::metadata(dir.path().join(FILE))
            .expect("the file")
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn none_is_drawn_for_a_host_that_only_wants_to_leave() {
        let dir = tempfile::tempdir().expect("a directory");
        assert!(matches!(
            Key::find(dir.path()),
            Err(IdentityError::Missing { .. })
        ));
        assert!(!dir.path().join(FILE).exists());
        let drawn = Key::load(dir.path()).expect("it is drawn");
        let found = Key::find(dir.path()).expect("it is found");
        assert_eq!(drawn.identity, found.identity);
    }

    #[test]
    fn half_an_identity_is_refused() {
        let dir = tempfile::tempdir().expect("a directory");
        fs::write(dir.path().join(FILE), [1; 20]).expect("it is written");
        assert!(matches!(
            Key::load(dir.path()),
            Err(IdentityError::Broken { .. })
        ));
    }

    #[test]
    fn a_digest_user_is_written_as_zookeeper_does() {
        // What org.apache.zookeeper.server.auth.DigestAuthenticationProvider prints for it.
        assert_eq!(
            digest_id("super:dt-tests"),
            "super:0+JNUxHpUaCxklTs0yZeUaKNyD4="
        );
    }
}
