//! Ten thousand hosts, what befalls them in a day, and what an agent is to make of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use dt_common::time::MonoNanos;

use super::{DAY, HOUR, MINUTE, SECOND, START};
use crate::engine::mesh::{Labels, MemberState, Membership};
use crate::engine::random::Random;
use crate::engine::registry::{Announced, Identity, Record, Registry, RegistrySettings, Sighting};

/// All hosts, a coordination service that holds their nodes, and a registry that is told.
pub(super) struct World {
    /// The moment of what happened last.
    pub now: MonoNanos,
    registry: Registry,
    /// By name, who is to be a member: a second bookkeeping, against which the registry is held.
    hosts: BTreeMap<String, Host>,
    agenda: BTreeMap<(MonoNanos, usize), Step>,
    random: Random,
    spared: BTreeSet<String>,
    /// How many there were so far: hosts, racks in a zone, transactions of the service, steps of the agenda.
    made: u32,
    racks: u32,
    transactions: i64,
    planned: usize,
}

/// Where a host stands: number of the zone, and of the rack in it.
pub(super) type Place = (u32, u32);

#[derive(Clone)]
struct Host {
    record: Record,
    place: Place,
    /// Its node, while it has one.
    path: Option<String>,
    state: State,
}

#[derive(Clone, Copy)]
enum State {
    Up,
    Restarting { until: MonoNanos },
    Down { until: MonoNanos },
}

/// Something to do at a certain time.
enum Step {
    Join,
    Leave,
    Fail,
    Restart,
    /// These come up again, after a failure or a restart, or are new.
    Up(Vec<Host>),
    Lose(Vec<Place>),
    /// So many of a rack say that they leave.
    Shrink(Place, usize),
}

/// What happened to whom.
#[derive(Debug)]
pub(super) struct Happening {
    pub what: What,
    /// Names and places.
    pub hosts: Vec<(String, Place)>,
}

#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum What {
    /// New, or forgotten and back.
    Joined,
    Left,
    Failed,
    /// Before it was forgotten.
    Returned,
    Restarting,
    /// Within its hand-over.
    Restarted,
    /// Ten minutes after it failed.
    Forgotten,
}

impl World {
    /// A morning on which all is well, and a day's agenda drawn from this seed.
    pub fn new(seed: u64) -> Self {
        let mut world = Self {
            now: START,
            registry: Registry::new(RegistrySettings {
                name: name(0),
                identity: identity(0),
                grace_ns: 5 * MINUTE,
                keep_failed_ns: RegistrySettings::KEEP_FAILED_NS,
            }),
            hosts: BTreeMap::new(),
            agenda: BTreeMap::new(),
            random: Random::new(seed),
            spared: BTreeSet::new(),
            made: 0,
            racks: RACKS,
            transactions: 0,
            planned: 0,
        };
        let mut listing = Vec::new();
        for place in (0..ZONES).flat_map(|zone| (0..RACKS).map(move |rack| (zone, rack))) {
            for _ in 0..servers(place) {
                let mut host = world.host(place);
                listing.push(world.raise(&mut host));
                world.hosts.insert(host.record.name.to_string(), host);
            }
        }
        world.registry.handle_listing(listing, false, world.now);
        world.draw_agenda();
        world
    }

    /// Name of one of the hosts of the morning, to which nothing happens from now on.
    pub fn spare(&mut self, place: Place, server: usize) -> String {
        let name = self.names(|host| host.place == place).swap_remove(server);
        self.spared.insert(name.clone());
        name
    }

    /// Any rack but those that came during the day.
    pub fn any_rack(&mut self) -> Place {
        let zone = self.random.below(u64::from(ZONES));
        (zone as u32, self.random.below(u64::from(RACKS)) as u32)
    }

