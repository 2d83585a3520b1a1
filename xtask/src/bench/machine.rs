//! What must stand beside a figure so that it means something: where and when it was taken.

use std::fs;
use std::thread;

use anyhow::{Context, Result};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use serde::Serialize;

use crate::process;

/// Keeps this thread on one CPU: a move to another in the middle of a turn is the noisiest thing that can happen to it.
pub fn stay_on_one_cpu() -> Result<()> {
    let mut one = CpuSet::new();
    one.set(0)?;
    Ok(sched_setaffinity(Pid::from_raw(0), &one)?)
}

/// This machine, now.
#[derive(Serialize)]
pub struct Machine {
    pub cpus: usize,
    pub model: String,
    pub kernel: String,
    pub date: String,
}

impl Machine {
    pub fn look() -> Result<Self> {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo")?;
        let model = cpuinfo
            .lines()
            .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
            .map_or("unknown CPU", |(_, model)| model);
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?;
        let date = process::capture(std::process::Command::new("date").args(["-u", "+%F"]))?;
        Ok(Self {
            cpus: thread::available_parallelism()
                .context("no number of CPUs")?
                .get(),
            model: model.trim().to_owned(),
            kernel: kernel.trim().to_owned(),
            date: date.trim().to_owned(),
        })
    }

    /// One line for people.
    pub fn line(&self) -> String {
        format!("{}; two network namespaces on one veth pair.", self.host())
    }

    /// The same, of what has to do with no network.
    pub fn host(&self) -> String {
        format!(
            "{}: {} CPUs ({}), Linux {}",
            self.date, self.cpus, self.model, self.kernel
        )
    }
}
