//! From a tree of values to a [`super::Document`], naming every problem on the way instead of stopping at the first.
//!
//! TOML and JSON arrive here as the same tree. Problems carry the path of their value; [`super::file`] knows where in
//! the file a path is. What cannot be read has a stand-in, so that the check can go on to what the rest means; it asks
//! [`Unread`] and says nothing of a stand-in.

mod tables;

use super::{
    document::{ControlKind, Endpoint, Mode, Probe, Protocol},
    fault::{Diagnostic, Fault},
    guarantee::Guarantee,
    ports::PortRange,
    prefix::Prefix,
    units::{Quantity, Rate, Span},
    word::{Word, nearest, one_of},
};
use serde_json::{Map, Value};
use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr},
};
use throttle_common::words::{Action, Algorithm, Fate, Overflow, Per, Speaks, Unit};

/// Problems in the order in which they were met, and what they left unread.
#[derive(Default)]
pub(super) struct Problems {
    pub(super) found: Vec<Problem>,
    pub(super) unread: Unread,
}

/// The paths of the values that were missing or could not be read, and have stand-ins.
#[derive(Default)]
pub(super) struct Unread(BTreeSet<String>);

impl Unread {
    /// Whether everything was read.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether this value is as its author wrote it: nothing in it, and nothing that it is in, is a stand-in.
    pub(super) fn spares(&self, path: &str) -> bool {
        self.0.is_empty() || !(self.0.contains(path) || self.holds_part_of(path) || self.holds_whole_of(path))
    }

    /// Whether this very value has a stand-in.
    pub(super) fn holds(&self, path: &str) -> bool {
        self.0.contains("") || self.0.contains(path)
    }

    fn holds_part_of(&self, path: &str) -> bool {
        ['.', '['].into_iter().any(|separator| {
            let start = format!("{path}{separator}");
            self.0.range(start.clone()..).next().is_some_and(|next| next.starts_with(&start))
        })
    }

    fn holds_whole_of(&self, path: &str) -> bool {
        self.0.contains("") || path.match_indices(['.', '[']).any(|(end, _)| self.0.contains(&path[..end]))
    }
}

/// A problem, and whether its place is the value at its path or the key in front of it.
pub(super) struct Problem {
    pub(super) diagnostic: Diagnostic,
    pub(super) of_key: bool,
}

impl Problems {
    /// A value that cannot be read.
    fn value(&mut self, path: &str, fault: Fault) {
        self.found.push(Problem { diagnostic: fault.at(path), of_key: false });
        self.unread.0.insert(path.to_owned());
    }

    /// A field that is not there.
    fn missing(&mut self, path: &str, name: &str, fault: Fault) {
        self.found.push(Problem { diagnostic: fault.at(path), of_key: false });
        self.unread.0.insert(join(path, name));
    }

    /// A key that nobody asked for; the values beside it are as they were written.
    fn key(&mut self, path: &str, fault: Fault) {
        self.found.push(Problem { diagnostic: fault.at(path), of_key: true });
    }
}

/// What can be read from a value. `None` only after a problem was named.
pub(super) trait Read: Sized {
    fn read(value: &Value, path: &str, problems: &mut Problems) -> Option<Self>;
}

/// An entry of a list.
trait Entry: Read {
    /// What stands for an entry that cannot be read, so that those after it keep their places.
    fn stand_in() -> Self;
}

/// What a tree says, as far as it can be read, and every problem of reading it.
pub(super) fn read<T: Read>(value: &Value) -> (Option<T>, Problems) {
    let mut problems = Problems::default();
    (T::read(value, "", &mut problems), problems)
}

/// Gives every problem the name of the limit or service that its path leads into.
pub(super) fn name_entries(diagnostics: &mut [Diagnostic], root: &Value) {
    for diagnostic in diagnostics {
        let entry = diagnostic.path.split('.').next().and_then(|entry| entry.strip_suffix(']')?.split_once('['));
        let name = entry.and_then(|(list, index)| root.get(list)?.get(index.parse::<usize>().ok()?)?.get("name"));
        diagnostic.name = name.and_then(Value::as_str).filter(|name| !name.is_empty()).map(str::to_owned);
    }
}

/// The fields of a table, each taken once; [`Fields::end`] names those that nobody asked for.
struct Fields<'v, 'p> {
    path: &'v str,
    table: &'v Map<String, Value>,
    known: Vec<&'static str>,
    missing: Vec<(&'static str, &'static str)>,
    problems: &'p mut Problems,
}

impl<'v, 'p> Fields<'v, 'p> {
    fn of(value: &'v Value, path: &'v str, problems: &'p mut Problems) -> Option<Self> {
        let Value::Object(table) = value else {
            problems.value(path, wrong_type(value, "a table"));
            return None;
        };
        Some(Self { path, table, known: Vec::new(), missing: Vec::new(), problems })
    }

