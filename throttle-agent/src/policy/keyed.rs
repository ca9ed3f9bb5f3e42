//! Entries of a document's lists, told apart by their names, prefixes by themselves.

use super::{
    document::{Backend, Limit, Service, Tenant},
    prefix::Prefix,
};
use std::{collections::HashMap, hash::Hash};

/// An entry that its list has once.
pub(super) trait Keyed: Clone + PartialEq {
    type Key: Clone + Eq + Hash;

    fn key(&self) -> &Self::Key;
}

impl Keyed for Prefix {
    type Key = Self;

    fn key(&self) -> &Self {
        self
    }
}

macro_rules! keyed_by_name {
    ($($type:ty),+) => {$(
        impl Keyed for $type {
            type Key = String;

            fn key(&self) -> &String {
                &self.name
            }
        }
    )+};
}

keyed_by_name!(Service, Backend, Tenant, Limit);

/// The entries of a list that another does not have just so.
pub(super) fn differing<T: Keyed>(list: &[T], other: &[T]) -> Vec<T> {
    if list == other {
        return Vec::new();
    }
    let others: HashMap<&T::Key, &T> = other.iter().map(|entry| (entry.key(), entry)).collect();
    list.iter().filter(|entry| others.get(entry.key()).is_none_or(|other| other != entry)).cloned().collect()
}
