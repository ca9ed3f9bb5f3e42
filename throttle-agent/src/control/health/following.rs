//! Which services follow their health, and which backends stand behind them: by policy, and by what names and files come to.
//! What is known of those that stay is kept, by their names and places.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    net::SocketAddr,
    sync::Arc,
};

use throttle_common::{
    breakers::State,
    connections,
    packet::protocol,
    records::{self, FIRST_BACKEND, MAX_BREAKERS, NONE, name_str},
    speed::Speed,
    words::Per,
};

use super::{
    Control, Followed,
    closing::Closed,
    listening::Listens,
    signals::{Earlier, Shared},
};
use crate::{
    datapath::Datapath,
    health::{
        MILLISECOND, Nanos, controller,
        service::{self, Place, ServiceHealth, Terms, Transition, What},
    },
    heartbeat::Member,
    policy::{ControlKind, Document, Mode, Protocol, Service, units},
};

impl Control {
    /// After a change of policy, and when the agent runs: follows the services that it says, each from where it stands.
    pub(in crate::control) fn follow_health(&mut self, document: &Document) {
        if self.health.watched.is_none() {
            // Not before all that an agent before this one left is known.
            return;
        }
        let now = self.datapath.now();
        let numbers = self.datapath.services();
        let mut before = std::mem::take(&mut self.health.services);
        let mut ended = Vec::new();
        for policy in document.services.iter() {
            let Some(terms) = terms(document, policy) else { continue };
            let Some((number, record)) = numbers.iter().find(|(_, it)| name_str(&it.name) == policy.name) else {
                continue;
            };
            let name: Arc<str> = Arc::from(policy.name.as_str());
            let mut followed = if let Some(mut followed) = before.remove(&name) {
                followed.health.follow(terms);
                followed
            } else {
                let (followed, transition) = self.begin(now, &name, terms, record);
                ended.extend(transition.map(|it| (Arc::clone(&name), it)));
                followed
            };
            (followed.number, followed.clock) = (*number, record.clock);
            followed.breaker = Some(record.breaker).filter(|&number| number != NONE);
            followed.measured = policy.is_measured();
            followed.listens = Listens::of(policy);
            followed.limits = shared(document, policy, &self.datapath);
            self.health.services.insert(name, followed);
        }
        for (name, followed) in before {
            self.let_go(&name, &followed);
        }
        self.tell(ended);
        self.follow_members();
    }

    /// One that was not followed so far. Where an agent before this one left something in force, or told something that is not
    /// over, it goes on from there; what is over is to be told.
    fn begin(&self, now: Nanos, name: &str, terms: Terms, record: &records::Service) -> (Followed, Option<Transition>) {
        let mut health = ServiceHealth::new(now, terms);
        let window = self.datapath.window_state(record.clock).map(|window| window.connections);
        let speed =
            if self.speed_by_hand(name).is_some() { Speed::ONE } else { self.datapath.clock_state(record.clock).speed };
        let usual = self.health.usual.of(name);
        if window.is_some() || speed != Speed::ONE || usual.is_some() {
            health.resume(now, window, speed, usual);
        }
        let alerts = &self.health.alerts;
        health.resume_said(alerts.is_told(name, &What::ScaleOut(true)), alerts.is_told(name, &What::Doubt(true)));
        let in_force = (record.breaker != NONE).then(|| self.datapath.breaker_state(record.breaker));
        let ended = health.resume_breaker(now, None, in_force, alerts.breaker(now, name, None));
        let followed = Followed {
            health,
            number: NONE,
            clock: record.clock,
            breaker: None,
            breakers: Vec::new(),
            measured: false,
            listens: Listens::default(),
            limits: Vec::new(),
            earlier: Earlier::default(),
            published: None,
            speed: None,
            closed: Closed::default(),
        };
        (followed, ended)
    }

