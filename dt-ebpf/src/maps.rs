//! The only file that touches maps: their definitions, and safe access to their values.
//!
//! Values are shared between CPUs. What must not lose an update is atomic; configuration is read as it stands.
use aya_ebpf::Global;
use aya_ebpf::macros::map;
use aya_ebpf::maps::lpm_trie::Key;
use aya_ebpf::maps::ring_buf::RingBufEntry;
use aya_ebpf::maps::{Array, HashMap, LpmTrie, LruHashMap, PerCpuArray, RingBuf};
use dt_common::event::ReplyEvent;
use dt_common::fan::{FanReport, Hop, MAX_FAN_ORDERS};
use dt_common::map::{
    AddressWords, Allowed, COUNTER_SLOTS, Config, FIRST_GUEST_SSID, ForeignKey, GUEST_RING_BYTES,
    Iface, MAX_FOREIGN, MAX_IFACES, MAX_MEMBERS, MAX_PREFIXES, MAX_SOURCE_PORTS, MAX_TARGETS,
    PREFIX_BITS, Proof, RING_BYTES, Reason, Session, Target, iface_slot,
};

use crate::atomic::Word;

/// Mark of our sockets' packets, set by the loader.
#[unsafe(no_mangle)]
pub static PROBE_MARK: Global<u32> = Global::new(0);

#[map]
static CONFIG: Array<Config> = Array::pinned(1, 0);
#[map]
static IFACES: Array<Iface> = Array::pinned(MAX_IFACES, 0);
#[map]
static PROOFS: Array<Proof> = Array::pinned(MAX_IFACES, 0);
#[map]
static TARGETS: Array<Target> = Array::pinned(MAX_TARGETS, 0);
#[map]
static PORTS: Array<u32> = Array::pinned(MAX_SOURCE_PORTS, 0);
#[map]
static ALLOW: HashMap<AddressWords, Allowed> = HashMap::pinned(MAX_MEMBERS * 2, 0);
/// `BPF_F_NO_PREALLOC` is what the kernel demands of a trie.
#[map]
static ALLOW_PREFIX: LpmTrie<[u32; 4], Allowed> = LpmTrie::pinned(MAX_PREFIXES, 1);
#[map]
static MEMBERS: Array<Session> = Array::pinned(MAX_MEMBERS, 0);
#[map]
static FOREIGN: LruHashMap<ForeignKey, Session> = LruHashMap::pinned(MAX_FOREIGN, 0);
#[map]
static SOURCES: LruHashMap<AddressWords, u64> = LruHashMap::pinned(MAX_FOREIGN, 0);
#[map]
static TOTAL: Array<u64> = Array::pinned(1, 0);
/// Only the agent's targets have hops: guests send by sockets.
#[map]
static HOPS: Array<Hop> = Array::pinned(FIRST_GUEST_SSID as u32, 0);
#[map]
static FAN: Array<FanReport> = Array::pinned(1, 0);
#[map]
static FAN_REVOKED: Array<u64> = Array::pinned(1, 0);
/// What one packet lists, where the stack has no room for it.
#[map]
static FAN_ORDERS: PerCpuArray<Orders> = PerCpuArray::with_max_entries(1, 0);
#[map]
static COUNTERS: PerCpuArray<u64> = PerCpuArray::pinned(COUNTER_SLOTS, 0);
#[map]
static EVENTS: RingBuf = RingBuf::pinned(RING_BYTES, 0);
#[map]
static GUEST_0: RingBuf = RingBuf::pinned(GUEST_RING_BYTES, 0);
#[map]
static GUEST_1: RingBuf = RingBuf::pinned(GUEST_RING_BYTES, 0);
#[map]
static GUEST_2: RingBuf = RingBuf::pinned(GUEST_RING_BYTES, 0);
#[map]
static GUEST_3: RingBuf = RingBuf::pinned(GUEST_RING_BYTES, 0);

const BPF_ANY: u64 = 0;
const BPF_NOEXIST: u64 = 1;
const BPF_RB_NO_WAKEUP: u64 = 1;
const BPF_RB_FORCE_WAKEUP: u64 = 2;

/// The node's configuration.
#[inline(always)]
pub fn config() -> Option<&'static Config> {
    let config = CONFIG.get_ptr(0)?;
    // SAFETY: array values live as long as the map; user space replaces them whole, and every field stands alone.
    Some(unsafe { &*config })
}

/// An interface's entry; `None` when the agent does not know it.
#[inline(always)]
pub fn iface(ifindex: u32) -> Option<&'static Iface> {
    let iface = IFACES.get_ptr(iface_slot(ifindex))?;
    // SAFETY: as for `config`.
    let iface = unsafe { &*iface };
    (iface.ifindex == ifindex).then_some(iface)
}

