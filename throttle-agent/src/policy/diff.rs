//! What changes from one document to another, field by field.

use super::document::Document;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::{collections::BTreeSet, fmt};
use utoipa::ToSchema;

/// One difference. Services and limits are told by their names, sources by their prefixes; their order is nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Change {
    /// The field, such as `limit[web].rate`, or a whole entry, such as `limit[web]`.
    pub path: String,
    /// What it was; none where it is new.
    pub old: Option<String>,
    /// What it is; none where it is gone.
    pub new: Option<String>,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.old, &self.new) {
            (Some(old), Some(new)) => write!(f, "~ {}: {old} -> {new}", self.path),
            (Some(old), None) => write!(f, "- {} = {old}", self.path),
            (None, Some(new)) => write!(f, "+ {} = {new}", self.path),
            (None, None) => write!(f, "  {}", self.path),
        }
    }
}

/// Every difference between two documents, in the order of their fields.
pub fn diff(old: &Document, new: &Document) -> Vec<Change> {
    let value = |document| serde_json::to_value(document).expect("a document has only string keys");
    let mut changes = Vec::new();
    fields("", as_table(&value(old)), as_table(&value(new)), &mut changes);
    changes
}

fn compare(path: &str, old: Option<&Value>, new: Option<&Value>, changes: &mut Vec<Change>) {
    match (old, new) {
        (old, new) if old == new => {}
        (Some(Value::Object(old)), Some(Value::Object(new))) => fields(path, old, new, changes),
        (Some(Value::Array(old)), Some(Value::Array(new))) if path == "service" || path == "limit" => {
            fields(path, &by_name(old), &by_name(new), changes);
        }
        (Some(Value::Array(old)), Some(Value::Array(new))) if path.starts_with("sources.") => {
            members(path, old, new, changes);
        }
        (old, new) => changes.push(Change { path: path.to_owned(), old: old.map(text), new: new.map(text) }),
    }
}

fn fields(path: &str, old: &Map<String, Value>, new: &Map<String, Value>, changes: &mut Vec<Change>) {
    for name in old.keys().chain(new.keys()).collect::<BTreeSet<_>>() {
        let path = match path {
            "" => name.clone(),
            "service" | "limit" => format!("{path}[{name}]"),
            _ => format!("{path}.{name}"),
        };
        compare(&path, old.get(name), new.get(name), changes);
    }
}

fn members(path: &str, old: &[Value], new: &[Value], changes: &mut Vec<Change>) {
    let set = |values: &[Value]| values.iter().map(text).collect::<BTreeSet<_>>();
    let (old, new) = (set(old), set(new));
    let change = |old: Option<&String>, new: Option<&String>| Change {
        path: path.to_owned(),
        old: old.cloned(),
        new: new.cloned(),
    };
    changes.extend(old.difference(&new).map(|gone| change(Some(gone), None)));
    changes.extend(new.difference(&old).map(|added| change(None, Some(added))));
}

fn as_table(value: &Value) -> &Map<String, Value> {
    value.as_object().expect("a document is a table")
}

/// The entries of a list by their names, which they then need not repeat.
fn by_name(list: &[Value]) -> Map<String, Value> {
    let named = |entry: &Value| {
        let mut fields = as_table(entry).clone();
        let name = fields.remove("name").as_ref().and_then(Value::as_str).unwrap_or_default().to_owned();
        (name, Value::Object(fields))
    };
    list.iter().map(named).collect()
}

/// A value as TOML writes it on one line.
fn text(value: &Value) -> String {
    match value {
        Value::Object(fields) => {
            let fields: Vec<_> = fields.iter().map(|(name, value)| format!("{name} = {}", text(value))).collect();
            format!("{{ {} }}", fields.join(", "))
        }
        Value::Array(items) => format!("[{}]", items.iter().map(text).collect::<Vec<_>>().join(", ")),
        scalar => scalar.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{parse, tests::EXAMPLE};

    fn changes(from: &str, to: &str) -> Vec<String> {
        let (old, new) = (parse(from).unwrap(), parse(to).unwrap());
        diff(&old, &new).iter().map(Change::to_string).collect()
    }

    #[test]
    fn a_document_does_not_differ_from_itself() {
        assert_eq!(changes(EXAMPLE, EXAMPLE), [""; 0]);
    }

    #[test]
    fn each_changed_field_is_one_line() {
        let other = EXAMPLE.replace("50/min", "60/min").replace("192.0.2.0/24", "192.0.3.0/24");
        let expected = [
            r#"~ limit[new-connections].rate: "50/min" -> "60/min""#,
            r#"- sources.allow = "192.0.2.0/24""#,
            r#"+ sources.allow = "192.0.3.0/24""#,
        ];
        assert_eq!(changes(EXAMPLE, &other), expected);
    }

    #[test]
    fn an_entry_that_comes_or_goes_is_one_line() {
        let service = "[[service]]\nname = \"dns\"\nprotocol = \"udp\"\nports = [53]\n";
        assert_eq!(changes("", service), [r#"+ service[dns] = { ports = [53], protocol = "udp" }"#]);
        assert_eq!(changes(service, ""), [r#"- service[dns] = { ports = [53], protocol = "udp" }"#]);
    }

    #[test]
    fn the_order_of_entries_is_nothing() {
        let service =
            |name: &str, port| format!("[[service]]\nname = \"{name}\"\nprotocol = \"tcp\"\nports = [{port}]\n");
        let (one, two) = (service("one", 1), service("two", 2));
        assert_eq!(changes(&format!("{one}{two}"), &format!("{two}{one}")), [""; 0]);
    }
}
