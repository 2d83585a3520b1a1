//! The file that `--json` names.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;

/// A report's file, opened before anything is measured: a mistyped path costs no run.
pub struct JsonFile(Option<File>);

impl JsonFile {
    pub fn create(path: Option<&Path>) -> Result<Self> {
        let create = |path: &Path| {
            File::create(path).with_context(|| format!("cannot write {}", path.display()))
        };
        Ok(Self(path.map(create).transpose()?))
    }

    /// Writes the report, if a file was asked for.
    pub fn write(self, report: &impl Serialize) -> Result<()> {
        if let Some(mut file) = self.0 {
            writeln!(file, "{}", serde_json::to_string_pretty(report)?)?;
        }
        Ok(())
    }
}
