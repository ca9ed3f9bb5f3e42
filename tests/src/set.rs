//! A set of the table of buckets in user space, for one thread: the shared arithmetic runs on it as it does on the
//! kernel's memory.

use std::cell::Cell;
use throttle_common::{
    gcra::Ticks,
    records::Slot,
    table::{Commit, Look, Request, Set, WAYS, check, commit},
};

/// The slots of one set.
#[derive(Clone, Debug, Default)]
pub struct Slots([Cell<Slot>; WAYS]);

impl Slots {
    /// A set that holds what was read.
    pub fn holding(slots: [Slot; WAYS]) -> Self {
        Self(slots.map(Cell::new))
    }

    /// What it holds.
    pub fn held(&self) -> [Slot; WAYS] {
        self.0.each_ref().map(Cell::get)
    }

    /// Judges and charges a packet.
    pub fn admit(&self, request: &Request) -> Commit {
        commit(self, request, check(self, request))
    }
}

/// A set that is looked at through a reference, as one of two.
#[derive(Clone, Copy, Debug)]
pub struct Shared<'s>(pub &'s Slots);

impl Look for Shared<'_> {
    fn key(&self, way: usize) -> u64 {
        self.0.key(way)
    }
    fn tat(&self, way: usize) -> Ticks {
        self.0.tat(way)
    }
}

impl Set for Shared<'_> {
    fn set_key(&self, way: usize, key: u64) {
        self.0.set_key(way, key);
    }
    fn swap_tat(&self, way: usize, old: Ticks, tat: Ticks) -> bool {
        self.0.swap_tat(way, old, tat)
    }
    fn refund(&self, way: usize, cost: Ticks) {
        self.0.refund(way, cost);
    }
}

impl Look for Slots {
    fn key(&self, way: usize) -> u64 {
        self.0[way].get().key
    }
    fn tat(&self, way: usize) -> Ticks {
        self.0[way].get().tat
    }
}

impl Set for Slots {
    fn set_key(&self, way: usize, key: u64) {
        self.0[way].set(Slot { key, ..self.0[way].get() });
    }
    fn swap_tat(&self, way: usize, old: Ticks, tat: Ticks) -> bool {
        let slot = self.0[way].get();
        if slot.tat == old {
            self.0[way].set(Slot { tat, ..slot });
        }
        slot.tat == old
    }
    fn refund(&self, way: usize, cost: Ticks) {
        let slot = self.0[way].get();
        self.0[way].set(Slot { tat: slot.tat.wrapping_sub(cost), ..slot });
    }
}
