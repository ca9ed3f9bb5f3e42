//! What processes of this host dial: a backend whose breaker refuses is refused at once, as if nothing listened there, so
//! that a proxy tries the next.
//!
//! The kernel calls [`connect4`] and [`connect6`] for every connect of a process in the control group that they are attached
//! to. Those of other network namespaces are none of ours, and the agent's own probes pass: they are to find out whether the
//! backend is well again.

use aya_ebpf::{
    Global,
    bindings::bpf_sock_addr,
    helpers::{bpf_get_netns_cookie, bpf_set_retval},
    macros::cgroup_sock_addr,
    programs::SockAddrContext,
};
use throttle_common::{
    packet::{Family, protocol},
    records::{Address, Backend},
};

use crate::{
    breakers::{admit, all_are_closed, number_of, take_trial},
    clock::Clock,
    tables::InForce,
};

/// The cookie of the network namespace whose packets are judged.
#[unsafe(no_mangle)]
static OWN_NET_COOKIE: Global<u64> = Global::new(0);
/// 1 where a program can say which error a connect fails with (Linux 5.18). The verifier removes what needs that elsewhere;
/// then it is EPERM.
#[unsafe(no_mangle)]
static SAYS_ERRORS: Global<u8> = Global::new(0);
/// The priority of the sockets of the agent's probes, which another process can neither guess nor set without CAP_NET_RAW or
/// CAP_NET_ADMIN; 0 where none are marked.
#[unsafe(no_mangle)]
static PROBE_PRIORITY: Global<u32> = Global::new(0);

/// What the kernel is told.
const GO_ON: i32 = 1;
const FAIL: i32 = 0;
/// include/uapi/asm-generic/errno.h.
const ECONNREFUSED: i32 = 111;
/// `::ffff:0:0/96` (RFC 4291, section 2.5.5.2): an IPv4 address on an IPv6 socket.
const MAPPED: u64 = 0xffff;

/// Sees a connect over IPv4.
#[cgroup_sock_addr(connect4)]
pub fn connect4(ctx: SockAddrContext) -> i32 {
    // SAFETY: the kernel vouches for its context.
    let address = unsafe { (&raw const (*ctx.sock_addr).user_ip4).read_volatile() };
    judge(ctx.sock_addr, Address::v4(u32::from_be(address)), Family::V4)
}

/// Sees a connect over IPv6.
#[cgroup_sock_addr(connect6)]
pub fn connect6(ctx: SockAddrContext) -> i32 {
    let word = |index: usize| {
        // SAFETY: the kernel vouches for its context.
        u64::from(u32::from_be(unsafe { (&raw const (*ctx.sock_addr).user_ip6[index]).read_volatile() }))
    };
    let (high, low) = (word(0) << 32 | word(1), word(2) << 32 | word(3));
    if high == 0 && low >> 32 == MAPPED {
        judge(ctx.sock_addr, Address::v4(low as u32), Family::V4)
    } else {
        judge(ctx.sock_addr, Address { high, low }, Family::V6)
    }
}

#[inline(always)]
fn judge(ctx: *mut bpf_sock_addr, address: Address, family: Family) -> i32 {
    let Some(in_force) = InForce::read() else { return GO_ON };
    if in_force.policy.has_breakers == 0 || in_force.policy.observe != 0 || all_are_closed() {
        return GO_ON;
    }
    // SAFETY: the kernel vouches for its context.
    let kind = unsafe { (&raw const (*ctx).protocol).read_volatile() };
    if kind != u32::from(protocol::TCP) {
        return GO_ON;
    }
    // SAFETY: see above.
    let port = unsafe { (&raw const (*ctx).user_port).read_volatile() };
    // SAFETY: the context is the kernel's own.
    if unsafe { bpf_get_netns_cookie(ctx.cast()) } != OWN_NET_COOKIE.load() {
        return GO_ON;
    }
    let port = u16::from_be(port as u16);
    let number = number_of(&Backend { address, port, family: family as u8, protocol: protocol::TCP, padding: [0; 4] });
    let now = Clock::read().nanos();
    if admit(number, now) == 0 || is_probe(ctx) || take_trial(number, now) {
        return GO_ON;
    }
    if SAYS_ERRORS.load() == 1 {
        // SAFETY: a number, and the kernel has the helper.
        unsafe { bpf_set_retval(-ECONNREFUSED) };
    }
    FAIL
}

/// Whether the agent dials.
#[inline(always)]
fn is_probe(ctx: *mut bpf_sock_addr) -> bool {
    // SAFETY: the kernel vouches for its context, and for the socket there.
    let priority = unsafe {
        let socket = (&raw const (*ctx).__bindgen_anon_1.sk).read_volatile();
        (&raw const (*socket).priority).read_volatile()
    };
    priority != 0 && priority == PROBE_PRIORITY.load()
}
