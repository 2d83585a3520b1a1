//! Batches out of directories of segment files, while agents may go on writing them.

use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use dt_feed::Repeats;
use dt_feed::repeats::MAX_STARTS;
use dt_feed::segment::{Followed, Follower};

use super::{Begin, Event, Skipped, SourceError};
use crate::clock;

/// Some directories, read in turn.
pub struct Directories {
    followers: Vec<Follower>,
    /// The one whose turn it is.
    turn: usize,
    /// How many have had nothing since one of them had something.
    idle: usize,
    begin: Begin,
    repeats: Repeats,
    skipped: Skipped,
    latest_ms: u64,
    is_caught_up: bool,
}

impl Directories {
    /// Follows these directories.
    ///
    /// # Errors
    ///
    /// When one does not exist: most likely it is misspelt.
    pub fn follow(paths: Vec<PathBuf>, begin: Begin) -> Result<Self, SourceError> {
        if let Some(path) = paths.iter().find(|path| !path.is_dir()) {
            return Err(SourceError::NoDirectory { path: path.clone() });
        }
        Ok(Self {
            followers: paths.into_iter().map(Follower::new).collect(),
            turn: 0,
            idle: 0,
            begin,
            // Files are read one after the other whatever their age: here time tells nothing about what may be a repeat.
            repeats: Repeats::with_bounds(u64::MAX, MAX_STARTS),
            skipped: Skipped::default(),
            latest_ms: 0,
            is_caught_up: false,
        })
    }

    /// See [`super::Source::poll`].
    ///
    /// # Errors
    ///
    /// When a file or directory cannot be read.
    pub fn poll(&mut self, wait: Duration) -> Result<Option<Event>, SourceError> {
        loop {
            let turn = self.turn;
            let Some(followed) = self.followers[turn].poll()? else {
                self.turn = (turn + 1) % self.followers.len();
                self.idle += 1;
                if self.idle < self.followers.len() {
                    continue;
                }
                self.idle = 0;
                self.is_caught_up = true;
                thread::sleep(wait.min(LOOK_EVERY));
                return Ok(None);
            };
            self.idle = 0;
            if let Some(event) = self.event(followed) {
                return Ok(Some(event));
            }
        }
    }

    fn event(&mut self, followed: Followed) -> Option<Event> {
        let batch = match followed {
            Followed::Batch(batch) => batch,
            Followed::Damaged {
                path,
                offset,
                cause,
            } => {
                self.skipped.broken_messages += 1;
                let path = path.display();
                return Some(Event::Broken(format!(
                    "{path} is damaged at byte {offset}: {cause}; its rest is skipped"
                )));
            }
        };
        let log_ms = (batch.closed_unix_ns / 1_000_000).min(clock::now_ms());
        self.latest_ms = self.latest_ms.max(log_ms);
        let context = match self.begin {
            Begin::Earliest => false,
            Begin::Latest => !self.is_caught_up,
            Begin::At(begin_ms) => log_ms < begin_ms,
        };
        if !self.repeats.is_new(&batch, log_ms) {
            self.skipped.repeated_batches += u64::from(!context);
            return None;
        }
        Some(Event::Batch {
            batch,
            log_ms,
            context,
        })
    }

    /// See [`super::Source::horizon_ms`].
    #[must_use]
    pub fn horizon_ms(&self) -> u64 {
        if self.is_caught_up {
            clock::now_ms()
        } else {
            self.latest_ms
        }
    }

    /// Log time of the latest batch, ms unix.
    #[must_use]
    pub const fn latest_ms(&self) -> u64 {
        self.latest_ms
    }

    /// See [`super::Source::is_caught_up`].
    #[must_use]
    pub const fn is_caught_up(&self) -> bool {
        self.is_caught_up
    }

    /// See [`super::Source::skipped`].
    #[must_use]
    pub const fn skipped(&self) -> Skipped {
        Skipped {
            forgotten: self.repeats.forgotten(),
            ..self.skipped
        }
    }
}

/// Longest pause between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(200);

#[cfg(test)]
mod tests {
    use dt_feed::proto::Batch;
    use dt_feed::segment::{Limits, Writer};

    use super::*;

    const LIMITS: Limits = Limits {
        max_bytes: 1 << 20,
        max_age_ns: u64::MAX,
    };

