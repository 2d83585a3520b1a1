//! `cargo xtask schema`: what the schema promised at the last release, and whether it still keeps that.
//!
//! Every message and enum that was released stands in [`RELEASED`], a line for each field with all that its bytes depend on.
//! What is added since then is free to change until it is accepted there; what stands there never changes.

mod breaks;
mod model;
#[cfg(test)]
mod tests;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;

use crate::workspace::Workspace;
use breaks::Break;
use model::Schema;

/// Flags of `cargo xtask schema`.
#[derive(Args)]
pub struct Options {
    /// Promise what was added: write it into the released form, for a release. Refused when something is broken
    #[arg(long)]
    accept: bool,
}

/// Says what was added since the release, and with `--accept` promises it.
pub fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    let (released, present) = (released(workspace)?, present(workspace)?);
    ensure_kept(&released, &present)?;
    let (before, after) = (released.to_string(), present.to_string());
    let added = after.lines().count() - before.lines().count();
    if added == 0 {
        println!("The schema is as it was released.");
    } else if options.accept {
        fs::write(workspace.root().join(RELEASED), after)
            .with_context(|| format!("cannot write {RELEASED}"))?;
        println!("{added} lines were added to {RELEASED}: from now on they are kept.");
    } else {
        println!("Nothing that was released has changed; {added} lines are new:");
        for line in present.added_since(&released) {
            println!("  {line}");
        }
        println!("`cargo xtask schema --accept` promises them, which is done at a release.");
    }
    Ok(())
}

/// Fails when the schema has broken what was released.
pub fn check(workspace: &Workspace) -> Result<()> {
    ensure_kept(&released(workspace)?, &present(workspace)?)
}

fn ensure_kept(released: &Schema, present: &Schema) -> Result<()> {
    let breaks = Break::all(released, present);
    if breaks.is_empty() {
        return Ok(());
    }
    let lines: Vec<_> = breaks.iter().map(Break::to_string).collect();
    bail!(
        "the schema in {SCHEMA_DIR} breaks what was released, so that readers or writers of the release misunderstand the \
         feed:\n  {}\nPut it back and add a new field instead; one that is out of use stays, marked `[deprecated = true]`.",
        lines.join("\n  ")
    )
}

fn released(workspace: &Workspace) -> Result<Schema> {
    let text = fs::read_to_string(workspace.root().join(RELEASED))
        .with_context(|| format!("cannot read {RELEASED}"))?;
    Schema::parse(&text).with_context(|| format!("{RELEASED} is damaged"))
}

fn present(workspace: &Workspace) -> Result<Schema> {
    compile(
        &workspace.root().join(SCHEMA_DIR),
        &workspace.root().join(INCLUDE_DIR),
    )
}

/// All schema files of a directory.
fn compile(dir: &Path, include: &Path) -> Result<Schema> {
    let entries = fs::read_dir(dir).with_context(|| format!("cannot list {}", dir.display()))?;
    let mut files: Vec<PathBuf> = entries
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<_>>()?;
    files.retain(|path| {
        path.extension()
            .is_some_and(|extension| extension == "proto")
    });
    files.sort();
    ensure!(!files.is_empty(), "there is no schema in {}", dir.display());
    let descriptors = protox::compile(&files, [include]).context("the schema does not compile")?;
    Schema::of(&descriptors)
}

const INCLUDE_DIR: &str = "api/proto";
const SCHEMA_DIR: &str = "api/proto/v1";
const RELEASED: &str = "api/proto/v1/released.txt";