    /// The field, if it is there and right.
    fn optional<T: Read>(&mut self, name: &'static str) -> Option<T> {
        self.known.push(name);
        let value = self.table.get(name)?;
        T::read(value, &join(self.path, name), self.problems)
    }

    /// Whether the field is there, right or wrong.
    fn has(&self, name: &str) -> bool {
        self.table.contains_key(name)
    }

    /// The field, or what stands for it.
    fn or<T: Read>(&mut self, name: &'static str, default: T) -> T {
        self.optional(name).unwrap_or(default)
    }

    /// The field; its absence is a problem whose remedy is the example.
    fn required<T: Read>(&mut self, name: &'static str, example: &'static str) -> Option<T> {
        if !self.table.contains_key(name) {
            self.missing.push((name, example));
        }
        self.optional(name)
    }

    /// Names unknown fields, and missing ones unless an unknown one is a slip of their name.
    fn end(mut self) {
        for name in self.table.keys().filter(|name| !self.known.contains(&name.as_str())) {
            let meant = nearest(name, &self.known);
            self.missing.retain(|(missing, _)| meant != Some(missing));
            // Whatever stands for the field that was meant is not what its author wrote.
            self.problems.unread.0.extend(meant.map(|meant| join(self.path, meant)));
            let reason = format!("there is no field `{name}` here");
            self.problems.key(&join(self.path, name), Fault::new(reason, one_of(name, &self.known)));
        }
        for (name, example) in self.missing {
            let fault = Fault::new(format!("`{name}` is missing"), format!("add {name} = {example}"));
            self.problems.missing(self.path, name, fault);
        }
    }
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

fn wrong_type(value: &Value, wanted: &str) -> Fault {
    let found = match value {
        Value::Null => "nothing".to_owned(),
        Value::Bool(_) => "true or false".to_owned(),
        Value::Number(number) => format!("the number {number}"),
        Value::String(_) => "text".to_owned(),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "a table".to_owned(),
    };
    Fault::new(format!("this is {found}"), format!("write {wanted}"))
}

impl<T: Entry> Read for Vec<T> {
    fn read(value: &Value, path: &str, problems: &mut Problems) -> Option<Self> {
        let Value::Array(items) = value else {
            let wanted = if value.is_object() {
                format!("[[{path}]], once for each")
            } else {
                "a list, such as [80]".to_owned()
            };
            problems.value(path, wrong_type(value, &wanted));
            return None;
        };
        let read = |(index, item)| T::read(item, &format!("{path}[{index}]"), problems).unwrap_or_else(T::stand_in);
        Some(items.iter().enumerate().map(read).collect())
    }
}

impl Entry for Prefix {
    fn stand_in() -> Self {
        IpAddr::from(Ipv4Addr::UNSPECIFIED).into()
    }
}

impl Entry for PortRange {
    fn stand_in() -> Self {
        Self::of(1)
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
    Span => "a time in quotes, such as \"15m\"", str::parse;
    Mode => "\"observe\" or \"enforce\"", Word::named;
    Protocol => "\"tcp\", \"udp\" or \"icmp\"", Word::named;
    ControlKind => "\"latency\", \"rate\", \"aimd\" or \"fixed\"", Word::named;
    Speaks => "\"http\", \"tls\" or \"opaque\"", Word::named;
    Endpoint => "an address and port in quotes, such as \"10.0.0.5:80\"", str::parse;
    Probe => "a probe in quotes, such as \"http:/healthz\"", str::parse;
    Unit => "\"packets\", \"bytes\" or \"connections\"", Word::named;
    Action => "\"drop\" or \"reject\"", Word::named;
    Algorithm => "\"token-bucket\", \"leaky-bucket\", \"fixed-window\" or \"sliding-window\"", Word::named;
    Per => "\"source\" or \"service\"", Word::named;
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
    Guarantee => "a rate in quotes, such as \"100/s\", or a number of open connections", |number| {
        let number = u32::try_from(number).map_err(|_| Fault::new(format!("{number} connections at once"), "write fewer"))?;
        Ok(Self::Connections(number))
    };
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

impl Read for bool {
    fn read(value: &Value, path: &str, problems: &mut Problems) -> Option<Self> {
        let read = value.as_bool().ok_or_else(|| wrong_type(value, "true or false"));
        read.map_err(|fault| problems.value(path, fault)).ok()
    }
}

impl Problems {
    pub(super) fn into_diagnostics(self) -> Vec<Diagnostic> {
        self.found.into_iter().map(|problem| problem.diagnostic).collect()
    }
}
