//! Counters of an earlier build, carried over into those of this one.
//!
//! Counters belong to a CPU each, and packets count on them without atomics: user space cannot add to one without losing
//! what is counted meanwhile. The agent runs [`carry`] instead (`BPF_PROG_TEST_RUN`), on a frame that says what to add.
//! It adds on whichever CPU it runs, with single instructions that a packet there cannot get in between of.

use aya_ebpf::{bindings::xdp_action, macros::xdp, programs::XdpContext};
use throttle_common::records::{COUNTER_WORDS, Carried, Counters, LimitTally, Losses, Tally};

use crate::{
    atomic,
    tables::{LIMIT_TALLIES, LOSSES, REASON_TALLIES},
};

const REASONS: u32 = Counters::Reasons as u32;
const LIMITS: u32 = Counters::Limits as u32;
const LOST: u32 = Counters::Losses as u32;

/// Adds what the frame says, a [`Carried`]. `XDP_PASS` where it did, `XDP_ABORTED` where there is no such counter.
#[xdp]
pub fn carry(ctx: XdpContext) -> u32 {
    if ctx.data() + size_of::<Carried>() > ctx.data_end() {
        return xdp_action::XDP_ABORTED;
    }
    // SAFETY: the line above; the kernel gives test runs a page of their own, so that the frame is aligned.
    let carried = unsafe { &*(ctx.data() as *const Carried) };
    let added = match carried.counters {
        REASONS => REASON_TALLIES.get_ptr_mut(carried.index).map(|tally| add::<Tally>(tally, &carried.words)),
        LIMITS => LIMIT_TALLIES.get_ptr_mut(carried.index).map(|tally| add::<LimitTally>(tally, &carried.words)),
        LOST => LOSSES.get_ptr_mut(carried.index).map(|losses| add::<Losses>(losses, &carried.words)),
        _ => None,
    };
    if added.is_some() { xdp_action::XDP_PASS } else { xdp_action::XDP_ABORTED }
}

/// Adds to each word of a counter, which has nothing but words.
#[inline(always)]
fn add<T>(counter: *mut T, words: &[u64; COUNTER_WORDS]) {
    let mut word = 0;
    while word < size_of::<T>() / size_of::<u64>() {
        // SAFETY: a word of the element of the map, aligned as all of them are.
        unsafe { atomic::add(counter.cast::<u64>().add(word), words[word]) };
        word += 1;
    }
}