/// An interface's proof, to be written by the one frame that turns or proves it.
#[inline(always)]
pub fn proof(ifindex: u32) -> Option<*mut Proof> {
    PROOFS.get_ptr_mut(iface_slot(ifindex))
}

/// Adds one to a reason's counter.
#[inline(always)]
pub fn count(reason: Reason) {
    if let Some(counter) = COUNTERS.get_ptr_mut(reason as u32) {
        // SAFETY: the value is this CPU's own, and programs are not preempted by themselves.
        unsafe { *counter += 1 };
    }
    #[cfg(feature = "trace")]
    crate::trace::verdict(reason);
}

/// Permission of `source`, by address or else by prefix.
#[inline(always)]
pub fn allowed(source: &AddressWords) -> Option<Allowed> {
    if let Some(allowed) = ALLOW.get_ptr(source) {
        // SAFETY: values of a preallocated hash stay readable; a torn read of two words is harmless.
        return Some(unsafe { *allowed });
    }
    let key = PrefixKey::whole(source);
    // SAFETY: `PrefixKey` has the layout of `Key<[u32; 4]>`, and a stricter alignment.
    ALLOW_PREFIX
        .get(unsafe { &*(&raw const key).cast::<Key<[u32; 4]>>() })
        .copied()
}

/// A trie's key: bits of prefix, then the address.
///
/// `aya`'s own key is packed and may lie misaligned on the stack, which the verifier refuses.
#[repr(C, align(4))]
struct PrefixKey {
    bits: u32,
    address: [u32; 4],
}

impl PrefixKey {
    #[inline(always)]
    fn whole(source: &AddressWords) -> Self {
        let mut key = Self {
            bits: PREFIX_BITS,
            address: [0; 4],
        };
        for (index, half) in key.address.iter_mut().enumerate() {
            let word = source[(index >> 1) & 1];
            *half = if (index & 1 == 0) == cfg!(target_endian = "little") {
                word as u32
            } else {
                (word >> 32) as u32
            };
        }
        key
    }
}

/// The fixed session of a member.
#[inline(always)]
pub fn member(index: u32) -> Option<SessionRef> {
    MEMBERS.get_ptr_mut(index).map(SessionRef)
}

/// The session of somebody who is no member, if it is remembered.
#[inline(always)]
pub fn foreign(key: &ForeignKey) -> Option<SessionRef> {
    FOREIGN.get_ptr_mut(key).map(SessionRef)
}

/// Remembers a new session, which may make the kernel forget an old one.
#[inline(always)]
pub fn remember(key: &ForeignKey, session: &Session) -> Option<SessionRef> {
    // Another CPU may have been first: then its session is the one.
    let _ = FOREIGN.insert(key, session, BPF_NOEXIST);
    foreign(key)
}

/// Theoretical arrival time of a source that is no member.
#[inline(always)]
pub fn source_arrival(source: &AddressWords) -> Option<Word<u64>> {
    if let Some(arrival) = SOURCES.get_ptr_mut(source) {
        return Some(atomic_u64(arrival));
    }
    let _ = SOURCES.insert(source, 0, BPF_ANY);
    SOURCES.get_ptr_mut(source).map(atomic_u64)
}

/// Theoretical arrival time of all requests together.
#[inline(always)]
pub fn total_arrival() -> Option<Word<u64>> {
    TOTAL.get_ptr_mut(0).map(atomic_u64)
}

/// A target by SSID.
#[inline(always)]
pub fn target(ssid: u16) -> Option<TargetRef> {
    TARGETS.get_ptr_mut(u32::from(ssid)).map(TargetRef)
}

/// SSID of the target that the `index`th source port belongs to; 0 for none.
#[inline(always)]
pub fn port_owner(index: u32) -> u16 {
    PORTS.get(index).map_or(0, |ssid| *ssid as u16)
}

/// How the last ordinary probe to a target left.
#[inline(always)]
pub fn hop(ssid: u16) -> Option<*mut Hop> {
    HOPS.get_ptr_mut(u32::from(ssid))
}

/// What is told of the last packet that listed probes.
#[inline(always)]
pub fn fan() -> Option<*mut FanReport> {
    FAN.get_ptr_mut(0)
}

/// The last serial that user space took back.
#[inline(always)]
pub fn revoked() -> Option<Word<u64>> {
    FAN_REVOKED.get_ptr_mut(0).map(atomic_u64)
}

/// This CPU's room for a packet's list.
#[inline(always)]
pub fn orders() -> Option<*mut Orders> {
    FAN_ORDERS.get_ptr_mut(0)
}

