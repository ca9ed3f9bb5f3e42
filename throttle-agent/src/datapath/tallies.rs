//! What the programs counted, summed over the CPUs.

use anyhow::Result;
use aya::{
    Ebpf, Pod,
    maps::{MapData, PerCpuArray, PerCpuValues},
};
use throttle_common::{
    records::{LimitTally, Losses, OUTCOMES, PageTally, PenaltyTally, Tally, maps},
    words::{Outcome, Reason},
};

use super::{Datapath, tables::map};

/// The per-CPU counters.
pub(super) struct Tallies {
    reasons: PerCpuArray<MapData, Tally>,
    limits: PerCpuArray<MapData, LimitTally>,
    losses: PerCpuArray<MapData, Losses>,
    pages: PerCpuArray<MapData, PageTally>,
    penalties: PerCpuArray<MapData, PenaltyTally>,
}

impl Tallies {
    pub(super) fn new(ebpf: &Ebpf) -> Result<Self> {
        Ok(Self {
            reasons: open(ebpf, maps::REASON_TALLIES)?,
            limits: open(ebpf, maps::LIMIT_TALLIES)?,
            losses: open(ebpf, maps::LOSSES)?,
            pages: open(ebpf, maps::PAGE_TALLIES)?,
            penalties: open(ebpf, maps::PENALTY_TALLIES)?,
        })
    }

    /// Starts a limit's count from zero, before its number is used.
    pub(super) fn reset_limit(&mut self, number: u16) -> Result<()> {
        let zero = vec![LimitTally::default(); self.limits.get(&u32::from(number), 0)?.len()];
        Ok(self.limits.set(number.into(), PerCpuValues::try_from(zero)?, 0)?)
    }
}

fn open<T: Pod>(ebpf: &Ebpf, name: &str) -> Result<PerCpuArray<MapData, T>> {
    let map = map(ebpf, name)?;
    Ok(PerCpuArray::try_from(aya::maps::Map::PerCpuArray(map))?)
}

impl Datapath {
    /// Frames by reason and outcome, of all that occurred. Their sum is the frames that the programs saw.
    pub fn reason_tallies(&self) -> Result<Vec<(Reason, Outcome, Tally)>> {
        let mut tallies = Vec::new();
        for &reason in Reason::ALL {
            for &outcome in Outcome::ALL {
                let index = reason as u32 * OUTCOMES + outcome as u32;
                let mut sum = Tally::default();
                self.tallies.reasons.get(&index, 0)?.iter().for_each(|part| add(&mut sum, part));
                if sum != Tally::default() {
                    tallies.push((reason, outcome, sum));
                }
            }
        }
        Ok(tallies)
    }

    /// What one limit did since it got its number.
    pub fn limit_tally(&self, number: u16) -> Result<LimitTally> {
        let mut sum = LimitTally::default();
        for part in self.tallies.limits.get(&number.into(), 0)?.iter() {
            add(&mut sum.admitted, &part.admitted);
            add(&mut sum.refused, &part.refused);
            add(&mut sum.observed, &part.observed);
            add(&mut sum.spared, &part.spared);
            add(&mut sum.overflowed, &part.overflowed);
        }
        Ok(sum)
    }

    /// What was sent in place of services that have pages.
    pub fn page_tally(&self) -> Result<PageTally> {
        let mut sum = PageTally::default();
        for part in self.tallies.pages.get(&0, 0)?.iter() {
            sum.greeted += part.greeted;
            sum.told += part.told;
            sum.cut += part.cut;
            sum.acknowledged += part.acknowledged;
        }
        Ok(sum)
    }

    /// What became of refusals by limits that have penalties.
    pub fn penalty_tally(&self) -> Result<PenaltyTally> {
        let mut sum = PenaltyTally::default();
        for part in self.tallies.penalties.get(&0, 0)?.iter() {
            sum.told += part.told;
            sum.withheld += part.withheld;
            sum.lost += part.lost;
            sum.unproven += part.unproven;
            sum.uncounted += part.uncounted;
        }
        Ok(sum)
    }

    /// What could not be reported or answered.
    pub fn losses(&self) -> Result<Losses> {
        let mut sum = Losses::default();
        for part in self.tallies.losses.get(&0, 0)?.iter() {
            sum.events_withheld += part.events_withheld;
            sum.events_lost += part.events_lost;
            sum.answers_withheld += part.answers_withheld;
            sum.answers_undue += part.answers_undue;
        }
        Ok(sum)
    }
}

fn add(sum: &mut Tally, part: &Tally) {
    sum.packets += part.packets;
    sum.bytes += part.bytes;
}
