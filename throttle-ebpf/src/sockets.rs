//! The sockets of this host's network namespace: who completes a handshake is no spoofed source.
//!
//! The kernel calls [`sockets`] at every change of a TCP socket's state. Where the fields of its structures lie is told
//! by the agent at load, from the kernel's own description; the verifier sees constants.

use aya_ebpf::{Global, macros::btf_tracepoint, programs::BtfTracePointContext};
use throttle_common::{
    packet::Family,
    proven::Claim,
    records::{Address, PROVEN_LINES},
};

use crate::{
    clock::Clock,
    tables::{CONTROL, PROVEN},
};

/// Offset of `skc_net` in `struct sock`.
#[unsafe(no_mangle)]
static SOCKET_NET: Global<u32> = Global::new(0);
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
/// The number of the network namespace whose packets are judged.
#[unsafe(no_mangle)]
static OWN_NET: Global<u32> = Global::new(0);

// include/net/tcp_states.h and include/linux/socket.h.
const ESTABLISHED: i32 = 1;
const SYN_RECEIVED: i32 = 3;
const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;
/// `::ffff:0:0/96` (RFC 4291, section 2.5.5.2): IPv4 on an IPv6 socket.
const MAPPED: u64 = 0xffff;

/// Sees a socket go from one state to another.
#[btf_tracepoint(function = "inet_sock_set_state")]
pub fn sockets(ctx: BtfTracePointContext) -> i32 {
    let (old, new): (i32, i32) = (ctx.arg(1), ctx.arg(2));
    if old == SYN_RECEIVED && new == ESTABLISHED {
        let socket = Socket(ctx.arg(0));
        if socket.is_ours()
            && let Some((peer, family)) = socket.peer()
        {
            prove(peer, family);
        }
    }
    0
}

/// A `struct sock` of the kernel's.
struct Socket(*const u8);

impl Socket {
    /// Whether it lives in the network namespace whose packets are judged.
    #[inline(always)]
    fn is_ours(&self) -> bool {
        // SAFETY: the kernel vouches for the socket and its namespace, and checks both offsets against their types.
        let number = unsafe {
            let net: *const u8 = field(self.0, &SOCKET_NET);
            field::<u32>(net, &NET_NUMBER)
        };
        number == OWN_NET.load()
    }

    /// Who is at the other end.
    #[inline(always)]
    fn peer(&self) -> Option<(Address, Family)> {
        // SAFETY: as above.
        let family: u16 = unsafe { field(self.0, &SOCKET_FAMILY) };
        match family {
            AF_INET => {
                // SAFETY: as above.
                let address: u32 = unsafe { field(self.0, &SOCKET_PEER_V4) };
                Some((Address::v4(u32::from_be(address)), Family::V4))
            }
            AF_INET6 => {
                // SAFETY: as above; both halves lie within `struct in6_addr`.
                let [high, low] = unsafe {
                    let words = self.0.add(SOCKET_PEER_V6.load() as usize).cast::<u64>();
                    [words.read_volatile(), words.add(1).read_volatile()].map(u64::from_be)
                };
                if high == 0 && low >> 32 == MAPPED {
                    Some((Address::v4(low as u32), Family::V4))
                } else {
                    Some((Address { high, low }, Family::V6))
                }
            }
            _ => None,
        }
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

#[inline(always)]
fn prove(peer: Address, family: Family) {
    let Some(control) = CONTROL.get(0) else { return };
    let now = Clock::read().nanos();
    let claim = Claim::of(peer, family, PROVEN_LINES, control.secret);
    if let Some(line) = PROVEN.get_ptr_mut(claim.line) {
        // SAFETY: an element of the map. Of two handshakes that meet here one may be forgotten.
        let line = unsafe { &mut *line };
        let (cell, value) = claim.remember(line, now);
        if let Some(cell) = line.get_mut(cell) {
            *cell = value;
        }
    }
}
