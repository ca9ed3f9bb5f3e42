//! Looking into a frame.

use aya_ebpf::programs::XdpContext;

/// The `T` at an offset into the frame, if it lies within.
#[inline(always)]
pub fn at<T>(ctx: &XdpContext, offset: usize) -> Option<*mut T> {
    let start = ctx.data() + offset;
    (start + size_of::<T>() <= ctx.data_end()).then_some(start as *mut T)
}
