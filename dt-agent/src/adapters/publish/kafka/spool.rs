//! The spool on disk: segment files of the feed, and one small file that says how far they are acknowledged.
//!
//! Each batch is handed to the kernel by one write call, after which a crash of the agent cannot harm it. Only one agent at a
//! time uses a spool.

use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::io::{self, Read as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use dt_feed::segment::{EXTENSION, Limits, Reader, WriteError, Writer};

use crate::engine::outbox::{Found, Loaded, Parcel, Place, Tally};

/// Files of one directory.
pub(super) struct Spool {
    writer: Writer,
    /// By number, in the order of writing.
    segments: BTreeMap<u64, PathBuf>,
    next_segment: u64,
    reading: Option<(u64, Reader)>,
    /// Holds the lock as well.
    mark: File,
    written_bytes: u64,
}

/// Why a spool cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum SpoolError {
    /// The directory cannot be made, or listed.
    #[error("cannot use {} as spool", path.display())]
    Directory {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot use {} as spool", path.display())]
    Segments {
        path: PathBuf,
        #[source]
        source: WriteError,
    },
    #[error("spool {} is in use by another agent; each needs a state directory of its own", path.display())]
    InUse { path: PathBuf },
}

impl Spool {
    /// Opens a spool, with what is in it and up to where that is acknowledged.
    pub fn open(
        directory: &Path,
        start_id: u64,
        budget: u64,
    ) -> Result<(Self, Vec<Found>, Option<Place>), SpoolError> {
        let failed = |source| SpoolError::Directory {
            path: directory.to_owned(),
            source,
        };
        let limits = Limits {
            max_bytes: (budget / SEGMENTS).min(MAX_SEGMENT),
            max_age_ns: u64::MAX,
        };
        let writer =
            Writer::open(directory, start_id, limits).map_err(|source| SpoolError::Segments {
                path: directory.to_owned(),
                source,
            })?;
        let mut mark = File::options()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(directory.join(MARK))
            .map_err(failed)?;
        match mark.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(SpoolError::InUse {
                    path: directory.to_owned(),
                });
            }
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
        let (segments, found) = list(directory).map_err(failed)?;
        let place = read_mark(&mut mark, &segments);
        let spool = Self {
            writer,
            next_segment: segments.len() as u64,
            segments,
            reading: None,
            mark,
            written_bytes: 0,
        };
        Ok((spool, found, place))
    }

    /// Appends a batch.
    pub fn store(&mut self, batch: &[u8], now_unix_ns: u64) -> Result<Place, WriteError> {
        let before = self.writer.path().map(Path::to_owned);
        let bytes = self.writer.append_encoded(batch, now_unix_ns)?;
        let path = self.writer.path().map(Path::to_owned);
        if path != before {
            let number = self.next_segment;
            self.next_segment += 1;
            self.segments.extend(path.map(|path| (number, path)));
            self.written_bytes = 0;
        }
        self.written_bytes += bytes;
        Ok(Place {
            segment: self.next_segment.saturating_sub(1),
            end: self.written_bytes,
        })
    }

    /// Reads the batch that begins there.
    pub fn load(&mut self, segment: u64, offset: u64) -> Loaded {
        let Some(mut reader) = self.reader(segment, offset) else {
            return Loaded::Damaged;
        };
        match reader.next_record() {
            Ok(Some(record)) => {
                let end = reader.offset();
                let parcel = Parcel::new(&record.batch, record.bytes);
                self.reading = Some((segment, reader));
                Loaded::Batch(parcel, end)
            }
            Ok(None) => {
                tracing::error!(segment = %reader.path().display(), end = ?reader.end(), "The spool is damaged: what is behind that place in this segment is lost.");
                Loaded::Damaged
            }
            Err(error) => {
                tracing::error!(
                    "The rest of a segment of the spool is lost: {:#}",
                    anyhow::Error::from(error)
                );
                Loaded::Damaged
            }
        }
    }

    /// Counts the batches from there on, and whether there was more that could not be read; then deletes the segment.
    pub fn discard(&mut self, segment: u64, offset: u64) -> (Tally, bool) {
        let mut lost = Tally::default();
        let (mut end, length) = (offset, self.length(segment));
        while Some(end) != length
            && let Loaded::Batch(parcel, next) = self.load(segment, end)
        {
            lost = lost.plus(parcel.tally);
            end = next;
        }
        self.remove(segment);
        (lost, Some(end) != length)
    }

    /// Deletes a segment.
    pub fn remove(&mut self, segment: u64) {
        self.reading = None;
        let Some(path) = self.segments.remove(&segment) else {
            return;
        };
        if self.writer.path() == Some(path.as_path()) {
            self.writer.close();
        }
        if let Err(error) = fs::remove_file(&path) {
            tracing::warn!(segment = %path.display(), %error, "A segment of the spool cannot be deleted; it will be sent again after a restart.");
        }
    }

    /// Remembers that all before this place is acknowledged; a failure costs repeats after a restart, nothing else.
    pub fn mark(&mut self, place: Place) {
        let Some(name) = self
            .segments
            .get(&place.segment)
            .and_then(|path| path.file_name())
        else {
            return;
        };
        // Always as long, and written over itself: that needs no room on a full disk.
        let line = format!("{} {:020}\n", name.display(), place.end);
        if let Err(error) = self.mark.write_all_at(line.as_bytes(), 0) {
            tracing::debug!(%error, "The spool's mark cannot be written.");
        }
    }

    /// Waits until the disk has everything, for a clean end.
    pub fn sync(&self) {
        let synchronised = self.writer.sync().map_err(anyhow::Error::from);
        if let Err(error) = synchronised.and_then(|()| Ok(self.mark.sync_data()?)) {
            tracing::warn!("The spool may not survive a crash of the host: {error:#}");
        }
    }

    /// The reader at this place; the one that is open, if it is there.
    fn reader(&mut self, segment: u64, offset: u64) -> Option<Reader> {
        if let Some((number, reader)) = self.reading.take()
            && number == segment
            && reader.offset() == offset
            && reader.end().is_none()
        {
            return Some(reader);
        }
        let path = self.segments.get(&segment)?;
        Reader::open_at(path, offset)
            .inspect_err(|error| tracing::error!(%error, "A segment of the spool is lost."))
            .ok()
    }

    fn length(&self, segment: u64) -> Option<u64> {
        let path = self.segments.get(&segment)?;
        Some(fs::metadata(path).ok()?.len())
    }
}

