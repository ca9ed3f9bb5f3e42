//! What changes from one document to another, field by field.

use super::{
    document::{Backend, Document, Endpoint, Health, Limit, Sources},
    keyed::{Keyed, differing},
    shared::Shared,
    units::Rate,
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::{collections::BTreeSet, fmt};
use throttle_common::words::{Algorithm, Unit};
use utoipa::ToSchema;

/// One difference. Services, backends, tenants and limits are told by their names, sources by their prefixes; their order is
/// nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Change {
    /// The part of the document: `mode`, `service`, `backend`, `tenant`, `limit`, `sources`, `shapes`, `answers` or
    /// `events`.
    pub kind: String,
    /// The name of the service, backend, tenant or limit.
    pub name: Option<String>,
    /// The field, such as `rate` or `prefix.ipv4`; none where an entry comes or goes as a whole.
    pub field: Option<String>,
    /// What it was; none where it is new. A whole entry is told by the fields that are not as by default.
    #[schema(value_type = Option<Value>)]
    pub from: Option<Value>,
    /// What it is; none where it is gone.
    #[schema(value_type = Option<Value>)]
    pub to: Option<Value>,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, name, field, from, to } = self;
        let place = match (name, field) {
            (Some(name), Some(field)) => format!("{kind} \"{name}\": {field}"),
            (Some(name), None) => format!("{kind} \"{name}\":"),
            (None, Some(field)) => format!("{kind}.{field}"),
            (None, None) => kind.clone(),
        };
        match (from, to) {
            (Some(from), Some(to)) => write!(f, "~ {place} {} -> {}", text(from), text(to)),
            (Some(from), None) => write!(f, "- {place} {}", text(from)),
            (None, Some(to)) => write!(f, "+ {place} {}", text(to)),
            (None, None) => write!(f, "  {place}"),
        }
    }
}

/// Every difference between two documents, in the order of their fields.
pub fn diff(old: &Document, new: &Document) -> Vec<Change> {
    let parts = |document: &Document, other: &Document| {
        let differing = without_what_is_alike(document, other);
        table(serde_json::to_value(differing).expect("a document has only string keys"))
    };
    let (old, new) = (parts(old, new), parts(new, old));
    let mut changes = Vec::new();
    for kind in keys(&old, &new) {
        let at = Place { kind, name: None };
        let (old, new) = (old.get(kind), new.get(kind));
        // An empty list may be left out.
        let list = |part: Option<&Value>| part.and_then(Value::as_array).cloned();
        match (list(old), list(new)) {
            (None, None) => at.compare("", old, new, &mut changes),
            (old, new) => entries(at, &old.unwrap_or_default(), &new.unwrap_or_default(), &mut changes),
        }
    }
    changes
}

/// A document without those entries of its lists that another has just so: they may be very many, and do not differ.
pub(super) fn without_what_is_alike(document: &Document, other: &Document) -> Document {
    fn unlike<T: Keyed>(list: &Shared<Vec<T>>, other: &Shared<Vec<T>>) -> Shared<Vec<T>> {
        if list == other { Shared::default() } else { differing(list, other).into() }
    }
    let (own, others) = (&document.sources, &other.sources);
    let sources = if own == others {
        Sources::default()
    } else {
        Sources {
            allow: differing(&own.allow, &others.allow),
            known: differing(&own.known, &others.known),
            block: differing(&own.block, &others.block),
        }
    };
    Document {
        sources: sources.into(),
        tenants: unlike(&document.tenants, &other.tenants),
        services: unlike(&document.services, &other.services),
        backends: unlike(&document.backends, &other.backends),
        limits: differing(&document.limits, &other.limits),
        mode: document.mode,
        shapes: document.shapes.clone(),
        answers: document.answers,
        events: document.events,
    }
}

/// Where in a document.
#[derive(Clone, Copy)]
struct Place<'d> {
    kind: &'d str,
    name: Option<&'d str>,
}