    /// The registry's membership, which must be what these hosts come to.
    pub fn membership(&self) -> Membership {
        let membership = self.registry.membership();
        let told = membership.members.iter();
        let told: BTreeMap<_, _> = told.map(|member| (&*member.name, member.state)).collect();
        let hosts = self.hosts.iter();
        let wanted: BTreeMap<_, _> = hosts
            .map(|(name, host)| (name.as_str(), host.state.told()))
            .collect();
        assert!(told == wanted, "the registry tells something else");
        assert_eq!(membership.members.len(), wanted.len());
        membership
    }

    /// Goes on to what happens next; nothing when the day is over.
    pub fn next(&mut self) -> Option<Happening> {
        let step = self.agenda.first_key_value().map(|((at, _), _)| *at);
        let hosts = self.hosts.values();
        let until = hosts.filter_map(|host| host.state.until()).min();
        assert_eq!(self.registry.poll_timeout(), until);
        match until {
            Some(until) if step.is_none_or(|step| until <= step) => Some(self.let_pass(until)),
            _ => {
                let ((at, _), step) = self.agenda.pop_first()?;
                self.now = at;
                Some(self.take(step))
            }
        }
    }

    fn draw_agenda(&mut self) {
        for number in 0..SINGLES {
            let step = match number % 4 {
                0 => Step::Join,
                1 => Step::Leave,
                2 => Step::Fail,
                _ => Step::Restart,
            };
            let at = self.random.below(DAY - HOUR);
            self.plan(START.plus(at), step);
        }
        let zone = |zone| (0..RACKS).map(|rack| (zone, rack)).collect::<Vec<_>>();
        // Forgotten before it is back, rack by rack.
        self.plan(START.plus(5 * HOUR), Step::Lose(zone(LOST_ZONE)));
        // Kept until it is back, whole.
        self.plan(START.plus(9 * HOUR), Step::Lose(zone(DARK_ZONE)));
        self.plan(START.plus(12 * HOUR), Step::Lose(vec![LOST_RACK]));
        // A quarter more in each rack of a zone, and a new zone.
        let more = zone(0).into_iter();
        let more = more.flat_map(|place| vec![place; servers(place).div_ceil(4) as usize]);
        let new = zone(ZONES).into_iter().flat_map(|place| [place; 30]);
        let crowd = more.chain(new).map(|place| self.host(place)).collect();
        self.plan(START.plus(15 * HOUR), Step::Up(crowd));
        self.plan(START.plus(20 * HOUR), Step::Shrink(SHRUNK_RACK, 20));
    }

    fn plan(&mut self, at: MonoNanos, step: Step) {
        // Numbered, so that none takes another's place.
        self.planned += 1;
        self.agenda.insert((at, self.planned), step);
    }

    fn take(&mut self, step: Step) -> Happening {
        match step {
            Step::Join => {
                let place = self.any_place();
                let host = self.host(place);
                self.up(vec![host])
            }
            Step::Leave => {
                let name = self.any_up();
                self.leave(&[name])
            }
            Step::Fail => {
                let name = self.any_up();
                // While it is kept or somewhat later; one in four never.
                let back = 30 * SECOND + self.random.below(14 * MINUTE);
                if self.random.below(4) > 0 {
                    self.plan_up(back, vec![self.hosts[&name].clone()]);
                }
                self.lose(&[name])
            }
            Step::Restart => self.restart(),
            Step::Up(hosts) => self.up(hosts),
            Step::Lose(places) => {
                let there = self.losable(|host| places.contains(&host.place));
                let hosts: Vec<_> = there.iter().map(|name| self.hosts[name].clone()).collect();
                if places[0].0 == LOST_ZONE {
                    for (turn, part) in hosts.chunks(hosts.len().div_ceil(5)).enumerate() {
                        self.plan_up(30 * MINUTE + turn as u64 * 20 * SECOND, part.to_vec());
                    }
                } else {
                    self.plan_up(4 * MINUTE, hosts);
                }
                self.lose(&there)
            }
            Step::Shrink(place, count) => {
                let mut there = self.losable(|host| host.place == place);
                there.truncate(count);
                self.leave(&there)
            }
        }
    }

