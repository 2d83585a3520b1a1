//! Who owns which namespaces, and the removal of what dead owners left.
//!
//! A namespace is named `dt<pid>-<serial>-<host>`, and so is, without the host, the pin directory and the working
//! directory. Process ids are used again, so `/run/dt-lab/dt<pid>/owner` says when that process was started. The record is
//! written before the first namespace and removed after the last one.

use std::fs;
use std::path::{Path, PathBuf};
use std::process;

use anyhow::{Context, Result};
use nix::mount::{MntFlags, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::{cgroups, netns};

/// Removes namespaces, containers, pins, processes and working directories whose owner is dead.
pub fn sweep() -> Result<()> {
    cgroups::sweep(|name| owner_of(name).is_some_and(is_dead))?;
    for namespace in netns::all()? {
        if owner_of(&namespace).is_some_and(is_dead) {
            // Another sweeper may be faster; what matters is that it is gone.
            let removed = netns::remove(&namespace);
            if netns::path(&namespace).exists() {
                removed?;
            }
        }
    }
    for dir in [PIN_ROOT, RUN_DIR] {
        for (name, path) in entries(Path::new(dir))? {
            if owner_of(&name).is_some_and(is_dead) {
                end_users_of(&path)?;
                remove_tree(&path)?;
            }
        }
    }
    Ok(())
}

/// Kills processes that were told to work in a directory: what stands between an engine and its containers outlives both.
fn end_users_of(dir: &Path) -> Result<()> {
    let part = format!("{}/", dir.display());
    for (name, path) in entries(Path::new("/proc"))? {
        let Ok(pid) = name.parse() else { continue };
        let words = fs::read(path.join("cmdline")).unwrap_or_default();
        if String::from_utf8_lossy(&words).contains(&part) {
            // It may end by itself meanwhile.
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
    Ok(())
}

/// Records this process as an owner.
pub(crate) fn register() -> Result<()> {
    let dir = run_dir(process::id());
    fs::create_dir_all(&dir)
        .with_context(|| format!("cannot create {}; are you root?", dir.display()))?;
    let started = start_time(process::id()).context("this process has no start time")?;
    // By rename, so that nobody reads half a record.
    let part = dir.join("owner.part");
    fs::write(&part, started.to_string())?;
    fs::rename(&part, dir.join(OWNER))?;
    Ok(())
}

/// The directory for the files of one lab of this process.
pub(crate) fn work_dir(serial: u32) -> PathBuf {
    run_dir(process::id()).join(serial.to_string())
}

/// The directory in the BPF file system for the pins of one lab of this process.
pub(crate) fn pin_dir(serial: u32) -> PathBuf {
    Path::new(PIN_ROOT).join(format!("{PREFIX}{}-{serial}", process::id()))
}

/// The namespace of `host` in one lab of this process.
pub(crate) fn namespace(serial: u32, host: &str) -> String {
    format!("{PREFIX}{}-{serial}-{host}", process::id())
}

/// Removes a directory with all that is in it, disks that are mounted there included.
pub(crate) fn remove_tree(path: &Path) -> Result<()> {
    unmount_below(path)?;
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// Unmounts what is mounted in `path`, the latest first.
pub(crate) fn unmount_below(path: &Path) -> Result<()> {
    let table = fs::read_to_string("/proc/self/mountinfo")?;
    // The fifth field of a line is where; our paths have no characters that would be written otherwise.
    let mounted = table.lines().filter_map(|line| line.split(' ').nth(4));
    for place in mounted
        .rev()
        .filter(|place| Path::new(place).starts_with(path))
    {
        // Lazily: a process that is being killed may have files open there.
        umount2(place, MntFlags::MNT_DETACH).with_context(|| format!("cannot unmount {place}"))?;
    }
    Ok(())
}

/// Forgets this process as an owner, if it owns nothing any more.
pub(crate) fn unregister() {
    let dir = run_dir(process::id());
    let owns_more =
        entries(&dir).is_ok_and(|entries| entries.iter().any(|(name, _)| name != OWNER));
    if !owns_more {
        // Best effort: a record that stays is swept by the next owner.
        let _ = remove_tree(&dir);
    }
}

fn owner_of(name: &str) -> Option<u32> {
    name.strip_prefix(PREFIX)?.split('-').next()?.parse().ok()
}

fn is_dead(pid: u32) -> bool {
    let Some(started) = start_time(pid) else {
        return true;
    };
    // Alive without a record: not one of ours any more, or only about to write it.
    let record = fs::read_to_string(run_dir(pid).join(OWNER)).ok();
    record
        .and_then(|text| text.trim().parse().ok())
        .is_some_and(|recorded: u64| recorded != started)
}

/// Ticks since boot at which the process was started; `None` when there is no such process or only its remains.
fn start_time(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the name in parentheses, which may contain anything; the state and 18 more come before ours.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace();
    let state = fields.next()?;
    if state == "Z" || state == "X" {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

fn run_dir(pid: u32) -> PathBuf {
    Path::new(RUN_DIR).join(format!("{PREFIX}{pid}"))
}

fn entries(dir: &Path) -> Result<Vec<(String, PathBuf)>> {
    let Ok(entries) = fs::read_dir(dir) else {
        return Ok(Vec::new());
    };
    let named = entries.map(|entry| {
        let entry = entry?;
        Ok((
            entry.file_name().to_string_lossy().into_owned(),
            entry.path(),
        ))
    });
    named.collect()
}

const PREFIX: &str = "dt";
const OWNER: &str = "owner";
const PIN_ROOT: &str = "/sys/fs/bpf";
const RUN_DIR: &str = "/run/dt-lab";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_ours_have_an_owner() {
        assert_eq!(owner_of("dt12-1-n1"), Some(12));
        assert_eq!(owner_of("dt12"), Some(12));
        assert_eq!(owner_of("dt-agent"), None);
        assert_eq!(owner_of("cni-12"), None);
    }

    #[test]
    fn this_process_is_alive_and_a_process_that_cannot_be_is_dead() {
        assert!(!is_dead(process::id()));
        assert!(is_dead(u32::MAX));
    }
}
