//! The pinned maps of an earlier layout, as far as they are read.

use std::path::Path;

use anyhow::{Context, Result};
use throttle_common::{
    gcra::Ticks,
    hash::Secret,
    packet::Family,
    proven,
    records::{Counters, HealthClock, Limit, LimitTally, Region, Service, Slot, maps},
    speed::Timeline,
    table::WAYS,
};

use super::{
    counters::Tallies,
    layouts::{Head, Past, first_word, open, past},
};
use crate::{
    datapath::{
        Datapath,
        debts::{carry, carry_aggregates, owing},
        load::load_program,
        mapped::{MappedArray, bytes_of},
        moving::Moved,
        regions::{FAMILIES, Scale, keeps},
    },
    policy::{HeldLimit, Tenants},
};

/// The program that adds to counters, and what it answers where it did: `XDP_PASS`.
const PROGRAM: &str = "carry";
const ADDED: u32 = 2;

/// What an earlier layout's maps hold that outlives them.
pub(in crate::datapath) struct Earlier {
    /// Their layout.
    pub(in crate::datapath) layout: u64,
    /// The secret of their table, which places its sources.
    pub(in crate::datapath) secret: Secret,
    /// Sets of their table.
    pub(in crate::datapath) sets: u32,
    /// The revision of the policy in force there.
    pub(super) revision: u64,
    /// The limits in force there: names, prices and places.
    pub(in crate::datapath) limits: Vec<HeldLimit>,
    /// The services in force there: names and clocks.
    pub(in crate::datapath) services: Vec<Service>,
    /// What these clocks followed when this was opened; no agent writes them any more.
    pub(in crate::datapath) clocks: Vec<(u16, HealthClock)>,
    /// The tenants in force there.
    pub(in crate::datapath) tenants: Tenants,
    pub(super) buckets: MappedArray<[Slot; WAYS]>,
    aggregates: MappedArray<Ticks>,
    proven: MappedArray<proven::Line>,
    reasons: Tallies,
    tallies: Tallies,
    losses: Tallies,
    /// What the clock of a test showed.
    pub(in crate::datapath) test_clock: u64,
}

/// What layout pinned maps have, whether or not this build knows it.
pub(in crate::datapath) fn layout_of(directory: &Path) -> Result<u64> {
    Ok(Head::read(&open(directory, maps::CONTROL)?)?.layout)
}

impl Earlier {
    /// Opens the maps of a directory; `None` where their layout is none of the past that this build knows.
    pub(in crate::datapath) fn open(directory: &Path) -> Result<Option<Self>> {
        let head = Head::read(&open(directory, maps::CONTROL)?)?;
        let Some(shape) = past(head.layout) else { return Ok(None) };
        let map = |name| shape.open(directory, name);
        map(maps::CONTROL)?;
        let services = shape.services(directory, head.generation)?;
        Ok(Some(Self {
            layout: head.layout,
            secret: head.secret,
            sets: head.sets,
            revision: Past::revision(&map(maps::POLICIES)?, head.generation)?,
            limits: shape.limits(&map(maps::LIMITS)?, head.generation)?,
            clocks: shape.clocks(directory, &services)?,
            services,
            tenants: shape.tenants(directory, head.generation)?,
            buckets: MappedArray::new(&map(maps::BUCKETS)?)?,
            aggregates: MappedArray::new(&map(maps::AGGREGATES)?)?,
            proven: MappedArray::new(&map(maps::PROVEN)?)?,
            reasons: Tallies::new(map(maps::REASON_TALLIES)?)?,
            tallies: Tallies::new(map(maps::LIMIT_TALLIES)?)?,
            losses: Tallies::new(map(maps::LOSSES)?)?,
            test_clock: first_word(&map(maps::TEST_CLOCK)?)?,
        }))
    }

    /// Packets that its limits admitted so far.
    pub(super) fn admitted(&self) -> Result<u64> {
        /// The first word of a limit's counters in every layout.
        const _: () = assert!(std::mem::offset_of!(LimitTally, admitted) == 0);
        self.limits.iter().map(|held| Ok(self.tallies.sum(held.number.into())?[0])).sum()
    }

    /// Frames that its programs judged so far.
    pub(super) fn judged(&self) -> Result<u64> {
        (0..self.reasons.entries()).map(|index| Ok(self.reasons.sum(index)?[0])).sum()
    }

