//! The changes that single commands make: a document in, the changed document out, or why not. Whether what it says then is
//! right is not asked here: [`super::compile()`] refuses what is not.

use super::{
    change::{BackendChange, LimitChange, ServiceChange},
    document::{Backend, Document, Limit, Mode, Service, Tenant},
    fault::Diagnostic,
    prefix::Prefix,
    word::one_of,
};
use std::collections::HashSet;

/// A list of sources.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum List {
    /// `sources.allow`
    Allow,
    /// `sources.known`
    Known,
    /// `sources.block`
    Block,
}

/// Why a change was not made. The document is as before.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EditError {
    /// There is nothing of that name.
    #[error("there is no {what} `{name}`; {remedy}")]
    Unknown {
        /// `limit`, `service`, `backend` or `tenant`.
        what: &'static str,
        /// The name that was asked for.
        name: String,
        /// The nearest name, or all.
        remedy: String,
    },
    /// The service cannot go while limits count its packets, or backends answer for it.
    #[error("service `{service}` is used by {}; delete these first, or give them another service", used_by(.limits, .backends))]
    InUse {
        /// The service.
        service: String,
        /// The limits that use it.
        limits: Vec<String>,
        /// Its backends.
        backends: Vec<String>,
    },
    /// What the change says means nothing.
    #[error("{}", .0.text())]
    Wrong(Diagnostic),
    /// The source is not in the list.
    #[error("{prefix} is not in sources.{list}; `throttle policy export` shows what is")]
    NotListed {
        /// The list.
        list: &'static str,
        /// The first prefix that is not in it.
        prefix: Prefix,
    },
}

fn used_by(limits: &[String], backends: &[String]) -> String {
    let users = [("limit", limits), ("backend", backends)].into_iter().filter(|(_, names)| !names.is_empty());
    users.map(|(what, names)| format!("{what} {}", names.join(", "))).collect::<Vec<_>>().join(" and ")
}

/// Sets whether the host enforces.
pub fn set_mode(document: &Document, mode: Mode) -> Document {
    Document { mode, ..document.clone() }
}

/// Adds a limit, or replaces the one of the same name.
pub fn set_limit(document: &Document, limit: Limit) -> Document {
    let mut changed = document.clone();
    put(&mut changed.limits, limit, |limit| &limit.name);
    changed
}

/// Changes the limit of a name, or makes it.
pub fn change_limit(document: &Document, name: &str, change: &LimitChange) -> Result<Document, EditError> {
    let held = document.limits.iter().find(|limit| limit.name == name);
    Ok(set_limit(document, change.of(name, held)?))
}

/// Removes a limit.
pub fn delete_limit(document: &Document, name: &str) -> Result<Document, EditError> {
    let mut changed = document.clone();
    take("limit", &mut changed.limits, name, |limit| &limit.name)?;
    Ok(changed)
}

/// Adds a service, or replaces the one of the same name.
pub fn set_service(document: &Document, service: Service) -> Document {
    let mut changed = document.clone();
    put(&mut changed.services, service, |service| &service.name);
    changed
}

/// Changes the service of a name, or makes it.
pub fn change_service(document: &Document, name: &str, change: &ServiceChange) -> Result<Document, EditError> {
    let held = document.services.iter().find(|service| service.name == name);
    Ok(set_service(document, change.of(name, held)?))
}

/// Removes a service that no limit and no backend uses.
pub fn delete_service(document: &Document, name: &str) -> Result<Document, EditError> {
    let mut changed = document.clone();
    take("service", &mut changed.services, name, |service| &service.name)?;
    let users = document.limits.iter().filter(|limit| limit.service.as_deref() == Some(name));
    let limits: Vec<_> = users.map(|limit| limit.name.clone()).collect();
    let backends = document.backends.iter().filter(|backend| backend.service == name);
    let backends: Vec<_> = backends.map(|backend| backend.name.clone()).collect();
    if !(limits.is_empty() && backends.is_empty()) {
        return Err(EditError::InUse { service: name.to_owned(), limits, backends });
    }
    Ok(changed)
}

/// Adds a backend, or replaces the one of the same name.
pub fn set_backend(document: &Document, backend: Backend) -> Document {
    let mut changed = document.clone();
    put(&mut changed.backends, backend, |backend| &backend.name);
    changed
}

/// Changes the backend of a name, or makes it.
pub fn change_backend(document: &Document, name: &str, change: &BackendChange) -> Result<Document, EditError> {
    let held = document.backends.iter().find(|backend| backend.name == name);
    Ok(set_backend(document, change.of(name, held)?))
}

/// Removes a backend.
pub fn delete_backend(document: &Document, name: &str) -> Result<Document, EditError> {
    let mut changed = document.clone();
    take("backend", &mut changed.backends, name, |backend| &backend.name)?;
    Ok(changed)
}

/// Adds a tenant, or replaces the one of the same name.
pub fn set_tenant(document: &Document, tenant: Tenant) -> Document {
    let mut changed = document.clone();
    put(&mut changed.tenants, tenant, |tenant| &tenant.name);
    changed
}

