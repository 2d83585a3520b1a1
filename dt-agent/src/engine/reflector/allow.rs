//! Who is answered.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv6Addr};

use dt_common::map::{Address, Allowed, MAX_MEMBERS, MAX_PREFIXES};
use ipnet::IpNet;

/// Sources that are answered: addresses one by one, and prefixes. Whoever is on neither is not.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct AllowList {
    exact: HashMap<IpAddr, Allowed>,
    prefixes: BTreeMap<Reverse<u8>, HashMap<u128, Allowed>>,
    prefix_count: usize,
}

/// There is no room on the list.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the allow-list is full: at most {MAX_EXACT} addresses and {MAX_PREFIXES} prefixes")]
pub struct AllowListFull;

impl AllowList {
    /// Adds one address, or changes its permission.
    ///
    /// # Errors
    /// There is no room.
    pub fn allow(&mut self, source: IpAddr, allowed: Allowed) -> Result<(), AllowListFull> {
        let known = self.exact.contains_key(&source);
        if !known && self.exact.len() >= MAX_EXACT {
            return Err(AllowListFull);
        }
        self.exact.insert(source, allowed);
        Ok(())
    }

    /// Adds a prefix, or changes its permission. The longest one that fits a source decides.
    ///
    /// # Errors
    /// There is no room.
    pub fn allow_prefix(&mut self, prefix: IpNet, allowed: Allowed) -> Result<(), AllowListFull> {
        let len = mapped_len(&prefix);
        let bits = masked(u128::from_be_bytes(address(prefix.addr())), len);
        if self.prefix_count >= MAX_PREFIXES as usize {
            return Err(AllowListFull);
        }
        let added = self
            .prefixes
            .entry(Reverse(len))
            .or_default()
            .insert(bits, allowed);
        self.prefix_count += usize::from(added.is_none());
        Ok(())
    }

    /// The permission of a source.
    #[must_use]
    pub fn find(&self, source: IpAddr) -> Option<Allowed> {
        if let Some(allowed) = self.exact.get(&source) {
            return Some(*allowed);
        }
        let bits = u128::from_be_bytes(address(source));
        self.prefixes
            .iter()
            .find_map(|(len, prefixes)| prefixes.get(&masked(bits, len.0)).copied())
    }
}

/// An address of either family as in the maps, IPv4 mapped into IPv6.
const fn address(address: IpAddr) -> Address {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

/// A group, or everybody.
pub(super) const fn is_group(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_multicast() || v4.is_broadcast(),
        IpAddr::V6(v6) => v6.is_multicast(),
    }
}

/// Addresses that must not be seen on a wire as a source (RFC 6890): loopback, unspecified, and IPv4 in disguise.
pub(super) const fn is_within_host(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_loopback() || v4.is_unspecified(),
        IpAddr::V6(v6) => v6.is_loopback() || is_unspecified_or_mapped(v6),
    }
}

const fn is_unspecified_or_mapped(v6: Ipv6Addr) -> bool {
    v6.is_unspecified() || v6.to_ipv4_mapped().is_some()
}

/// Bits of a prefix once IPv4 is mapped into IPv6.
const fn mapped_len(prefix: &IpNet) -> u8 {
    match prefix {
        IpNet::V4(v4) => v4.prefix_len() + 96,
        IpNet::V6(v6) => v6.prefix_len(),
    }
}

const fn masked(bits: u128, len: u8) -> u128 {
    let host_bits = 128_u32.saturating_sub(len as u32);
    match u128::MAX.checked_shl(host_bits) {
        Some(mask) => bits & mask,
        None => 0,
    }
}

/// Each member may have an address of each family, and as many again be named beside them.
const MAX_EXACT: usize = 4 * MAX_MEMBERS as usize;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn member(member: u32) -> Allowed {
        Allowed { member, flags: 0 }
    }

    fn list(prefixes: &[(&str, u32)]) -> AllowList {
        let mut list = AllowList::default();
        for (prefix, number) in prefixes {
            let prefix = prefix.parse().expect("a prefix");
            list.allow_prefix(prefix, member(*number)).expect("room");
        }
        list
    }

    fn found(list: &AllowList, source: &str) -> Option<u32> {
        list.find(source.parse().expect("an address"))
            .map(|allowed| allowed.member)
    }

    #[test]
    fn the_longest_prefix_decides_and_an_address_before_any() {
        let mut list = list(&[("10.0.0.0/8", 1), ("10.1.0.0/16", 2), ("fd00::/8", 3)]);
        list.allow("10.1.2.3".parse().expect("an address"), member(9))
            .expect("room");
        assert_eq!(found(&list, "10.9.9.9"), Some(1));
        assert_eq!(found(&list, "10.1.9.9"), Some(2));
        assert_eq!(found(&list, "10.1.2.3"), Some(9));
        assert_eq!(found(&list, "fd12::1"), Some(3));
        assert_eq!(found(&list, "11.0.0.1"), None);
        assert_eq!(found(&list, "fe80::1"), None);
    }

    #[test]
    fn a_prefix_of_one_family_says_nothing_of_the_other() {
        assert_eq!(found(&list(&[("0.0.0.0/0", 1)]), "::1"), None);
        assert_eq!(found(&list(&[("0.0.0.0/0", 1)]), "8.8.8.8"), Some(1));
    }

    #[test]
    fn an_empty_list_allows_nobody() {
        assert_eq!(found(&AllowList::default(), "10.0.0.1"), None);
    }

    #[test]
    fn the_list_does_not_grow_without_end() {
        let mut list = AllowList::default();
        for number in 0..MAX_PREFIXES {
            let prefix = IpNet::from(IpAddr::from(Ipv6Addr::from(u128::from(number))));
            list.allow_prefix(prefix, member(0)).expect("room");
        }
        let one_more = "10.0.0.0/8".parse().expect("a prefix");
        assert_eq!(list.allow_prefix(one_more, member(0)), Err(AllowListFull));
    }

    proptest! {
        #[test]
        fn a_prefix_covers_what_ipnet_says(bits: u32, len in 0..=32_u8, source: u32) {
            let prefix = IpNet::new(IpAddr::V4(bits.into()), len).expect("a length");
            let mut list = AllowList::default();
            list.allow_prefix(prefix, member(1)).expect("room");
            let source = IpAddr::V4(source.into());
            prop_assert_eq!(list.find(source).is_some(), prefix.contains(&source));
        }
    }
}
