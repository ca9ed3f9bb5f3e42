//! Chance from a seed: SplitMix64 (Steele, Lea and Flood, OOPSLA 2014), and what is drawn by it.

use throttle_agent::health::{Nanos, whole};

/// A source of chance.
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    /// One whose draws all follow from the seed.
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Any number.
    pub const fn any(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Evenly from 0 (included) to 1 (excluded).
    pub fn unit(&mut self) -> f64 {
        (self.any() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Whether something of such a probability happens.
    pub fn happens(&mut self, probability: f64) -> bool {
        self.unit() < probability
    }

    /// A span that is exponential with such a mean.
    pub fn exponential(&mut self, mean: Nanos) -> Nanos {
        whole(-(1.0 - self.unit()).ln() * mean as f64)
    }

    /// Normal with mean 0 and deviation 1 (Box and Muller).
    pub fn normal(&mut self) -> f64 {
        (-2.0 * (1.0 - self.unit()).ln()).sqrt() * (std::f64::consts::TAU * self.unit()).cos()
    }
}
