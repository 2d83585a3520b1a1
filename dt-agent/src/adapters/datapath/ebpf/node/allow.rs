//! Which members are answered, and which fixed place each one has.
//!
//! A member's place holds its session. It must stay its own across a restart of the agent, or the peer would see counters
//! begin anew: so places are read back from the pinned map, never computed.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

use dt_common::map::{Allowed, MAX_MEMBERS};

use crate::adapters::datapath::ebpf::{MapsError, NodeMaps};

/// The members as the programs know them.
#[derive(Debug, Default)]
pub(super) struct AllowList {
    places: HashMap<IpAddr, u32>,
}

impl AllowList {
    /// What an earlier agent left in the map.
    pub(super) fn resume(maps: &NodeMaps) -> Self {
        let places = maps
            .allowed()
            .into_iter()
            .filter(|(_, allowed)| allowed.member < MAX_MEMBERS);
        Self {
            places: places
                .map(|(address, allowed)| (address, allowed.member))
                .collect(),
        }
    }

    /// Makes exactly these addresses members.
    pub(super) fn set_members(
        &mut self,
        maps: &mut NodeMaps,
        members: &[IpAddr],
    ) -> Result<(), MapsError> {
        let wanted: BTreeSet<_> = members.iter().copied().collect();
        self.places.retain(|address, _| {
            let stays = wanted.contains(address);
            if !stays {
                maps.forbid(*address);
            }
            stays
        });
        let taken: BTreeSet<_> = self.places.values().copied().collect();
        let mut free = (0..MAX_MEMBERS).filter(|place| !taken.contains(place));
        for address in wanted {
            if self.places.contains_key(&address) {
                continue;
            }
            let Some(place) = free.next() else {
                tracing::error!(%address, limit = MAX_MEMBERS, "Too many members; this one is not answered.");
                continue;
            };
            maps.reset_member(place as u16)?;
            maps.allow(
                address,
                Allowed {
                    member: place,
                    flags: 0,
                },
            )?;
            self.places.insert(address, place);
        }
        Ok(())
    }
}