    /// A service that follows its health no longer, where it is still one: its limits are those of policy again.
    fn let_go(&mut self, name: &str, followed: &Followed) {
        if self.datapath.clocks().get(name) != Some(&followed.clock) {
            return;
        }
        let window = self.datapath.publish_window(followed.clock, None);
        let speed = self.put_speed_in_force(name, followed.clock, Speed::ONE).map(drop);
        let breaker = followed.breaker.map_or(Ok(()), |number| self.datapath.publish_breaker(number, State::Closed));
        let done = window.and(speed).and(breaker);
        self.faults.note("health", done.map_err(|error| format!("{name} is not let go: {error:#}")));
    }

    /// After addresses of backends have changed: watches those, and gives each its breaker.
    pub(super) fn follow_members(&mut self) {
        let now = self.datapath.now();
        let members: Arc<[Member]> = match &mut self.health.watched {
            Some(watched) => Arc::clone(&watched.members.borrow_and_update()),
            None => return,
        };
        if members.is_empty() && !self.in_force().backends.is_empty() {
            // Nobody has found out yet where they are: breakers that are in force stay.
            return;
        }
        let mut wanted: BTreeMap<&str, Vec<(Place, Nanos)>> = BTreeMap::new();
        for member in members.iter() {
            let place = Place { backend: Arc::clone(&member.instance.backend), address: member.instance.address };
            let interval = member.interval.as_nanos() as Nanos;
            wanted.entry(&member.instance.service).or_default().push((place, interval));
        }
        // Of datagrams the kernel knows no new connection that it could refuse.
        let tcp: HashSet<&str> =
            members.iter().filter(|it| it.protocol == Protocol::Tcp).map(|it| &*it.instance.service).collect();
        let numbers = self.number_breakers(&members);
        let mut declared: HashMap<&str, usize> = HashMap::new();
        for backend in self.in_force().backends.iter() {
            *declared.entry(&backend.service).or_default() += 1;
        }
        let declared: Vec<usize> =
            self.health.services.keys().map(|name| declared.get(&**name).copied().unwrap_or_default()).collect();
        let (alerts, mut ended) = (&self.health.alerts, Vec::new());
        for ((name, followed), declared) in self.health.services.iter_mut().zip(declared) {
            let wanted = wanted.get(&**name).map_or(&[][..], Vec::as_slice);
            let unknown = followed.health.set_backends(now, wanted, declared);
            let places: Vec<Place> = followed.health.backends(now).map(|(it, ..)| it.place().clone()).collect();
            let number = |place: &Place| numbers.get(&(place.address, protocol::TCP)).copied();
            let breaks = followed.breaker.is_some() && tcp.contains(&**name);
            followed.breakers = places.iter().map(|place| number(place).filter(|_| breaks)).collect();
            if let Some(published) = &mut followed.published {
                // What was said is of other places now, so that all is said anew.
                published.backends.clear();
            }
            for (place, number) in places.iter().zip(&followed.breakers).filter(|(place, _)| unknown.contains(place)) {
                if let Some(level) = alerts.level(name, place) {
                    followed.health.resume_level(place, level);
                }
                let (in_force, told) =
                    (number.map(|it| self.datapath.breaker_state(it)), alerts.breaker(now, name, Some(place)));
                let transition = followed.health.resume_breaker(now, Some(place), in_force, told);
                ended.extend(transition.map(|it| (Arc::clone(name), it)));
            }
        }
        self.health.numbers = numbers;
        self.tell(ended);
        self.share_breakers();
        self.hold_breakers();
    }

    /// The service and the name of a backend whose breaker has a number; of several that share it, one that decides what holds
    /// there, and that of a service of this name if it does.
    pub(in crate::control) fn backend_of_breaker(
        &self,
        number: u16,
        service: Option<&str>,
    ) -> Option<(String, String)> {
        let now = self.datapath.now();
        let all = self.health.services.iter().flat_map(|(name, followed)| {
            let backends = followed.health.backends(now).zip(&followed.breakers);
            let own = backends.filter(|(_, held)| **held == Some(number));
            own.map(move |((it, ..), _)| (name, it.place(), followed.health.published(it.place())))
        });
        let holds = self.joined(number);
        let first = all.min_by_key(|(name, _, state)| (*state != holds, Some(&***name) != service));
        first.map(|(service, place, _)| (service.to_string(), place.backend.to_string()))
    }

