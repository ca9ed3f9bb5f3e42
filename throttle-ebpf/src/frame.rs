//! Looking into a frame.

use aya_ebpf::programs::XdpContext;
use network_types::{eth::EthHdr, vlan::VlanHdr};
use throttle_common::packet::MAX_VLANS;

/// The longest link-layer header that is parsed.
pub const LINK_MAX: usize = EthHdr::LEN + MAX_VLANS * VlanHdr::LEN;

/// The `T` at an offset into the frame, if it lies within.
#[inline(always)]
pub fn at<T>(ctx: &XdpContext, offset: usize) -> Option<*mut T> {
    let start = ctx.data() + offset;
    (start + size_of::<T>() <= ctx.data_end()).then_some(start as *mut T)
}

/// The same number, of which the compiler knows nothing: what is compared is then what is used. Where it keeps two copies of
/// a number, Linux 6.1 does not see that the bounds of the one are those of the other.
#[inline(always)]
pub fn only_copy(mut number: usize) -> usize {
    // SAFETY: the number is moved to itself. (No instruction at all would leave a line of source without code, which the
    // kernel refuses.)
    unsafe { core::arch::asm!("{0} = {0}", inout(reg) number, options(pure, nomem)) };
    number
}
