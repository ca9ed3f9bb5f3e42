//! The interfaces of this network namespace, and which XDP programs sit on them.

use std::io;

use super::netlink::{ROUTE, attributes, dump, number, text};

/// `RTM_GETLINK` of include/uapi/linux/rtnetlink.h.
const GET_LINK: u16 = 18;
/// `struct ifinfomsg`.
const HEADER: usize = 16;
/// `IFF_UP` of include/uapi/linux/if.h.
const UP: u32 = 1;

/// Attributes of include/uapi/linux/if_link.h.
mod attribute {
    pub(super) const ADDRESS: u16 = 1;
    pub(super) const NAME: u16 = 3;
    pub(super) const MTU: u16 = 4;
    pub(super) const LOWER: u16 = 5;
    pub(super) const MASTER: u16 = 10;
    pub(super) const LINK_INFO: u16 = 18;
    pub(super) const XDP: u16 = 43;
    /// That the one below is in another network namespace.
    pub(super) const LOWER_ELSEWHERE: u16 = 37;
    /// Within [`LINK_INFO`].
    pub(super) const KIND: u16 = 1;
    /// Within [`XDP`].
    pub(super) const NATIVE_PROGRAM: u16 = 5;
    pub(super) const GENERIC_PROGRAM: u16 = 6;
    pub(super) const OFFLOADED_PROGRAM: u16 = 7;
}

/// A network interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interface {
    /// Its number in this network namespace.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its link-layer address, where that is one of six bytes.
    pub address: Option<[u8; 6]>,
    /// The largest IP packet that it sends, in bytes.
    pub mtu: u32,
    /// Whether it is up.
    pub up: bool,
    /// What it is where it is not hardware: `veth`, `vlan`, `bond`, `bridge`.
    pub kind: Option<String>,
    /// The interface of this namespace that it sits on, as a VLAN does.
    pub lower: Option<u32>,
    /// The interface that it belongs to, as to a bond or a bridge.
    pub master: Option<u32>,
    /// The number of the XDP program in the driver.
    pub native: Option<u32>,
    /// The number of the XDP program in the network stack.
    pub generic: Option<u32>,
    /// The number of the XDP program in the hardware.
    pub offloaded: Option<u32>,
}

impl Interface {
    /// The programs on it, whoever put them there.
    pub fn programs(&self) -> impl Iterator<Item = u32> {
        [self.native, self.generic, self.offloaded].into_iter().flatten()
    }

    fn parse(message: &[u8]) -> Option<Self> {
        let header = message.get(..HEADER)?;
        let mut interface = Self { index: number(&header[4..]), up: number(&header[8..]) & UP != 0, ..Self::default() };
        let mut elsewhere = false;
        for (kind, value) in attributes(&message[HEADER..]) {
            match kind {
                attribute::ADDRESS => interface.address = value.try_into().ok(),
                attribute::NAME => interface.name = text(value),
                attribute::MTU => interface.mtu = number(value),
                attribute::LOWER => interface.lower = Some(number(value)),
                attribute::LOWER_ELSEWHERE => elsewhere = true,
                attribute::MASTER => interface.master = Some(number(value)),
                attribute::LINK_INFO => {
                    interface.kind =
                        attributes(value).find(|&(kind, _)| kind == attribute::KIND).map(|(_, value)| text(value));
                }
                attribute::XDP => interface.read_programs(value),
                _ => {}
            }
        }
        interface.lower = interface.lower.filter(|_| !elsewhere);
        Some(interface)
    }

    fn read_programs(&mut self, value: &[u8]) {
        for (kind, value) in attributes(value) {
            let program = Some(number(value)).filter(|&id| id != 0);
            match kind {
                attribute::NATIVE_PROGRAM => self.native = program,
                attribute::GENERIC_PROGRAM => self.generic = program,
                attribute::OFFLOADED_PROGRAM => self.offloaded = program,
                _ => {}
            }
        }
    }
}

/// All interfaces of the calling thread's network namespace.
pub fn interfaces() -> io::Result<Vec<Interface>> {
    let answers = dump(ROUTE, GET_LINK, &[0; HEADER])?;
    Ok(answers.iter().filter_map(|message| Interface::parse(message)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_loopback_interface() {
        let loopback = interfaces().unwrap().into_iter().find(|interface| interface.name == "lo").unwrap();
        assert_eq!((loopback.index, loopback.programs().count()), (1, 0));
    }
}
