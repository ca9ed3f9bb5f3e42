//! What policy says of a packet's source: allowed, blocked, known.

use aya_ebpf::btf_maps::lpm_trie::Key;
use throttle_common::{
    packet::{Family, Packet},
    records::{SourceEntry, SourceFlags, SourceMaps},
};

use crate::{
    clock::Clock,
    tables::{InForce, PREFIXES_V4, PREFIXES_V6, SOURCES_V4, SOURCES_V6},
};

/// What policy says of a source.
pub struct Standing(Option<&'static SourceEntry>);

impl Standing {
    /// No block and no limit touches it.
    #[inline(always)]
    pub fn allowed(&self) -> bool {
        self.0.is_some_and(|entry| entry.flags & SourceFlags::ALLOW != 0)
    }

    /// It may take the way that is kept for the proven.
    #[inline(always)]
    pub fn proven(&self) -> bool {
        self.0.is_some_and(|entry| entry.flags & SourceFlags::KNOWN != 0)
    }

    /// It is refused, now.
    #[inline(always)]
    pub fn blocked(&self, clock: &mut Clock) -> bool {
        self.0.is_some_and(|entry| match entry.blocked_until {
            0 => false,
            u64::MAX => true,
            until => clock.nanos() < until,
        })
    }
}

/// Looks the source up. An entry says all that its covering prefixes say too, so the first hit is the whole answer.
#[inline(always)]
pub fn look_up(in_force: &InForce, packet: &Packet) -> Standing {
    // SAFETY: a reference into the map is valid and aligned; the agent may store to it at any time.
    let maps = unsafe { (&raw const in_force.control.sources).read_volatile() };
    if maps == 0 {
        return Standing(None);
    }
    Standing(match packet.family {
        Family::V4 => {
            let address = (packet.source.low as u32).to_be_bytes();
            let exact = if maps & SourceMaps::ADDRESSES_V4 == 0 {
                None
            } else {
                // SAFETY: entries are only replaced whole by the agent, and freed after this program has ended.
                unsafe { SOURCES_V4.get(address) }
            };
            if exact.is_none() && maps & SourceMaps::PREFIXES_V4 != 0 {
                let [a, b, c, d] = address;
                PREFIXES_V4.get(&Key::new(32, [a, b, c, d, 0, 0, 0, 0]))
            } else {
                exact
            }
        }
        Family::V6 => {
            let address = bytes_v6(packet);
            let exact = if maps & SourceMaps::ADDRESSES_V6 == 0 {
                None
            } else {
                // SAFETY: as above.
                unsafe { SOURCES_V6.get(address) }
            };
            if exact.is_none() && maps & SourceMaps::PREFIXES_V6 != 0 {
                PREFIXES_V6.get(&Key::new(128, address))
            } else {
                exact
            }
        }
    })
}

#[inline(always)]
fn bytes_v6(packet: &Packet) -> [u8; 16] {
    (u128::from(packet.source.high) << 64 | u128::from(packet.source.low)).to_be_bytes()
}
