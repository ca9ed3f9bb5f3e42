//! What policy says of a packet's source: allowed, blocked, known.

use aya_ebpf::btf_maps::lpm_trie::Key;
use throttle_common::{
    packet::{Family, Packet},
    records::{SourceEntry, SourceMaps},
};

use crate::tables::{InForce, PREFIXES_V4, PREFIXES_V6, SOURCES_V4, SOURCES_V6};

/// Looks the source up.
#[inline(always)]
pub fn look_up(in_force: &InForce, packet: &Packet) -> Option<&'static SourceEntry> {
    // SAFETY: a reference into the map is valid and aligned; the agent may store to it at any time.
    let maps = unsafe { (&raw const in_force.control.sources).read_volatile() };
    if maps == 0 {
        return None;
    }
    match packet.family {
        Family::V4 => {
            let address = (packet.source.low as u32).to_be_bytes();
            let [a, b, c, d] = address;
            SourceEntry::find(
                maps,
                SourceMaps::V4,
                // SAFETY: entries are only replaced whole by the agent, and freed after this program has ended.
                || unsafe { SOURCES_V4.get(address) },
                || PREFIXES_V4.get(&Key::new(32, [a, b, c, d, 0, 0, 0, 0])),
            )
        }
        Family::V6 => {
            let address = bytes_v6(packet);
            SourceEntry::find(
                maps,
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
