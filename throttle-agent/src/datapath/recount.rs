//! Places that no connection holds, found again.
//!
//! A kernel program takes a place and writes it down in one run that nothing ends half-way. An agent that mends the count
//! takes two steps, and may be killed between them: then a place stays taken that nobody gives back. So every bucket is
//! now and then held against all that connections say to hold, which finds what was lost so, and whatever else was.
//!
//! While connections come and go the two never agree for long. A bucket counts as wrong only if nothing was taken from it
//! or given back to it while the connections were listed, and if it was wrong by as many several times in a row.

use std::{
    collections::{HashMap, HashSet},
    sync::atomic::Ordering::SeqCst,
};

use anyhow::{Context as _, Result};
use throttle_common::{
    connections::{PLACE, STANDING, taken},
    gcra::{self, Ticks},
    records::{Connection, Hold, Region},
    table::{self, Look as _, Set as _, WAYS},
};

use super::{Datapath, connections::Held, mapped::MappedSet};

/// So many looks find a bucket wrong before it is put right. A connection that closes while another opens leaves the bucket
/// as it was, and a list read meanwhile may know of neither: that happens, but hardly so often in a row.
const IN_A_ROW: u32 = 5;

/// A bucket: its set and way, or its aggregate.
type Bucket = (u32, u16);
/// Whose it is (0 of an aggregate's), and what it says.
type Said = (u64, Ticks);

