//! What a SYN leaves behind in the kernel until its handshake completes: a `struct tcp_request_sock`.
//!
//! It is looked up among TCP's own, so that every one in the state of a request is such a structure. The kernel vouches only
//! for those that no protocol above TCP has changed: those of a listener of several paths (MPTCP), or in a sockmap, it does
//! not. So they are read as plain memory, where it allows that. Where the fields lie is told by the agent at load.

use core::ptr::from_mut;

use aya_ebpf::{
    Global,
    bindings::bpf_sock,
    helpers::{bpf_probe_read_kernel, bpf_skc_to_tcp_request_sock},
};
use network_types::tcp::TcpHdr;
use throttle_common::packet::{Packet, Part, tcp};

use crate::tables::scratch;

/// 1 where the kernel's memory may be read: it is not locked down for confidentiality.
#[unsafe(no_mangle)]
pub static MEMORY_READ: Global<u8> = Global::new(0);
/// Offset of `snt_isn` in `struct tcp_request_sock`.
#[unsafe(no_mangle)]
static REQUEST_SENT_ISN: Global<u32> = Global::new(0);
/// Offset of `rcv_isn`.
#[unsafe(no_mangle)]
static REQUEST_RECEIVED_ISN: Global<u32> = Global::new(0);
/// Offset of `rsk_listener`.
#[unsafe(no_mangle)]
static REQUEST_LISTENER: Global<u32> = Global::new(0);
/// Offset of `num_retrans`: one byte before the seven upper bits of `num_timeout`.
#[unsafe(no_mangle)]
static REQUEST_RETRANSMITS: Global<u32> = Global::new(0);
/// Offset of `rskq_defer_accept` in `struct inet_connection_sock`.
#[unsafe(no_mangle)]
static LISTENER_DEFERS: Global<u32> = Global::new(0);

/// A request that is held.
pub struct Request(*mut bpf_sock);

impl Request {
    /// A socket in the state of a request.
    pub const fn of(socket: *mut bpf_sock) -> Self {
        Self(socket)
    }

    /// Whether a segment completes its handshake: it acknowledges the SYN-ACK, whose number only who has seen it knows, and
    /// brings data where the listener waits for that.
    #[inline(always)]
    pub fn is_completed_by(&self, packet: &Packet, header: *const TcpHdr) -> bool {
        // SAFETY: the caller checked the range.
        let [sequence, acknowledged] = unsafe { [(*header).seq, (*header).ack_seq] }.map(u32::from_be_bytes);
        if MEMORY_READ.load() == 0 {
            return self.is_vouched_for(acknowledged.wrapping_sub(1));
        }
        let Some(memory) = self.memory() else { return false };
        let sent: Option<u32> = read(memory, &REQUEST_SENT_ISN);
        // What the other fragments bring is not seen.
        let whole = !matches!(packet.part, Part::First);
        let said = |flag| u32::from(packet.flags & flag != 0);
        let end = sequence.wrapping_add(u32::from(packet.payload) + said(tcp::SYN) + said(tcp::FIN));
        sent == Some(acknowledged.wrapping_sub(1)) && !(whole && defers(memory, end))
    }

    /// Whether the kernel vouches for the request, and its SYN-ACK has that number.
    #[inline(always)]
    fn is_vouched_for(&self, number: u32) -> bool {
        // SAFETY: the kernel checks what kind of socket it is.
        let request = unsafe { bpf_skc_to_tcp_request_sock(self.0.cast()) }.cast::<u8>();
        if request.is_null() {
            return false;
        }
        // SAFETY: the agent takes the offset from the kernel's description, and the verifier checks it.
        unsafe { request.add(REQUEST_SENT_ISN.load() as usize).cast::<u32>().read_volatile() == number }
    }

    /// Where it lies, as a number: the verifier allows no arithmetic on what it knows to be a socket.
    #[inline(always)]
    fn memory(&self) -> Option<u64> {
        let address = from_mut(&mut scratch()?.address);
        // SAFETY: a word of this CPU's own element.
        unsafe {
            address.write_volatile(self.0 as u64);
            Some(address.read_volatile())
        }
    }
}

/// Whether the listener of a request drops what only acknowledges (`TCP_DEFER_ACCEPT`), as `tcp_check_req` does it: it has not
/// waited for data long enough, and what was said ends with the SYN.
#[inline(always)]
fn defers(request: u64, end: u32) -> bool {
    let Some(listener) = read::<u64>(request, &REQUEST_LISTENER) else { return false };
    let Some(patience) = read::<u8>(listener, &LISTENER_DEFERS) else { return false };
    let received: Option<u32> = read(request, &REQUEST_RECEIVED_ISN);
    let timeouts = read::<[u8; 2]>(request, &REQUEST_RETRANSMITS).map(|[_, bits]| bits >> 1);
    received == Some(end.wrapping_sub(1)) && timeouts.is_some_and(|timeouts| timeouts < patience)
}

/// Reads a field of a structure of the kernel's.
#[inline(always)]
pub fn read<T>(structure: u64, offset: &Global<u32>) -> Option<T> {
    let place = structure.wrapping_add(offset.load().into());
    // SAFETY: the kernel copies what it can read there, or says that it cannot.
    unsafe { bpf_probe_read_kernel(place as *const T) }.ok()
}
