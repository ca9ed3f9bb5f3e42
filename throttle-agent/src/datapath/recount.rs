//! Places that no connection holds, found again.
//!
//! A kernel program takes a place and writes it down in one run that nothing ends half-way. An agent that mends the count
//! takes two steps, and may be killed between them: then a place stays taken that nobody gives back. So every bucket is
//! held against all that connections say to hold, which finds what was lost so, and whatever else was.
//!
//! While connections come and go the two never agree for long. A look speaks only of buckets that were still: they said the
//! same before and after the connections were listed, and their limit let nobody in meanwhile. Between looks every
//! program that was running ends. A bucket that is wrong by as many in several such looks in a row is put right; where
//! nothing comes and goes, they follow each other within one reconciliation. One in constant use waits for moments in
//! which it is still.

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
use crate::policy::HeldLimit;

/// So many looks find a bucket wrong before it is put right. Of a connection that only its socket shows the limit counts no
/// entry: where one such closes while another opens, the bucket seems still, and a list read meanwhile may know of neither.
/// That happens, but hardly so often in a row.
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
            let news = recount.look(&self.look_at_places()?);
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

    fn look_at_places(&self) -> Result<Seen> {
        let limits = self.limits_on_connections();
        let (entered, before) = (self.entered(&limits)?, self.places_taken(&limits));
        let held = sum(&self.connections().context("hold the buckets against the connections")?);
        let asked: HashSet<Bucket> = before.keys().chain(held.keys().map(|(bucket, _)| bucket)).copied().collect();
        let says = |bucket: Bucket| (before.get(&bucket).copied().unwrap_or_default(), self.says(bucket));
        let said: Vec<_> = asked.into_iter().map(|bucket| (bucket, says(bucket))).collect();
        let since = self.entered(&limits)?;
        let owner = |place: u32| {
            let owns = |limit: &&HeldLimit| limit.record.regions().any(|(_, region)| lies_in(place, region));
            limits.iter().find(owns).map(|limit| limit.number)
        };
        // A place that lies in no region any more is nobody's.
        let of_limits = said.into_iter().filter_map(|(bucket, said)| Some((bucket, said, owner(bucket.0)?)));
        let said = of_limits.map(|(bucket, (before, now), limit)| {
            let still = before == now && entered.get(&limit) == since.get(&limit);
            (bucket, still.then_some(now))
        });
        Ok(Seen { said: said.collect(), held })
    }

    fn limits_on_connections(&self) -> Vec<HeldLimit> {
        self.limits().into_iter().filter(|held| held.record.is_concurrency()).collect()
    }

    /// How many connections each limit has let in since it exists.
    fn entered(&self, limits: &[HeldLimit]) -> Result<HashMap<u16, u64>> {
        let entered = |limit: &HeldLimit| Ok((limit.number, self.limit_tally(limit.number)?.admitted.packets));
        limits.iter().map(entered).collect()
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
