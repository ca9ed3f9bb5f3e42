//! What an unproven source may expect in a flood: the same arithmetic on its one set and its one aggregate, fed with
//! random arrivals as the flood brings them, again and again.

use throttle_common::{
    gcra::{self, Ticks},
    packet::Family,
    records::Limit,
    table::{Commit, OPEN_WAYS, Request},
};
use throttle_tests::{frames::Dice, set::Slots};

/// How many frames of honest sources are played, in as many floods as that takes.
const FRAMES: u64 = 100_000;

/// A flood as it was.
pub(crate) struct Flood<'a> {
    /// Of which sources.
    pub family: Family,
    /// How many frames had come after how many nanoseconds, from nothing on: its pace wavers where others want the CPU.
    pub pace: &'a [(u64, u64)],
    /// How many honest sources there were, of which no two share a set or an aggregate.
    pub honest: u64,
    /// Nanoseconds between the frames of each.
    pub interval: u64,
}

impl Flood<'_> {
    fn span(&self) -> u64 {
        self.pace.last().map_or(0, |&(nanos, _)| nanos)
    }

    /// When so many frames had come; never, if it was over before.
    fn time_of(&self, frames: f64) -> f64 {
        let next = self.pace.partition_point(|&(_, come)| (come as f64) < frames);
        let (Some(&(after, more)), Some(&(before, less))) = (self.pace.get(next), self.pace.get(next.wrapping_sub(1)))
        else {
            return f64::INFINITY;
        };
        before as f64 + (after - before) as f64 * (frames - less as f64) / (more - less) as f64
    }
}

/// The mean share of the honest sources' frames that come through, and the standard deviation of the difference between
/// that and a flood.
///
/// The flood falls on each set at random, and so does what overflows on each aggregate; the aggregate of an honest
/// source is fed by sources all over the region, as many as overflow from one set on average.
pub(crate) fn expect(limit: &Limit, flood: &Flood<'_>) -> (f64, f64) {
    let mut dice = Dice::new(7);
    let plays = (FRAMES * flood.interval / flood.span()).clamp(200, 4_000);
    let shares: Vec<f64> = (0..plays).map(|_| play(limit, flood, &mut dice)).collect();
    let plays = plays as f64;
    let mean = shares.iter().sum::<f64>() / plays;
    let variance = shares.iter().map(|share| (share - mean).powi(2)).sum::<f64>() / plays;
    // The mean of the plays is itself off by a little.
    (mean, (variance * (1.0 / flood.honest as f64 + 1.0 / plays)).sqrt())
}

/// One honest source, whose frames begin at random. Another set of the region stands for all that feed the aggregate:
/// what overflows from it, the aggregate gets.
fn play(limit: &Limit, flood: &Flood<'_>, dice: &mut Dice) -> f64 {
    let (own, other) = (Slots::default(), Slots::default());
    let mut aggregate: Ticks = gcra::ticks(1);
    let cost = limit.price.cost(1);
    let mut due = flood.interval as f64 * dice.fraction();
    // Of the frames that come, one in so many falls on a set, as in a Poisson process.
    let sets = f64::from(limit.region(flood.family).sets);
    let mut gap = || -sets * dice.fraction().ln();
    let (mut own_frames, mut other_frames) = (gap(), gap());
    let (mut next_own, mut next_other) = (flood.time_of(own_frames), flood.time_of(other_frames));
    let (mut asked, mut through, mut stranger) = (0, 0, 1u64);
    while due < flood.span() as f64 {
        let now = due.min(next_own).min(next_other);
        #[expect(clippy::cast_sign_loss, reason = "time runs forward from 0")]
        let ticks = gcra::ticks(now as u64 + 1);
        let request = |key| Request { key, now: ticks, cost, depth: limit.depth, ways: OPEN_WAYS };
        let mut share = |now| gcra::admit(aggregate, now, cost, limit.depth).map(|next| aggregate = next).is_some();
        stranger += 1;
        if now >= due {
            due += flood.interval as f64;
            asked += 1;
            let request = request(u64::MAX);
            through += u32::from(match own.admit(&request) {
                Commit::Charged(_) => true,
                Commit::Exceeded | Commit::Contended(_) => false,
                Commit::Full => share(request.now),
            });
        } else if now >= next_own {
            own_frames += gap();
            next_own = flood.time_of(own_frames);
            own.admit(&request(stranger));
        } else {
            other_frames += gap();
            next_other = flood.time_of(other_frames);
            let request = request(stranger);
            if other.admit(&request) == Commit::Full {
                share(request.now);
            }
        }
    }
    f64::from(through) / f64::from(asked)
}
