//! Writing another source address into an untagged IPv4 or IPv6 frame.

use aya_ebpf::programs::XdpContext;

const ETHERNET: usize = 14;

/// Writes `source` into the frame: the IPv4 address, or bytes 4 to 8 of the IPv6 address, which every /64 tells apart.
///
/// The IPv4 header checksum is kept right, by the difference (RFC 1624); transport checksums are not.
#[inline(always)]
pub(crate) fn set_source(ctx: &XdpContext, source: u32) -> Option<()> {
    let ip = ctx.data() + ETHERNET;
    if ip + 20 > ctx.data_end() {
        return None;
    }
    // SAFETY: the first 20 bytes behind the Ethernet header were just checked; every field is aligned to two bytes.
    unsafe {
        if *(ip as *const u8) >> 4 == 4 {
            let old = [half(ip, 12), half(ip, 14)];
            let new = [(source >> 16) as u16, source as u16];
            let mut sum = u32::from(!half(ip, 10));
            sum += u32::from(!old[0]) + u32::from(!old[1]) + u32::from(new[0]) + u32::from(new[1]);
            sum = (sum & 0xffff) + (sum >> 16);
            sum = (sum & 0xffff) + (sum >> 16);
            set_half(ip, 10, !(sum as u16));
            set_half(ip, 12, new[0]);
            set_half(ip, 14, new[1]);
        } else {
            set_half(ip, 12, (source >> 16) as u16);
            set_half(ip, 14, source as u16);
        }
    }
    Some(())
}

#[inline(always)]
unsafe fn half(at: usize, offset: usize) -> u16 {
    // SAFETY: the caller's.
    u16::from_be(unsafe { ((at + offset) as *const u16).read() })
}

#[inline(always)]
unsafe fn set_half(at: usize, offset: usize, value: u16) {
    // SAFETY: the caller's.
    unsafe { ((at + offset) as *mut u16).write(value.to_be()) }
}
