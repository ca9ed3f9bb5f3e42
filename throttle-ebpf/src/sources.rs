//! What policy says of a packet's source: allowed, blocked, known, whose tenant's.
//!
//! Hashes and tries take longer than all else that a packet meets. What was found is kept for the next packets of the same
//! source, until an entry changes, of anybody.

use core::{mem, ptr};

use aya_ebpf::btf_maps::lpm_trie::Key;
use throttle_common::{
    packet::{Family, Packet},
    records::{Control, Seen, SourceEntry, SourceMaps},
};

use crate::{
    atomic,
    tables::{CONTROL, InForce, PREFIXES_V4, PREFIXES_V6, SEEN_SOURCES, SOURCES_V4, SOURCES_V6, Scratch, scratch},
};

/// Looks the source of a packet up, and says in a map what is found.
#[inline(always)]
pub fn look_up(control: &Control, packet: &Packet, found: &mut SourceEntry) {
    read(control, said(control), packet, found);
}

/// Looks the source up of the packet that lies in the scratch space, where it may be known. Only for the program that judges
/// packets: nothing on its CPU comes between what it reads and what it writes.
#[inline(always)]
pub fn recall(in_force: &InForce, packet: &Packet) -> Option<&'static SourceEntry> {
    let sources = said(in_force.control);
    if sources & SourceMaps::ALL == 0 {
        return None;
    }
    if let Some(seen) = made_known(in_force, packet) {
        return Some(&seen.entry);
    }
    find(sources);
    Some(&scratch()?.said)
}

/// What [`recall`] has found of the source of the packet in the scratch space.
#[inline(always)]
pub fn recalled(in_force: &InForce, packet: &Packet) -> Option<&'static SourceEntry> {
    if said(in_force.control) & SourceMaps::ALL == 0 {
        return None;
    }
    match known(in_force, packet) {
        Some(seen) => Some(&seen.entry),
        None => Some(&scratch()?.said),
    }
}

/// What this CPU knows of the packet's source, where it knows it.
#[inline(always)]
pub fn known(in_force: &InForce, packet: &Packet) -> Option<&'static mut Seen> {
    line(packet).filter(|seen| seen.is_of(packet, said(in_force.control)))
}

/// The same of the packet in the scratch space, where its source may get to be known.
#[inline(always)]
pub fn made_known(in_force: &InForce, packet: &Packet) -> Option<&'static mut Seen> {
    let (seen, sources) = (line(packet)?, said(in_force.control));
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
fn said(control: &Control) -> u32 {
    // SAFETY: a reference into the map is valid and aligned; the agent may store to it at any time.
    unsafe { (&raw const control.sources).read_volatile() }
}

/// The line of a packet's source.
#[inline(always)]
fn line(packet: &Packet) -> Option<&'static mut Seen> {
    let line = SEEN_SOURCES.get_ptr_mut(Seen::place(packet.source))?;
    // SAFETY: this CPU's own element, and nothing interrupts the program that judges packets.
    Some(unsafe { &mut *line })
}

/// Keeps what is found of the source of the packet in the scratch space.
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
    find(sources);
    (seen.source.high, seen.source.low) = (packet.source.high, packet.source.low);
    (seen.family, seen.refusal.some) = (packet.family as u8, 0);
    seen.entry = scratch.said;
    seen.sources = sources;
    0
}

/// Looks up the source of the packet in the scratch space, and says there what is found. A global function likewise.
#[inline(never)]
#[unsafe(export_name = "find_source")]
extern "C" fn find(sources: u32) -> u32 {
    if let (Some(control), Some(Scratch { packet, said, .. })) = (CONTROL.get(0), scratch()) {
        read(control, sources, packet, said);
    }
    0
}

/// How often an entry is read, at most, while others are written.
const TRIES: u32 = 4;

/// Reads the entry of a packet's source: once, or while entries are written, as long as it says something else each time (see
/// [`SourceMaps::WRITING`]). Whether to go on is asked last, as in [`crate::connections`].
#[inline(always)]
fn read(control: &Control, sources: u32, packet: &Packet, found: &mut SourceEntry) {
    // What no entry says.
    found.padding = u32::MAX;
    let mut left = TRIES;
    loop {
        let entry = in_maps(sources, packet).map_or(SourceEntry::default(), copy);
        let alike = entry == *found;
        *found = entry;
        left -= 1;
        if (left == 0) | alike | is_settled(control, sources) {
            return;
        }
    }
}

/// Copies an entry that may become another's meanwhile, each of its words once.
#[inline(always)]
fn copy(entry: &SourceEntry) -> SourceEntry {
    let words = ptr::from_ref(entry).cast::<u64>();
    // SAFETY: so many words of an element of a map, which are aligned and plain numbers.
    unsafe { mem::transmute::<[u64; 3], SourceEntry>([0, 1, 2].map(|index| atomic::load(words.add(index)))) }
}

/// Whether no entry has been written since the control record said so.
#[inline(always)]
fn is_settled(control: &Control, sources: u32) -> bool {
    if let Some(scratch) = scratch() {
        // SAFETY: this CPU's own element.
        unsafe { atomic::fence(&raw mut scratch.fence) };
    }
    (sources & SourceMaps::WRITING == 0) & (said(control) == sources)
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
                // SAFETY: an entry stays readable; whether it is still this source's, `read` finds out.
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
