//! What became of the probes that a packet listed, from the programs' maps.

use aya::maps::{Array, MapData};
use dt_common::fan::FanReport;
use dt_common::map::names;

use super::maps::{MapsError, access, open, parse, pinned};
use super::pins::NodePins;

const REPORT: usize = size_of::<FanReport>();

/// The programs' word on packets that list probes. One user a node: the agent's probing thread.
pub struct FanMaps {
    report: Array<MapData, [u8; REPORT]>,
    revoked: Array<MapData, u64>,
}

impl FanMaps {
    /// The maps that the agent pinned.
    ///
    /// # Errors
    /// A map is missing or of another layout.
    pub fn of_pins(pins: &NodePins) -> Result<Self, MapsError> {
        let mut take = |name| pinned(pins, name);
        Ok(Self {
            report: open(names::FAN, &mut take)?,
            revoked: open(names::FAN_REVOKED, &mut take)?,
        })
    }

    /// What became of the packet that was worked on last.
    ///
    /// # Errors
    /// The map cannot be read.
    pub fn report(&self) -> Result<FanReport, MapsError> {
        let bytes = self.report.get(&0, 0).map_err(access(names::FAN))?;
        parse(names::FAN, &bytes)
    }

    /// Takes back every packet up to this serial: the programs will not begin to work on one.
    ///
    /// # Errors
    /// The map cannot be written.
    pub fn revoke(&mut self, serial: u64) -> Result<(), MapsError> {
        self.revoked
            .set(0, serial, 0)
            .map_err(access(names::FAN_REVOKED))
    }
}