/// What earlier looks have found wrong.
#[derive(Debug, Default)]
pub struct Recount(HashMap<Bucket, Doubt>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Doubt {
    key: u64,
    /// Places taken that no connection holds; below 0, held and not taken.
    excess: i64,
    /// Looks in a row.
    looks: u32,
}

impl Recount {
    /// Whether another look should follow soon.
    pub fn is_in_doubt(&self) -> bool {
        !self.0.is_empty()
    }

    /// Takes what the buckets that did not change meanwhile said, and what connections hold of each. Gives those that have
    /// been wrong for long enough, with the excess.
    fn look(&mut self, said: &HashMap<Bucket, Said>, held: &HashMap<(Bucket, u64), u64>) -> Vec<(Bucket, i64)> {
        let before = std::mem::take(&mut self.0);
        let mut wrong = Vec::new();
        for (&bucket, &(key, tat)) in said {
            let held = held.get(&(bucket, key)).copied().unwrap_or_default();
            let excess = places(tat).cast_signed() - held.cast_signed();
            let same = before.get(&bucket).filter(|doubt| (doubt.key, doubt.excess) == (key, excess));
            let looks = same.map_or(1, |doubt| doubt.looks + 1);
            if excess != 0 && looks >= IN_A_ROW {
                wrong.push((bucket, excess));
            } else if excess != 0 {
                self.0.insert(bucket, Doubt { key, excess, looks });
            }
        }
        wrong
    }
}

impl Datapath {
    /// Looks once, and puts right what has long been wrong: so many places.
    pub fn recount_places(&self, recount: &mut Recount) -> Result<u64> {
        let before = self.buckets_of_connections();
        let connections = self.connections().context("hold the buckets against the connections")?;
        let held = sum(&connections);
        let asked: HashSet<Bucket> = before.keys().chain(held.keys().map(|(bucket, _)| bucket)).copied().collect();
        let regions: Vec<Region> = self.regions_of_connections().collect();
        let ours = |place: u32| regions.iter().any(|region| (region.base..region.base + region.sets).contains(&place));
        let same = |bucket: &Bucket| {
            let now = self.says(*bucket);
            (before.get(bucket).copied().unwrap_or_default() == now).then_some((*bucket, now))
        };
        let said = asked.iter().filter(|(place, _)| ours(*place)).filter_map(same).collect();
        let mut mended = 0;
        for (bucket, excess) in recount.look(&said, &held) {
            let put_right = self.put_right(bucket, said[&bucket].1, excess);
            mended += if put_right { excess.unsigned_abs() } else { 0 };
        }
        Ok(mended)
    }

    fn regions_of_connections(&self) -> impl Iterator<Item = Region> {
        let limits = self.limits().into_iter().filter(|held| held.record.is_concurrency());
        limits.flat_map(|held| held.record.regions()).map(|(_, region)| region)
    }

    /// What every bucket says in which a place is taken.
    fn buckets_of_connections(&self) -> HashMap<Bucket, Said> {
        let mut said = HashMap::new();
        for Region { base, sets, .. } in self.regions_of_connections() {
            let ways = (0..WAYS as u16).chain([Hold::AGGREGATE]);
            let buckets = (base..base + sets).flat_map(|place| ways.clone().map(move |way| (place, way)));
            let taken = buckets.map(|bucket| (bucket, self.says(bucket))).filter(|(_, (_, tat))| places(*tat) > 0);
            said.extend(taken);
        }
        said
    }

    fn says(&self, (place, way): Bucket) -> Said {
        if way == Hold::AGGREGATE {
            (0, self.tables.aggregates.words(place)[0].load(SeqCst))
        } else {
            let set = MappedSet(self.tables.buckets.words(place));
            (set.key(way.into()), set.tat(way.into()))
        }
    }

    /// `false` where the bucket has changed after all.
    fn put_right(&self, (place, way): Bucket, seen: Ticks, excess: i64) -> bool {
        let right = seen.wrapping_sub(excess.cast_unsigned().wrapping_mul(PLACE));
        if way == Hold::AGGREGATE {
            self.tables.aggregates.words(place)[0].compare_exchange(seen, right, SeqCst, SeqCst).is_ok()
        } else {
            MappedSet(self.tables.buckets.words(place)).swap_tat(way.into(), seen, right)
        }
    }
}

/// How many places a bucket has given out; of one that another CPU is taking over, none.
fn places(tat: Ticks) -> u64 {
    if table::is_lock(tat) { 0 } else { taken(gcra::debt(tat, STANDING)) }
}

/// What connections hold of each bucket, by the key that they hold it under.
fn sum(connections: &[Held]) -> HashMap<(Bucket, u64), u64> {
    let mut held = HashMap::new();
    for (_, Connection { holds, .. }) in connections {
        for hold in holds.iter().filter(|hold| hold.is_some()) {
            let key = if hold.in_aggregate() { 0 } else { hold.key };
            *held.entry(((hold.place, hold.way), key)).or_default() += 1;
        }
    }
    held
}

#[cfg(test)]
mod tests {
    use super::*;

    const BUCKET: Bucket = (3, 1);

    /// What a look at one bucket finds: of `taken` places, `held` ones.
    fn look(recount: &mut Recount, taken: u64, held: u64) -> Vec<(Bucket, i64)> {
        recount.look(&[(BUCKET, (7, taken * PLACE))].into(), &[((BUCKET, 7), held)].into())
    }

    #[test]
    fn a_bucket_is_wrong_that_was_so_by_as_many_in_every_look() {
        for (taken, held, excess) in [(5, 3, 2), (3, 5, -2), (1, 0, 1)] {
            let mut recount = Recount::default();
            for _ in 1..IN_A_ROW {
                assert!(look(&mut recount, taken, held).is_empty() && recount.is_in_doubt());
            }
            assert_eq!(look(&mut recount, taken, held), [(BUCKET, excess)]);
            assert!(!recount.is_in_doubt());
        }
    }

    #[test]
    fn one_look_that_finds_it_right_or_otherwise_wrong_begins_anew() {
        for other in [3, 4] {
            let mut recount = Recount::default();
            for _ in 1..IN_A_ROW {
                look(&mut recount, 5, 3);
            }
            look(&mut recount, 5, other);
            assert!(look(&mut recount, 5, 3).is_empty());
        }
        let mut recount = Recount::default();
        for _ in 0..IN_A_ROW {
            assert!(recount.look(&HashMap::new(), &HashMap::new()).is_empty(), "one that is in use says nothing");
        }
    }
}
