//! Debts that are expressed anew, where what their limit allows has changed.
//!
//! A bucket that owed for some units goes on owing for as many, though never for more than it may: each by its own terms
//! before and after, which are the limit's or an override's.

use std::{
    collections::HashMap,
    sync::atomic::{AtomicU64, Ordering},
};

use throttle_common::{
    gcra::{self, Ticks},
    records::{Limit, NONE, Terms},
    table,
    words::Per,
};

use super::{
    Datapath,
    regions::{Reprice, Scale},
    talkers::Source,
};

/// How often a debt is expressed anew when packets keep changing it meanwhile.
const TRIES: usize = 64;
/// Words between two readings of the clock, because the time since a reading counts as debt: some microseconds. Where whose
/// a slot is has to be found out, it is read for each.
const BETWEEN_READINGS: usize = 256;
/// Words of a slot: a key and a bucket.
const SLOT: usize = 2;

/// The terms of a limit, and those of the classes that an override is for.
struct Allowed {
    all: Terms,
    overridden: HashMap<u16, Terms>,
}

impl Allowed {
    fn of(&self, class: u16) -> &Terms {
        self.overridden.get(&class).unwrap_or(&self.all)
    }
}

/// What the buckets of a limit were allowed and are allowed, and whose they are.
struct Change<'d> {
    datapath: &'d Datapath,
    repriced: &'d Reprice,
    /// The generations of policy before and after: the same where none has changed.
    generations: [u32; 2],
    allowed: [Allowed; 2],
    /// The classes of tenants before and after, by their numbers, where each has a bucket.
    tenants: HashMap<u16, [u16; 2]>,
}

impl Datapath {
    /// After the flip to another policy: expresses the debts of a region anew that the policy before had. What is charged at
    /// the new price before its slot is visited is scaled too, which touches only the packets of the milliseconds that the
    /// visit takes.
    pub(super) fn reprice(&self, repriced: &Reprice) {
        let in_force = self.tables.in_force();
        let change = self.change(repriced, [1 - in_force, in_force]);
        if !change.is_none() {
            change.express();
        }
    }

    /// Lets no bucket owe more than it may, and guarantees beyond that. To be called at least once a year: the clock of
    /// buckets wraps after 2.28, and what was not charged since then would look like a debt.
    pub fn bound_debts(&self) {
        let in_force = self.tables.in_force();
        let buckets = self.limits().into_iter().map(|held| held.record).filter(|limit| !limit.is_concurrency());
        for limit in buckets {
            for (family, region) in limit.regions() {
                self.change(&Reprice { before: limit, limit, family, region }, [in_force; 2]).express();
            }
        }
    }

    /// What a bucket of a limit owes at most under the policy in force: the deepest, by whichever override, with what
    /// guarantees admit beyond it.
    pub(super) fn most_owed(&self, limit: &Limit) -> Ticks {
        let overridden = self.overrides.of_limit(self.tables.in_force(), limit.number).map(|(_, terms)| terms.depth);
        overridden.fold(limit.depth, Ticks::max) + limit.overdraft()
    }

    fn change<'d>(&'d self, repriced: &'d Reprice, generations: [u32; 2]) -> Change<'d> {
        let limits = [&repriced.before, &repriced.limit];
        let allowed = [0, 1].map(|of| Allowed {
            all: limits[of].terms(),
            overridden: self.overrides.of_limit(generations[of], limits[of].number).collect(),
        });
        let mut change = Change { datapath: self, repriced, generations, allowed, tenants: HashMap::new() };
        if repriced.limit.per == Per::Tenant as u8 && change.tells_apart() {
            change.tenants = change.classes_of_tenants();
        }
        change
    }
}

impl Change<'_> {
    /// Whether some have other terms than the rest.
    fn tells_apart(&self) -> bool {
        self.allowed.iter().any(|allowed| !allowed.overridden.is_empty())
    }

    /// Whether every bucket may owe what it owes.
    fn is_none(&self) -> bool {
        let [before, now] = &self.allowed;
        let mut entries = self.datapath.sources.held().values().map(|entry| self.generations.map(|it| entry.class(it)));
        before.all.price == now.all.price
            && before.all.depth <= now.all.depth
            && before.overridden == now.overridden
            && (now.overridden.is_empty() || entries.all(|[before, now]| before == now))
    }

    fn classes_of_tenants(&self) -> HashMap<u16, [u16; 2]> {
        let mut classes = HashMap::new();
        for entry in self.datapath.sources.held().values() {
            for (place, &generation) in self.generations.iter().enumerate() {
                classes.entry(entry.tenant(generation)).or_insert([NONE; 2])[place] = entry.class(generation);
            }
        }
        classes
    }

    /// How the debt of a bucket is expressed anew.
    fn scale(&self, [before, now]: [u16; 2]) -> Scale {
        let now = self.allowed[1].of(now);
        Scale::between(self.allowed[0].of(before), now).up_to(now.depth + self.repriced.limit.overdraft())
    }

    /// The classes, before and after, of whoever has a key.
    fn classes_of(&self, key: u64) -> [u16; 2] {
        let Reprice { limit, family, region, .. } = self.repriced;
        if limit.per == Per::Tenant as u8 {
            return self.tenants.get(&(key as u16)).copied().unwrap_or([NONE; 2]);
        }
        let entry = match Source::of(key, region, *family) {
            Source::Prefix(prefix) => self.datapath.entry_covering(prefix),
            Source::Tenant(_) | Source::Fingerprint(_) => None,
        };
        entry.map_or([NONE; 2], |entry| self.generations.map(|generation| entry.class(generation)))
    }

    fn express(&self) {
        let Reprice { limit, region, .. } = self.repriced;
        let (tables, all) = (&self.datapath.tables, self.scale([NONE; 2]));
        let keys = tables.buckets.run(region.base, region.sets);
        let step = if self.tells_apart() { SLOT } else { BETWEEN_READINGS };
        // Where buckets have two words, the second ones lie behind, without keys.
        for (of, base) in (0..).zip((region.base..region.base + region.extent()).step_by(region.sets.max(1) as usize)) {
            let now = || limit.readings(self.datapath.reads(limit))[of];
            for (keys, words) in keys.chunks(step).zip(tables.buckets.run(base, region.sets).chunks(step)) {
                let now = now();
                for (slot, word) in keys.chunks_exact(SLOT).zip(words.chunks_exact(SLOT)) {
                    let of_slot = || self.scale(self.classes_of(slot[0].load(Ordering::Relaxed)));
                    rescale(&word[1], now, || if self.tells_apart() { of_slot() } else { all });
                }
            }
            for words in tables.aggregates.run(base, region.sets).chunks(BETWEEN_READINGS) {
                let now = now();
                for word in words {
                    rescale(word, now, || all);
                }
            }
        }
    }
}

fn rescale(tat: &AtomicU64, now: Ticks, scale: impl Fn() -> Scale) {
    for _ in 0..TRIES {
        let seen = tat.load(Ordering::Relaxed);
        let next = match gcra::debt(seen, now) {
            _ if table::is_lock(seen) => seen,
            0 if gcra::is_stale(seen, now) => gcra::UNUSED,
            0 => seen,
            debt => now.wrapping_add(scale().debt(debt)),
        };
        if next == seen || tat.compare_exchange(seen, next, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            return;
        }
    }
}
