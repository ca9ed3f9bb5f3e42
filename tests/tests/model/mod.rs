//! What the kernel program should do, written anew in user space on the shared arithmetic: one packet at a time, with
//! the buckets in an ordinary vector.

use anyhow::{Result, ensure};
use std::{cell::Cell, collections::BTreeMap};
use throttle_common::{
    gcra::{self, Ticks},
    hash::Secret,
    packet::{Packet, parse_bytes},
    records::{Limit, LimitTally, Slot, SourceFlags, Tally, maps},
    table::{Check, Commit, OPEN_WAYS, Request, Set, WAYS, check, commit},
    words::{Outcome, Overflow, Reason, Unit},
};
use throttle_tests::program::{Program, Tallies};

/// A policy whose limits are all the host's, and what they remember.
pub(crate) struct Model {
    secret: Secret,
    observe: bool,
    limits: Vec<(u16, Limit, LimitTally)>,
    known: Vec<ipnet::IpNet>,
    buckets: Vec<Slots>,
    aggregates: Vec<Ticks>,
    tallies: Tallies,
}

type Slots = [Cell<Slot>; WAYS];

struct SlotsOf<'a>(&'a Slots);

impl Set for SlotsOf<'_> {
    fn key(&self, way: usize) -> u64 {
        self.0[way].get().key
    }
    fn tat(&self, way: usize) -> Ticks {
        self.0[way].get().tat
    }
    fn swap_key(&self, way: usize, old: u64, key: u64) -> bool {
        let slot = self.0[way].get();
        self.0[way].set(Slot { key, ..slot });
        slot.key == old
    }
    fn swap_tat(&self, way: usize, old: Ticks, tat: Ticks) -> bool {
        let slot = self.0[way].get();
        self.0[way].set(Slot { tat, ..slot });
        slot.tat == old
    }
    fn refund(&self, way: usize, cost: Ticks) {
        let slot = self.0[way].get();
        self.0[way].set(Slot { tat: slot.tat - cost, ..slot });
    }
}

/// Where a limit would be charged.
enum Charge {
    Slot(u32, Check),
    Aggregate(u32, Ticks),
    Nothing,
}

impl Model {
    /// The policy in force, with the table as it is.
    pub(crate) fn of(program: &Program) -> Result<Self> {
        let control = program.control()?;
        let buckets = program.map::<SlotsRecord>(maps::BUCKETS)?;
        let aggregates = program.map::<Ticks>(maps::AGGREGATES)?;
        let mut limits = Vec::new();
        let mut held = program.datapath.layout().limits;
        held.sort_by_key(|held| program.position(held.number));
        for held in held {
            limits.push((held.number, held.record, program.datapath.limit_tally(held.number)?));
        }
        let end = limits.iter().flat_map(|(_, limit, _)| [limit.v4, limit.v6]).map(|region| region.base + region.sets);
        let end = end.max().unwrap_or(0);
        Ok(Self {
            secret: control.secret,
            observe: program.observes(),
            limits,
            known: program.known(),
            buckets: (0..end).map(|set| Ok(buckets.get(&set, 0)?.0.map(Cell::new))).collect::<Result<_>>()?,
            aggregates: (0..end).map(|set| Ok(aggregates.get(&set, 0)?)).collect::<Result<_>>()?,
            tallies: BTreeMap::new(),
        })
    }
}
