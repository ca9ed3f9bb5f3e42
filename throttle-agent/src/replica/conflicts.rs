//! Conflicts: fields that hosts gave different values at the same time. One of them is in force, the same everywhere, and all
//! are told until somebody gives the field a value again.

use automerge::{Automerge, ObjId, ObjType, ROOT, ReadDoc, ValueRef};
use jiff::Timestamp;
use serde_json::Value;

use super::{Label, tree};

/// Conflicts that are listed, at most.
const MOST: usize = 1000;

/// A field that hosts gave different values at the same time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// Where, such as `limit web: rate`; an entry alone where hosts made it at the same time.
    pub place: String,
    /// What they said: the first is in force.
    pub said: Vec<Said>,
}

/// What one of them said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// The value.
    pub value: Value,
    /// The host.
    pub host: String,
    /// Who asked for it there.
    pub author: String,
    /// When, by its clock.
    pub at: Timestamp,
}

/// All of them, by their places.
pub(super) fn all(document: &Automerge) -> Vec<Conflict> {
    let mut found = Vec::new();
    look(document, &ROOT, "", &mut |place, at, key| {
        found.push(Conflict { place: place.to_owned(), said: values(document, at, key) });
        found.len() < MOST
    });
    found
}

/// What a host said in the conflict at a place, and where it is.
pub(super) fn said(document: &Automerge, place: &str, host: &str) -> Option<(ObjId, String, Value)> {
    let mut found = None;
    look(document, &ROOT, "", &mut |here, at, key| {
        if here == place {
            let said = values(document, at, key).into_iter().find(|it| it.host == host);
            found = said.map(|said| (at.clone(), key.to_owned(), said.value));
        }
        here != place
    });
    found
}

/// Looks at every field that has several values, until it is told to stop.
fn look(document: &Automerge, at: &ObjId, place: &str, found: &mut impl FnMut(&str, &ObjId, &str) -> bool) -> bool {
    for item in document.map_range(at, ..) {
        let here = if place.is_empty() { item.key.to_string() } else { format!("{place}: {}", item.key) };
        if item.conflict && values(document, at, &item.key).len() > 1 && !found(&here, at, &item.key) {
            return false;
        }
        if matches!(item.value, ValueRef::Object(ObjType::Map)) && !look(document, &item.id(), &here, found) {
            return false;
        }
    }
    true
}

/// The different values of a field, that in force first.
fn values(document: &Automerge, at: &ObjId, key: &str) -> Vec<Said> {
    let winner = document.get(at, key).ok().flatten().map(|(_, id)| id);
    let mut held = tree::each(document, at, key);
    held.sort_by_key(|(_, id)| (Some(id) != winner.as_ref(), id.to_string()));
    let mut said: Vec<Said> = Vec::new();
    for (value, id) in held {
        if said.iter().any(|other| other.value == value) {
            continue;
        }
        let change = document.hash_for_opid(&id).and_then(|hash| document.get_change_meta_by_hash(&hash));
        let Some(change) = change else { continue };
        let Label { host, author, at, .. } = Label::of_metadata(&change);
        said.push(Said { value, host, author, at });
    }
    said
}
