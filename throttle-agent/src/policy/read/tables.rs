//! The tables of a document, field by field.

use super::{Entry, Fields, Problems, Read, join, name_entries, read, wrong_type};
use crate::policy::{
    document::{
        Answers, Backend, Document, Endpoint, Events, Health, Http, Lengths, Limit, Mode, Penalty, Protocol, Service,
        Sources, Tenant, default,
    },
    fault::Diagnostics,
    overrides::Override,
    units::Rate,
    word::Word,
};
use serde::{Deserialize, Deserializer, de::Error as _};
use serde_json::Value;
use std::{collections::BTreeMap, net::Ipv4Addr};
use throttle_common::words::{Algorithm, Fate, Reason, Unit};

impl Read for Document {
    fn read(value: &Value, path: &str, problems: &mut Problems) -> Option<Self> {
        let mut fields = Fields::of(value, path, problems)?;
        let document = Self {
            mode: fields.or("mode", Mode::default()),
            services: fields.or("service", Vec::new()).into(),
            backends: fields.or("backend", Vec::new()).into(),
            tenants: fields.or("tenant", Vec::new()).into(),
            limits: fields.or("limit", Vec::new()),
            sources: fields.or("sources", Sources::default()).into(),
            shapes: fields.or("shapes", BTreeMap::new()),
            answers: fields.or("answers", Answers::default()),
            events: fields.or("events", Events::default()),
        };
        fields.end();
        Some(document)
    }
}

impl Read for Service {
    fn read(value: &Value, path: &str, problems: &mut Problems) -> Option<Self> {
        let mut fields = Fields::of(value, path, problems)?;
        let name = fields.required("name", "\"web\"");
        let protocol = fields.required("protocol", "\"tcp\"");
        let ports = fields.or("ports", Vec::new());
        let destination = fields.optional("destination");
        let forwarded = fields.or("forwarded", false);
        let idle_after = fields.optional("idle-after");
        let http = fields.optional("http");
        let health = fields.optional("health");
        fields.end();
        let Self { name: no_name, protocol: some, .. } = Self::stand_in();
        let (name, protocol) = (name.unwrap_or(no_name), protocol.unwrap_or(some));
        Some(Self { name, protocol, ports, destination, forwarded, idle_after, http, health })
    }
}

impl Entry for Service {
    fn stand_in() -> Self {
        Self::new("", Protocol::Tcp, Vec::new())
    }
}

impl Read for Health {
    fn read(value: &Value, path: &str, problems: &mut Problems) -> Option<Self> {
        let mut fields = Fields::of(value, path, problems)?;
        let silent = Self::default();
        let health = Self {
            mode: fields.or("mode", silent.mode),
            control: fields.or("control", silent.control),
            objective: fields.or("objective", silent.objective),
            speaks: fields.optional("speaks"),
            least: fields.or("least", silent.least),
            most: fields.optional("most"),
            breaker: fields.or("breaker", silent.breaker),
            close_oldest: fields.or("close-oldest", silent.close_oldest),
        };
        fields.end();
        Some(health)
    }
}

impl Read for Http {
    fn read(value: &Value, path: &str, problems: &mut Problems) -> Option<Self> {
        let mut fields = Fields::of(value, path, problems)?;
        let http = Self {
            body: fields.or("body", String::new()),
            content_type: fields.optional("content-type"),
            headers: fields.or("headers", BTreeMap::new()),
        };
        fields.end();
        Some(http)
    }
}

impl Read for BTreeMap<String, String> {
    fn read(value: &Value, path: &str, problems: &mut Problems) -> Option<Self> {
        let Value::Object(table) = value else {
            problems.value(path, wrong_type(value, "a table of names and values in quotes"));
            return None;
        };
        let mut read = Self::new();
        for (name, value) in table {
            let value = String::read(value, &join(path, name), problems);
            read.extend(value.map(|value| (name.clone(), value)));
        }
        Some(read)
    }
}

impl Read for Backend {
    fn read(value: &Value, path: &str, problems: &mut Problems) -> Option<Self> {
        let mut fields = Fields::of(value, path, problems)?;
        let silent = Self::stand_in();
        let name = fields.required("name", "\"web-1\"");
        let service = fields.required("service", "\"web\"");
        let address = fields.required("address", "\"10.0.0.5:80\"");
        let probe = fields.or("probe", silent.probe);
        let interval = fields.or("interval", silent.interval);
        let timeout = fields.optional("timeout");
        fields.end();
        let (name, service) = (name.unwrap_or(silent.name), service.unwrap_or(silent.service));
        Some(Self { name, service, address: address.unwrap_or(silent.address), probe, interval, timeout })
    }
}

impl Entry for Backend {
    fn stand_in() -> Self {
        Self::new("", "", Endpoint::Static((Ipv4Addr::LOCALHOST, 1).into()))
    }
}

