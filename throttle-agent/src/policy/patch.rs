//! What makes one document of the one before it, as far as that is less than the whole.
//!
//! The store keeps it in the place of a document that hardly differs from the last. It is itself a document, of the
//! entries that are new or changed, with the names of those that are gone.

use super::{
    document::{Document, Sources},
    keyed::{Keyed, differing},
    prefix::Prefix,
    shared::Shared,
};
use serde::{Deserialize, Serialize};
use std::collections::{HashMap, HashSet};

/// The difference between two documents.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Patch {
    /// What is new or changed. What no list holds is as it is from now on.
    put: Document,
    /// What is gone.
    #[serde(default)]
    removed: Removed,
}

/// Names and prefixes, by the list that they stood in.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
struct Removed {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    services: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    backends: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tenants: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    limits: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    allow: Vec<Prefix>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    known: Vec<Prefix>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    block: Vec<Prefix>,
}

impl Patch {
    /// What makes `after` of `before`. `None` where only the whole can say it, because entries have changed places.
    pub fn between(before: &Document, after: &Document) -> Option<Self> {
        let mut removed = Removed::default();
        let sources = if before.sources == after.sources {
            Sources::default()
        } else {
            Sources {
                allow: difference(&before.sources.allow, &after.sources.allow, &mut removed.allow),
                known: difference(&before.sources.known, &after.sources.known, &mut removed.known),
                block: difference(&before.sources.block, &after.sources.block, &mut removed.block),
            }
        };
        let put = Document {
            services: shared_difference(&before.services, &after.services, &mut removed.services),
            backends: shared_difference(&before.backends, &after.backends, &mut removed.backends),
            tenants: shared_difference(&before.tenants, &after.tenants, &mut removed.tenants),
            limits: difference(&before.limits, &after.limits, &mut removed.limits),
            sources: sources.into(),
            mode: after.mode,
            shapes: after.shapes.clone(),
            answers: after.answers,
            events: after.events,
        };
        let patch = Self { put, removed };
        (patch.clone().apply(before.clone()) == *after).then_some(patch)
    }

    /// Makes the later document of the earlier.
    #[must_use]
    pub fn apply(self, mut document: Document) -> Document {
        let Self { put, removed } = self;
        let Document { mode, services, backends, tenants, limits, sources, shapes, answers, events } = put;
        apply_shared(&mut document.services, &services, &removed.services);
        apply_shared(&mut document.backends, &backends, &removed.backends);
        apply_shared(&mut document.tenants, &tenants, &removed.tenants);
        apply(&mut document.limits, &limits, &removed.limits);
        let gone = [&removed.allow, &removed.known, &removed.block].iter().any(|list| !list.is_empty());
        if gone || *sources != Sources::default() {
            let lists = &mut *document.sources;
            apply(&mut lists.allow, &sources.allow, &removed.allow);
            apply(&mut lists.known, &sources.known, &removed.known);
            apply(&mut lists.block, &sources.block, &removed.block);
        }
        Document { mode, shapes, answers, events, ..document }
    }
}

/// The entries that are new or changed; notes the keys of those that are gone.
fn difference<T: Keyed>(before: &[T], after: &[T], removed: &mut Vec<T::Key>) -> Vec<T> {
    if before == after {
        return Vec::new();
    }
    let kept: HashSet<&T::Key> = after.iter().map(Keyed::key).collect();
    removed.extend(before.iter().map(Keyed::key).filter(|key| !kept.contains(key)).cloned());
    differing(after, before)
}

fn shared_difference<T: Keyed>(
    before: &Shared<Vec<T>>,
    after: &Shared<Vec<T>>,
    removed: &mut Vec<T::Key>,
) -> Shared<Vec<T>> {
    if before == after { Shared::default() } else { difference(before, after, removed).into() }
}

/// Takes entries out of a list, and puts others in the place of those with the same key, or behind the last.
fn apply<T: Keyed>(list: &mut Vec<T>, put: &[T], removed: &[T::Key]) {
    if !removed.is_empty() {
        let gone: HashSet<&T::Key> = removed.iter().collect();
        list.retain(|entry| !gone.contains(entry.key()));
    }
    if put.is_empty() {
        return;
    }
    let held: HashMap<&T::Key, usize> = list.iter().map(Keyed::key).zip(0..).collect();
    let places: Vec<Option<usize>> = put.iter().map(|entry| held.get(entry.key()).copied()).collect();
    for (entry, place) in put.iter().zip(places) {
        match place {
            Some(place) => list[place] = entry.clone(),
            None => list.push(entry.clone()),
        }
    }
}

fn apply_shared<T: Keyed>(list: &mut Shared<Vec<T>>, put: &[T], removed: &[T::Key]) {
    if !(put.is_empty() && removed.is_empty()) {
        apply(list, put, removed);
    }
}

#[cfg(test)]
#[path = "patch_tests.rs"]
mod tests;
