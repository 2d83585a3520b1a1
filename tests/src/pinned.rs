//! What a running agent's programs counted, from the maps that it pinned.

use std::fs;
use std::os::fd::{AsFd as _, AsRawFd as _};

use anyhow::{Context, Result};
use aya::maps::{Map, MapData, PerCpuArray};
use dt_common::ABI_VERSION;
use dt_common::map::{Reason, names};

use crate::lab::Lab;

/// How often the programs of the node named like `host` gave this verdict, over all CPUs.
pub fn counter(lab: &Lab, host: &str, reason: Reason) -> Result<u64> {
    let pin = lab
        .pin_dir()
        .join(host)
        .join(format!("abi-{ABI_VERSION}"))
        .join(names::COUNTERS);
    let data = MapData::from_pin(&pin).with_context(|| format!("no map at {}", pin.display()))?;
    let counters = PerCpuArray::<_, u64>::try_from(Map::from_map_data(data)?)?;
    Ok(counters.get(&(reason as u32), 0)?.iter().sum())
}

/// Bytes that the kernel charges for all maps of the node named like `host` (`memlock` in `/proc/PID/fdinfo`).
pub fn map_bytes(lab: &Lab, host: &str) -> Result<u64> {
    let pins = lab.pin_dir().join(host).join(format!("abi-{ABI_VERSION}"));
    let mut bytes = 0;
    for entry in fs::read_dir(&pins)? {
        let map = MapData::from_pin(entry?.path())?;
        let number = map.fd().as_fd().as_raw_fd();
        let info = fs::read_to_string(format!("/proc/self/fdinfo/{number}"))?;
        let locked = info
            .lines()
            .find_map(|line| line.strip_prefix("memlock:")?.trim().parse::<u64>().ok());
        bytes += locked.with_context(|| format!("no memlock in {info}"))?;
    }
    Ok(bytes)
}
