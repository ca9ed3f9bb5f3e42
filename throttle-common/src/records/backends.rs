//! The backends that have breakers.

use super::Address;

/// Where a backend listens, as packets to it name that. The key of [`super::maps::BACKENDS`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Backend {
    /// Its address; IPv4 as [`Address::v4`] has it.
    pub address: Address,
    /// Its port.
    pub port: u16,
    /// 4 or 6.
    pub family: u8,
    /// IANA protocol number.
    pub protocol: u8,
    /// Zero.
    pub padding: [u8; 4],
}
