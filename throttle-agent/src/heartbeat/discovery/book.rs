//! What is known of where backends are, what is due to be looked up, and what goes wrong with it. Pure: the time comes in.

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    path::PathBuf,
    sync::Arc,
};

use super::{
    super::{Instance, Member, Target},
    file::Signature,
    listed,
};
use crate::{
    health::{Nanos, SECOND},
    policy::Endpoint,
};

#[cfg(test)]
#[path = "book_tests.rs"]
mod tests;

/// How often a name is looked up.
const NAMES_EVERY: Nanos = 5 * SECOND;
/// A look that takes longer is told.
const LONG: Nanos = 10 * SECOND;
/// Instances that are watched in all.
const MOST: usize = 16_384;
/// Faults that are told one by one.
const TOLD: usize = 3;

/// What is to be looked at.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Due {
    Name { name: String, port: u16 },
    File { path: PathBuf, known: Known },
}

/// Which state of a file has been read, and which was found since.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Known {
    pub(super) read: Option<Signature>,
    pub(super) resting: Option<Signature>,
    /// Whether it is to be read as it is, because no address is known yet.
    pub(super) is_urgent: bool,
}

/// What a look came to.
#[derive(Debug)]
pub(super) enum Found {
    /// The addresses of a name, or why there are none; or why a file cannot be read.
    Addresses(Result<Vec<SocketAddr>, String>),
    /// The file is as it was.
    Same,
    /// It is another, but may still be written.
    Changing(Signature),
    /// What it lists, or what is wrong with it.
    Listed(Signature, Result<Vec<SocketAddr>, String>),
}

#[derive(Debug, Default)]
pub(super) struct Book {
    targets: Vec<Target>,
    places: HashMap<Endpoint, Place>,
}

/// What is known of a name or a file.
#[derive(Debug, Default)]
struct Place {
    addresses: Vec<SocketAddr>,
    known: Known,
    fault: Option<String>,
    /// Since when it is being looked at.
    asked: Option<Nanos>,
    due: Nanos,
}

impl Place {
    fn known(&self) -> Known {
        Known { is_urgent: self.addresses.is_empty(), ..self.known }
    }
}

impl Book {
    /// These are to be found from now on. What is known of the places of others is forgotten.
    pub(super) fn want(&mut self, targets: &[Target]) {
        self.targets = targets.to_vec();
        let mut before = std::mem::take(&mut self.places);
        for endpoint in targets.iter().map(|target| &target.endpoint) {
            if !matches!(endpoint, Endpoint::Static(_)) {
                let place = before.remove(endpoint);
                self.places.entry(endpoint.clone()).or_insert_with(|| place.unwrap_or_default());
            }
        }
    }

    /// What is due to be looked at.
    pub(super) fn due(&self, now: Nanos) -> Vec<(Endpoint, Due)> {
        let is_due = |place: &Place| place.asked.is_none() && now >= place.due;
        let due = self.places.iter().filter(|(_, place)| is_due(place));
        due.filter_map(|(endpoint, place)| {
            let due = match endpoint {
                Endpoint::Static(_) => return None,
                Endpoint::Dns { name, port } => Due::Name { name: name.clone(), port: *port },
                Endpoint::File(path) => Due::File { path: path.clone(), known: place.known() },
            };
            Some((endpoint.clone(), due))
        })
        .collect()
    }

    /// A look at it has begun.
    pub(super) fn asked(&mut self, endpoint: &Endpoint, now: Nanos) {
        if let Some(place) = self.places.get_mut(endpoint) {
            place.asked = Some(now);
        }
    }

