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
