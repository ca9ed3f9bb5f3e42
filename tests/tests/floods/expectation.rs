//! What an unproven source may expect in a flood: the same arithmetic on its one set and its one aggregate, fed with
//! random arrivals as the flood brings them, again and again.

use std::cell::Cell;
use throttle_common::{
    gcra::{self, Ticks},
    records::{Limit, Slot},
    table::{Check, Commit, OPEN_WAYS, Request, Set, WAYS, check, commit},
};
use throttle_tests::frames::Dice;

/// How often the flood is played.
const PLAYS: u32 = 400;

/// A flood as it was.
pub(crate) struct Flood {
    /// Frames from random sources.
    pub frames: u64,
    /// Nanoseconds from the first to the last.
    pub span: u64,
    /// Frames of the honest source, the first at the beginning.
    pub honest: u64,
    /// Nanoseconds between them.
    pub interval: u64,
}

/// The mean number of the honest source's frames that come through, and its standard deviation from play to play.
///
/// The flood falls on each set at random, and so does what overflows on each aggregate; the aggregate of the honest
/// source is fed by sources all over the region, as many as overflow from one set on average.
pub(crate) fn expect(limit: &Limit, flood: &Flood) -> (f64, f64) {
    let mut dice = Dice::new(7);
    let plays: Vec<f64> = (0..PLAYS).map(|_| f64::from(play(limit, flood, &mut dice))).collect();
    let mean = plays.iter().sum::<f64>() / f64::from(PLAYS);
    let variance = plays.iter().map(|through| (through - mean).powi(2)).sum::<f64>() / f64::from(PLAYS);
    (mean, variance.sqrt())
}

#[derive(Default)]
struct OneSet([Cell<Slot>; WAYS]);

impl Set for OneSet {
    fn key(&self, way: usize) -> u64 {
        self.0[way].get().key
    }
    fn tat(&self, way: usize) -> Ticks {
        self.0[way].get().tat
    }
    fn set_key(&self, way: usize, key: u64) {
        self.0[way].set(Slot { key, ..self.0[way].get() });
    }
    fn swap_tat(&self, way: usize, old: Ticks, tat: Ticks) -> bool {
        let slot = self.0[way].get();
        self.0[way].set(Slot { tat: if slot.tat == old { tat } else { slot.tat }, ..slot });
        slot.tat == old
    }
    fn refund(&self, way: usize, cost: Ticks) {
        let slot = self.0[way].get();
        self.0[way].set(Slot { tat: slot.tat.wrapping_sub(cost), ..slot });
    }
}

/// Another set of the region stands for all that feed the aggregate: what overflows from it, the aggregate gets.
fn play(limit: &Limit, flood: &Flood, dice: &mut Dice) -> u32 {
    let (own, other) = (OneSet::default(), OneSet::default());
    let mut aggregate: Ticks = gcra::ticks(1);
    let cost = limit.price.cost(1);
    let mean_gap = flood.span as f64 * f64::from(limit.v4.sets) / flood.frames as f64;
    let (mut next_own, mut next_other) = (gap(mean_gap, dice), gap(mean_gap, dice));
    let (mut asked, mut through, mut stranger) = (0, 0, 1u64);
    while asked < flood.honest {
        let due = (flood.interval * asked) as f64;
        let now = due.min(next_own).min(next_other);
        #[expect(clippy::cast_sign_loss, reason = "time runs forward from 0")]
        let ticks = gcra::ticks(now as u64 + 1);
        let request = |key| Request { key, now: ticks, cost, depth: limit.depth, ways: OPEN_WAYS };
        let mut share = |now| gcra::admit(aggregate, now, cost, limit.depth).map(|next| aggregate = next).is_some();
        stranger += 1;
        if now >= due {
            asked += 1;
            let request = request(u64::MAX);
            through += u32::from(match admit(&own, &request) {
                Commit::Charged(_) => true,
                Commit::Exceeded => false,
                Commit::Full => share(request.now),
            });
        } else if now >= next_own {
            next_own += gap(mean_gap, dice);
            admit(&own, &request(stranger));
        } else {
            next_other += gap(mean_gap, dice);
            let request = request(stranger);
            if admit(&other, &request) == Commit::Full {
                share(request.now);
            }
        }
    }
    through
}

fn admit(set: &OneSet, request: &Request) -> Commit {
    let seen = check(set, request);
    if seen == Check::Exceeded { Commit::Exceeded } else { commit(set, request, seen) }
}

/// The time to the next arrival of a Poisson process.
fn gap(mean: f64, dice: &mut Dice) -> f64 {
    let uniform = ((dice.roll() >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
    -mean * uniform.ln()
}
