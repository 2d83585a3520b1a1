//! Standard output, which somebody may close at any time.

use std::io::{self, BufWriter, ErrorKind, StdoutLock, Write};

use anyhow::Result;

/// Nobody reads any more. Not a failure.
#[derive(Debug, thiserror::Error)]
#[error("standard output was closed")]
pub(super) struct Closed;

/// Lines that are written together.
pub(super) struct Output(BufWriter<StdoutLock<'static>>);

impl Output {
    pub(super) fn new() -> Self {
        Self(BufWriter::new(io::stdout().lock()))
    }

    /// Adds a line.
    pub(super) fn line(&mut self, line: &str) -> Result<()> {
        self.text(line)?;
        self.text("\n")
    }

    /// Adds text as it is.
    pub(super) fn text(&mut self, text: &str) -> Result<()> {
        told(self.0.write_all(text.as_bytes()))
    }

    /// Hands over what was added.
    pub(super) fn flush(&mut self) -> Result<()> {
        told(self.0.flush())
    }
}

fn told(result: io::Result<()>) -> Result<()> {
    match result {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Err(Closed.into()),
        other => Ok(other?),
    }
}
