//! A visit to a running agent: its programs and maps, with a ring, session identifiers and source ports of one's own.
//!
//! The agent knows nothing of its guests and is never disturbed: no link is touched, and of its maps only entries that are
//! this guest's. Whoever gets the same number next clears what a guest left that crashed.

use std::path::Path;

use dt_common::ABI_VERSION;
use dt_common::map::{ConfigFlags, GUEST_PORTS, GUEST_SSIDS, MAX_GUESTS, Target, names};
use dt_common::time::MonoNanos;

use super::maps::guest_ring;
use super::{EventRing, Guest, MapsError, NodeMaps, NodePins, PinsError};
use crate::engine::ladder::Mode;

/// Why a running agent cannot be joined.
#[derive(Debug, thiserror::Error)]
pub enum VisitError {
    /// No number is free.
    #[error(transparent)]
    Pins(#[from] PinsError),
    /// Its maps cannot be used.
    #[error(transparent)]
    Maps(#[from] MapsError),
}

/// A guest at work. Dropping it removes its traces.
pub struct Visit {
    maps: NodeMaps,
    guest: Guest,
    first_port: u16,
    /// Place of `first_port` among the source ports that the collector knows.
    first_index: u16,
}

impl Visit {
    /// Joins the agent of a node; none if nobody keeps that node's programs alive, or they have no ports for guests.
    ///
    /// # Errors
    /// See [`VisitError`].
    pub fn join(
        root: &Path,
        node: &str,
        now: MonoNanos,
    ) -> Result<Option<(Self, EventRing)>, VisitError> {
        let pins = NodePins::existing(root, node, ABI_VERSION)?;
        if !pins.maps().join(names::CONFIG).exists() {
            return Ok(None);
        }
        let maps = NodeMaps::of_pins(&pins)?;
        let config = maps.config()?;
        let alive = config.lease_until_ns > now.0;
        if !alive || config.flags & ConfigFlags::GUEST_PORTS == 0 {
            return Ok(None);
        }
        let guest = pins.guest()?;
        let first_port = config.source_port_last - (MAX_GUESTS - guest.number) * GUEST_PORTS + 1;
        let mut ring = guest_ring(&pins, guest.number)?;
        let mut visit = Self {
            maps,
            first_index: first_port - config.source_port_first,
            first_port,
            guest,
        };
        visit.clear()?;
        ring.clear();
        Ok(Some((visit, ring)))
    }

    /// The `index`th session identifier of this guest.
    #[must_use]
    pub const fn ssid(&self, index: u16) -> u16 {
        self.guest.ssid(index)
    }

    /// First of the `GUEST_PORTS` source ports of this guest.
    #[must_use]
    pub const fn first_port(&self) -> u16 {
        self.first_port
    }

    /// Whether the programs still stamp and collect.
    ///
    /// # Errors
    /// The map cannot be read.
    pub fn is_alive(&self, now: MonoNanos) -> Result<bool, MapsError> {
        Ok(self.maps.config()?.lease_until_ns > now.0)
    }

    /// The rung on which the agent works on an interface; none if it does not.
    ///
    /// # Errors
    /// The map cannot be read.
    pub fn mode(&self, ifindex: u32) -> Result<Option<Mode>, MapsError> {
        self.maps.mode(ifindex)
    }

    /// Collects a target's replies under one of this guest's identifiers; `slot` is its source port, for replies that
    /// carry none.
    ///
    /// # Errors
    /// A map cannot be written.
    pub fn set_target(&mut self, ssid: u16, target: &Target, slot: u16) -> Result<(), MapsError> {
        let index = self.first_index + slot % GUEST_PORTS;
        self.maps.set_target(ssid, target)?;
        self.maps.set_port_owner(index, ssid)
    }

    /// Collects them no longer.
    ///
    /// # Errors
    /// The map cannot be written.
    pub fn remove_target(&mut self, ssid: u16) -> Result<(), MapsError> {
        self.maps.set_target(ssid, &Target::default())
    }

    /// Replies of a target that were corrupt, and those that found no room.
    ///
    /// # Errors
    /// The map cannot be read.
    pub fn counts(&self, ssid: u16) -> Result<(u32, u32), MapsError> {
        let target = self.maps.target(ssid)?;
        Ok((target.corrupt, target.overrun))
    }

    fn clear(&mut self) -> Result<(), MapsError> {
        for index in 0..GUEST_SSIDS {
            self.maps
                .set_target(self.guest.ssid(index), &Target::default())?;
        }
        for slot in 0..GUEST_PORTS {
            self.maps.set_port_owner(self.first_index + slot, 0)?;
        }
        Ok(())
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        if let Err(error) = self.clear() {
            tracing::warn!(%error, "Entries of this guest are left to the next one.");
        }
    }
}