    /// The numbers of backends' breakers: those that have one keep it, the first of an address has it.
    fn number_breakers(&mut self, members: &[Member]) -> HashMap<(SocketAddr, u8), u16> {
        let breaks = |member: &&Member| {
            let followed = self.health.services.get(&member.instance.service);
            member.protocol == Protocol::Tcp && followed.is_some_and(|followed| followed.breaker.is_some())
        };
        let at = |member: &Member| (member.instance.address, protocol::TCP);
        let wanted: HashSet<_> = members.iter().filter(breaks).map(at).collect();
        let mut held = self.health.numbers.clone();
        held.retain(|at, _| wanted.contains(at));
        let mut left = std::mem::take(&mut self.health.unclaimed);
        held.extend(left.extract_if(|at, _| wanted.contains(at)));
        if !are_all_found(self.in_force(), members) {
            held.extend(&left);
            self.health.unclaimed = left;
        }
        let taken: HashSet<u16> = held.values().copied().collect();
        let mut free = (FIRST_BACKEND..MAX_BREAKERS as u16).filter(|number| !taken.contains(number));
        let mut new: Vec<_> = wanted.into_iter().filter(|at| !held.contains_key(at)).collect();
        new.sort_unstable();
        held.extend(new.into_iter().map_while(|at| Some((at, free.next()?))));
        let all: Vec<_> = held.iter().map(|(&(at, protocol), &number)| (at, protocol, number)).collect();
        let set = self.datapath.set_backends(&all);
        self.faults.note("breakers", set.map_err(|error| format!("backends have not all their breakers: {error:#}")));
        held
    }
}

/// Whether it is known of every backend where it is.
fn are_all_found(document: &Document, members: &[Member]) -> bool {
    let found: HashSet<(&str, &str)> =
        members.iter().map(|it| (&*it.instance.service, &*it.instance.backend)).collect();
    document.backends.iter().all(|it| found.contains(&(it.service.as_str(), it.name.as_str())))
}

/// By which terms a service follows its health; nothing where it does not.
fn terms(document: &Document, service: &Service) -> Option<Terms> {
    let health = service.health?;
    let own = || document.limits.iter().filter(|limit| limit.service.as_deref() == Some(service.name.as_str()));
    let all = || own().filter(|limit| limit.per == Per::Service);
    let fixed = all().filter_map(|limit| limit.concurrent).min().unwrap_or(connections::MOST);
    let rates = all().filter(|limit| limit.unit == throttle_common::words::Unit::Connections);
    let rate = rates.filter_map(|limit| limit.rate.map(|rate| per_second(rate, limit.unit))).reduce(f64::min);
    Some(Terms {
        control: match health.control {
            ControlKind::Latency => service::Control::Latency,
            ControlKind::Rate => service::Control::Rate,
            ControlKind::Aimd => service::Control::Aimd,
            ControlKind::Fixed => service::Control::Fixed,
        },
        enforces: health.mode == Mode::Enforce,
        breaks: health.breaker,
        closes: health.close_oldest,
        bounds: controller::Terms {
            objective: health.objective.millis() * MILLISECOND,
            least: health.least.min(fixed),
            most: health.most.unwrap_or(fixed).min(fixed),
            fixed,
            rate,
        },
    })
}

/// The limits that all of a service share.
fn shared(document: &Document, service: &Service, datapath: &Datapath) -> Vec<Shared> {
    let held = datapath.limits();
    let own = document.limits.iter().filter(|limit| limit.service.as_deref() == Some(service.name.as_str()));
    own.filter(|limit| limit.per == Per::Service)
        .filter_map(|limit| {
            let held = held.iter().find(|held| name_str(&held.record.name) == limit.name)?;
            let per_second = limit.rate.map(|rate| per_second(rate, limit.unit));
            Some(Shared { number: held.number, unit: limit.unit, per_second })
        })
        .collect()
}

fn per_second(rate: units::Rate, unit: throttle_common::words::Unit) -> f64 {
    rate.units(unit) as f64 / rate.per.seconds() as f64
}
