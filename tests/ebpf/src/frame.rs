//! Writing another source address, or another port, into an untagged IPv4 or IPv6 frame.

use aya_ebpf::programs::XdpContext;

/// Bytes before the IP header.
pub(crate) const ETHERNET: usize = 14;
/// Bytes of the header before the source.
pub(crate) const SOURCE_V4: usize = 12;
pub(crate) const SOURCE_V6: usize = 8;
/// Bytes of the IPv4 and of the TCP header before their checksums.
const CHECKSUM_V4: usize = 10;
const CHECKSUM_TCP: usize = 16;

/// Writes `source` into the frame: the IPv4 address, or the first eight bytes of the IPv6 address, its /64.
///
/// The IPv4 header checksum is kept right; transport checksums are not.
#[inline(always)]
pub(crate) fn set_source(ctx: &XdpContext, source: u64) -> Option<()> {
    let ip = ctx.data() + ETHERNET;
    if ip + 20 > ctx.data_end() {
        return None;
    }
    let half_of = |shift: u32| (source >> shift) as u16;
    // SAFETY: the first 20 bytes behind the Ethernet header were just checked; every field is aligned to two bytes.
    unsafe {
        if *(ip as *const u8) >> 4 == 4 {
            let old = [half(ip, SOURCE_V4), half(ip, SOURCE_V4 + 2)];
            let new = [half_of(16), half_of(0)];
            set_half(ip, CHECKSUM_V4, changed(half(ip, CHECKSUM_V4), old, new));
            set_half(ip, SOURCE_V4, new[0]);
            set_half(ip, SOURCE_V4 + 2, new[1]);
        } else {
            set_half(ip, SOURCE_V6, half_of(48));
            set_half(ip, SOURCE_V6 + 2, half_of(32));
            set_half(ip, SOURCE_V6 + 4, half_of(16));
            set_half(ip, SOURCE_V6 + 6, half_of(0));
        }
    }
    Some(())
}

/// Writes the destination port behind an IPv4 header without options; transport checksums are not kept right.
#[inline(always)]
pub(crate) fn set_port(ctx: &XdpContext, port: u16) -> Option<()> {
    let ports = ctx.data() + ETHERNET + 20;
    if ports + 4 > ctx.data_end() {
        return None;
    }
    // SAFETY: the two ports were just checked; each is aligned to two bytes.
    unsafe { set_half(ports, 2, port) };
    Some(())
}

/// Flips bits of the source port behind an IPv4 header without options, and keeps the TCP checksum right.
#[inline(always)]
pub(crate) fn change_source_port(ctx: &XdpContext, flipped: u16) -> Option<()> {
    let tcp = ctx.data() + ETHERNET + 20;
    if tcp + 20 > ctx.data_end() {
        return None;
    }
    // SAFETY: the 20 bytes of the TCP header were just checked; both fields are aligned to two bytes.
    unsafe {
        let old = half(tcp, 0);
        let new = old ^ flipped;
        set_half(tcp, 0, new);
        set_half(tcp, CHECKSUM_TCP, changed(half(tcp, CHECKSUM_TCP), [old], [new]));
    }
    Some(())
}

/// A checksum where some halves of what it is of are others now (RFC 1624).
#[inline(always)]
fn changed<const HALVES: usize>(checksum: u16, old: [u16; HALVES], new: [u16; HALVES]) -> u16 {
    let mut sum = u32::from(!checksum);
    let mut half = 0;
    while half < HALVES {
        sum += u32::from(!old[half]) + u32::from(new[half]);
        half += 1;
    }
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    !(sum as u16)
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
