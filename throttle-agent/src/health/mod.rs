//! What decides how far limits move with the health of what they protect: pure, from what was seen and `now` to a verdict.
//!
//! [`suspicion`] says how suspicious a silence is, [`succession`] which heartbeat is the later, [`detector`] whether a backend
//! lives (in the words of [`life`]), [`watch`] which of a service are ejected and when the fault is our own, [`flapping`] who
//! comes and goes too often. [`breaker`] keeps new connections from a backend that fails, and tries it again by itself (in
//! the words of [`circuit`]). [`controller`] makes a window and a clock's speed of what a service shows ([`signals`]), against
//! what is usual ([`baseline`]); where nothing but a rate can be moved, [`pacer`] does. [`service`] ties all of it together
//! for one service, [`scale_out`] says when it needs more than there is, [`followed`] when another signal is followed for
//! good, and [`words`] says what changed as a person on call reads it.
//!
//! Instants and spans are [`Nanos`] of CLOCK_MONOTONIC, dice are arguments, and nothing here reads a socket or a clock: what
//! is seen comes in, what is to be done goes out, each change with its reason.

pub mod baseline;
pub mod breaker;
pub mod circuit;
pub mod controller;
pub mod detector;
pub mod flapping;
pub mod followed;
pub mod life;
pub mod names;
pub mod pacer;
pub mod scale_out;
pub mod service;
pub mod signals;
pub mod succession;
pub mod suspicion;
pub mod transition;
mod trials;
pub mod watch;
pub mod words;

/// An instant on CLOCK_MONOTONIC, or a span of it, in nanoseconds.
pub type Nanos = u64;

/// A millisecond.
pub const MILLISECOND: Nanos = 1_000_000;
/// A second.
pub const SECOND: Nanos = 1_000 * MILLISECOND;

/// The whole number of what was computed, in nanoseconds or whatever else; 0 for what is below.
#[expect(clippy::cast_sign_loss, reason = "the conversion saturates at 0, which is what is wanted")]
pub const fn whole(value: f64) -> u64 {
    value as u64
}
