//! The loop that closes outside the code: what is seen of services and their backends comes in, what follows from it is
//! decided by [`crate::health`], and goes to the kernel.
//!
//! It runs on the control thread, because that owns the kernel's maps: every [`LOOKS`] between two jobs, so that a look waits
//! for one job at most, and no job for more than a look. A look reads what heartbeats brought, every second one what the
//! kernel has measured; what is decided goes to the kernel as one store for each window and breaker, into memory that is
//! mapped. Nothing in it waits: probes and names have a thread of their own ([`crate::heartbeat`]), what is told to others
//! waits in a queue.
//!
//! - [`following`]: which services and backends there are, after each change of policy and of addresses.
//! - [`signals`], of [`listening`] sockets, control [`groups`] and the [`host`]: what is seen.
//! - [`sharing`]: breakers of several services' backends at one address.
//! - [`publishing`]: what is decided goes to the kernel, changes to the log and to who wants to know.
//! - [`alerts`]: what others were told outlives the agent.
//! - [`standings`]: so does since when all is as it is, and why.
//! - [`closing`]: kept connections above a window are closed.
//! - [`lapsing`]: what has lapsed while the agent stood still does not come back.
//! - [`forcing`]: breakers that an operator holds.
//! - [`views`]: how it stands, and [`problems`]: what of that is wrong.
//!
//! Where the agent falls silent, nothing is to be done: windows and speeds lapse with their leases, breakers go on by
//! themselves.

mod alerts;
mod closing;
mod following;
mod forcing;
mod groups;
mod host;
mod keeper;
mod lapsing;
mod listening;
mod notices;
mod outstanding;
mod problems;
mod publishing;
mod sharing;
mod signals;
mod standings;
mod usual;
mod views;

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    path::Path,
    sync::Arc,
    time::Duration,
};

pub use notices::{Notice, Notices};
use throttle_common::speed::Speed;
use tokio::sync::{mpsc, watch};

use self::{
    alerts::Alerts, groups::Groups, host::Host, listening::Listening, signals::Earlier, standings::Standings,
    usual::Usual,
};
use super::Control;
use crate::{
    health::{
        Nanos,
        controller::PERIOD,
        service::{Chronicle, Decision, Place, ServiceHealth, Wanted},
        watch::LOOKS,
    },
    heartbeat::{Heartbeats, Instance, Member, Seen},
    store::HeldBreaker,
};

/// How long it rests where no service follows its health.
const REST: Duration = Duration::from_secs(1);
/// So many looks make a period.
const LOOKS_IN_PERIOD: u64 = PERIOD / LOOKS;

/// The health of all services that follow theirs.
pub(super) struct Health {
    /// By name.
    services: BTreeMap<Arc<str>, Followed>,
    /// The numbers of backends' breakers, by where they listen and their protocol.
    numbers: HashMap<(SocketAddr, u8), u16>,
    /// Those that an agent before this one gave to backends that nobody has found again yet: names and files come to
    /// addresses one after the other. What is in force there stays until it is known where all backends are.
    unclaimed: HashMap<(SocketAddr, u8), u16>,
    /// Who shares one.
    shared: sharing::Shared,
    /// Whom probes watch, and what they see; nothing before the agent runs.
    watched: Option<Watched>,
    host: Host,
    listening: Listening,
    groups: Groups,
    pressure: host::Pressure,
    chronicle: Chronicle,
    /// Breakers that an operator holds.
    held: Vec<HeldBreaker>,
    usual: Usual,
    notices: Notices,
    alerts: Alerts,
    standings: Standings,
    next: Nanos,
    /// When the control thread last came by here.
    passed: Nanos,
    looks: u64,
    dice: u64,
}

/// Who is watched by heartbeats.
struct Watched {
    heartbeats: Heartbeats,
    members: watch::Receiver<Arc<[Member]>>,
    seen: mpsc::Receiver<Seen>,
}

/// A service that follows its health.
struct Followed {
    health: ServiceHealth,
    /// Its number and that of its clock.
    number: u16,
    clock: u16,
    /// Its breaker's number; none where it has no breakers.
    breaker: Option<u16>,
    /// Those of its backends, in their order.
    breakers: Vec<Option<u16>>,
    /// Whether the kernel is to measure its time to first byte.
    measured: bool,
    /// Where it listens, to find its listening sockets.
    listens: listening::Listens,
    /// The limits that all of it share.
    limits: Vec<signals::Shared>,
    earlier: Earlier,
    /// What was last published, and how fast its clock runs by that or by what was set by hand.
    published: Option<Decision>,
    speed: Option<Speed>,
    /// What was closed of what it kept open.
    closed: closing::Closed,
}