    /// Sources that owe something at an instant, in the limits' parts of the table.
    pub(super) fn busy(&self, now: u64) -> u64 {
        let limits = self.limits.iter().map(|held| held.record).filter(|limit| !limit.is_concurrency());
        let of_region = |limit: &Limit, region: Region| {
            let clock = self.clocks.iter().find(|(number, _)| *number == limit.clock);
            let reads = clock.map_or(Timeline::REAL, |(_, clock)| clock.timeline()).at(now);
            owing(self.buckets.run(region.base, region.extent()), limit, reads)
        };
        limits.flat_map(|limit| limit.regions().map(move |(_, region)| of_region(&limit, region))).sum()
    }

    /// Carries over what sources owe, in every region that a limit of the same name keeps; gives how many debts found
    /// no place.
    pub(super) fn carry_buckets(&self, datapath: &Datapath) -> u64 {
        let mut lost = 0;
        for (limit, region, scale) in self.kept(&datapath.limits()) {
            let (base, extent) = (region.base, region.extent());
            let (tables, scale) = (&datapath.tables, scale.up_to(datapath.most_owed(&limit)));
            // Its clock is the one that it had, or one whose speed nobody ever set.
            let reads = || datapath.reads(&limit);
            let buckets = [&self.buckets, &tables.buckets].map(|buckets| buckets.run(base, extent));
            lost += carry(buckets[0], buckets[1], &limit, &scale, reads);
            let aggregates = [&self.aggregates, &tables.aggregates].map(|aggregates| aggregates.run(base, extent));
            carry_aggregates(aggregates[0], aggregates[1], &limit, &scale, reads);
        }
        // No earlier layout keeps tenants apart.
        for new in datapath.limits().iter().map(|held| &held.record) {
            let old = self.limits.iter().map(|held| &held.record).find(|old| old.name == new.name);
            let moved = old.and_then(|old| Moved::between(old, new)).filter(|moved| moved.is_redivided);
            if let Some(moved) = moved {
                datapath.bring_home(&moved);
            }
        }
        lost
    }

    /// The regions that stay, and how debts in them are expressed under the limits in force now.
    fn kept(&self, next: &[HeldLimit]) -> Vec<(Limit, Region, Scale)> {
        let mut kept = Vec::new();
        for old in self.limits.iter().map(|held| &held.record) {
            let Some(new) = next.iter().map(|held| &held.record).find(|new| new.name == old.name) else { continue };
            // Connections that are open are counted anew, from the sockets that there are.
            if new.is_concurrency() {
                continue;
            }
            let families = FAMILIES.into_iter().filter(|&family: &Family| keeps(old, new, family));
            let scale = Scale::between(&old.terms(), &new.terms());
            kept.extend(families.map(|family| (*new, *new.region(family), scale)));
        }
        kept
    }

    /// Carries over who completed a handshake lately.
    pub(super) fn carry_proven(&self, datapath: &Datapath) -> Result<()> {
        let proven: MappedArray<proven::Line> = MappedArray::new(&super::map(&datapath.ebpf, maps::PROVEN)?)?;
        let now = datapath.now();
        for number in 0..self.proven.len().min(proven.len()) {
            for cell in self.proven.get(number).into_iter().filter(|&cell| cell != 0) {
                if let Some(place) = proven::carry(&proven.get(number), cell, now) {
                    proven.words(number)[place].store(cell, std::sync::atomic::Ordering::Relaxed);
                }
            }
        }
        Ok(())
    }

    /// Moves the counters over. No packet may count on the old ones any more; on the new ones they may.
    pub(super) fn move_counters(&self, datapath: &mut Datapath) -> Result<()> {
        load_program(&mut datapath.ebpf, PROGRAM).context("load the program that adds to counters")?;
        let program: &aya::programs::Xdp = datapath.ebpf.program(PROGRAM).context("no program")?.try_into()?;
        let add = |carried: &throttle_common::records::Carried| {
            use aya::programs::{TestRun as _, TestRunOptions};
            let frame = bytes_of(std::slice::from_ref(carried));
            let result = program.test_run(TestRunOptions { data_in: Some(frame), ..TestRunOptions::default() })?;
            anyhow::ensure!(result.return_value == ADDED, "there is no counter {}", carried.index);
            Ok(())
        };
        for index in 0..self.reasons.entries() {
            self.reasons.take(Counters::Reasons, index, add)?;
        }
        let limits = datapath.limits();
        for old in &self.limits {
            // A limit of another name that has this number since counts for itself.
            if limits.iter().any(|new| new.number == old.number && new.record.name == old.record.name) {
                self.tallies.take(Counters::Limits, old.number.into(), add)?;
            }
        }
        self.losses.take(Counters::Losses, 0, add)
    }
}
