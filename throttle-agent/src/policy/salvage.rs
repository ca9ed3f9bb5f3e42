//! The policy that entries amount to, also where they contradict each other: what hosts changed at the same time may be right
//! on each, and not together.
//!
//! Whatever is at fault is set aside, as little of it as names the fault, until what is left is a policy that is right. That
//! depends on the entries and on nothing else: hosts that have the same ones enforce the same.

use super::{
    check,
    document::Document,
    entries::{Entries, LISTS, assemble},
    fault::Diagnostic,
    read::{self, Problem},
};
use serde_json::{Map, Value};

/// Faults that are set aside one after the other, because one often comes of another; beyond these all at once.
const SINGLY: usize = 64;
/// Parts of an entry that may be left out, and the entry still says what it must.
const PARTS: [&str; 5] = ["guarantee", "guarantee-burst", "health", "http", "burst"];

/// Something that is not in force, because with the rest it is no policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetAside {
    /// The entry, such as `limit web`.
    pub entry: String,
    /// The part of it that is not in force; all of it where there is none.
    pub part: Option<String>,
    /// What is wrong, and what would be right.
    pub why: String,
}

/// The policy that these entries amount to, and what of them is not in force. None where no part can be set aside that would
/// make one of them.
pub fn salvage(entries: &Entries) -> Result<(Document, Vec<SetAside>), String> {
    let mut tree = assemble(entries);
    let mut aside = Vec::new();
    for turn in 0.. {
        let value = Value::Object(tree);
        let (document, faults) = faults(&value);
        let Value::Object(back) = value else { unreachable!("it was made a table above") };
        tree = back;
        let Some(first) = faults.first() else { return Ok((document.with_units(), aside)) };
        let these = if turn < SINGLY { &faults[..1] } else { &faults[..] };
        // From the back, so that places stay what they were.
        let mut these: Vec<_> = these.iter().collect();
        these.sort_by_key(|fault| std::cmp::Reverse(place(&fault.path)));
        these.dedup_by_key(|fault| place(&fault.path));
        let before = aside.len();
        aside.extend(these.iter().filter_map(|fault| remove(&mut tree, fault)));
        if aside.len() == before {
            return Err(first.to_string());
        }
    }
    unreachable!("each turn sets something aside, and there is an end of it")
}

fn faults(value: &Value) -> (Document, Vec<Diagnostic>) {
    let (document, problems) = read::read::<Document>(value);
    let document = document.unwrap_or_default();
    let mut found: Vec<_> = problems.found.into_iter().map(|Problem { diagnostic, .. }| diagnostic).collect();
    found.extend(check::faults(&document, &problems.unread, check::Parts::ALL));
    read::name_entries(&mut found, value);
    (document, found)
}

/// The list and the place in it that a path leads to.
fn place(path: &str) -> (&str, Option<usize>) {
    let head = path.split('.').next().unwrap_or(path);
    match head.split_once('[') {
        Some((list, rest)) => (list, rest.strip_suffix(']').and_then(|index| index.parse().ok())),
        None => (head, None),
    }
}

/// Takes out of the tree what a fault is of.
fn remove(tree: &mut Map<String, Value>, fault: &Diagnostic) -> Option<SetAside> {
    let why = fault.text();
    let (part, index) = place(&fault.path);
    let rest = fault.path.split_once('.').map_or("", |(_, rest)| rest);
    if LISTS.contains(&part) {
        let list = tree.get_mut(part)?.as_array_mut()?;
        // Of a list that is too long it is the last that goes.
        let index = index.unwrap_or(usize::MAX).min(list.len().checked_sub(1)?);
        let name = list[index].get("name").and_then(Value::as_str).unwrap_or_default();
        let entry = format!("{part} {name}");
        if let Some(inner) = list[index].as_object_mut().and_then(|fields| remove_part(fields, rest)) {
            return Some(SetAside { entry, part: Some(inner), why });
        }
        list.remove(index);
        return Some(SetAside { entry, part: None, why });
    }
    if part == "sources" && rest.contains('[') {
        let (list, Some(index)) = place(rest) else { return None };
        let list_of = tree.get_mut("sources")?.as_object_mut()?.get_mut(list)?.as_array_mut()?;
        let prefix = (index < list_of.len()).then(|| list_of.remove(index))?;
        let prefix = prefix.as_str().unwrap_or_default();
        return Some(SetAside { entry: format!("sources.{list} {prefix}"), part: None, why });
    }
    let field = place(rest).0;
    if let Some(fields) = tree.get_mut(part).and_then(Value::as_object_mut)
        && fields.remove(field).is_some()
    {
        return Some(SetAside { entry: format!("{part}.{field}"), part: None, why });
    }
    let known = tree.keys().find(|key| *key == part || fault.path == **key)?.clone();
    tree.remove(&known);
    Some(SetAside { entry: known, part: None, why })
}

/// Takes a part out of an entry that the entry need not have.
fn remove_part(fields: &mut Map<String, Value>, path: &str) -> Option<String> {
    let (part, index) = place(path);
    if let ("override", Some(index)) = (part, index) {
        let overrides = fields.get_mut(part)?.as_array_mut()?;
        return (index < overrides.len()).then(|| {
            overrides.remove(index);
            format!("override {}", index + 1)
        });
    }
    if let ("sources", Some(index)) = (part, index) {
        let sources = fields.get_mut(part)?.as_array_mut()?;
        return (index < sources.len())
            .then(|| format!("source {}", sources.remove(index).as_str().unwrap_or_default()));
    }
    if !PARTS.contains(&part) {
        return None;
    }
    if part == "guarantee" {
        fields.remove("guarantee-burst");
    }
    fields.remove(part).map(|_| part.to_owned())
}