/// Removes a tenant; its sources are nobody's from then on.
pub fn delete_tenant(document: &Document, name: &str) -> Result<Document, EditError> {
    let mut changed = document.clone();
    take("tenant", &mut changed.tenants, name, |tenant| &tenant.name)?;
    Ok(changed)
}

/// Adds sources to a list; those that are in it already stay.
pub fn add_sources(document: &Document, list: List, prefixes: &[Prefix]) -> Document {
    let mut changed = document.clone();
    let members = list.of(&mut changed);
    let mut seen: HashSet<Prefix> = members.iter().copied().collect();
    members.extend(prefixes.iter().filter(|&&prefix| seen.insert(prefix)));
    changed
}

/// Removes sources from a list, all of which must be in it.
pub fn remove_sources(document: &Document, list: List, prefixes: &[Prefix]) -> Result<Document, EditError> {
    let mut changed = document.clone();
    let members = list.of(&mut changed);
    let present: HashSet<Prefix> = members.iter().copied().collect();
    if let Some(&prefix) = prefixes.iter().find(|prefix| !present.contains(prefix)) {
        return Err(EditError::NotListed { list: list.name(), prefix });
    }
    let gone: HashSet<Prefix> = prefixes.iter().copied().collect();
    members.retain(|prefix| !gone.contains(prefix));
    Ok(changed)
}

impl List {
    fn of(self, document: &mut Document) -> &mut Vec<Prefix> {
        match self {
            Self::Allow => &mut document.sources.allow,
            Self::Known => &mut document.sources.known,
            Self::Block => &mut document.sources.block,
        }
    }

    /// Its name within `sources`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Known => "known",
            Self::Block => "block",
        }
    }
}

fn put<T>(entries: &mut Vec<T>, entry: T, name: impl Fn(&T) -> &String) {
    match entries.iter_mut().find(|other| name(other) == name(&entry)) {
        Some(place) => *place = entry,
        None => entries.push(entry),
    }
}

fn take<T>(
    what: &'static str,
    entries: &mut Vec<T>,
    wanted: &str,
    name: impl Fn(&T) -> &String,
) -> Result<(), EditError> {
    let Some(place) = entries.iter().position(|entry| name(entry) == wanted) else {
        let names: Vec<_> = entries.iter().map(|entry| name(entry).as_str()).collect();
        let remedy = if names.is_empty() { "there are none".to_owned() } else { one_of(wanted, &names) };
        return Err(EditError::Unknown { what, name: wanted.to_owned(), remedy });
    };
    entries.remove(place);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{check, parse, tests::EXAMPLE};

    fn example() -> Document {
        parse(EXAMPLE).unwrap()
    }

    fn prefix(text: &str) -> Prefix {
        text.parse().unwrap()
    }

    #[test]
    fn a_limit_that_is_set_again_replaces_itself() {
        let limit = Limit { sources: 3, ..example().limits[0].clone() };
        let changed = set_limit(&example(), limit.clone());
        assert_eq!((changed.limits.len(), &changed.limits[0]), (example().limits.len(), &limit));
    }

    #[test]
    fn a_wrong_limit_is_refused_like_a_wrong_file() {
        let limit = Limit { service: Some("wbe".into()), ..example().limits[0].clone() };
        let error = check(&set_limit(&example(), limit)).unwrap_err().to_string();
        assert_eq!(error, "limit \"new-connections\": service: there is no service `wbe`; did you mean `web`?");
    }

    #[test]
    fn a_service_in_use_stays() {
        let error = delete_service(&example(), "web").unwrap_err().to_string();
        let expected = "service `web` is used by limit new-connections, open and backend web-1, web-2; \
                        delete these first, or give them another service";
        assert_eq!(error, expected);
        let mut without = delete_backend(&example(), "web-1").unwrap();
        without.limits.clear();
        let error = delete_service(&without, "web").unwrap_err().to_string();
        assert!(error.starts_with("service `web` is used by backend web-2; "), "{error}");
        without = delete_backend(&without, "web-2").unwrap();
        assert!(delete_service(&without, "web").unwrap().services.iter().all(|service| service.name != "web"));
    }

    #[test]
    fn what_is_not_there_is_named_with_what_is() {
        let error = delete_limit(&example(), "new-conections").unwrap_err().to_string();
        assert_eq!(error, "there is no limit `new-conections`; did you mean `new-connections`?");
        let error = remove_sources(&example(), List::Allow, &[prefix("10.0.0.1")]).unwrap_err().to_string();
        assert!(error.starts_with("10.0.0.1 is not in sources.allow"));
    }

    #[test]
    fn sources_come_and_go_and_never_twice() {
        let added = add_sources(&example(), List::Known, &[prefix("10.0.0.1"), prefix("10.0.0.1")]);
        assert_eq!(added.sources.known.len(), example().sources.known.len() + 1);
        assert_eq!(remove_sources(&added, List::Known, &[prefix("10.0.0.1")]).unwrap(), example());
    }

    #[test]
    fn nobody_is_allowed_and_blocked_by_two_commands() {
        let error = check(&add_sources(&example(), List::Block, &example().sources.allow)).unwrap_err();
        assert!(error.to_string().contains("is blocked here and trusted in sources.allow"));
    }
}
