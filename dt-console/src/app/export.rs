//! `dt-console export`: windows or probes of a range of time, as a Parquet or CSV file.
//!
//! The file has its name only when it is whole; until then it is beside it, and it is removed when the export does not end well.

mod csv;
mod parquet;
#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, BufWriter, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use dt_feed::proto::Batch;

use self::csv::Csv;
use self::parquet::Parquet;
use super::output::Closed;
use super::{Talk, open, told};
use crate::cli::{Export, Format, Rows};
use crate::clock;
use crate::filter::Filter;
use crate::intake::Intake;
use crate::interrupt::Interrupt;
use crate::rows::{self, Column, PROBE_COLUMNS, WINDOW_COLUMNS};
use crate::source::{Begin, Event};

/// Writes the file.
pub(super) fn run(arguments: &Export, interrupt: &Interrupt) -> Result<ExitCode> {
    let format = format(arguments)?;
    let now_ms = clock::now_ms();
    let range = Range {
        from_ns: arguments.from.unix_ms(now_ms).saturating_mul(NS_PER_MS),
        to_ns: arguments.to.unix_ms(now_ms).saturating_mul(NS_PER_MS),
    };
    if range.from_ns >= range.to_ns {
        bail!("--from is not before --to: there is nothing between them");
    }
    // Whatever was measured in the range was written after its beginning, but for clocks that are ahead.
    let begin = match arguments.from.begin(now_ms) {
        Begin::At(from_ms) => Begin::At(from_ms.saturating_sub(CLOCK_TOLERANCE_MS)),
        Begin::Latest | Begin::Earliest => Begin::Earliest,
    };
    let file = Unfinished::create(&arguments.out)?;
    let mut source = open(&arguments.source, begin, interrupt)?;
    let mut job = Job {
        intake: Intake::default(),
        filter: arguments.filter.filter(),
        range,
        sink: Sink::new(arguments.rows, format, file.writer()?)?,
        rows: 0,
    };
    let mut talk = Talk::default();
    loop {
        if interrupt.is_set() {
            bail!("interrupted; no file was written");
        }
        match source.poll(PATIENCE)? {
            Some(Event::Batch {
                batch,
                log_ms,
                context,
            }) => job.take(&batch, log_ms, context)?,
            Some(other) => talk.take(&other),
            None if source.is_caught_up() => break,
            None => (),
        }
    }
    told(source.skipped());
    source.close();
    let rows = job.finish()?;
    file.finish()?;
    eprintln!("dt-console: {rows} rows written");
    Ok(ExitCode::SUCCESS)
}

/// What was asked for, or what the name of the file says.
fn format(arguments: &Export) -> Result<Format> {
    let ending = arguments.out.extension().and_then(|ending| ending.to_str());
    let format = match (arguments.format, ending) {
        (Some(format), _) => format,
        (None, Some("parquet")) => Format::Parquet,
        (None, Some("csv")) => Format::Csv,
        (None, _) => bail!("--format parquet or csv: the name of the file does not tell"),
    };
    if format == Format::Parquet && is_stdout(&arguments.out) {
        bail!("a Parquet file does not go to standard output; name a file, or --format csv");
    }
    Ok(format)
}

fn is_stdout(path: &Path) -> bool {
    path == Path::new("-")
}

/// From the first instant to before the second, ns unix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Range {
    from_ns: u64,
    to_ns: u64,
}

impl Range {
    const fn contains(self, ns: u64) -> bool {
        self.from_ns <= ns && ns < self.to_ns
    }
}

/// An export under way.
struct Job {
    intake: Intake,
    filter: Filter,
    range: Range,
    sink: Sink,
    rows: u64,
}

/// What is written, and in which form.
enum Sink {
    Windows(Table<rows::WindowRow>),
    Probes(Table<rows::ProbeRow>),
}

/// Rows of one kind in one form.
enum Table<R: 'static> {
    Csv(Csv<R>),
    Parquet(Box<Parquet<R>>),
}

