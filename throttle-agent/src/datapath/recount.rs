//! Places that no connection holds, found again.
//!
//! A kernel program takes a place and writes it down in one run that nothing ends half-way. An agent that mends the count
//! takes two steps, and may be killed between them: then a place stays taken that nobody gives back. So every bucket is
//! held against all that connections say to hold, which finds what was lost so, and whatever else was.
//!
//! While connections come and go the two never agree for long. A look lists the connections, reads the buckets, and lists
//! the connections again. It speaks only of buckets of which both lists name the same ones: each of these was there when
//! the bucket was read, whatever others of the same limit did. So what the bucket says too little is lost for certain, and
//! what it says too much is lost but for connections that came and went between the lists, or whose program was between its
//! two steps just then. Those are there at one look and not at the next; between looks every program that was running ends.
//! A bucket that is wrong by as many in several such looks in a row is put right; where nothing comes and goes, they follow
//! each other within one reconciliation. One in constant use waits for moments in which it is still.

use std::{
    collections::{HashMap, HashSet},
    sync::atomic::Ordering::SeqCst,
};

use anyhow::{Context as _, Result};
use throttle_common::{
    connections::{PLACE, STANDING, taken},
    gcra::{self, Ticks},
    records::{Connection, Ends, Hold, Region},
    table::{self, Look as _, Set as _, WAYS},
};

use super::{Datapath, connections::Held, mapped::MappedSet};
use crate::policy::HeldLimit;

/// So many looks find a bucket wrong before it is put right: see above.
const IN_A_ROW: u32 = 5;

/// A bucket: its set and way, or its aggregate.
type Bucket = (u32, u16);
/// Whose it is (0 of an aggregate's), and what it says.
type Said = (u64, Ticks);

/// What one look sees.
#[derive(Debug, Default)]
struct Seen {
    /// What the buckets say in which a place is taken or held; nothing of one that was in use.
    said: HashMap<Bucket, Option<Said>>,
    /// What connections hold of each.
    held: HashMap<(Bucket, u64), u64>,
}

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

/// What a look adds to those before.
#[derive(Debug, Default, PartialEq, Eq)]
struct News {
    /// Buckets that have been wrong for long enough, with what they said and the excess.
    wrong: Vec<(Bucket, Ticks, i64)>,
    /// Whether it found others wrong, so that the next look may say more.
    doubts: bool,
}

impl Recount {
    /// Whether some bucket may be wrong.
    pub fn is_in_doubt(&self) -> bool {
        !self.0.is_empty()
    }

    fn look(&mut self, seen: &Seen) -> News {
        let (before, mut news) = (std::mem::take(&mut self.0), News::default());
        for (&bucket, said) in &seen.said {
            let known = before.get(&bucket);
            let Some((key, tat)) = *said else {
                self.0.extend(known.map(|&doubt| (bucket, doubt)));
                continue;
            };
            let held = seen.held.get(&(bucket, key)).copied().unwrap_or_default();
            let excess = places(tat).cast_signed() - held.cast_signed();
            let same = known.filter(|doubt| (doubt.key, doubt.excess) == (key, excess));
            let looks = same.map_or(1, |doubt| doubt.looks + 1);
            if excess != 0 && looks >= IN_A_ROW {
                news.wrong.push((bucket, tat, excess));
            } else if excess != 0 {
                news.doubts = true;
                self.0.insert(bucket, Doubt { key, excess, looks });
            }
        }
        news
    }
}

impl Datapath {
    /// Looks until nothing more is to be found wrong for now, and puts right what is: so many places.
    pub fn recount_places(&self, recount: &mut Recount) -> Result<u64> {
        let mut mended = 0;
        for _ in 0..IN_A_ROW {
            let news = recount.look(&self.look_at_places(recount)?);
            for (bucket, said, excess) in news.wrong {
                mended += if self.put_right(bucket, said, excess) { excess.unsigned_abs() } else { 0 };
            }
            if !news.doubts {
                break;
            }
            self.grace.wait().context("cannot wait for the programs that take places and give them back")?;
        }
        Ok(mended)
    }