    fn write(path: &std::path::Path, source: &str, sequences: &[u64]) {
        let mut writer = Writer::open(path, 7, LIMITS).expect("a writable directory");
        for sequence in sequences {
            let batch = Batch {
                source: source.into(),
                sequence: *sequence,
                closed_unix_ns: 1_000_000 * (100 + sequence),
                ..Batch::default()
            };
            writer.append(&batch, 1).expect("room on the disk");
        }
    }

    /// Everything that is there now: sequence, and whether it is context.
    fn read(source: &mut Directories) -> Vec<(String, u64, bool)> {
        let mut found = Vec::new();
        while let Some(event) = source.poll(Duration::ZERO).expect("readable files") {
            match event {
                Event::Batch { batch, context, .. } => {
                    found.push((batch.source, batch.sequence, context));
                }
                Event::Broken(text) | Event::Note(text) => found.push((text, 0, false)),
            }
        }
        found
    }

    #[test]
    fn all_directories_are_read_and_repeats_come_once() {
        let (left, right) = (tempfile::tempdir(), tempfile::tempdir());
        let (left, right) = (left.expect("a directory"), right.expect("a directory"));
        write(left.path(), "n1", &[0, 1]);
        write(right.path(), "n2", &[5]);
        write(right.path(), "n1", &[1, 2]);
        let paths = vec![left.path().to_owned(), right.path().to_owned()];
        let mut source = Directories::follow(paths, Begin::Earliest).expect("they are there");
        let mut found = read(&mut source);
        found.sort();
        let expected =
            [("n1", 0), ("n1", 1), ("n1", 2), ("n2", 5)].map(|(n, s)| (n.to_owned(), s, false));
        assert_eq!(found, expected);
        assert!(source.is_caught_up());
        assert_eq!(source.skipped().repeated_batches, 1);
    }

    #[test]
    fn what_is_written_later_follows_and_what_was_there_is_context() {
        let directory = tempfile::tempdir().expect("a directory");
        write(directory.path(), "n1", &[0]);
        let paths = vec![directory.path().to_owned()];
        let mut source = Directories::follow(paths, Begin::Latest).expect("it is there");
        assert_eq!(read(&mut source), [("n1".to_owned(), 0, true)]);
        write(directory.path(), "n1", &[1]);
        assert_eq!(read(&mut source), [("n1".to_owned(), 1, false)]);
    }

    #[test]
    fn a_begin_in_time_makes_context_of_what_is_before_it() {
        let directory = tempfile::tempdir().expect("a directory");
        write(directory.path(), "n1", &[0, 1, 2]);
        let paths = vec![directory.path().to_owned()];
        let mut source = Directories::follow(paths, Begin::At(101)).expect("it is there");
        let contexts: Vec<bool> = read(&mut source)
            .into_iter()
            .map(|(_, _, context)| context)
            .collect();
        assert_eq!(contexts, [true, false, false]);
    }

    #[test]
    fn damage_is_named_once_with_its_place() {
        let directory = tempfile::tempdir().expect("a directory");
        write(directory.path(), "n1", &[0]);
        let file = std::fs::read_dir(directory.path())
            .expect("readable")
            .next();
        let path = file.expect("a segment").expect("readable").path();
        let mut bytes = std::fs::read(&path).expect("readable");
        let whole = bytes.len();
        bytes.extend([0; 8]);
        std::fs::write(&path, bytes).expect("writable");
        let paths = vec![directory.path().to_owned()];
        let mut source = Directories::follow(paths, Begin::Earliest).expect("it is there");
        let found = read(&mut source);
        assert_eq!(found.len(), 2);
        assert!(
            found[1].0.contains(&format!("damaged at byte {whole}")),
            "{found:?}"
        );
        assert_eq!(read(&mut source), []);
        assert_eq!(source.skipped().broken_messages, 1);
    }

    #[test]
    fn a_directory_that_does_not_exist_is_an_error_with_its_name() {
        let error = Directories::follow(vec!["/nowhere/at/all".into()], Begin::Latest).err();
        let text = error.map(|error| error.to_string());
        assert_eq!(
            text.as_deref(),
            Some("/nowhere/at/all is not a directory of segment files")
        );
    }
}