impl Health {
    /// That of an agent whose state lies in a directory, in this boot.
    pub(super) fn new(state_dir: &Path, boot: &str) -> Self {
        Self {
            services: BTreeMap::new(),
            numbers: HashMap::new(),
            unclaimed: HashMap::new(),
            shared: HashMap::new(),
            watched: None,
            host: Host::default(),
            listening: Listening::default(),
            groups: Groups::default(),
            pressure: host::Pressure::default(),
            chronicle: Chronicle::default(),
            held: Vec::new(),
            usual: Usual::open(state_dir, boot),
            notices: Notices::default(),
            alerts: Alerts::default(),
            standings: Standings::default(),
            next: 0,
            passed: 0,
            looks: 0,
            dice: rand(),
        }
    }
}

impl Control {
    /// From now on backends are watched, and whoever wants to know is told.
    pub fn watch_health(&mut self, heartbeats: Heartbeats, seen: mpsc::Receiver<Seen>, notices: Notices) {
        let members = heartbeats.members();
        self.health.watched = Some(Watched { heartbeats, members, seen });
        self.health.notices = notices;
        let left = self.datapath.backends().unwrap_or_default();
        self.health.unclaimed = left.into_iter().map(|(at, protocol, number)| ((at, protocol), number)).collect();
        let document = self.in_force().clone();
        self.follow_health(&document);
    }

    /// Looks at the health of services where that is due, and says how long it is not.
    pub(super) fn look_at_health(&mut self) -> Duration {
        self.notice_a_pause();
        self.follow_alerts();
        self.follow_standings();
        if self.health.services.is_empty() {
            // What is seen of nobody's backends is not kept.
            self.take_what_was_seen();
            return REST;
        }
        let now = self.datapath.now();
        if now >= self.health.next {
            let next = self.health.next + LOOKS;
            // A look that was missed is not made up for.
            self.health.next = if next > now { next } else { now + LOOKS };
            self.look_at_backends(now);
        }
        Duration::from_nanos(self.health.next.saturating_sub(self.datapath.now()))
    }

    fn look_at_backends(&mut self, now: Nanos) {
        if self.health.watched.as_ref().is_some_and(|it| it.members.has_changed().unwrap_or(false)) {
            self.follow_members();
        }
        self.take_what_was_seen();
        let health = &mut self.health;
        health.looks += 1;
        health.pressure = health.host.pressure(now);
        let mut transitions = Vec::new();
        for (name, followed) in &mut health.services {
            let looked = followed.health.look(now, health.pressure.starved);
            transitions.extend(looked.into_iter().map(|it| (Arc::clone(name), it)));
            for (Place { backend, address }, wanted) in followed.health.probes(now) {
                let Some(Watched { heartbeats, .. }) = &health.watched else { continue };
                let instance = Instance { service: Arc::clone(name), backend, address };
                match wanted {
                    Wanted::Confirmation => heartbeats.confirm(&instance),
                    Wanted::Trial => heartbeats.hurry(&instance),
                }
            }
            followed.earlier.glance(&self.datapath, followed.number);
        }
        let whole = health.looks.is_multiple_of(LOOKS_IN_PERIOD);
        self.tell(transitions);
        if whole {
            self.step_health(now);
        }
    }

    /// Hands what heartbeats brought to the services.
    fn take_what_was_seen(&mut self) {
        let Some(watched) = &mut self.health.watched else { return };
        let mut transitions = Vec::new();
        while let Ok(Seen { instance, at, said }) = watched.seen.try_recv() {
            let Instance { service, backend, address } = &*instance;
            let place = Place { backend: Arc::clone(backend), address: *address };
            let followed = self.health.services.get_mut(service);
            let change = followed.and_then(|followed| followed.health.see(at, &place, said));
            transitions.extend(change.map(|change| (Arc::clone(service), change)));
        }
        self.tell(transitions);
    }

    /// Has every service decide, and puts it in force.
    fn step_health(&mut self, now: Nanos) {
        let observed = self.observe_services(now);
        let mut decisions = Vec::with_capacity(observed.len());
        let health = &mut self.health;
        for ((name, followed), observed) in health.services.iter_mut().zip(observed) {
            let dice = &mut health.dice;
            decisions.push((Arc::clone(name), followed.health.step(now, &observed, || roll(dice))));
        }
        for (name, mut decision) in decisions {
            let transitions = std::mem::take(&mut decision.transitions);
            let closes = decision.closes;
            self.publish_decision(&name, decision);
            self.close_oldest(&name, closes);
            self.tell(transitions.into_iter().map(|it| (Arc::clone(&name), it)));
        }
        self.keep_usual(now);
    }
}

/// Drawn evenly from 0 (included) to 1 (excluded): splitmix64, which is more than jitter needs.
fn roll(state: &mut u64) -> f64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (*state ^ *state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    (mixed >> 11) as f64 / (1u64 << 53) as f64
}

/// Another seed for each agent, so that breakers of a fleet that opened together do not try together.
fn rand() -> u64 {
    use std::hash::{BuildHasher as _, RandomState};
    RandomState::new().hash_one(0)
}