impl Read for Tenant {
    fn read(value: &Value, path: &str, problems: &mut Problems) -> Option<Self> {
        let mut fields = Fields::of(value, path, problems)?;
        let name = fields.required("name", "\"acme\"");
        let sources = fields.required("sources", "[\"192.0.2.0/24\"]");
        fields.end();
        Some(Self { name: name.unwrap_or_default(), sources: sources.unwrap_or_default() })
    }
}

impl Entry for Tenant {
    fn stand_in() -> Self {
        Self { name: String::new(), sources: Vec::new() }
    }
}

impl Read for Limit {
    fn read(value: &Value, path: &str, problems: &mut Problems) -> Option<Self> {
        let mut fields = Fields::of(value, path, problems)?;
        let name = fields.required("name", "\"new-connections\"");
        let service = fields.optional("service");
        let unit = fields.required("unit", "\"packets\"");
        let rate =
            if fields.has("concurrent") { fields.optional("rate") } else { fields.required("rate", "\"1000/s\"") };
        let concurrent = fields.optional("concurrent");
        let algorithm = if fields.has("concurrent") { Algorithm::Concurrency } else { default::algorithm() };
        let algorithm = fields.or("algorithm", algorithm);
        let per = fields.or("per", default::per());
        let burst = fields.optional("burst");
        let guarantee = fields.optional("guarantee");
        let guarantee_burst = fields.optional("guarantee-burst");
        let action = fields.or("action", default::action());
        let mode = fields.or("mode", default::mode());
        let penalty = fields.optional("penalty");
        let overflow = fields.or("overflow", default::overflow());
        let prefix = fields.lengths("prefix", default::prefix());
        let aggregate = fields.lengths("aggregate", default::aggregate());
        let sources = fields.or("sources", default::sources());
        let overrides = fields.or("override", Vec::new());
        fields.end();
        let limit = Self::stand_in();
        let (name, unit) = (name.unwrap_or(limit.name), unit.unwrap_or(limit.unit));
        Some(Self {
            name,
            service,
            unit,
            rate,
            concurrent,
            algorithm,
            per,
            burst,
            guarantee,
            guarantee_burst,
            action,
            mode,
            penalty,
            overflow,
            prefix,
            aggregate,
            sources,
            overrides,
        })
    }
}

impl Read for Penalty {
    fn read(value: &Value, path: &str, problems: &mut Problems) -> Option<Self> {
        let mut fields = Fields::of(value, path, problems)?;
        let (after, within) = (fields.required("after", "100"), fields.required("within", "\"10s\""));
        let block = fields.or("block", default::sentence());
        let at_most = fields.or("at-most", default::longest_sentence());
        let unproven = fields.or("unproven", false);
        fields.end();
        Some(Self { block, at_most, unproven, ..Self::new(after?, within?) })
    }
}

impl Read for Override {
    fn read(value: &Value, path: &str, problems: &mut Problems) -> Option<Self> {
        let mut fields = Fields::of(value, path, problems)?;
        let read = Self {
            tenant: fields.optional("tenant"),
            sources: fields.or("sources", Vec::new()),
            rate: fields.optional("rate"),
            concurrent: fields.optional("concurrent"),
            burst: fields.optional("burst"),
            guarantee: fields.optional("guarantee"),
            guarantee_burst: fields.optional("guarantee-burst"),
        };
        fields.end();
        Some(read)
    }
}

impl Entry for Override {
    fn stand_in() -> Self {
        Self::default()
    }
}

impl Entry for Limit {
    fn stand_in() -> Self {
        Self::new("", Unit::Packets, Rate::per_second(1))
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
        fields.end();
        Some(sources)
    }
}

impl Read for Answers {
    fn read(value: &Value, path: &str, problems: &mut Problems) -> Option<Self> {
        let mut fields = Fields::of(value, path, problems)?;
        let answers = Self { rate: fields.or("rate", default::answers()) };
        fields.end();
        Some(answers)
    }
}

impl Read for Events {
    fn read(value: &Value, path: &str, problems: &mut Problems) -> Option<Self> {
        let mut fields = Fields::of(value, path, problems)?;
        let events = Self { rate: fields.or("rate", default::events()) };
        fields.end();
        Some(events)
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

macro_rules! deserialize_by_reading {
    ($($type:ty),+) => {$(
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let value = Value::deserialize(deserializer)?;
                let (read, problems) = read(&value);
                let mut faults = problems.into_diagnostics();
                name_entries(&mut faults, &value);
                read.filter(|_| faults.is_empty()).ok_or_else(|| D::Error::custom(Diagnostics(faults)))
            }
        }
    )+};
}

deserialize_by_reading!(
    Document, Service, Health, Http, Backend, Tenant, Limit, Penalty, Override, Sources, Answers, Events
);