impl Job {
    fn take(&mut self, batch: &Batch, log_ms: u64, context: bool) -> Result<()> {
        let Some(source) = self.intake.handle_batch(batch, log_ms) else {
            return Ok(());
        };
        if context {
            return Ok(());
        }
        let broken = match &mut self.sink {
            Sink::Windows(table) => {
                let (rows, broken) = rows::windows_of(&self.intake, source, batch, &self.filter);
                for row in rows {
                    // A window ends at the first instant behind it.
                    if self.range.contains(row.end_unix_ns.saturating_sub(1)) {
                        table.write(&row)?;
                        self.rows += 1;
                    }
                }
                broken
            }
            Sink::Probes(table) => {
                let rows = rows::probes_of(&self.intake, source, batch, &self.filter);
                let broken = u64::from(rows.is_err());
                for row in rows.unwrap_or_default() {
                    if self
                        .range
                        .contains(row.record.sent_unix_us.saturating_mul(1_000))
                    {
                        table.write(&row)?;
                        self.rows += 1;
                    }
                }
                broken
            }
        };
        self.intake.faults_mut().broken_windows += broken;
        Ok(())
    }

    /// Writes what is left, and tells how many rows there are.
    fn finish(self) -> Result<u64> {
        let faults = self.intake.faults();
        for (count, what) in [
            (
                faults.broken_windows,
                "broken windows or blocks of probes left out",
            ),
            (
                faults.unnamed_windows,
                "windows of peers whose names had not come yet",
            ),
            (
                self.intake.missing_batches(),
                "batches are missing between those that came",
            ),
        ] {
            if count > 0 {
                eprintln!("dt-console: {count} {what}");
            }
        }
        match self.sink {
            Sink::Windows(table) => table.finish()?,
            Sink::Probes(table) => table.finish()?,
        }
        Ok(self.rows)
    }
}

impl Sink {
    fn new(rows: Rows, format: Format, writer: Writer) -> Result<Self> {
        Ok(match rows {
            Rows::Windows => Self::Windows(Table::new(WINDOW_COLUMNS, format, writer)?),
            Rows::Probes => Self::Probes(Table::new(PROBE_COLUMNS, format, writer)?),
        })
    }
}

impl<R> Table<R> {
    fn new(columns: &'static [Column<R>], format: Format, writer: Writer) -> Result<Self> {
        Ok(match format {
            Format::Csv => Self::Csv(Csv::begin(columns, writer)?),
            Format::Parquet => Self::Parquet(Box::new(Parquet::begin(columns, writer)?)),
        })
    }

    fn write(&mut self, row: &R) -> Result<()> {
        match self {
            Self::Csv(csv) => csv.write(row),
            Self::Parquet(parquet) => parquet.write(row),
        }
    }

    fn finish(self) -> Result<()> {
        match self {
            Self::Csv(csv) => csv.finish(),
            Self::Parquet(parquet) => parquet.finish(),
        }
    }
}

type Writer = BufWriter<Box<dyn Write + Send>>;

/// A file that is being written; it goes away unless it is finished.
struct Unfinished {
    /// The name it gets, and the one it has; nothing for standard output.
    names: Option<(PathBuf, PathBuf)>,
}

impl Unfinished {
    /// Begins a file beside `path`, so that a wrong path is told before anything is read.
    fn create(path: &Path) -> Result<Self> {
        if is_stdout(path) {
            return Ok(Self { names: None });
        }
        let mut part = OsString::from(path);
        part.push(".part");
        let part = PathBuf::from(part);
        File::create(&part).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(Self {
            names: Some((path.to_owned(), part)),
        })
    }

    fn writer(&self) -> Result<Writer> {
        let writer: Box<dyn Write + Send> = match &self.names {
            None => Box::new(io::stdout()),
            Some((_, part)) => Box::new(
                File::create(part).with_context(|| format!("cannot write {}", part.display()))?,
            ),
        };
        Ok(BufWriter::new(writer))
    }

    fn finish(mut self) -> Result<()> {
        if let Some((path, part)) = &self.names {
            fs::rename(part, path).with_context(|| format!("cannot write {}", path.display()))?;
        }
        self.names = None;
        Ok(())
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if let Some((_, part)) = &self.names {
            // It failed already; what is left of it cannot be helped.
            let _ = fs::remove_file(part);
        }
    }
}

/// An error of writing; that of a closed pipe is none.
fn written(result: io::Result<()>) -> Result<()> {
    match result {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Err(Closed.into()),
        other => other.context("cannot write the rows"),
    }
}

const NS_PER_MS: u64 = 1_000_000;
const PATIENCE: Duration = Duration::from_millis(100);
/// How far a source's clock may be ahead of the log's.
const CLOCK_TOLERANCE_MS: u64 = 60_000;