/// All segments with something in them, in the order of their names, and their lengths.
fn list(directory: &Path) -> io::Result<(BTreeMap<u64, PathBuf>, Vec<Found>)> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let path = entry.path();
        if path
            .extension()
            .is_some_and(|extension| extension == EXTENSION)
        {
            paths.push((path, entry.metadata()?.len()));
        }
    }
    paths.sort();
    let (mut segments, mut found) = (BTreeMap::new(), Vec::new());
    for (segment, (path, bytes)) in (0..).zip(paths) {
        segments.insert(segment, path);
        found.push(Found { segment, bytes });
    }
    Ok((segments, found))
}

/// The mark of an earlier start; none if it cannot be understood or its segment is gone.
fn read_mark(file: &mut File, segments: &BTreeMap<u64, PathBuf>) -> Option<Place> {
    let mut text = String::new();
    file.take(MAX_MARK).read_to_string(&mut text).ok()?;
    let (name, end) = text.lines().next()?.split_once(' ')?;
    let segment = segments
        .iter()
        .find(|(_, path)| path.file_name().is_some_and(|known| known == name))
        .map(|(number, _)| *number)?;
    Some(Place {
        segment,
        end: end.parse().ok()?,
    })
}

/// The file that says how far the spool is acknowledged, and is locked by the agent that uses it.
const MARK: &str = "acknowledged";
const MAX_MARK: u64 = 256;
/// So many make a full spool: as much of it is given up at a time.
const SEGMENTS: u64 = 64;
const MAX_SEGMENT: u64 = 8 << 20;
