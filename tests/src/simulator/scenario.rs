//! What a simulated server is and goes through.

use super::dice::Dice;
use throttle_agent::health::{MILLISECOND, Nanos, SECOND, whole};

/// How long a request occupies a worker: a mean of [`MEAN`] in all cases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// Always the same.
    Constant,
    /// Exponential.
    Exponential,
    /// Nine of ten take 3 ms, one 53 ms.
    Bimodal,
    /// Pareto with exponent 1.5, cut at 200 ms: one in a thousand takes a hundred times as long as the median half.
    HeavyTailed,
}

/// The mean work of a request at full capacity.
pub const MEAN: Nanos = 8 * MILLISECOND;
/// Requests that are worked on at once.
pub const WORKERS: u32 = 8;
/// What the server does in a second at full capacity.
pub const CAPACITY: f64 = WORKERS as f64 * SECOND as f64 / MEAN as f64;
/// Clients want their answer within this; a later one is no good one.
pub const OBJECTIVE: Nanos = 250 * MILLISECOND;
/// And wait so long for it at most. The server does not know when they give up.
pub const TIMEOUT: Nanos = SECOND;
/// Then, or when they are refused, they try again so many times.
pub const RETRIES: u8 = 3;
/// For the first time after so long, and twice as long each time.
pub const BACKOFF: Nanos = 100 * MILLISECOND;

/// A time of constant load and capacity.
#[derive(Clone, Copy, Debug)]
pub struct Phase {
    /// What it is.
    pub name: &'static str,
    /// How long it lasts.
    pub seconds: u64,
    /// New requests, as a share of the full capacity.
    pub load: f64,
    /// What is left of the capacity.
    pub capacity: f64,
}

const fn phase(name: &'static str, seconds: u64, load: f64, capacity: f64) -> Phase {
    Phase { name, seconds, load, capacity }
}

/// The scenario that every limit goes through.
pub const PHASES: [Phase; 6] = [
    phase("0.7x", 20, 0.7, 1.0),
    phase("2x", 30, 2.0, 1.0),
    phase("0.9x at 40 % capacity", 30, 0.9, 0.4),
    phase("0.9x, restored", 30, 0.9, 1.0),
    phase("5x", 30, 5.0, 1.0),
    phase("back to 0.7x", 20, 0.7, 1.0),
];

/// An overload of ten minutes, cut where drift shows.
pub const LONG: [Phase; 6] = [
    phase("0.7x", 20, 0.7, 1.0),
    phase("2x, first 30 s", 30, 2.0, 1.0),
    phase("2x, to 3 min", 150, 2.0, 1.0),
    phase("2x, to 6 min", 180, 2.0, 1.0),
    phase("2x, to 10 min", 240, 2.0, 1.0),
    phase("back to 0.7x", 30, 0.7, 1.0),
];

impl Work {
    /// How long one request takes at full capacity.
    pub fn draw(self, dice: &mut Dice) -> Nanos {
        match self {
            Self::Constant => MEAN,
            Self::Exponential => dice.exponential(MEAN),
            Self::Bimodal => {
                if dice.happens(0.1) {
                    53 * MILLISECOND
                } else {
                    3 * MILLISECOND
                }
            }
            Self::HeavyTailed => {
                // The least time makes the mean what it is: with the exponent 1.5 and the cut, 3 least (1 - sqrt(least/cut))
                // / (1 - (least/cut)^1.5).
                const LEAST: f64 = 3.0357;
                const CUT: f64 = 200.0;
                let cut_off = 1.0 - (LEAST / CUT).powf(1.5);
                let millis = LEAST / (1.0 - dice.unit() * cut_off).powf(1.0 / 1.5);
                whole(millis * MILLISECOND as f64)
            }
        }
    }
}

/// What is under way: an attempt of a client, by its number, and when it was admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Job {
    pub(super) client: u32,
    pub(super) attempt: u8,
    pub(super) admitted: Nanos,
}