impl Place<'_> {
    fn change(self, field: &str, from: Option<Value>, to: Option<Value>) -> Change {
        let field = (!field.is_empty()).then(|| field.to_owned());
        Change { kind: self.kind.to_owned(), name: self.name.map(str::to_owned), field, from, to }
    }

    fn compare(self, field: &str, old: Option<&Value>, new: Option<&Value>, changes: &mut Vec<Change>) {
        match (old, new) {
            (old, new) if old == new => {}
            (Some(Value::Object(old)), Some(Value::Object(new))) => {
                for name in keys(old, new) {
                    let field = if field.is_empty() { name.clone() } else { format!("{field}.{name}") };
                    self.compare(&field, old.get(name), new.get(name), changes);
                }
            }
            (Some(Value::Array(old)), Some(Value::Array(new))) if self.kind == "sources" || field == "sources" => {
                let set = |list: &'_ [Value]| list.iter().map(text).collect::<BTreeSet<_>>();
                let (old, new) = (set(old), set(new));
                let gone = old.difference(&new).map(|gone| self.change(field, Some(gone.as_str().into()), None));
                changes.extend(gone);
                let added = new.difference(&old).map(|added| self.change(field, None, Some(added.as_str().into())));
                changes.extend(added);
            }
            (old, new) if self.kind == "service" && field == HEALTH => {
                let silent = Value::Object(silent(Health::default(), &["mode"]));
                let said = |health: Option<&Value>| health.map(|health| unlike(health, &silent));
                changes.push(self.change(field, said(old), said(new)));
            }
            (old, new) => changes.push(self.change(field, old.cloned(), new.cloned())),
        }
    }
}

/// The entries of a list, by their names.
fn entries(at: Place<'_>, old: &[Value], new: &[Value], changes: &mut Vec<Change>) {
    let (old, new) = (by_name(old), by_name(new));
    for name in keys(&old, &new) {
        let at = Place { name: Some(name), ..at };
        match (old.get(name), new.get(name)) {
            (Some(old), Some(new)) => at.compare("", Some(old), Some(new), changes),
            (old, new) => {
                let said = |entry: Option<&Value>| entry.map(|entry| said(at.kind, entry));
                changes.push(at.change("", said(old), said(new)));
            }
        }
    }
}

/// The entries of a list by their names, which they then need not repeat.
fn by_name(list: &[Value]) -> Map<String, Value> {
    let named = |entry: &Value| {
        let mut fields = table(entry.clone());
        let name = fields.remove("name").as_ref().and_then(Value::as_str).unwrap_or_default().to_owned();
        (name, Value::Object(fields))
    };
    list.iter().map(named).collect()
}

/// What of an entry is not as it would be if nobody had said so.
fn said(kind: &str, entry: &Value) -> Value {
    let silent = match kind {
        "limit" => {
            let limit = Limit::new("", Unit::Packets, Rate::per_second(1));
            let mut silent = silent(limit, &["unit", "rate"]);
            if entry.get("concurrent").is_some() {
                silent.insert("algorithm".to_owned(), Algorithm::Concurrency.name().into());
            }
            silent
        }
        "service" => Map::from_iter([(HEALTH.to_owned(), silent(Health::default(), &["mode"]).into())]),
        "backend" => {
            let place = Endpoint::Static(([127, 0, 0, 1], 1).into());
            silent(Backend::new("", "", place), &["service", "address"])
        }
        _ => Map::new(),
    };
    unlike(entry, &Value::Object(silent))
}

/// The part of a service that comes and goes by itself. Its mode is always told: it has limits follow, or not.
const HEALTH: &str = "health";

/// What the fields of an entry are by default, but for those that have to be said.
fn silent(entry: impl Serialize, told: &[&str]) -> Map<String, Value> {
    let mut silent = table(serde_json::to_value(entry).expect("an entry has only string keys"));
    silent.retain(|field, _| !told.contains(&field.as_str()));
    silent
}

/// A table without the fields that another has just so.
fn unlike(value: &Value, other: &Value) -> Value {
    let (Value::Object(fields), Value::Object(others)) = (value, other) else { return value.clone() };
    let differing = fields.iter().filter(|(name, value)| others.get(*name) != Some(value));
    let differing = differing.map(|(name, value)| {
        (name.clone(), others.get(name).map_or_else(|| value.clone(), |other| unlike(value, other)))
    });
    Value::Object(differing.collect())
}

fn keys<'m>(old: &'m Map<String, Value>, new: &'m Map<String, Value>) -> BTreeSet<&'m String> {
    old.keys().chain(new.keys()).collect()
}

fn table(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(fields) => fields,
        _ => unreachable!("documents and their entries are tables"),
    }
}

