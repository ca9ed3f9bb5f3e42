//! From a tree of values to a [`Document`], naming every problem on the way instead of stopping at the first.
//!
//! TOML and JSON arrive here as the same tree. Problems carry the path of their value; [`super::toml`] knows where in
//! the file a path is.

use super::{
    document::{Answers, Document, Events, Lengths, Limit, Mode, Protocol, Service, Sources, default},
    fault::{Diagnostic, Diagnostics, Fault},
    ports::PortRange,
    prefix::Prefix,
    units::{Quantity, Rate},
    word::{Word, one_of},
};
use serde::{Deserialize, Deserializer, de::Error as _};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use throttle_common::words::{Action, Fate, Overflow, Reason, Unit};

/// Problems in the order in which they were met.
#[derive(Default)]
pub(super) struct Problems(pub(super) Vec<Problem>);

/// A problem, and whether its place is the value at its path or the key in front of it.
pub(super) struct Problem {
    pub(super) diagnostic: Diagnostic,
    pub(super) of_key: bool,
}

impl Problems {
    fn value(&mut self, path: &str, fault: Fault) {
        self.0.push(Problem { diagnostic: fault.at(path), of_key: false });
    }

    fn key(&mut self, path: &str, fault: Fault) {
        self.0.push(Problem { diagnostic: fault.at(path), of_key: true });
    }
}

/// What can be read from a value. `None` only after a problem was named.
pub(super) trait Read: Sized {
    fn read(value: &Value, path: &str, problems: &mut Problems) -> Option<Self>;
}

/// Reads a whole tree, or names every problem.
pub(super) fn read<T: Read>(value: &Value) -> (Option<T>, Problems) {
    let mut problems = Problems::default();
    let read = T::read(value, "", &mut problems);
    (read.filter(|_| problems.0.is_empty()), problems)
}

/// The fields of a table, each taken once; [`Fields::end`] names those that nobody asked for.
struct Fields<'v, 'p> {
    path: &'v str,
    table: &'v Map<String, Value>,
    known: Vec<&'static str>,
    problems: &'p mut Problems,
    complete: bool,
}

impl<'v, 'p> Fields<'v, 'p> {
    fn of(value: &'v Value, path: &'v str, problems: &'p mut Problems) -> Option<Self> {
        let Value::Object(table) = value else {
            problems.value(path, wrong_type(value, "a table"));
            return None;
        };
        Some(Self { path, table, known: Vec::new(), problems, complete: true })
    }

    /// The field, if it is there and right.
    fn optional<T: Read>(&mut self, name: &'static str) -> Option<T> {
        self.known.push(name);
        let value = self.table.get(name)?;
        T::read(value, &join(self.path, name), self.problems)
    }

    /// The field, or what stands for it.
    fn or<T: Read>(&mut self, name: &'static str, default: T) -> T {
        self.optional(name).unwrap_or(default)
    }

    /// The field; its absence is a problem whose remedy is the example.
    fn required<T: Read>(&mut self, name: &'static str, example: &str) -> Option<T> {
        if !self.table.contains_key(name) {
            self.problems
                .value(self.path, Fault::new(format!("`{name}` is missing"), format!("add {name} = {example}")));
        }
        let read = self.optional(name);
        self.complete &= read.is_some();
        read
    }

