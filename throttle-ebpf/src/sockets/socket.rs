//! A socket as the kernel has it. Where the fields of its structures lie is told by the agent at load, from the kernel's own
//! description; the verifier sees constants.

use aya_ebpf::{Global, helpers::bpf_skc_to_tcp_sock};
use throttle_common::{
    packet::{Family, Packet, Part, protocol},
    records::Address,
};

/// Offset of `skc_net` in `struct sock`.
#[unsafe(no_mangle)]
pub static SOCKET_NET: Global<u32> = Global::new(0);
/// Offset of `ns.inum` in `struct net`.
#[unsafe(no_mangle)]
static NET_NUMBER: Global<u32> = Global::new(0);
/// Offset of `skc_family`.
#[unsafe(no_mangle)]
static SOCKET_FAMILY: Global<u32> = Global::new(0);
/// Offset of `skc_daddr`.
#[unsafe(no_mangle)]
static SOCKET_PEER_V4: Global<u32> = Global::new(0);
/// Offset of `skc_v6_daddr`.
#[unsafe(no_mangle)]
static SOCKET_PEER_V6: Global<u32> = Global::new(0);
/// Offset of `skc_rcv_saddr`.
#[unsafe(no_mangle)]
static SOCKET_OWN_V4: Global<u32> = Global::new(0);
/// Offset of `skc_v6_rcv_saddr`.
#[unsafe(no_mangle)]
static SOCKET_OWN_V6: Global<u32> = Global::new(0);
/// Offset of `skc_dport`.
#[unsafe(no_mangle)]
static SOCKET_PEER_PORT: Global<u32> = Global::new(0);
/// Offset of `inet_sport` in `struct tcp_sock`: unlike `skc_num` it is still there when the socket closes.
#[unsafe(no_mangle)]
static SOCKET_OWN_PORT: Global<u32> = Global::new(0);
/// The number of the network namespace whose packets are judged.
#[unsafe(no_mangle)]
static OWN_NET: Global<u32> = Global::new(0);

// include/linux/socket.h.
const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;
/// `::ffff:0:0/96` (RFC 4291, section 2.5.5.2): IPv4 on an IPv6 socket.
const MAPPED: u64 = 0xffff;

/// A `struct sock` of the kernel's.
pub struct Socket(pub *const u8);

impl Socket {
    /// Whether it lives in the network namespace whose packets are judged.
    #[inline(always)]
    pub fn is_ours(&self) -> bool {
        // SAFETY: the kernel vouches for the socket and its namespace, and checks both offsets against their types.
        let number = unsafe {
            let net: *const u8 = field(self.0, &SOCKET_NET);
            field::<u32>(net, &NET_NUMBER)
        };
        number == OWN_NET.load()
    }

    /// Describes a packet from the other end; `false` where it is no TCP socket.
    #[inline(always)]
    pub fn describe(&self, packet: &mut Packet) -> bool {
        // SAFETY: the kernel checks what kind of socket it is.
        let tcp = unsafe { bpf_skc_to_tcp_sock(self.0.cast_mut().cast()) }.cast::<u8>();
        let Some((family, source, destination)) = self.addresses() else { return false };
        if tcp.is_null() {
            return false;
        }
        // SAFETY: as in `is_ours`.
        let (source_port, destination_port): (u16, u16) =
            unsafe { (field(self.0, &SOCKET_PEER_PORT), field(tcp, &SOCKET_OWN_PORT)) };
        *packet = Packet {
            family,
            source,
            destination,
            protocol: protocol::TCP,
            part: Part::Whole,
            source_port: u16::from_be(source_port),
            destination_port: u16::from_be(destination_port),
            ..Packet::default()
        };
        true
    }

    /// Who is at the other end, and which address of ours at this one.
    #[inline(always)]
    fn addresses(&self) -> Option<(Family, Address, Address)> {
        // SAFETY: as above.
        let family: u16 = unsafe { field(self.0, &SOCKET_FAMILY) };
        match family {
            AF_INET => {
                let v4 = |offset| {
                    // SAFETY: as above.
                    let address: u32 = unsafe { field(self.0, offset) };
                    Address::v4(u32::from_be(address))
                };
                Some((Family::V4, v4(&SOCKET_PEER_V4), v4(&SOCKET_OWN_V4)))
            }
            AF_INET6 => {
                let (peer, own) = (self.v6(&SOCKET_PEER_V6), self.v6(&SOCKET_OWN_V6));
                if peer.high == 0 && peer.low >> 32 == MAPPED {
                    Some((Family::V4, Address::v4(peer.low as u32), Address::v4(own.low as u32)))
                } else {
                    Some((Family::V6, peer, own))
                }
            }
            _ => None,
        }
    }

    #[inline(always)]
    fn v6(&self, offset: &Global<u32>) -> Address {
        // SAFETY: as above; both halves lie within `struct in6_addr`.
        let [high, low] = unsafe {
            let words = self.0.add(offset.load() as usize).cast::<u64>();
            [words.read_volatile(), words.add(1).read_volatile()].map(u64::from_be)
        };
        Address { high, low }
    }
}

/// Reads a field.
///
/// # Safety
///
/// A `T` lies at this offset of the structure.
#[inline(always)]
unsafe fn field<T: Copy>(structure: *const u8, offset: &Global<u32>) -> T {
    // SAFETY: the caller's.
    unsafe { structure.add(offset.load() as usize).cast::<T>().read_volatile() }
}