/// A value in few words: `rate 50/min, unit packets`.
fn text(value: &Value) -> String {
    let list = |items: Vec<String>| items.join(", ");
    match value {
        Value::Object(fields) => list(fields.iter().map(|(name, value)| format!("{name} {}", inner(value))).collect()),
        Value::Array(items) => list(items.iter().map(inner).collect()),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// A value within another: in brackets where it is a list itself.
fn inner(value: &Value) -> String {
    match value {
        Value::Object(_) | Value::Array(_) => format!("({})", text(value)),
        other => text(other),
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
            r#"~ limit "new-connections": rate 50/min -> 60/min"#,
            "- sources.allow 192.0.2.0/24",
            "+ sources.allow 192.0.3.0/24",
        ];
        assert_eq!(changes(EXAMPLE, &other), expected);
        assert_eq!(
            changes("", "mode = \"enforce\"\n[shapes]\narp = \"drop\"\n[events]\nrate = \"0/s\"\n"),
            ["~ events.rate 100/s -> 0/s", "~ mode observe -> enforce", "+ shapes.arp drop",]
        );
    }

    #[test]
    fn a_change_is_told_to_programs_by_its_place() {
        let (old, new) = (parse(EXAMPLE).unwrap(), parse(&EXAMPLE.replace("ipv4 = 24", "ipv4 = 25")).unwrap());
        let told = serde_json::to_value(diff(&old, &new)).unwrap();
        let expected = serde_json::json!([
            {"kind": "limit", "name": "new-connections", "field": "prefix.ipv4", "from": 24, "to": 25}
        ]);
        assert_eq!(told, expected);
    }

    #[test]
    fn an_entry_that_comes_or_goes_is_one_line_of_what_was_said() {
        let service = "[[service]]\nname = \"dns\"\nprotocol = \"udp\"\nports = [53, 54]\n";
        assert_eq!(changes("", service), [r#"+ service "dns": ports (53, 54), protocol udp"#]);
        assert_eq!(changes(service, ""), [r#"- service "dns": ports (53, 54), protocol udp"#]);
        let limit = "[[limit]]\nname = \"few\"\nunit = \"packets\"\nrate = \"5/s\"\n";
        assert_eq!(changes("", limit), [r#"+ limit "few": rate 5/s, unit packets"#]);
        let coarse = format!("{limit}mode = \"observe\"\nprefix = {{ ipv6 = 56 }}\n");
        assert_eq!(changes("", &coarse), [r#"+ limit "few": mode observe, prefix (ipv6 56), rate 5/s, unit packets"#]);
    }

    #[test]
    fn health_and_backends_are_told_by_what_was_said_of_them() {
        let service = "[[service]]\nname = \"dns\"\nprotocol = \"udp\"\nports = [53]\n";
        let limit = "[[limit]]\nname = \"few\"\nservice = \"dns\"\nunit = \"packets\"\nrate = \"5/s\"\n";
        let before = format!("{limit}{service}");
        let health = "[service.health]\ncontrol = \"rate\"\n";
        let slow = format!("{health}objective = \"1s\"\n");
        let told = |from: &str, to: &str| changes(&format!("{before}{from}"), &format!("{before}{to}"));
        assert_eq!(told("", health), [r#"+ service "dns": health control rate, mode observe"#]);
        assert_eq!(told(&slow, ""), [r#"- service "dns": health control rate, mode observe, objective 1s"#]);
        assert_eq!(told(health, &slow), [r#"~ service "dns": health.objective 250ms -> 1s"#]);
        let with = changes("", &format!("{before}{health}"));
        assert!(
            with.contains(
                &r#"+ service "dns": health (control rate, mode observe), ports (53), protocol udp"#.to_owned()
            ),
            "{with:?}"
        );
        let backend = "[[backend]]\nname = \"one\"\nservice = \"dns\"\naddress = \"10.0.0.5:53\"\nprobe = \"push\"\n";
        assert_eq!(
            told(health, &format!("{health}{backend}")),
            [r#"+ backend "one": address 10.0.0.5:53, probe push, service dns"#]
        );
    }

    #[test]
    fn the_first_and_the_last_of_a_list_come_and_go_as_others_do() {
        let tenant = "[[tenant]]\nname = \"acme\"\nsources = [\"192.0.2.0/24\"]\n";
        assert_eq!(changes("", tenant), [r#"+ tenant "acme": sources (192.0.2.0/24)"#]);
        assert_eq!(changes(tenant, ""), [r#"- tenant "acme": sources (192.0.2.0/24)"#]);
    }

    #[test]
    fn the_order_of_entries_is_nothing() {
        let service =
            |name: &str, port| format!("[[service]]\nname = \"{name}\"\nprotocol = \"tcp\"\nports = [{port}]\n");
        let (one, two) = (service("one", 1), service("two", 2));
        assert_eq!(changes(&format!("{one}{two}"), &format!("{two}{one}")), [""; 0]);
    }
}
