//! Whom to ask for changes: those who know others than this host does, one after the other, and those that failed later.
//!
//! Who knows fewer changes asks at once, because it is the one that lacks some; who knows more waits a moment for that, and
//! then asks too, because both may lack some. Time and chance are arguments.

use std::{
    collections::{BTreeMap, HashMap},
    hash::Hash,
    time::Duration,
};

/// Hosts that are asked at the same time.
const AT_ONCE: usize = 2;
/// How long one who knows more waits to be asked.
const TURN: Duration = Duration::from_secs(1);
/// The pause after the first failure, and the longest.
const FIRST: Duration = Duration::from_millis(200);
const LONGEST: Duration = Duration::from_secs(10);

/// In what two hosts that know the same changes agree.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// 16 hexadecimal digits over the last changes.
    pub digest: String,
    /// How many changes are known.
    pub changes: u64,
}

/// Whom this host asks, and whom it has asked.
#[derive(Debug)]
pub struct Pulls<P> {
    asked: HashMap<P, Asked>,
}

#[derive(Debug, Default)]
struct Asked {
    busy: bool,
    failures: u32,
    not_before: Duration,
    /// Since when it stands differently.
    differs: Option<Duration>,
}

impl<P> Default for Pulls<P> {
    fn default() -> Self {
        Self { asked: HashMap::new() }
    }
}

impl<P: Clone + Eq + Hash + Ord> Pulls<P> {
    /// Those to ask now, of all who take part, as they say that they stand. `chance` picks among many.
    pub fn next(&mut self, now: Duration, own: &Standing, others: &BTreeMap<P, Standing>, chance: u64) -> Vec<P> {
        self.asked.retain(|peer, asked| asked.busy || others.contains_key(peer));
        let mut free = AT_ONCE.saturating_sub(self.asked.values().filter(|it| it.busy).count());
        let mut chosen = Vec::new();
        let count = others.len().max(1);
        let start = usize::try_from(chance % count as u64).unwrap_or_default();
        for (peer, standing) in others.iter().cycle().skip(start).take(others.len()) {
            let asked = self.asked.entry(peer.clone()).or_default();
            if standing.digest == own.digest {
                asked.differs = None;
                continue;
            }
            let since = *asked.differs.get_or_insert(now);
            let turn = standing.changes >= own.changes || now.saturating_sub(since) >= TURN;
            if free > 0 && !asked.busy && turn && now >= asked.not_before {
                (asked.busy, free) = (true, free - 1);
                chosen.push(peer.clone());
            }
        }
        chosen
    }

    /// Notes what came of asking one. After a failure it is asked again ever more seldom, and not when all others do: the
    /// pause is between half and all of what it may be.
    pub fn done(&mut self, now: Duration, peer: &P, went_well: bool, chance: u64) {
        let Some(asked) = self.asked.get_mut(peer) else { return };
        asked.busy = false;
        if went_well {
            *asked = Asked::default();
            return;
        }
        let longest = FIRST.saturating_mul(1 << asked.failures.min(16)).min(LONGEST);
        asked.failures = asked.failures.saturating_add(1);
        asked.not_before = now + longest / 2 + longest / 2 * u32::try_from(chance % 1000).unwrap_or_default() / 1000;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stands(digest: &str, changes: u64) -> Standing {
        Standing { digest: digest.to_owned(), changes }
    }

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn who_lacks_changes_asks_at_once_and_who_has_more_after_a_while() {
        let others = BTreeMap::from([("b", stands("y", 5)), ("c", stands("x", 3)), ("d", stands("z", 1))]);
        let (own, mut pulls) = (stands("x", 3), Pulls::default());
        assert_eq!(pulls.next(ms(0), &own, &others, 0), ["b"]);
        assert_eq!(pulls.next(ms(900), &own, &others, 0), [""; 0]);
        assert_eq!(pulls.next(ms(1000), &own, &others, 0), ["d"]);
    }

    #[test]
    fn one_is_asked_once_at_a_time_and_no_more_than_two_are() {
        let others: BTreeMap<_, _> = (0..9).map(|peer| (peer, stands("y", 5))).collect();
        let (own, mut pulls) = (stands("x", 3), Pulls::default());
        assert_eq!(pulls.next(ms(0), &own, &others, 7), [7, 8]);
        assert_eq!(pulls.next(ms(1), &own, &others, 7), [0; 0]);
        pulls.done(ms(2), &7, true, 0);
        assert_eq!(pulls.next(ms(3), &own, &others, 8), [0]);
    }

    #[test]
    fn who_fails_is_asked_ever_more_seldom_and_at_once_again_once_it_went_well() {
        let (own, mut pulls) = (stands("x", 3), Pulls::default());
        let others = BTreeMap::from([("b", stands("y", 5))]);
        let (mut now, mut pauses) = (ms(0), Vec::new());
        for _ in 0..10 {
            let begin = now;
            while pulls.next(now, &own, &others, 0).is_empty() {
                now += ms(1);
            }
            pauses.push(now.saturating_sub(begin).as_millis());
            pulls.done(now, &"b", false, 999);
        }
        assert!(pauses.is_sorted() && pauses[1] >= 100 && *pauses.last().unwrap() <= 10_000, "{pauses:?}");
        assert!(*pauses.last().unwrap() >= 5_000, "{pauses:?}");
        while pulls.next(now, &own, &others, 0).is_empty() {
            now += ms(1);
        }
        pulls.done(now, &"b", true, 0);
        assert_eq!(pulls.next(now, &own, &others, 0), ["b"]);
    }
}