    fn plan_up(&mut self, after: u64, hosts: Vec<Host>) {
        self.plan(self.now.plus(after), Step::Up(hosts));
    }

    fn up(&mut self, mut hosts: Vec<Host>) -> Happening {
        let (mut seen, mut gone) = (Vec::new(), Vec::new());
        let what = |host: &Host| match self.hosts.get(&*host.record.name).map(|host| host.state) {
            None => What::Joined,
            Some(State::Restarting { .. }) => What::Restarted,
            Some(State::Down { .. } | State::Up) => What::Returned,
        };
        let what: Vec<_> = hosts.iter().map(what).collect();
        assert!(what.iter().all(|one| *one == what[0]), "all alike");
        for host in &mut hosts {
            let before = self.hosts.get(&*host.record.name);
            // The earlier session's node, if it is still there.
            gone.extend(before.and_then(|before| before.path.clone()));
            seen.push(self.raise(host));
            self.hosts
                .insert(host.record.name.to_string(), host.clone());
        }
        self.registry.handle_changes(seen, gone, self.now);
        Happening::of(what[0], &hosts)
    }

    fn lose(&mut self, names: &[String]) -> Happening {
        let until = self.now.plus(RegistrySettings::KEEP_FAILED_NS);
        let mut gone = Vec::new();
        for name in names {
            let host = self.hosts.get_mut(name).expect("a host");
            gone.extend(host.path.take());
            host.state = State::Down { until };
        }
        self.registry.handle_changes([], gone, self.now);
        self.tell(What::Failed, names)
    }

    fn leave(&mut self, names: &[String]) -> Happening {
        let happening = self.tell(What::Left, names);
        let hosts: Vec<_> = names
            .iter()
            .filter_map(|name| self.hosts.remove(name))
            .collect();
        let seen = hosts.iter().map(|host| host.sighting(Announced::Left));
        self.registry.handle_changes(seen, [], self.now);
        // That it also vanishes must not make it one that failed.
        let gone = hosts.into_iter().filter_map(|host| host.path);
        self.registry.handle_changes([], gone, self.now);
        happening
    }

    fn restart(&mut self) -> Happening {
        let name = self.any_up();
        let host = self.hosts.get_mut(&name).expect("a host");
        let until = self.now.plus(host.record.handover_ns);
        host.state = State::Restarting { until };
        let host = host.clone();
        self.registry
            .handle_changes([host.sighting(Announced::Restarting)], [], self.now);
        if self.random.below(4) > 0 {
            self.plan_up(20 * SECOND, vec![host]);
        } else if let Some(path) = self.hosts.get_mut(&name).and_then(|host| host.path.take()) {
            // It never comes back, and its session ends before its hand-over.
            self.registry.handle_changes([], [path], self.now);
        }
        self.tell(What::Restarting, &[name])
    }

    /// Lets the time come at which somebody's state ends, not a nanosecond too soon.
    fn let_pass(&mut self, until: MonoNanos) -> Happening {
        self.now = until;
        assert!(!self.registry.handle_timeout(MonoNanos(until.0 - 1)));
        assert!(self.registry.handle_timeout(until));
        let names = self.names(|host| host.state.until() == Some(until));
        let is_down = |name: &String| matches!(self.hosts[name].state, State::Down { .. });
        let down = names.iter().filter(|name| is_down(name)).count();
        assert!(down == 0 || down == names.len(), "all alike");
        if down == 0 {
            return self.lose(&names);
        }
        let happening = self.tell(What::Forgotten, &names);
        for name in names {
            self.hosts.remove(&name);
        }
        happening
    }

    /// A host that is not up yet.
    fn host(&mut self, place: Place) -> Host {
        let number = self.made;
        self.made += 1;
        let [_, high, middle, low] = number.to_be_bytes();
        let record = Record {
            name: name(number).into(),
            identity: identity(number),
            addresses: [[10, high, middle, low].into()].into(),
            port: 862,
            labels: Arc::new(Labels {
                zone: Some(format!("zone-{}", place.0)),
                rack: Some(format!("rack-{}", place.1)),
                ..Labels::default()
            }),
            announced: Announced::Alive,
            handover_ns: 3 * MINUTE,
        };
        Host {
            record,
            place,
            path: None,
            state: State::Up,
        }
    }