    /// A look at it came to this. Says whether other addresses are known now.
    pub(super) fn found(&mut self, endpoint: &Endpoint, found: Found, now: Nanos) -> bool {
        let Some(place) = self.places.get_mut(endpoint) else { return false };
        place.asked = None;
        if matches!(endpoint, Endpoint::Dns { .. }) {
            place.due = now + NAMES_EVERY;
        }
        let addresses = match found {
            Found::Same => return false,
            Found::Changing(signature) => {
                place.known.resting = Some(signature);
                return false;
            }
            Found::Listed(signature, addresses) => {
                place.known = Known { read: Some(signature), ..Known::default() };
                addresses
            }
            Found::Addresses(addresses) => {
                // A file that could not be read is another when it can.
                place.known = Known::default();
                addresses
            }
        };
        match addresses.and_then(in_order) {
            Ok(addresses) => {
                place.fault = None;
                let differs = place.addresses != addresses;
                place.addresses = addresses;
                differs
            }
            Err(fault) => {
                place.fault = Some(fault);
                false
            }
        }
    }

    /// Everybody who is known, by service, backend and address.
    pub(super) fn members(&self) -> Vec<Member> {
        let mut members = BTreeMap::new();
        for target in &self.targets {
            for &address in self.addresses(&target.endpoint) {
                let (service, backend) = (Arc::clone(&target.service), Arc::clone(&target.backend));
                let instance = Arc::new(Instance { service, backend, address });
                let member = Member {
                    instance: Arc::clone(&instance),
                    host: host(&target.endpoint, address).into(),
                    protocol: target.protocol,
                    probe: target.probe.clone(),
                    interval: target.interval,
                    timeout: target.timeout,
                };
                members.entry(instance).or_insert(member);
            }
        }
        members.into_values().take(MOST).collect()
    }

    fn addresses<'b>(&'b self, endpoint: &'b Endpoint) -> &'b [SocketAddr] {
        match endpoint {
            Endpoint::Static(address) => std::slice::from_ref(address),
            _ => self.places.get(endpoint).map_or(&[], |place| &place.addresses),
        }
    }

    /// What cannot be found, and why: the same text for as long as it is so.
    pub(super) fn fault(&self, now: Nanos) -> Result<(), String> {
        let mut faults: Vec<String> = self.places.iter().filter_map(|it| told(it, now)).collect();
        faults.sort();
        let all: usize = self.targets.iter().map(|target| self.addresses(&target.endpoint).len()).sum();
        if all > MOST {
            faults.insert(0, format!("backends come to {all} addresses; only {MOST} are watched"));
        }
        let rest = faults.len().saturating_sub(TOLD);
        faults.truncate(TOLD);
        if rest > 0 {
            faults.push(format!("and {rest} more"));
        }
        if faults.is_empty() { Ok(()) } else { Err(faults.join("; ")) }
    }
}

fn told((endpoint, place): (&Endpoint, &Place), now: Nanos) -> Option<String> {
    let subject = match endpoint {
        Endpoint::Static(_) => return None,
        Endpoint::Dns { name, .. } => format!("the name {name}"),
        Endpoint::File(path) => format!("the file {}", path.display()),
    };
    let stays = match place.addresses.len() {
        0 => "no address of it is known".to_owned(),
        count => format!("its {count} addresses of before stay"),
    };
    let is_long = place.asked.is_some_and(|since| now.saturating_sub(since) >= LONG);
    if is_long {
        return Some(format!("{subject}: no answer for {} s, {stays}", LONG / SECOND));
    }
    place.fault.as_ref().map(|fault| format!("{subject}: {fault}; {stays}"))
}

/// Each address once, in order. None at all is a fault, and so are too many.
fn in_order(mut addresses: Vec<SocketAddr>) -> Result<Vec<SocketAddr>, String> {
    addresses.sort_unstable();
    addresses.dedup();
    match addresses.len() {
        0 => Err("it has no address".to_owned()),
        count if count > listed::MOST => Err(format!("it has {count} addresses; {} at most", listed::MOST)),
        _ => Ok(addresses),
    }
}

/// What HTTP is to call it: an address says nothing to a server with several names.
fn host(endpoint: &Endpoint, address: SocketAddr) -> String {
    match endpoint {
        Endpoint::Dns { name, port } => format!("{}:{port}", name.trim_end_matches('.')),
        _ => address.to_string(),
    }
}
