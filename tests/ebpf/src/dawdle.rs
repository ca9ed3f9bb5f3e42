//! A packet that takes its time: it reads which policy is in force, as every packet does, and then goes on in the tables of
//! that policy for far longer than any packet would, while the agent puts others in force. It looks at the same records at
//! the beginning and at the end.

use core::ptr;

use aya_ebpf::{
    bindings::xdp_action,
    btf_maps::{Array, HashMap},
    helpers::bpf_ktime_get_ns,
    macros::{btf_map, xdp},
    programs::XdpContext,
};
use throttle_common::records::{
    CANDIDATES, Control, Limit, MAX_CANDIDATES, MAX_LIMITS, MAX_SERVICES, PORT_WORDS, Policy, Service, SourceEntry,
    Terms, override_key, port_place, port_slot,
};

/// The policy's own maps: an agent's, by their pins. The number of elements is theirs too.
#[btf_map]
static CONTROL: Array<Control, 1> = Array::new();
#[btf_map]
static POLICIES: Array<Policy, 1> = Array::new();
#[btf_map]
static LIMITS: Array<Limit, 1> = Array::new();
#[btf_map]
static SERVICES: Array<Service, 1> = Array::new();
#[btf_map]
static PORTS: Array<u64, 1> = Array::new();
#[btf_map]
static CANDIDATE_LISTS: Array<[u16; CANDIDATES], 1> = Array::new();
#[btf_map]
static SOURCES_V4: HashMap<[u8; 4], SourceEntry, 1> = HashMap::new();
#[btf_map]
static OVERRIDES: HashMap<u64, Terms, 1> = HashMap::new();

/// What the records say under a policy of an even revision, and under one of an odd.
#[btf_map]
static EXPECTED: Array<Records, 2> = Array::new();
/// Packets, those that saw a mixture of two policies, and those that were still there when another was in force.
#[btf_map]
static DAWDLED: Array<[u64; 3], 1> = Array::new();

/// The prices of the limits 0 and 1, the first limits of the services 1 and 2, the lists of services at UDP port 9 and its
/// neighbours, the first service of list 1, the tenant of the source, and its prices under the limits 0 and 1, 0 where it
/// has none of its own.
type Records = [u64; 9];

/// Readings of the clock in between: two milliseconds and more.
const PAUSE: u32 = 1 << 16;
const UDP: u32 = 1;
const PORT: u16 = 9;
const SOURCE: [u8; 4] = [10, 98, 0, 2];

#[xdp]
fn dawdle(_: XdpContext) -> u32 {
    look().map_or(xdp_action::XDP_ABORTED, |()| xdp_action::XDP_PASS)
}

#[inline(always)]
fn look() -> Option<()> {
    let generation = in_force()?;
    let revision = revision(generation)?;
    let mut mixed = is_mixed(generation, revision as u32 & 1);
    let mut read = 0;
    for _ in 0..PAUSE {
        // SAFETY: the helper has no preconditions.
        read |= unsafe { bpf_ktime_get_ns() };
    }
    // So that the readings have a purpose.
    if read == 0 {
        return None;
    }
    mixed |= is_mixed(generation, revision as u32 & 1) | u32::from(self::revision(generation)? != revision);
    // SAFETY: an element of the map; one such packet is under way at a time.
    let [packets, mixtures, overtaken] = unsafe { &mut *DAWDLED.get_ptr_mut(0)? };
    *packets += 1;
    *mixtures += u64::from(mixed != 0);
    *overtaken += u64::from(in_force()? != generation);
    Some(())
}

#[inline(always)]
fn in_force() -> Option<u32> {
    // SAFETY: a reference into the map is valid and aligned; the agent may store to it at any time.
    Some(unsafe { (&raw const CONTROL.get(0)?.generation).read_volatile() } & 1)
}

#[inline(always)]
fn revision(generation: u32) -> Option<u64> {
    // SAFETY: as above.
    Some(unsafe { (&raw const POLICIES.get(generation)?.revision).read_volatile() })
}

/// How often an entry is read until it says the same twice.
const READ_AGAIN: u32 = 3;

/// 1 where not all records are those of the policy, whose revision is even or odd.
///
/// A global function, which the verifier checks once and by itself: it follows every way through it again through all readings
/// of the clock.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn is_mixed(generation: u32, odd: u32) -> u32 {
    u32::from(is_whole(generation, odd) != Some(true))
}

#[inline(always)]
fn is_whole(generation: u32, odd: u32) -> Option<bool> {
    let expected = EXPECTED.get(odd)?;
    let (word, _) = port_place(port_slot(UDP, PORT));
    // SAFETY (all reads): as above.
    let price = |number| {
        // SAFETY: an element of the map; the agent may store to it at any time.
        Some(unsafe { (&raw const LIMITS.get(generation * MAX_LIMITS + number)?.price.mantissa).read_volatile() })
    };
    // SAFETY: see above.
    let limit = |number| {
        // SAFETY: likewise.
        Some(unsafe { (&raw const SERVICES.get(generation * MAX_SERVICES + number)?.scope.limits[0]).read_volatile() })
    };
    // SAFETY: see above.
    let ports = unsafe { ptr::from_ref(PORTS.get(generation * PORT_WORDS + word)?).read_volatile() };
    // SAFETY: see above.
    let listed = unsafe { (&raw const CANDIDATE_LISTS.get(generation * MAX_CANDIDATES + 1)?[0]).read_volatile() };
    // SAFETY: an entry is not changed, but replaced by another; and may be another source's for a moment, whose it then is twice
    // in a row hardly ever.
    let look = || unsafe { SOURCES_V4.get(SOURCE).map(|entry| ptr::from_ref(entry).read_volatile()) };
    let mut entry = look()?;
    for _ in 0..READ_AGAIN {
        let again = look()?;
        if again == entry {
            break;
        }
        entry = again;
    }
    let class = entry.class(generation);
    // SAFETY: entries of a generation are written while it is the spare one.
    let own =
        |number| unsafe { OVERRIDES.get(override_key(generation, number, class)) }.map_or(0, |it| it.price.mantissa);
    let [one, two, first, second, at, list, tenant, own_one, own_two] = *expected;
    Some(
        price(0)? == one
            && price(1)? == two
            && u64::from(limit(1)?) == first
            && u64::from(limit(2)?) == second
            && ports == at
            && u64::from(listed) == list
            && u64::from(entry.tenant(generation)) == tenant
            && own(0) == own_one
            && own(1) == own_two,
    )
}
