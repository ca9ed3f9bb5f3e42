//! What the kernel has measured of the answers of services.

use std::{collections::BTreeSet, time::Duration};

use anyhow::{Context, Result};
use aya::{
    Ebpf,
    maps::{Map, MapData, MapError, PerCpuHashMap, PerCpuValues},
};
use throttle_common::{
    exchanges::{BUCKETS, Exchanges, begins, bucket as bucket_of},
    records::{Service, maps},
    words::Speaks,
};

use super::{Datapath, tables::map};

/// The map of measurements, by the numbers of health clocks.
pub(super) struct Measured(PerCpuHashMap<MapData, u32, Exchanges>);

impl Measured {
    pub(super) fn new(ebpf: &Ebpf) -> Result<Self> {
        Ok(Self(PerCpuHashMap::try_from(Map::PerCpuHashMap(map(ebpf, maps::ANSWERS)?))?))
    }
}

/// What was measured of a service since its measuring began: of the connections that are sampled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answers(Exchanges);

impl Answers {
    /// Nothing.
    pub const NONE: Self = Self(Exchanges::NONE);

    /// Requests that began.
    pub const fn requests(&self) -> u64 {
        self.0.requests
    }

    /// Answers that began.
    pub const fn answers(&self) -> u64 {
        self.0.answers
    }

    /// Requests that the service answered by a reset.
    pub const fn resets(&self) -> u64 {
        self.0.resets
    }

    /// How far requests are ahead of what became of them: of those whose end went unseen, for good.
    pub const fn waiting(&self) -> i64 {
        let Exchanges { requests, answers, ended, .. } = self.0;
        requests.wrapping_sub(answers).wrapping_sub(ended).cast_signed()
    }

    /// What came after an earlier reading.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let (now, before) = (&self.0, &earlier.0);
        let mut took = now.took;
        took.iter_mut().zip(before.took).for_each(|(now, before)| *now = now.wrapping_sub(before));
        Self(Exchanges {
            requests: now.requests.wrapping_sub(before.requests),
            answers: now.answers.wrapping_sub(before.answers),
            resets: now.resets.wrapping_sub(before.resets),
            ended: now.ended.wrapping_sub(before.ended),
            took,
        })
    }

    /// The time to first byte of half of the answers; `None` where there are none.
    pub fn median(&self) -> Option<Duration> {
        self.percentile(50.0)
    }

    /// The time within which so many percent of the answers began: within a tenth of it, because times are counted in
    /// buckets, and it is taken that they lie evenly in each.
    pub fn percentile(&self, percent: f64) -> Option<Duration> {
        let all: u64 = self.0.took.iter().map(|&count| u64::from(count)).sum();
        if all == 0 {
            return None;
        }
        let wanted = percent.clamp(0.0, 100.0) / 100.0 * all as f64;
        let mut before = 0.0;
        for (bucket, count) in self.0.took.iter().map(|&count| f64::from(count)).enumerate() {
            if count > 0.0 && before + count >= wanted {
                let (from, to) = (begins(bucket) as f64, begins(bucket + 1) as f64);
                let within = (to - from) * ((wanted - before) / count).clamp(0.0, 1.0);
                return Some(Duration::from_nanos(crate::health::whole(from + within)));
            }
            before += count;
        }
        Some(Duration::from_nanos(begins(BUCKETS)))
    }

    /// How many answers began within so long, as far as buckets tell.
    pub fn within(&self, time: Duration) -> u64 {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let counts = self.0.took.iter().enumerate();
        let below = counts.filter(|(bucket, _)| begins(bucket + 1) <= nanos || bucket_of(nanos) == *bucket);
        below.map(|(_, &count)| u64::from(count)).sum()
    }

    fn add(&mut self, part: &Exchanges) {
        let sum = &mut self.0;
        sum.requests += part.requests;
        sum.answers += part.answers;
        sum.resets += part.resets;
        sum.ended += part.ended;
        sum.took.iter_mut().zip(part.took).for_each(|(sum, part)| *sum = sum.wrapping_add(part));
    }
}

impl Datapath {
    /// What was measured of a service, by the number of its clock, since that was begun; it only grows. Nothing of one that
    /// is not measured.
    pub fn answers(&self, clock: u16) -> Result<Answers> {
        let mut sum = Answers::NONE;
        match self.answers.0.get(&clock.into(), 0) {
            Ok(parts) => parts.iter().for_each(|part| sum.add(part)),
            Err(MapError::KeyNotFound) => {}
            Err(error) => return Err(error).context("read what was measured of a service"),
        }
        Ok(sum)
    }

    /// Of how many connections one is measured.
    pub fn sampled(&self) -> u64 {
        1 << self.policy().sample_shift
    }

    /// Before a policy is put in force: begins to count what is measured of its services. What was counted of others stays
    /// until the policy after it, because packets may be under the old one.
    pub(super) fn begin_measuring(&mut self, next: &[Service]) -> Result<()> {
        let in_force = self.services();
        let (measured, wanted) = (measured(in_force.iter().map(|(_, service)| service)), measured(next));
        let held = self.answers.0.keys().collect::<Result<BTreeSet<u32>, _>>().context("list what is measured")?;
        for gone in held.iter().filter(|clock| !measured.contains(clock) && !wanted.contains(clock)) {
            self.answers.0.remove(gone).context("forget what was measured")?;
        }
        let cpus = aya::util::nr_cpus().map_err(|(file, error)| anyhow::anyhow!("read {file}: {error}"))?;
        for &clock in wanted.difference(&measured) {
            let nothing = PerCpuValues::try_from(vec![Exchanges::NONE; cpus])?;
            self.answers.0.insert(clock, nothing, 0).context("begin to count what is measured of a service")?;
        }
        Ok(())
    }
}

/// The clocks of services that are measured.
fn measured<'s>(services: impl IntoIterator<Item = &'s Service>) -> BTreeSet<u32> {
    let measured = services.into_iter().filter(|service| service.measures != Speaks::Opaque as u8);
    measured.map(|service| service.clock.into()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use throttle_common::exchanges::bucket;

    fn answers(times: &[u64]) -> Answers {
        let mut exchanges = Exchanges::NONE;
        for &nanos in times {
            exchanges.answers += 1;
            exchanges.took[bucket(nanos)] += 1;
        }
        Answers(exchanges)
    }

    #[test]
    fn a_percentile_lies_within_a_bucket_of_the_truth() {
        let times: Vec<u64> = (1..=1000).map(|n| n * 100_000).collect();
        let answers = answers(&times);
        for (percent, truth) in [(50.0, 50_000_000), (99.0, 99_000_000), (1.0, 1_000_000), (100.0, 100_000_000)] {
            let said = answers.percentile(percent).unwrap().as_nanos() as u64;
            assert!(said.abs_diff(truth) * 8 < truth, "{percent}: {said} of {truth}");
        }
        assert_eq!(Answers::NONE.median(), None);
    }

    #[test]
    fn those_within_a_time_are_told_to_the_bucket() {
        let answers = answers(&[1_000_000, 5_000_000, 249_000_000, 400_000_000, 90_000_000_000]);
        let within = |millis| answers.within(Duration::from_millis(millis));
        assert_eq!((within(0), within(2), within(250), within(1_000)), (0, 1, 3, 4));
    }

    #[test]
    fn what_came_since_is_what_was_not_there_before() {
        let (before, both) = (answers(&[5_000_000]), answers(&[5_000_000, 80_000_000]));
        let since = both.since(&before);
        assert_eq!(since, answers(&[80_000_000]));
        assert!(since.median().unwrap() > Duration::from_millis(60));
    }
}
