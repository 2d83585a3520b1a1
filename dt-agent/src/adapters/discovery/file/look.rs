//! A look at a file: read it only if it may have changed.

use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// What a file looked like.
///
/// Time stamps of files are as coarse as a few milliseconds, two on some file systems as coarse as two seconds: a file
/// that changed lately is read again even if it looks the same.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Fingerprint {
    facts: Option<Facts>,
    /// Looks since the facts changed, as far as that matters.
    unchanged: u32,
}

/// Whether and what a look found.
#[derive(Debug)]
pub(super) struct Look {
    /// For the next look.
    pub fingerprint: Fingerprint,
    /// The text; none if it was not read because it is as before.
    pub found: io::Result<Option<String>>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Facts {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// Looks at a file. Blocks as long as its file system does.
pub(super) fn look(path: &Path, before: &Fingerprint) -> Look {
    match read(path, before) {
        Ok((fingerprint, text)) => Look {
            fingerprint,
            found: Ok(text),
        },
        Err(error) => Look {
            fingerprint: Fingerprint::default(),
            found: Err(error),
        },
    }
}

fn read(path: &Path, before: &Fingerprint) -> io::Result<(Fingerprint, Option<String>)> {
    // Opened first: the facts are those of what is read, also when the path is given to another file meanwhile.
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    let fingerprint = before.next(Facts::of(&metadata));
    if fingerprint.unchanged > LOOKS_UNTIL_TRUSTED {
        return Ok((fingerprint, None));
    }
    let mut text = String::new();
    file.take(MAX_BYTES + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_BYTES {
        return Err(io::Error::other(format!(
            "it is longer than {MAX_BYTES} bytes"
        )));
    }
    Ok((fingerprint, Some(text)))
}

impl Fingerprint {
    fn next(&self, facts: Facts) -> Self {
        let unchanged = if self.facts == Some(facts) {
            self.unchanged.saturating_add(1)
        } else {
            0
        };
        Self {
            facts: Some(facts),
            unchanged,
        }
    }
}

impl Facts {
    fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

/// Looks, one a second, after which a file that looks the same is the same.
const LOOKS_UNTIL_TRUSTED: u32 = 3;
/// Ten times a mesh of ten thousand members with many labels.
const MAX_BYTES: u64 = 32 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_file_that_stays_is_read_a_few_times_and_then_left_alone() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("peers.toml");
        fs::write(&path, "one").expect("written");
        let mut fingerprint = Fingerprint::default();
        let mut reads = 0;
        for _ in 0..10 {
            let look = look(&path, &fingerprint);
            reads += u32::from(look.found.expect("readable").is_some());
            fingerprint = look.fingerprint;
        }
        assert_eq!(reads, 1 + LOOKS_UNTIL_TRUSTED);
        fs::write(&path, "other").expect("written");
        assert_eq!(
            look(&path, &fingerprint)
                .found
                .expect("readable")
                .as_deref(),
            Some("other")
        );
    }

    #[test]
    fn what_is_no_file_of_text_is_an_error() {
        let directory = tempfile::tempdir().expect("a directory");
        assert!(
            look(directory.path(), &Fingerprint::default())
                .found
                .is_err()
        );
        assert!(
            look(&directory.path().join("absent"), &Fingerprint::default())
                .found
                .is_err()
        );
        let path = directory.path().join("binary");
        fs::write(&path, [0xff, 0xfe]).expect("written");
        assert!(look(&path, &Fingerprint::default()).found.is_err());
    }
}