    fn look_at_places(&self, recount: &Recount) -> Result<Seen> {
        let list = || self.connections().context("hold the buckets against the connections");
        let (limits, before) = (self.limits_on_connections(), list()?);
        let (held, mut said) = (sum(&before), self.places_taken(&limits));
        // A place that lies in no region any more is nobody's.
        let is_owned =
            |place| limits.iter().flat_map(|limit| limit.record.regions()).any(|(_, region)| lies_in(place, region));
        for &(bucket, _) in held.keys().filter(|((place, _), _)| is_owned(*place)) {
            said.entry(bucket).or_insert_with(|| self.says(bucket));
        }
        let agrees =
            |(bucket, (key, tat)): (Bucket, Said)| places(tat) == held.get(&(bucket, key)).copied().unwrap_or_default();
        let asked = said.iter().filter(|&(bucket, &said)| recount.0.contains_key(bucket) || !agrees((*bucket, said)));
        let asked: HashSet<Bucket> = asked.map(|(bucket, _)| *bucket).collect();
        let still = if asked.is_empty() {
            asked
        } else {
            let (before, after) = (holders(&before, &asked), holders(&list()?, &asked));
            asked.into_iter().filter(|bucket| before.get(bucket) == after.get(bucket)).collect()
        };
        let speaks = |(bucket, said): (Bucket, Said)| {
            still.contains(&bucket) || agrees((bucket, said)) && !recount.0.contains_key(&bucket)
        };
        let said = said.into_iter().map(|(bucket, said)| (bucket, speaks((bucket, said)).then_some(said))).collect();
        Ok(Seen { said, held })
    }

    fn limits_on_connections(&self) -> Vec<HeldLimit> {
        self.limits().into_iter().filter(|held| held.record.is_concurrency()).collect()
    }

    /// What every bucket says in which a place is taken.
    fn places_taken(&self, limits: &[HeldLimit]) -> HashMap<Bucket, Said> {
        let mut said = HashMap::new();
        for Region { base, sets, .. } in
            limits.iter().flat_map(|limit| limit.record.regions()).map(|(_, region)| region)
        {
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

fn lies_in(place: u32, region: Region) -> bool {
    (region.base..region.base + region.sets).contains(&place)
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

/// Which connections hold places of some buckets. One that has ended and begun anew since is another one.
fn holders(connections: &[Held], of: &HashSet<Bucket>) -> HashMap<Bucket, HashSet<(Ends, u64)>> {
    let mut holders: HashMap<Bucket, HashSet<_>> = HashMap::new();
    for (ends, Connection { since, holds, .. }) in connections {
        let buckets = holds.iter().filter(|hold| hold.is_some()).map(|hold| (hold.place, hold.way));
        for bucket in buckets.filter(|bucket| of.contains(bucket)) {
            holders.entry(bucket).or_default().insert((*ends, *since));
        }
    }
    holders
}

#[cfg(test)]
mod tests {
    use super::*;

    const BUCKET: Bucket = (3, 1);

    /// What a look at one bucket finds: of `taken` places, `held` ones.
    fn look(recount: &mut Recount, taken: u64, held: u64) -> Vec<i64> {
        let seen = Seen { said: [(BUCKET, Some((7, taken * PLACE)))].into(), held: [((BUCKET, 7), held)].into() };
        let News { wrong, doubts } = recount.look(&seen);
        assert_eq!(doubts, recount.is_in_doubt());
        wrong.into_iter().map(|(_, _, excess)| excess).collect()
    }

    #[test]
    fn a_bucket_is_wrong_that_was_so_by_as_many_in_every_look() {
        for (taken, held, excess) in [(5, 3, 2), (3, 5, -2), (1, 0, 1)] {
            let mut recount = Recount::default();
            for _ in 1..IN_A_ROW {
                assert!(look(&mut recount, taken, held).is_empty() && recount.is_in_doubt());
            }
            assert_eq!(look(&mut recount, taken, held), [excess]);
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
    }

    #[test]
    fn a_look_that_finds_it_in_use_says_nothing_and_one_that_finds_it_gone_ends_the_doubt() {
        let mut recount = Recount::default();
        for _ in 1..IN_A_ROW {
            look(&mut recount, 5, 3);
            let in_use = recount.look(&Seen { said: [(BUCKET, None)].into(), ..Seen::default() });
            assert!(in_use == News::default() && recount.is_in_doubt());
        }
        assert_eq!(look(&mut recount, 5, 3), [2]);
        look(&mut recount, 5, 3);
        assert!(recount.look(&Seen::default()) == News::default() && !recount.is_in_doubt());
    }
}