    /// A new session, with a node of its own.
    fn raise(&mut self, host: &mut Host) -> Sighting {
        self.transactions += 1;
        host.path = Some(format!("{}:{}", host.record.name, self.transactions));
        host.state = State::Up;
        host.sighting(Announced::Alive)
    }

    fn names(&self, wanted: impl Fn(&Host) -> bool) -> Vec<String> {
        let hosts = self.hosts.iter().filter(|(_, host)| wanted(host));
        hosts.map(|(name, _)| name.clone()).collect()
    }

    /// Who is up and not spared.
    fn losable(&self, wanted: impl Fn(&Host) -> bool) -> Vec<String> {
        let mut names = self.names(|host| host.is_up() && wanted(host));
        names.retain(|name| !self.spared.contains(name));
        names
    }

    /// Half of the time somewhere that is watched, so that what is watched changes.
    fn any_place(&mut self) -> Place {
        match self.random.below(4) {
            0 | 1 => super::WATCHED[self.random.below(super::WATCHED.len() as u64) as usize],
            2 => self.any_rack(),
            _ => {
                self.racks += 1;
                (self.random.below(u64::from(ZONES)) as u32, self.racks)
            }
        }
    }

    /// Somebody who is up, half of the time of a rack that is watched.
    fn any_up(&mut self) -> String {
        let watched = self.random.below(2) == 0;
        let mut names = self.losable(|host| !watched || super::WATCHED.contains(&host.place));
        names.swap_remove(self.random.below(names.len() as u64) as usize)
    }

    fn tell(&self, what: What, names: &[String]) -> Happening {
        let hosts: Vec<_> = names.iter().map(|name| self.hosts[name].clone()).collect();
        Happening::of(what, &hosts)
    }
}

impl Happening {
    fn of(what: What, hosts: &[Host]) -> Self {
        let hosts = hosts.iter();
        Self {
            what,
            hosts: hosts
                .map(|host| (host.record.name.to_string(), host.place))
                .collect(),
        }
    }
}

impl Host {
    fn is_up(&self) -> bool {
        matches!(self.state, State::Up)
    }

    fn sighting(&self, announced: Announced) -> Sighting {
        let record = Record {
            announced,
            ..self.record.clone()
        };
        let path = self.path.clone().expect("it has a node");
        let (_, created) = path.split_once(':').expect("as it was made");
        Sighting {
            created: created.parse().expect("as it was made"),
            path,
            record: Ok(record),
        }
    }
}

impl State {
    fn told(self) -> MemberState {
        match self {
            Self::Up => MemberState::Alive,
            Self::Restarting { .. } => MemberState::Restarting,
            Self::Down { .. } => MemberState::Failed,
        }
    }

    fn until(self) -> Option<MonoNanos> {
        match self {
            Self::Up => None,
            Self::Restarting { until } | Self::Down { until } => Some(until),
        }
    }
}

/// How many a rack has in the morning: a thousand in a zone, and two small racks, so that there are fewer on either side.
fn servers((_, rack): Place) -> u32 {
    match rack {
        0 => 4,
        1 => 7,
        _ => 43,
    }
}

fn name(number: u32) -> String {
    format!("host-{number:05}.example.net")
}

fn identity(number: u32) -> Identity {
    let mut bytes = [0; 16];
    bytes[..4].copy_from_slice(&number.to_be_bytes());
    Identity(bytes)
}

const ZONES: u32 = 10;
/// Of each zone.
const RACKS: u32 = 25;
/// Joins, leaves, failures and restarts of one host.
const SINGLES: u32 = 28;
const LOST_ZONE: u32 = 4;
const DARK_ZONE: u32 = 7;
const LOST_RACK: Place = (0, 1);
const SHRUNK_RACK: Place = (0, 2);
