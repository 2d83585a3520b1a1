//! Which members make sense, and which of them could be probed.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use super::{Family, Member, Membership, MeshSettings, Problem};

/// A membership without its mistakes.
pub(super) struct Sifted<'a> {
    /// This node, if it is listed.
    pub own: Option<&'a Member>,
    /// All other members that make sense, in the order of the membership.
    pub others: Vec<&'a Member>,
    /// Those of them that could be probed, and by which address.
    pub within_reach: Vec<(&'a Member, IpAddr)>,
    /// What was left out and why.
    pub problems: Vec<Problem>,
}

impl<'a> Sifted<'a> {
    /// Sifts a membership; depends on nothing but its arguments.
    pub fn of(membership: &'a Membership, settings: &MeshSettings) -> Self {
        let own = membership
            .members
            .iter()
            .find(|member| *member.name == *settings.name);
        let mut sieve = Sieve::new(own, membership.members.len());
        let others = membership
            .members
            .iter()
            .filter(|member| !own.is_some_and(|own| std::ptr::eq(own, *member)))
            .filter(|member| sieve.keeps(member))
            .collect();
        let mut sifted = Self {
            own,
            others,
            within_reach: Vec::new(),
            problems: sieve.problems,
        };
        match own {
            Some(own) => sifted.reach(own, settings.family),
            None => sifted.problems.push(Problem::NotAMember {
                name: settings.name.clone(),
            }),
        }
        sifted
    }

    fn reach(&mut self, own: &Member, family: Family) {
        for member in &self.others {
            match common_address(own, member, family) {
                Some(address) => self.within_reach.push((member, address)),
                None => self.problems.push(Problem::NoCommonFamily {
                    name: member.name.to_string(),
                }),
            }
        }
    }
}

/// Keeps the first of each name and address.
struct Sieve<'a> {
    /// Name by address.
    holders: HashMap<IpAddr, &'a str>,
    names: HashSet<&'a str>,
    own: Option<&'a Member>,
    problems: Vec<Problem>,
}

impl<'a> Sieve<'a> {
    fn new(own: Option<&'a Member>, members: usize) -> Self {
        let mut names = HashSet::with_capacity(members);
        names.extend(own.map(|own| &*own.name));
        Self {
            holders: HashMap::with_capacity(members),
            names,
            own,
            problems: Vec::new(),
        }
    }

    fn keeps(&mut self, member: &'a Member) -> bool {
        if let Some(problem) = self.problem_with(member) {
            self.problems.push(problem);
            return false;
        }
        self.names.insert(&member.name);
        for address in member.addresses.iter() {
            self.holders.insert(address.to_canonical(), &member.name);
        }
        true
    }

    fn problem_with(&self, member: &Member) -> Option<Problem> {
        let name = || member.name.to_string();
        if self.names.contains(&*member.name) {
            return Some(Problem::DuplicateName { name: name() });
        }
        if member.addresses.is_empty() {
            return Some(Problem::NoAddress { name: name() });
        }
        member.addresses.iter().find_map(|address| {
            let address = address.to_canonical();
            if !can_be_probed(address) {
                Some(Problem::UnusableAddress {
                    name: name(),
                    address,
                })
            } else if self.own.is_some_and(|own| has(own, address)) {
                Some(Problem::OwnAddress {
                    name: name(),
                    address,
                })
            } else {
                let holder = (*self.holders.get(&address)?).to_owned();
                Some(Problem::DuplicateAddress {
                    name: name(),
                    holder,
                    address,
                })
            }
        })
    }
}

fn has(member: &Member, address: IpAddr) -> bool {
    member
        .addresses
        .iter()
        .any(|own| own.to_canonical() == address)
}

/// A link-local IPv6 address means nothing without an interface, which a membership has not.
fn can_be_probed(address: IpAddr) -> bool {
    let link_local = matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local());
    let broadcast = matches!(address, IpAddr::V4(v4) if v4.is_broadcast());
    !(address.is_unspecified() || address.is_multicast() || link_local || broadcast)
}

/// The address to probe a member by: of a version that both ends have, since each end answers only known addresses.
fn common_address(own: &Member, member: &Member, family: Family) -> Option<IpAddr> {
    let first_of = |member: &Member, want_v4: bool| {
        member
            .addresses
            .iter()
            .map(IpAddr::to_canonical)
            .find(|address| address.is_ipv4() == want_v4)
    };
    let common = |want_v4| first_of(own, want_v4).and_then(|_| first_of(member, want_v4));
    match family {
        Family::Auto => common(true).or_else(|| common(false)),
        Family::V4 => common(true),
        Family::V6 => common(false),
    }
}