/// A packet's list, as bytes of orders.
pub type Orders = [[u64; 2]; MAX_FAN_ORDERS];

/// Room for one event in the ring of `ssid`'s owner; must be submitted or discarded on every path.
#[inline(always)]
pub fn reserve(ssid: u16) -> Option<Entry> {
    let ring = if ssid < FIRST_GUEST_SSID {
        &EVENTS
    } else {
        match (ssid >> 8) & 0xf {
            0 => &GUEST_0,
            1 => &GUEST_1,
            2 => &GUEST_2,
            3 => &GUEST_3,
            _ => return None,
        }
    };
    ring.reserve::<ReplyEvent>(0).map(Entry)
}

/// An event in the making, in the ring's own memory: 96 bytes that the stack does not have.
pub struct Entry(RingBufEntry<ReplyEvent>);

impl Entry {
    /// The event, all zero.
    #[inline(always)]
    pub fn clear(&mut self) -> &mut ReplyEvent {
        self.0.write(ReplyEvent::default())
    }

    #[inline(always)]
    pub fn submit(self, wake: bool) {
        self.0.submit(if wake {
            BPF_RB_FORCE_WAKEUP
        } else {
            BPF_RB_NO_WAKEUP
        });
    }

    #[inline(always)]
    pub fn discard(self) {
        self.0.discard(BPF_RB_NO_WAKEUP);
    }
}

/// A target's value in the map: read fields plainly, count atomically.
#[derive(Clone, Copy)]
pub struct TargetRef(*mut Target);

impl TargetRef {
    #[inline(always)]
    pub fn read(self) -> &'static Target {
        // SAFETY: array values live as long as the map.
        unsafe { &*self.0 }
    }

    #[inline(always)]
    pub fn count_corrupt(self) {
        // SAFETY: the field is an aligned u32 of a live map value.
        add_u32(unsafe { &raw mut (*self.0).corrupt });
    }

    #[inline(always)]
    pub fn count_overrun(self) {
        // SAFETY: as above.
        add_u32(unsafe { &raw mut (*self.0).overrun });
    }
}

/// A session's value in a map.
#[derive(Clone, Copy)]
pub struct SessionRef(*mut Session);

impl SessionRef {
    /// The fields as they stand.
    #[inline(always)]
    pub fn read(self) -> &'static Session {
        // SAFETY: map values are readable for the program's run; races between fields are the reader's to bear.
        unsafe { &*self.0 }
    }

    /// Replaces everything, when the sender began anew.
    #[inline(always)]
    pub fn replace(self, session: &Session) {
        // SAFETY: as above; a concurrent packet of the same session may add to either state.
        unsafe { *self.0 = *session };
    }

    #[inline(always)]
    pub fn arrival(self) -> Word<u64> {
        // SAFETY: the field is an aligned u64 of a live map value.
        atomic_u64(unsafe { &raw mut (*self.0).arrival_ns })
    }

    #[inline(always)]
    pub fn seen(self, slot: usize) -> Word<u64> {
        // SAFETY: `slot` is masked to the array's length by `seen::slot`, and again here for the verifier.
        atomic_u64(unsafe {
            (&raw mut (*self.0).seen)
                .cast::<u64>()
                .add(slot & (dt_common::seen::WORDS - 1))
        })
    }

    /// Adds one to the requests accepted; the new value.
    #[inline(always)]
    pub fn count_received(self) -> u32 {
        // SAFETY: the field is an aligned u32 of a live map value.
        atomic_u32(unsafe { &raw mut (*self.0).received })
            .fetch_add(1)
            .wrapping_add(1)
    }

    #[inline(always)]
    pub fn count_duplicate(self) {
        // SAFETY: as above.
        add_u32(unsafe { &raw mut (*self.0).duplicates });
    }

    #[inline(always)]
    pub fn count_corrupt(self) {
        // SAFETY: as above.
        add_u32(unsafe { &raw mut (*self.0).corrupt });
    }

    #[inline(always)]
    pub fn count_refused(self) {
        // SAFETY: as above.
        add_u32(unsafe { &raw mut (*self.0).refused });
    }
}

#[inline(always)]
fn add_u32(counter: *mut u32) {
    atomic_u32(counter).fetch_add(1);
}

#[inline(always)]
fn atomic_u32(value: *mut u32) -> Word<u32> {
    // SAFETY: callers pass aligned words of map values, which outlive the program's run.
    unsafe { Word::new(value) }
}

#[inline(always)]
fn atomic_u64(value: *mut u64) -> Word<u64> {
    // SAFETY: as above.
    unsafe { Word::new(value) }
}
