//! Tables of JSON in an automerge document: each table a map, each other value text of JSON in one field.

use automerge::{
    Automerge, AutomergeError, ObjId, ObjType, ROOT, ReadDoc, ScalarValue, Value as Held,
    transaction::{Transactable, Transaction},
};
use serde_json::{Map, Value};

/// How deep tables may lie in one another; what is deeper is not read.
const DEPTH: usize = 8;

/// What the document says.
pub(super) fn read(document: &Automerge) -> Map<String, Value> {
    table(document, &ROOT, DEPTH)
}

fn table(document: &Automerge, at: &ObjId, depth: usize) -> Map<String, Value> {
    let items = document.map_range(at, ..);
    items
        .filter_map(|item| {
            let id = item.id();
            let key = item.key.into_owned();
            Some((key, value(document, &Held::from(item.value), &id, depth)?))
        })
        .collect()
}

/// The value of a field; none where it is nothing that this module writes.
pub(super) fn value(document: &Automerge, held: &Held<'_>, id: &ObjId, depth: usize) -> Option<Value> {
    match held {
        Held::Object(ObjType::Map) => Some(table(document, id, depth.checked_sub(1)?).into()),
        Held::Object(_) => None,
        Held::Scalar(scalar) => match scalar.as_ref() {
            ScalarValue::Str(text) => serde_json::from_str(text).ok().filter(|value: &Value| !value.is_object()),
            _ => None,
        },
    }
}

/// The value of each field that it has one of several: all that were given it at the same time.
pub(super) fn each(document: &Automerge, at: &ObjId, key: &str) -> Vec<(Value, ObjId)> {
    let held = document.get_all(at, key).unwrap_or_default();
    held.into_iter().filter_map(|(held, id)| Some((value(document, &held, &id, DEPTH)?, id))).collect()
}

/// Makes `new` of what was `old`, and touches nothing that is the same in both.
pub(super) fn change(
    to: &mut Transaction<'_>,
    at: &ObjId,
    old: &Map<String, Value>,
    new: &Map<String, Value>,
) -> Result<(), AutomergeError> {
    for key in old.keys().filter(|key| !new.contains_key(*key)) {
        if to.get(at, key.as_str())?.is_some() {
            to.delete(at, key.as_str())?;
        }
    }
    for (key, value) in new {
        let before = old.get(key);
        if before == Some(value) {
            continue;
        }
        let inside = match to.get(at, key.as_str())? {
            Some((Held::Object(ObjType::Map), inside)) => Some(inside),
            _ => None,
        };
        match (before, value, inside) {
            (Some(Value::Object(before)), Value::Object(value), Some(inside)) => change(to, &inside, before, value)?,
            _ => put(to, at, key, value)?,
        }
    }
    Ok(())
}

/// Gives a field a value, whatever it had.
pub(super) fn put(to: &mut Transaction<'_>, at: &ObjId, key: &str, value: &Value) -> Result<(), AutomergeError> {
    match value {
        Value::Object(fields) => {
            let inside = to.put_object(at, key, ObjType::Map)?;
            fields.iter().try_for_each(|(key, value)| put(to, &inside, key, value))
        }
        value => to.put(at, key, value.to_string()),
    }
}