    /// Names unknown fields. `None` where a required one was not read.
    fn end(self) -> Option<()> {
        for name in self.table.keys().filter(|name| !self.known.contains(&name.as_str())) {
            let reason = format!("there is no field `{name}` here");
            self.problems.key(&join(self.path, name), Fault::new(reason, one_of(name, &self.known)));
        }
        self.complete.then_some(())
    }
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

fn wrong_type(value: &Value, wanted: &str) -> Fault {
    let found = match value {
        Value::Null => "nothing",
        Value::Bool(_) => "true or false",
        Value::Number(number) if number.is_f64() => "a number with a fraction",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "a table",
    };
    Fault::new(format!("this is {found}"), format!("write {wanted}"))
}

impl Read for Document {
    fn read(value: &Value, path: &str, problems: &mut Problems) -> Option<Self> {
        let mut fields = Fields::of(value, path, problems)?;
        let document = Self {
            mode: fields.or("mode", Mode::default()),
            services: fields.or("service", Vec::new()),
            limits: fields.or("limit", Vec::new()),
            sources: fields.or("sources", Sources::default()),
            shapes: fields.or("shapes", BTreeMap::new()),
            answers: fields.or("answers", Answers::default()),
            events: fields.or("events", Events::default()),
        };
        fields.end().map(|()| document)
    }
}

impl Read for Service {
    fn read(value: &Value, path: &str, problems: &mut Problems) -> Option<Self> {
        let mut fields = Fields::of(value, path, problems)?;
        let name = fields.required("name", "\"web\"");
        let protocol = fields.required("protocol", "\"tcp\"");
        let ports = fields.or("ports", Vec::new());
        let destination = fields.optional("destination");
        fields.end()?;
        Some(Self { name: name?, protocol: protocol?, ports, destination })
    }
}

impl Read for Limit {
    fn read(value: &Value, path: &str, problems: &mut Problems) -> Option<Self> {
        let mut fields = Fields::of(value, path, problems)?;
        let name: Option<String> = fields.required("name", "\"new-connections\"");
        let service = fields.optional("service");
        let unit = fields.required("unit", "\"packets\"");
        let rate = fields.required("rate", "\"1000/s\"");
        let burst = fields.optional("burst");
        let action = fields.or("action", default::action());
        let mode = fields.or("mode", default::mode());
        let overflow = fields.or("overflow", default::overflow());
        let prefix = fields.lengths("prefix", default::prefix());
        let aggregate = fields.lengths("aggregate", default::aggregate());
        let sources = fields.or("sources", default::sources());
        fields.end()?;
        let limit = Self::new(name?, unit?, rate?);
        Some(Self { service, burst, action, mode, overflow, prefix, aggregate, sources, ..limit })
    }
}

impl Fields<'_, '_> {
    /// Both lengths of a prefix; the one that is not written is the default's.
    fn lengths(&mut self, name: &'static str, default: Lengths) -> Lengths {
        self.known.push(name);
        let path = join(self.path, name);
        let Some(value) = self.table.get(name) else { return default };
        let Some(mut fields) = Fields::of(value, &path, self.problems) else { return default };
        let lengths = Lengths { ipv4: fields.or("ipv4", default.ipv4), ipv6: fields.or("ipv6", default.ipv6) };
        fields.end();
        lengths
    }
}

impl Read for Sources {
    fn read(value: &Value, path: &str, problems: &mut Problems) -> Option<Self> {
        let mut fields = Fields::of(value, path, problems)?;
        let sources = Self {
            allow: fields.or("allow", Vec::new()),
            known: fields.or("known", Vec::new()),
            block: fields.or("block", Vec::new()),
        };
        fields.end().map(|()| sources)
    }
}

impl Read for Answers {
    fn read(value: &Value, path: &str, problems: &mut Problems) -> Option<Self> {
        let mut fields = Fields::of(value, path, problems)?;
        let answers = Self { rate: fields.or("rate", default::answers()) };
        fields.end().map(|()| answers)
    }
}

impl Read for Events {
    fn read(value: &Value, path: &str, problems: &mut Problems) -> Option<Self> {
        let mut fields = Fields::of(value, path, problems)?;
        let events = Self { rate: fields.or("rate", default::events()) };
        fields.end().map(|()| events)
    }
}

impl Read for BTreeMap<Reason, Fate> {
    fn read(value: &Value, path: &str, problems: &mut Problems) -> Option<Self> {
        let Value::Object(table) = value else {
            problems.value(path, wrong_type(value, "a table of shapes and fates"));
            return None;
        };
        let mut fates = Self::new();
        for (name, value) in table {
            let path = join(path, name);
            let fate = Fate::read(value, &path, problems);
            match <Reason as Word>::named(name) {
                Ok(shape) => fates.extend(fate.map(|fate| (shape, fate))),
                Err(fault) => problems.key(&path, fault),
            }
        }
        Some(fates)
    }
}

impl<T: Read> Read for Vec<T> {
    fn read(value: &Value, path: &str, problems: &mut Problems) -> Option<Self> {
        let Value::Array(items) = value else {
            problems.value(path, wrong_type(value, "a list in square brackets"));
            return None;
        };
        let read = |(index, item)| T::read(item, &format!("{path}[{index}]"), problems);
        Some(items.iter().enumerate().filter_map(read).collect())
    }
}

macro_rules! read_text {
    ($($type:ty => $wanted:literal, $read:expr;)+) => {$(
        impl Read for $type {
            fn read(value: &Value, path: &str, problems: &mut Problems) -> Option<Self> {
                let read: fn(&str) -> Result<Self, Fault> = $read;
                let read = value.as_str().ok_or_else(|| wrong_type(value, $wanted)).and_then(read);
                read.map_err(|fault| problems.value(path, fault)).ok()
            }
        }
    )+};
}

read_text! {
    String => "text in quotes", |text| Ok(text.to_owned());
    Prefix => "an address or prefix in quotes", str::parse;
    Rate => "a rate in quotes, such as \"50/min\"", str::parse;
    Mode => "\"observe\" or \"enforce\"", Word::named;
    Protocol => "\"tcp\", \"udp\" or \"icmp\"", Word::named;
    Unit => "\"packets\", \"bytes\" or \"connections\"", Word::named;
    Action => "\"drop\" or \"reject\"", Word::named;
    Overflow => "\"aggregate\", \"refuse\" or \"admit\"", Word::named;
    Fate => "\"pass\" or \"drop\"", Word::named;
}

macro_rules! read_number_or_text {
    ($($type:ty => $wanted:literal, $number:expr;)+) => {$(
        impl Read for $type {
            fn read(value: &Value, path: &str, problems: &mut Problems) -> Option<Self> {
                let number: fn(u64) -> Result<Self, Fault> = $number;
                let read = match (value.as_u64(), value.as_str()) {
                    (Some(value), _) => number(value),
                    (_, Some(text)) => text.parse(),
                    _ => Err(wrong_type(value, $wanted)),
                };
                read.map_err(|fault| problems.value(path, fault)).ok()
            }
        }
    )+};
}

read_number_or_text! {
    Quantity => "a number such as 50 or text such as \"64KiB\"", |number| number.to_string().parse();
    PortRange => "a port such as 80 or a range such as \"8000-8080\"", |port| Self::new(port, port);
}

macro_rules! read_number {
    ($($type:ty),+) => {$(
        impl Read for $type {
            fn read(value: &Value, path: &str, problems: &mut Problems) -> Option<Self> {
                let wanted = || wrong_type(value, &format!("a whole number from 0 to {}", Self::MAX));
                let read = value.as_u64().and_then(|number| Self::try_from(number).ok()).ok_or_else(wanted);
                read.map_err(|fault| problems.value(path, fault)).ok()
            }
        }
    )+};
}

read_number!(u8, u32);

macro_rules! deserialize_by_reading {
    ($($type:ty),+) => {$(
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let (read, problems) = read(&Value::deserialize(deserializer)?);
                read.ok_or_else(|| D::Error::custom(problems.into_diagnostics()))
            }
        }
    )+};
}

deserialize_by_reading!(Document, Service, Limit, Sources, Answers, Events);

impl Problems {
    pub(super) fn into_diagnostics(self) -> Diagnostics {
        Diagnostics(self.0.into_iter().map(|problem| problem.diagnostic).collect())
    }
}
