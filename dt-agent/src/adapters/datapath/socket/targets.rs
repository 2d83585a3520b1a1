//! Whom probes go to, by SSID, and who may answer them.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

/// Somebody to probe.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Target {
    /// Address and port of its reflector, with the scope where link-local.
    pub address: SocketAddr,
    /// Which of the addresses in [`super::SocketOptions::locals`] to send from; must be of the same family.
    pub local: usize,
    /// This sender's epoch and flags for our own TLV; `None` for reflectors of others, which get plain STAMP.
    pub tlv: Option<(u32, u8)>,
}

/// Why a target cannot be probed.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum TargetError {
    /// SSID 0 means "none" on the wire.
    #[error("session identifier 0 is never a target's")]
    NoSsid,
    /// There is no socket of that address family at that place.
    #[error(
        "no probe socket can reach {address}: none is open on own address number {local} of its family"
    )]
    NoSocket {
        /// The target's address.
        address: SocketAddr,
        /// The own address asked for.
        local: usize,
    },
}

/// All targets. At most one for each SSID, so bounded.
#[derive(Debug, Default)]
pub(super) struct Targets {
    by_ssid: Vec<Option<Box<Target>>>,
    /// For reflectors that know only RFC 8762 and return no SSID.
    by_address: HashMap<(IpAddr, u16), u16>,
}

impl Targets {
    pub(super) fn get(&self, ssid: u16) -> Option<&Target> {
        self.by_ssid.get(usize::from(ssid))?.as_deref()
    }

    pub(super) fn set(&mut self, ssid: u16, target: Target) {
        self.remove(ssid);
        let index = usize::from(ssid);
        if self.by_ssid.len() <= index {
            self.by_ssid.resize_with(index + 1, || None);
        }
        self.by_ssid[index] = Some(Box::new(target));
        self.by_address.insert(key(target.address), ssid);
    }

    pub(super) fn remove(&mut self, ssid: u16) {
        let slot = self.by_ssid.get_mut(usize::from(ssid));
        let Some(target) = slot.and_then(Option::take) else {
            return;
        };
        let key = key(target.address);
        if self.by_address.get(&key) == Some(&ssid) {
            self.by_address.remove(&key);
        }
    }

    /// The SSID of the target at `from`, for replies that carry none.
    pub(super) fn ssid_of(&self, from: SocketAddr) -> Option<u16> {
        self.by_address.get(&key(from)).copied()
    }
}

/// Address and port without scope: where a packet came from says the interface, not what was typed.
pub(super) const fn key(address: SocketAddr) -> (IpAddr, u16) {
    (address.ip(), address.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(address: &str) -> Target {
        Target {
            address: address.parse().expect("an address"),
            local: 0,
            tlv: None,
        }
    }

    #[test]
    fn a_target_is_found_by_its_address_until_it_is_removed() {
        let mut targets = Targets::default();
        targets.set(7, target("10.0.0.1:862"));
        targets.set(9, target("10.0.0.2:862"));
        assert_eq!(targets.ssid_of(target("10.0.0.2:862").address), Some(9));
        targets.remove(9);
        assert_eq!(targets.ssid_of(target("10.0.0.2:862").address), None);
        assert!(targets.get(9).is_none() && targets.get(7).is_some());
        assert!(targets.get(u16::MAX).is_none());
    }

    #[test]
    fn a_target_that_moved_is_not_found_at_its_old_address() {
        let mut targets = Targets::default();
        targets.set(7, target("10.0.0.1:862"));
        targets.set(7, target("10.0.0.3:862"));
        assert_eq!(targets.ssid_of(target("10.0.0.1:862").address), None);
        assert_eq!(targets.ssid_of(target("10.0.0.3:862").address), Some(7));
    }
}
