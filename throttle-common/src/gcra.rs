//! The token bucket, as the generic cell rate algorithm (ITU-T I.371, virtual scheduling).
//!
//! A bucket is one number, the theoretical arrival time (TAT): the instant at which it is full again. In comes a TAT,
//! `now` and a cost, out goes the new TAT or the refusal. The kernel programs, the agent's `explain` and the tests
//! all call this.
//!
//! Times are [`Ticks`]: 1/256 ns on the limit's clock, which wraps after 2.28 years; comparisons are therefore by
//! difference, and only a difference that a bucket can owe counts as one.

/// An instant or a span in units of 1/256 ns, modulo 2^64. Whole nanoseconds would be off by 1 % at 30 million a second.
pub type Ticks = u64;

/// The TAT of a bucket that nobody has charged, as an array is when it is new: it owes nothing at any time. The one instant
/// in 2.28 years that reads the same is forgiven.
pub const UNUSED: Ticks = 0;

/// Ticks per nanosecond.
pub const TICKS_PER_NANO: u64 = 256;

/// The longest span a bucket may owe, 24 h: so far below the 2.28 years of the clock that the two are never confused.
pub const MAX_DEPTH: Ticks = 24 * 3600 * 1_000_000_000 * TICKS_PER_NANO;

/// The clock's reading as ticks.
#[inline(always)]
pub const fn ticks(nanos: u64) -> Ticks {
    nanos.wrapping_mul(TICKS_PER_NANO)
}

/// How much the bucket owes at `now`: 0 when it is full, and when it was [`UNUSED`].
///
/// No bucket owes more than its depth, so what lies further ahead is the past of a clock that wraps: nothing is owed there
/// either.
#[inline(always)]
pub const fn debt(tat: Ticks, now: Ticks) -> Ticks {
    let ahead = tat.wrapping_sub(now);
    if tat != UNUSED && ahead <= 2 * MAX_DEPTH { ahead } else { 0 }
}

/// Whether a bucket was charged so long ago, half a turn of the clock, that it is to be marked [`UNUSED`] before what it owed
/// comes to lie ahead again.
pub const fn is_stale(tat: Ticks, now: Ticks) -> bool {
    let ahead = tat.wrapping_sub(now);
    tat != UNUSED && ahead > 2 * MAX_DEPTH && ahead <= Ticks::MAX / 2
}

/// Admits `cost` if the bucket, `depth` deep, has room for it, and gives the TAT to store.
///
/// Over any window W it admits at most `depth + W` worth of cost: for packets of cost T that is
/// `1 + floor((tau + W) / T)` with `tau = depth - T`.
#[inline(always)]
pub const fn admit(tat: Ticks, now: Ticks, cost: Ticks, depth: Ticks) -> Option<Ticks> {
    let owed = debt(tat, now) + cost;
    if owed > depth { None } else { Some(now.wrapping_add(owed)) }
}

/// Whether a bucket that has `cost` added to it, unseen, is one that was charged for it: it had room, and owed something.
///
/// One that owed nothing the clock has passed by. It counts as charged at the instant at which that happened, if `now` is at
/// most so `late`; of what begins further back a part is past, and it was not charged.
#[inline(always)]
pub const fn adds_up(tat: Ticks, now: Ticks, cost: Ticks, depth: Ticks, late: Ticks) -> bool {
    let now = if now.wrapping_sub(tat) <= late { tat } else { now };
    match admit(tat, now, cost, depth) {
        Some(next) => next == tat.wrapping_add(cost),
        None => false,
    }
}

/// How long until `cost` is admitted, if nothing else is charged; 0 when it would be now. A cost above `depth` never is.
pub const fn wait(tat: Ticks, now: Ticks, cost: Ticks, depth: Ticks) -> Ticks {
    (debt(tat, now) + cost).saturating_sub(depth)
}

/// The price of units: `cost(n) = n * mantissa >> shift` ticks.
///
/// The mantissa is as large as fits so that even 0.08 ns a byte (100 Gbit/s) is exact to 2^-30.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Price {
    /// So small that the product with the largest number of units fits in 64 bits.
    pub mantissa: u64,
    /// Bits to drop from the product, 0 to 63.
    pub shift: u64,
}

impl Price {
    /// The price of one unit where `amount` units are due every `period_nanos` and at most `units_max` are charged at
    /// once. `None` where an argument is 0 or one unit would take longer than [`MAX_DEPTH`].
    pub const fn of_rate(amount: u64, period_nanos: u64, units_max: u32) -> Option<Self> {
        if amount == 0 || period_nanos == 0 || units_max == 0 {
            return None;
        }
        let span = period_nanos as u128 * TICKS_PER_NANO as u128;
        if span / amount as u128 > MAX_DEPTH as u128 {
            return None;
        }
        let largest = u64::MAX as u128 / units_max as u128;
        // One that fits for sure, and then the largest; the span fits 72 bits, so 55 more leave room in 128.
        let mut shift = match (largest / (span / amount as u128 + 2)).checked_ilog2() {
            Some(fits) if fits < 55 => fits as u64,
            Some(_) => 55,
            None => 0,
        };
        while shift < 55 && ((span << (shift + 1)) + amount as u128 / 2) / amount as u128 <= largest {
            shift += 1;
        }
        let mantissa = ((span << shift) + amount as u128 / 2) / amount as u128;
        if mantissa > largest { None } else { Some(Self { mantissa: mantissa as u64, shift }) }
    }

    /// The cost of `units`, at most the `units_max` that the price was made for. Even, so that every bucket is, and
    /// rounded down, so that a burst holds all its units.
    #[inline(always)]
    pub const fn cost(self, units: u32) -> Ticks {
        (units as u64).wrapping_mul(self.mantissa) >> self.shift & !1
    }

    /// The depth of a bucket that holds `burst` units, or `None` where that is more than [`MAX_DEPTH`].
    pub const fn depth(self, burst: u64) -> Option<Ticks> {
        let depth = (burst as u128 * self.mantissa as u128) >> self.shift;
        if depth > MAX_DEPTH as u128 { None } else { Some(depth as Ticks) }
    }
}

#[cfg(test)]
#[path = "gcra_tests.rs"]
mod tests;
