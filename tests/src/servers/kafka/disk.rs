//! A disk in memory that gets full. It is mounted below the lab's directory and goes with it.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use nix::mount::{MsFlags, mount as mount_at};

/// Makes the directory `at` the root of an empty disk of `size_mb` MB.
pub(super) fn mount(at: &Path, size_mb: u32) -> Result<()> {
    fs::create_dir_all(at)?;
    apply(at, size_mb, MsFlags::empty())
}

/// Gives the disk at `at` another size, with all that is on it.
pub(super) fn resize(at: &Path, size_mb: u32) -> Result<()> {
    apply(at, size_mb, MsFlags::MS_REMOUNT)
}

fn apply(at: &Path, size_mb: u32, flags: MsFlags) -> Result<()> {
    let size = format!("size={size_mb}m");
    mount_at(Some("tmpfs"), at, Some("tmpfs"), flags, Some(size.as_str()))
        .with_context(|| format!("cannot mount {size_mb} MB at {}", at.display()))
}
