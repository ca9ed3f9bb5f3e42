//! A document as entries, told apart by what they are called: how hosts tell each other what has changed.
//!
//! A limit is the entry `limit NAME`, and so are services, backends and tenants; a prefix is `sources.allow PREFIX`; each
//! setting is one of its own, such as `mode` or `shapes.arp`. The order of lists is nothing: assembled, they are in the order
//! of names.

use super::{diff::without_what_is_alike, document::Document};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// The lists of named entries.
pub(super) const LISTS: [&str; 4] = ["service", "backend", "tenant", "limit"];

/// What a document holds, by what it is called.
pub type Entries = BTreeMap<String, Value>;

/// The entries of either document that the other does not have just so.
pub fn differing(old: &Document, new: &Document) -> (Entries, Entries) {
    let (mut before, mut after) =
        (entries(&without_what_is_alike(old, new)), entries(&without_what_is_alike(new, old)));
    before.retain(|key, value| after.get(key) != Some(value) || after.remove(key).is_none());
    (before, after)
}

/// All entries of a document.
pub fn entries(document: &Document) -> Entries {
    let mut entries = Entries::new();
    let Ok(Value::Object(parts)) = serde_json::to_value(document) else { return entries };
    for (part, value) in parts {
        match value {
            Value::Array(list) => entries.extend(list.into_iter().filter_map(|entry| named(&part, entry))),
            Value::Object(fields) if part == "sources" => {
                for (list, prefixes) in fields {
                    let Value::Array(prefixes) = prefixes else { continue };
                    let of_list = prefixes.iter().filter_map(Value::as_str);
                    entries.extend(of_list.map(|prefix| (format!("sources.{list} {prefix}"), Value::Bool(true))));
                }
            }
            Value::Object(fields) => {
                entries.extend(fields.into_iter().map(|(field, value)| (format!("{part}.{field}"), value)));
            }
            value => _ = entries.insert(part, value),
        }
    }
    entries
}

/// An entry of a list under its name. The sources of a tenant are a set.
fn named(list: &str, entry: Value) -> Option<(String, Value)> {
    let Value::Object(mut fields) = entry else { return None };
    let name = fields.remove("name")?.as_str()?.to_owned();
    if list == "tenant"
        && let Some(Value::Array(sources)) = fields.get("sources")
    {
        let members = sources.iter().filter_map(|source| Some((source.as_str()?.to_owned(), Value::Bool(true))));
        let members: Map<String, Value> = members.collect();
        fields.insert("sources".to_owned(), members.into());
    }
    Some((format!("{list} {name}"), fields.into()))
}

/// The tree of a document with these entries, as [`super::read`] takes it. What is no entry of any kind stands in it by its
/// name, and is a fault.
pub(super) fn assemble(entries: &Entries) -> Map<String, Value> {
    let mut tree = Map::new();
    for (key, value) in entries {
        let (kind, name) = key.split_once(' ').map_or((key.as_str(), None), |(kind, name)| (kind, Some(name)));
        match (kind.split_once('.'), name) {
            (None, Some(name)) if LISTS.contains(&kind) => list(&mut tree, kind).push(entry(kind, name, value)),
            (Some(("sources", list_name)), Some(prefix)) => {
                list(table(&mut tree, "sources"), list_name).push(prefix.into());
            }
            (Some((part, field)), None) => _ = table(&mut tree, part).insert(field.to_owned(), value.clone()),
            _ => _ = tree.insert(key.clone(), value.clone()),
        }
    }
    tree
}

fn entry(kind: &str, name: &str, value: &Value) -> Value {
    let mut fields = value.as_object().cloned().unwrap_or_default();
    if kind == "tenant"
        && let Some(Value::Object(members)) = fields.get("sources")
    {
        let members: Vec<Value> = members.keys().map(|source| source.as_str().into()).collect();
        fields.insert("sources".to_owned(), members.into());
    }
    fields.insert("name".to_owned(), name.into());
    fields.into()
}

fn list<'t>(tree: &'t mut Map<String, Value>, name: &str) -> &'t mut Vec<Value> {
    let place = tree.entry(name).or_insert_with(|| Value::Array(Vec::new()));
    if !place.is_array() {
        *place = Value::Array(Vec::new());
    }
    place.as_array_mut().expect("it is a list now")
}

fn table<'t>(tree: &'t mut Map<String, Value>, name: &str) -> &'t mut Map<String, Value> {
    let place = tree.entry(name).or_insert_with(|| Value::Object(Map::new()));
    if !place.is_object() {
        *place = Value::Object(Map::new());
    }
    place.as_object_mut().expect("it is a table now")
}
