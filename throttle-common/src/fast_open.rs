//! TCP fast open (RFC 7413), as Linux does it: a SYN that brings a cookie back is served before its handshake completes.
//!
//! The kernel gives a source the cookie of its address once it asks, and knows it again without having kept it. So whoever
//! brings one has been sent it there, and is no spoofed source: what its SYN opens takes a place at once.

use crate::{
    hash::siphash,
    packet::Family,
    records::{Address, Ends},
};

/// Bytes of a cookie; the kernel takes no other number of them.
pub const COOKIE: usize = 8;
/// Keys that a listener, or a network namespace, has at most: `TCP_FASTOPEN_KEY_MAX` of include/net/tcp.h.
pub const KEYS: u32 = 2;
/// Bytes of a key.
pub const KEY: usize = 16;

/// Of `net.ipv4.tcp_fastopen`: listeners may take fast opens.
pub const SERVES: u32 = 2;
/// Of the same: and without a cookie, from anybody.
pub const SERVES_ANYBODY: u32 = 0x200;

/// An option of a SYN (RFC 9293, section 3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TcpOption {
    /// There are no more.
    End,
    /// The next begins so many bytes further.
    Next(usize),
    /// It asks for a cookie, or brings something back that is so long, after so many bytes of its own.
    Claim {
        /// Bytes before it.
        head: usize,
        /// Bytes of it.
        length: usize,
    },
}

impl TcpOption {
    /// Bytes of the option; `None` where there are no more.
    #[inline(always)]
    pub const fn length(self) -> Option<usize> {
        match self {
            Self::End => None,
            Self::Next(length) => Some(length),
            Self::Claim { head, length } => Some(head + length),
        }
    }
}

/// The numbers of options.
const END: u8 = 0;
const NOTHING: u8 = 1;
const FAST_OPEN: u8 = 34;
/// That of experiments, and what marks this one (RFC 6994).
const EXPERIMENT: u8 = 254;
const MAGIC: [u8; 2] = [0xf9, 0x89];

/// Reads one option by its first four bytes, which may be those of the next ones.
#[inline(always)]
pub const fn read_option([kind, length, first, second]: [u8; 4]) -> TcpOption {
    let length = length as usize;
    match kind {
        END => TcpOption::End,
        NOTHING => TcpOption::Next(1),
        // The kernel stops reading there too.
        _ if length < 2 => TcpOption::End,
        FAST_OPEN => TcpOption::Claim { head: 2, length: length - 2 },
        EXPERIMENT if length >= 4 && first == MAGIC[0] && second == MAGIC[1] => {
            TcpOption::Claim { head: 4, length: length - 4 }
        }
        _ => TcpOption::Next(length),
    }
}

/// The cookie of a source for a destination under a key, as a little-endian number
/// (`tcp_fastopen_cookie_gen_cipher` of net/ipv4/tcp_fastopen.c).
#[inline(always)]
pub const fn cookie(ends: &Ends, key: [u64; 2]) -> u64 {
    let Ends { source, destination, family, .. } = *ends;
    if family == Family::V4 as u8 {
        return siphash([v4(source) | v4(destination) << 32], key);
    }
    let words = [source.high, source.low, destination.high, destination.low];
    siphash([words[0].swap_bytes(), words[1].swap_bytes(), words[2].swap_bytes(), words[3].swap_bytes()], key)
}

#[inline(always)]
const fn v4(address: Address) -> u64 {
    (address.low as u32).swap_bytes() as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::hash::Hasher as _;
    use std::vec::Vec;

    #[test]
    #[expect(deprecated, reason = "the standard library's SipHash with keys is the oracle here")]
    fn a_cookie_is_the_hash_of_both_addresses_as_they_lie_on_the_wire() {
        let key = [0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908];
        let of = |bytes: &[u8]| {
            let mut oracle = core::hash::SipHasher::new_with_keys(key[0], key[1]);
            oracle.write(bytes);
            oracle.finish()
        };
        let (source, destination) = (Address::v4(0x0a62_0001), Address::v4(0xc000_0207));
        let ends = Ends { source, destination, family: Family::V4 as u8, source_port: 7, ..Ends::default() };
        assert_eq!(cookie(&ends, key), of(&[0x0a, 0x62, 0, 1, 0xc0, 0, 2, 7]));
        let (source, destination) = (0x2001_0db8_0000_0001_0203_0405_0607_0809, 0xfd77_u128 << 112 | 0x99);
        let bytes: Vec<u8> = [source, destination].into_iter().flat_map(u128::to_be_bytes).collect();
        let (source, destination) = (Address::v6(source), Address::v6(destination));
        let ends = Ends { source, destination, family: Family::V6 as u8, ..Ends::default() };
        assert_eq!(cookie(&ends, key), of(&bytes));
    }

    #[test]
    fn options_are_stepped_over_until_one_is_a_claim() {
        assert_eq!(read_option([1, 34, 10, 0]), TcpOption::Next(1));
        assert_eq!(read_option([2, 4, 5, 180]), TcpOption::Next(4));
        assert_eq!(read_option([34, 10, 7, 7]), TcpOption::Claim { head: 2, length: 8 });
        assert_eq!(read_option([34, 2, 1, 1]), TcpOption::Claim { head: 2, length: 0 });
        assert_eq!(read_option([254, 12, 0xf9, 0x89]), TcpOption::Claim { head: 4, length: 8 });
        assert_eq!(read_option([254, 12, 0xf9, 0x88]), TcpOption::Next(12));
        for end in [[0, 34, 10, 0], [34, 1, 0, 0], [2, 0, 0, 0]] {
            assert_eq!(read_option(end), TcpOption::End);
        }
    }
}
