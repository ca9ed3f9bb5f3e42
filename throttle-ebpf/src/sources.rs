//! What policy says of a packet's source: allowed, blocked, known, whose tenant's.
//!
//! Hashes and tries take longer than all else that a packet meets. What was found is kept for the next packets of the same
//! source, until an entry changes, of anybody.

use aya_ebpf::btf_maps::lpm_trie::Key;
use throttle_common::{
    packet::{Family, Packet},
    records::{Seen, SourceEntry, SourceMaps},
};

use crate::{
    atomic,
    tables::{InForce, PREFIXES_V4, PREFIXES_V6, SEEN_SOURCES, SOURCES_V4, SOURCES_V6, scratch},
};

/// Looks the source of a packet up.
#[inline(always)]
pub fn look_up(in_force: &InForce, packet: &Packet) -> Option<&'static SourceEntry> {
    in_maps(said(in_force), packet)
}

/// The same of the packet that lies in the scratch space, where its source may be known. Only for the program that judges
/// packets: nothing on its CPU comes between what it reads and what it writes.
#[inline(always)]
pub fn recall(in_force: &InForce, packet: &Packet) -> Option<&'static SourceEntry> {
    let sources = said(in_force);
    if sources & SourceMaps::ALL == 0 {
        return None;
    }
    match made_known(in_force, packet) {
        Some(seen) => seen.entry(),
        None => in_maps(sources, packet),
    }
}

/// What this CPU knows of the packet's source, where it knows it.
#[inline(always)]
pub fn known(in_force: &InForce, packet: &Packet) -> Option<&'static mut Seen> {
    line(packet).filter(|seen| seen.is_of(packet, said(in_force)))
}

/// The same of the packet in the scratch space, where its source may get to be known.
#[inline(always)]
pub fn made_known(in_force: &InForce, packet: &Packet) -> Option<&'static mut Seen> {
    let (seen, sources) = (line(packet)?, said(in_force));
    if !seen.is_of(packet, sources) {
        if !seen.meets() {
            return None;
        }
        keep(sources);
    }
    Some(seen)
}

/// Which maps have entries, and how often these have changed.
#[inline(always)]
fn said(in_force: &InForce) -> u32 {
    // SAFETY: a reference into the map is valid and aligned; the agent may store to it at any time.
    unsafe { (&raw const in_force.control.sources).read_volatile() }
}

/// The line of a packet's source.
#[inline(always)]
fn line(packet: &Packet) -> Option<&'static mut Seen> {
    let line = SEEN_SOURCES.get_ptr_mut(Seen::place(packet.source))?;
    // SAFETY: this CPU's own element, and nothing interrupts the program that judges packets.
    Some(unsafe { &mut *line })
}

/// Looks up the source of the packet in the scratch space, and keeps what is found.
///
/// A global function, which the verifier checks once and by itself.
#[inline(never)]
#[unsafe(export_name = "keep_source")]
extern "C" fn keep(sources: u32) -> u32 {
    let Some(scratch) = scratch() else { return 0 };
    let packet = &scratch.packet;
    let Some(seen) = line(packet) else { return 0 };
    // Entries are written before the number grows, and so they are read after it.
    // SAFETY: this CPU's own element.
    unsafe { atomic::fence(&raw mut scratch.fence) };
    let found = in_maps(sources, packet);
    (seen.source.high, seen.source.low) = (packet.source.high, packet.source.low);
    seen.family = packet.family as u8;
    (seen.found, seen.refusal.some) = (u8::from(found.is_some()), 0);
    if let Some(entry) = found {
        seen.entry = *entry;
    }
    seen.sources = sources;
    0
}

#[inline(always)]
fn in_maps(sources: u32, packet: &Packet) -> Option<&'static SourceEntry> {
    match packet.family {
        Family::V4 => {
            let address = (packet.source.low as u32).to_be_bytes();
            let [a, b, c, d] = address;
            SourceEntry::find(
                sources,
                SourceMaps::V4,
                // SAFETY: entries are only replaced whole by the agent, and freed after this program has ended.
                || unsafe { SOURCES_V4.get(address) },
                || PREFIXES_V4.get(&Key::new(32, [a, b, c, d, 0, 0, 0, 0])),
            )
        }
        Family::V6 => {
            let address = bytes_v6(packet);
            SourceEntry::find(
                sources,
                SourceMaps::V6,
                // SAFETY: as above.
                || unsafe { SOURCES_V6.get(address) },
                || PREFIXES_V6.get(&Key::new(128, address)),
            )
        }
    }
}

#[inline(always)]
fn bytes_v6(packet: &Packet) -> [u8; 16] {
    (u128::from(packet.source.high) << 64 | u128::from(packet.source.low)).to_be_bytes()
}
