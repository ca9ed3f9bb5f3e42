//! Atomic operations on map memory.
//!
//! `core::sync::atomic` has no compare-and-swap on this target; the intrinsics below become one BPF instruction each
//! (`-C target-cpu=v3`). Loads are volatile: aligned 64-bit loads are single instructions on every 64-bit machine.

use core::intrinsics::{AtomicOrdering, atomic_cxchg, atomic_or, atomic_xadd, atomic_xsub};

/// Reads a word that other CPUs write.
///
/// # Safety
///
/// `word` points into a map value and is aligned.
#[inline(always)]
pub unsafe fn load(word: *const u64) -> u64 {
    // SAFETY: the caller's.
    unsafe { word.read_volatile() }
}

/// Writes a word that other CPUs read.
///
/// # Safety
///
/// As for [`load`].
#[inline(always)]
pub unsafe fn store(word: *mut u64, value: u64) {
    // SAFETY: the caller's.
    unsafe { word.write_volatile(value) }
}

/// Replaces `old` by `new`; gives whether it did, and what was there.
///
/// # Safety
///
/// As for [`load`]; a word of 64 bits or of 32.
#[inline(always)]
pub unsafe fn swap<T: Copy>(word: *mut T, old: T, new: T) -> (bool, T) {
    // SAFETY: the caller's.
    let (found, done) =
        unsafe { atomic_cxchg::<T, { AtomicOrdering::SeqCst }, { AtomicOrdering::SeqCst }>(word, old, new) };
    (done, found)
}

/// Subtracts from a word.
///
/// # Safety
///
/// As for [`load`].
#[inline(always)]
pub unsafe fn subtract(word: *mut u64, amount: u64) {
    // SAFETY: the caller's.
    unsafe { atomic_xsub::<u64, u64, { AtomicOrdering::SeqCst }>(word, amount) };
}

/// Adds to a word, and gives what it was.
///
/// # Safety
///
/// As for [`load`].
#[inline(always)]
pub unsafe fn add(word: *mut u64, amount: u64) -> u64 {
    // SAFETY: the caller's.
    unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::SeqCst }>(word, amount) }
}

/// Sets bits of a word, and gives what it was.
///
/// # Safety
///
/// As for [`load`].
#[inline(always)]
pub unsafe fn mark(word: *mut u64, bits: u64) -> u64 {
    // SAFETY: the caller's.
    unsafe { atomic_or::<u64, u64, { AtomicOrdering::SeqCst }>(word, bits) }
}

/// Counts a word up, and gives what it was.
///
/// # Safety
///
/// As for [`load`].
#[inline(always)]
pub unsafe fn count_up(word: *mut u64) -> u64 {
    // SAFETY: the caller's.
    unsafe { add(word, 1) }
}

/// Keeps what is read after it from being read before it: read-modify-writes that give a value are barriers.
///
/// # Safety
///
/// As for [`load`]; the word is this CPU's own, and says nothing.
#[inline(always)]
pub unsafe fn fence(word: *mut u64) {
    // SAFETY: the caller's.
    unsafe { swap(word, 0, 0) };
}
