//! What a running agent's programs counted, from the maps that it pinned.

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
