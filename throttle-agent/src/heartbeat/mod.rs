//! Heartbeats: what backends say of their life, by probes and by what they push.
//!
//! In come the backends to watch ([`Target`]), and the heartbeats that the API takes. Out go signs of life ([`Seen`]) by a
//! bounded queue, and the instances that the backends come to ([`Member`]). What they amount to is decided elsewhere
//! (`health`); who suspects an instance asks for more ([`Heartbeats::confirm`]).
//!
//! A thread of its own does it, so that a busy API makes no backend look late: `keeper` has a task for each instance
//! (`watching`), which asks it (`probe`) at its `pace`; `discovery` finds the addresses of names and files.

mod discovery;
mod keeper;
mod pace;
mod probe;
mod pushed;
mod roll;
mod seen;
mod target;
mod watching;

use std::{net::SocketAddr, sync::Arc};

use anyhow::Context as _;
pub use seen::Seen;
pub use target::{Instance, Member, Target};
use tokio::sync::{mpsc, watch};

pub use crate::policy::{Endpoint, Probe};
use crate::{
    api::wire::{self, HeartbeatRequest, HeartbeatTaken, Problem, ProblemKind},
    control::Faults,
    health::{Nanos, succession::Order},
    policy::word::one_of,
};
use keeper::Keeper;
use pushed::Beat;
use roll::{Roll, Sink, Watched};
use seen::Outcome;

/// What may be seen before it is looked at: some 3 s of 1000 backends that beat every 200 ms.
const BACKLOG: usize = 16_384;

/// The way to say whom to watch, and to ask what is seen. Its thread ends when the last one is dropped.
#[derive(Clone, Debug)]
pub struct Heartbeats {
    targets: watch::Sender<Arc<[Target]>>,
    members: watch::Receiver<Arc<[Member]>>,
    roll: Roll,
    sink: Sink,
}

impl Heartbeats {
    /// Watches nobody yet. What is seen comes from the receiver, to be taken in batches (`recv_many`, or `try_recv` until
    /// it is empty) at least every 3 s; what does not fit is lost and counted.
    pub fn start(faults: Faults) -> anyhow::Result<(Self, mpsc::Receiver<Seen>)> {
        let (seen, coming) = mpsc::channel(BACKLOG);
        let (roll, sink) = (Roll::default(), Sink::new(seen));
        let (targets, wanted) = watch::channel(Arc::from([]));
        let (publish, members) = watch::channel(Arc::from([]));
        let keeper = Keeper::new(wanted, publish, roll.clone(), sink.clone(), faults);
        keeper::spawn(keeper).context("start the thread of heartbeats")?;
        Ok((Self { targets, members, roll, sink }, coming))
    }

    /// Watches these from now on and no others. Who stays keeps its pace, its connection and its counts.
    pub fn set_targets(&self, targets: Vec<Target>) {
        self.targets.send_if_modified(|held| {
            let differs = **held != *targets;
            if differs {
                *held = targets.into();
            }
            differs
        });
    }

    /// The instances that are watched, by service, backend and address: they change with the targets, and with what names
    /// and files come to.
    pub fn members(&self) -> watch::Receiver<Arc<[Member]>> {
        self.members.clone()
    }

    /// Probes an instance now, beside its pace: by a new connection, which shows whether its kernel lives, for an answer
    /// within [`CONFIRM_EVERY`](crate::health::detector::CONFIRM_EVERY). Asked again while it is at it, it probes once more.
    pub fn confirm(&self, instance: &Instance) {
        if let Some(watched) = self.roll.find(instance) {
            watched.confirm.notify_one();
        }
    }

    /// Probes an instance now, as it is probed at its pace: with all the time that it has for an answer. One that beats by
    /// itself is waited for.
    pub fn hurry(&self, instance: &Instance) {
        if let Some(watched) = self.roll.find(instance) {
            watched.hurry.notify_one();
        }
    }

    /// Takes a heartbeat that a backend pushed at `now` (CLOCK_MONOTONIC).
    pub fn pushed(&self, request: HeartbeatRequest, now: Nanos) -> Result<HeartbeatTaken, Problem> {
        let watched = self.whose(&request.backend, request.address)?;
        let beat = Beat::read(request, now).map_err(|fault| Problem::new(ProblemKind::Malformed, fault))?;
        let (of, sequence) = (beat.of, beat.sequence);
        let outcome = Outcome::Beat { of, sequence, latency: beat.latency, overloaded: beat.is_overloaded() };
        let order = watched.take(beat);
        match order {
            Order::Fresh | Order::Restarted => {
                watched.report(&self.sink, now, &outcome);
            }
            Order::Repeated => {}
            Order::Late => {
                let detail = format!(
                    "the heartbeat {sequence} of generation {} is older than the last of {}; \
                     give every start a higher generation, and every heartbeat a higher sequence; a lower generation is \
                     taken once the last has been silent for 3 s and three intervals",
                    of.generation, watched.member.instance
                );
                return Err(Problem::new(ProblemKind::Conflict, detail));
            }
        }
        let Instance { service, backend, address } = &*watched.member.instance;
        Ok(HeartbeatTaken {
            service: service.to_string(),
            backend: backend.to_string(),
            address: *address,
            fresh: order.is_fresh(),
            interval_seconds: watched.member.interval.as_secs_f64(),
        })
    }

    /// What is seen of each instance at `now`.
    pub fn views(&self, now: Nanos) -> wire::Heartbeats {
        let heartbeats = self.roll.all().iter().map(|watched| watched.view(now)).collect();
        wire::Heartbeats { heartbeats, lost: self.sink.lost() }
    }

    fn whose(&self, backend: &str, address: Option<SocketAddr>) -> Result<Arc<Watched>, Problem> {
        let all = self.roll.all();
        let mut of_name: Vec<_> = all.iter().filter(|it| *it.member.instance.backend == *backend).collect();
        if of_name.is_empty() {
            let mut names: Vec<&str> = all.iter().map(|it| &*it.member.instance.backend).collect();
            names.dedup();
            let remedy = if names.is_empty() { "none has an address".to_owned() } else { one_of(backend, &names) };
            let detail = format!("there is no backend `{backend}` that is watched; {remedy}");
            return Err(Problem::new(ProblemKind::NotFound, detail));
        }
        let addresses: Vec<_> = of_name.iter().map(|it| it.member.instance.address.to_string()).collect();
        of_name.retain(|it| address.is_none_or(|address| it.member.instance.address == address));
        match *of_name {
            [only] => Ok(Arc::clone(only)),
            [] => {
                let detail = format!("the backend `{backend}` is not there; it is at {}", addresses.join(", "));
                Err(Problem::new(ProblemKind::NotFound, detail))
            }
            _ => {
                let detail = format!("say by `address` which `{backend}` it is: {}", addresses.join(", "));
                Err(Problem::new(ProblemKind::Malformed, detail))
            }
        }
    }
}

/// What CLOCK_MONOTONIC says.
pub fn now() -> Nanos {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec.cast_unsigned() * crate::health::SECOND + now.tv_nsec.cast_unsigned()
}

#[cfg(test)]
mod tests;
