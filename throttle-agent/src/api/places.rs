//! Places for connections of strangers: so many and no more, and yet nobody is kept out.
//!
//! Whoever comes when all are taken has the place of another: of those who have most, the oldest's. So one who takes many
//! loses them to those who take few, whatever it does.

use std::{
    collections::{BTreeMap, HashMap},
    hash::Hash,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio_util::sync::CancellationToken;

/// The places.
#[derive(Debug)]
pub(crate) struct Places<K> {
    most: usize,
    taken: Mutex<Taken<K>>,
}

/// Who has a place, in the order in which they came, with the word that ends each.
#[derive(Debug)]
struct Taken<K> {
    by: BTreeMap<u64, (K, CancellationToken)>,
    next: u64,
}

impl<K: Eq + Hash> Places<K> {
    pub(crate) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { most, taken: Mutex::new(Taken { by: BTreeMap::new(), next: 0 }) })
    }

    /// Takes a place for one who is known by `key`.
    pub(crate) fn take(self: &Arc<Self>, key: K) -> Place<K> {
        let mut taken = self.lock();
        while taken.by.len() >= self.most
            && let Some(number) = taken.first_of_most()
            && let Some((_, lost)) = taken.by.remove(&number)
        {
            lost.cancel();
        }
        let (number, lost) = (taken.next, CancellationToken::new());
        taken.next += 1;
        taken.by.insert(number, (key, lost.clone()));
        Place { places: Arc::clone(self), number, lost }
    }
}

impl<K> Places<K> {
    fn lock(&self) -> MutexGuard<'_, Taken<K>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Eq + Hash> Taken<K> {
    /// The oldest of those who have most.
    fn first_of_most(&self) -> Option<u64> {
        let mut counts = HashMap::new();
        for (key, _) in self.by.values() {
            *counts.entry(key).or_insert(0) += 1;
        }
        let most = counts.values().max()?;
        self.by.iter().find(|(_, (key, _))| counts[key] == *most).map(|(number, _)| *number)
    }
}

/// A place, until it is dropped or lost to another.
#[derive(Debug)]
pub(crate) struct Place<K> {
    places: Arc<Places<K>>,
    number: u64,
    lost: CancellationToken,
}

impl<K> Place<K> {
    /// Waits until another has the place.
    pub(crate) async fn lost(&self) {
        self.lost.cancelled().await;
    }
}

impl<K> Drop for Place<K> {
    fn drop(&mut self) {
        self.places.lock().by.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn have<K>(places: &[Place<K>]) -> Vec<bool> {
        places.iter().map(|place| !place.lost.is_cancelled()).collect()
    }

    #[test]
    fn one_who_takes_all_places_loses_the_oldest_to_whoever_comes() {
        let places = Places::new(3);
        let held = ["many", "many", "many", "few", "few"].map(|key| places.take(key));
        assert_eq!(have(&held), [false, false, true, true, true]);
        let _more = ["many", "many"].map(|key| places.take(key));
        assert_eq!(have(&held), [false, false, false, false, true]);
        assert_eq!(places.lock().by.len(), 3);
    }

    #[test]
    fn a_flood_of_one_takes_nothing_from_another() {
        let places = Places::new(8);
        let guest = [places.take("guest")];
        let _flood: Vec<_> = (0..1_000).map(|_| places.take("flood")).collect();
        assert_eq!(have(&guest), [true]);
        assert_eq!(places.lock().by.len(), 8);
    }

    #[test]
    fn a_place_that_is_given_back_is_free() {
        let places = Places::new(1);
        drop(places.take("one"));
        let other = [places.take("other")];
        assert_eq!((have(&other), places.lock().by.len()), (vec![true], 1));
    }
}
