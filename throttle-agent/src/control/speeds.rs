//! How fast the clocks of limits run: what is set by hand, for a time or until it is reset.
//!
//! The kernel holds a speed for a lease, which is renewed at each tick (see [`crate::datapath::LEASE`]); the store keeps
//! what was set, so that the next agent goes on with it. A speed goes with its service. Whoever else has a clock run
//! slower publishes through [`crate::datapath::Datapath::publish_speed`] as this does.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use throttle_common::{
    records::{HOST_CLOCK, name_str},
    speed::Speed,
};

use super::{Author, Control, kernel, stored};
use crate::{
    api::wire::{LONGEST_SPEED, Problem, ProblemKind, SpeedRequest, SpeedView},
    datapath::LEASE,
    policy::word::one_of,
    store::SetSpeed,
};

/// A speed as a share of real time.
pub(super) fn ratio(speed: Speed) -> f64 {
    speed.parts() as f64 / Speed::ONE.parts() as f64
}

impl Control {
    /// Every health clock: the host's first.
    pub fn speeds(&self) -> Vec<SpeedView> {
        let services = self.in_force().services.iter().map(|service| Some(service.name.as_str()));
        [None].into_iter().chain(services).filter_map(|service| self.speed_view(service)).collect()
    }

    /// Has a clock run at another speed.
    pub fn set_speed(&mut self, request: &SpeedRequest, author: &Author) -> Result<SpeedView, Problem> {
        let malformed = |detail| Err(Problem::new(ProblemKind::Malformed, detail));
        let (least, most) = (ratio(Speed::LEAST), ratio(Speed::ONE));
        #[expect(clippy::cast_sign_loss, reason = "what is none of the range is no speed below")]
        let parts = (request.speed * Speed::ONE.parts() as f64).round() as u64;
        let Some(speed) = Speed::of_parts(parts).filter(|_| (least..=most).contains(&request.speed)) else {
            return malformed(format!(
                "a speed of {}: write {least} to {most}, a share of real time; what must be refused altogether, block",
                request.speed
            ));
        };
        let longest = LONGEST_SPEED.seconds();
        if let Some(seconds) = request.seconds.filter(|seconds| !(1..=longest).contains(seconds)) {
            return malformed(format!("a speed for {seconds} s: write 1 to {longest}, or nothing for no end"));
        }
        self.put_speed(request.service.as_deref(), speed, request.seconds.map(Duration::from_secs), author)
    }

    /// Has a clock run as fast as real time again.
    pub fn reset_speed(&mut self, service: Option<&str>, author: &Author) -> Result<SpeedView, Problem> {
        self.put_speed(service, Speed::ONE, None, author)
    }

    /// Stored first, then published: where that fails, the store takes it back.
    fn put_speed(
        &mut self,
        service: Option<&str>,
        speed: Speed,
        lasts: Option<Duration>,
        author: &Author,
    ) -> Result<SpeedView, Problem> {
        let clock = self.clock_of(service).ok_or_else(|| self.no_service(service))?;
        let mut speeds = self.speeds.clone();
        speeds.retain(|held| held.service.as_deref() != service);
        if speed != Speed::ONE {
            let (service, author) = (service.map(str::to_owned), author.name.clone());
            speeds.push(SetSpeed { service, parts: speed.parts(), since: self.moment(), lasts, author });
        }
        self.store.set_speeds(&speeds).map_err(|error| stored(&error))?;
        // Where its health has it run slower yet, that is in force.
        let by_health = service.and_then(|name| self.speed_by_health(name)).filter(|by_health| *by_health < speed);
        let end = if by_health.is_some() { None } else { self.end_of(lasts) };
        if let Err(error) = self.datapath.publish_speed(clock, by_health.unwrap_or(speed), end) {
            let kept = self.store.set_speeds(&self.speeds);
            self.faults.note("speeds", kept.map_err(|error| format!("the speed before is not stored: {error}")));
            return Err(kernel(&error));
        }
        self.speeds = speeds;
        let whose = service.map_or("the host".to_owned(), |name| format!("service {name}"));
        tracing::info!(author = %author.name, clock = whose, speed = ratio(speed), lasts = ?lasts, "speed set");
        let view = self.speed_view(service).ok_or_else(|| self.no_service(service))?;
        // It begins in a moment.
        let lease_seconds = (speed != Speed::ONE).then(|| lasts.unwrap_or(LEASE).min(LEASE).as_secs_f64());
        Ok(SpeedView { speed: ratio(speed), lease_seconds, ..view })
    }

    /// At the start: what was set and is not over holds again. A speed that cannot be published is a fault.
    pub(super) fn resume_speeds(&mut self) {
        match self.store.speeds() {
            Ok(speeds) => self.speeds = speeds,
            Err(error) => return self.faults.note("speeds", Err(format!("the speeds cannot be read: {error}"))),
        }
        self.end_speeds();
        for held in self.speeds.clone() {
            let rest = held.remaining(&self.moment());
            let (Some(clock), Some(speed)) = (self.clock_of(held.service.as_deref()), Speed::of_parts(held.parts))
            else {
                continue;
            };
            let published = self.datapath.publish_speed(clock, speed, self.end_of(rest));
            self.faults.note("speeds", published.map_err(|error| format!("a speed is not in force: {error:#}")));
        }
    }

    /// What time brings: leases are renewed, and speeds end.
    pub(super) fn renew_speeds(&mut self) {
        self.notice_a_pause();
        self.end_speeds();
        let renewed = self.datapath.renew_speeds();
        if renewed.is_err() || !self.speeds.is_empty() {
            self.faults.note("speeds", renewed.map_err(|error| format!("speeds lapse: {error:#}")));
        }
    }

    /// After a change of policy, and when their time is over: speeds that hold no longer are forgotten.
    pub(super) fn end_speeds(&mut self) {
        if self.speeds.is_empty() {
            return;
        }
        let (now, clocks) = (self.moment(), self.datapath.clocks());
        let before = self.speeds.len();
        self.speeds.retain(|held| {
            let over = held.remaining(&now).is_some_and(|rest| rest.is_zero());
            !over && held.service.as_ref().is_none_or(|service| clocks.contains_key(service))
        });
        if self.speeds.len() < before {
            let kept = self.store.set_speeds(&self.speeds);
            self.faults.note("speeds", kept.map_err(|error| format!("ended speeds stay in the store: {error}")));
        }
    }

    /// How fast a service's clock was set to run by hand, and for how long yet; for as long as nobody sets another where there
    /// is no end.
    pub(super) fn speed_by_hand(&self, service: &str) -> Option<(Speed, Option<Duration>)> {
        let set = self.speeds.iter().find(|held| held.service.as_deref() == Some(service))?;
        let rest = set.remaining(&self.moment());
        Speed::of_parts(set.parts).filter(|_| rest.is_none_or(|rest| !rest.is_zero())).map(|speed| (speed, rest))
    }

    /// An instant of the kernel's clock.
    pub(super) fn end_of(&self, rest: Option<Duration>) -> Option<u64> {
        rest.map(|rest| self.datapath.now().saturating_add(u64::try_from(rest.as_nanos()).unwrap_or(u64::MAX)))
    }

    fn clock_of(&self, service: Option<&str>) -> Option<u16> {
        service.map_or(Some(HOST_CLOCK), |name| self.datapath.clocks().get(name).copied())
    }

    fn no_service(&self, service: Option<&str>) -> Problem {
        let (name, clocks) = (service.unwrap_or_default(), self.datapath.clocks());
        let names: Vec<&str> = clocks.keys().map(String::as_str).collect();
        let remedy = if names.is_empty() { "there are none".to_owned() } else { one_of(name, &names) };
        Problem::new(ProblemKind::NotFound, format!("there is no service `{name}`; {remedy}"))
    }

    fn speed_view(&self, service: Option<&str>) -> Option<SpeedView> {
        let clock = self.clock_of(service)?;
        let (state, now) = (self.datapath.clock_state(clock), self.datapath.now());
        let set = self.speeds.iter().find(|held| held.service.as_deref() == service);
        let rest = set.and_then(|held| held.remaining(&self.moment()));
        let limits = self.datapath.limits();
        let limits = limits.iter().filter(|held| held.record.clock == clock && !held.record.is_concurrency());
        Some(SpeedView {
            service: service.map(str::to_owned),
            speed: ratio(state.speed),
            author: set.map(|held| held.author.clone()),
            until: rest.map(|rest| Timestamp::now() + SignedDuration::try_from(rest).unwrap_or_default()),
            lease_seconds: state.lease_until.map(|until| (until - now) as f64 / 1e9),
            behind_seconds: state.behind.as_secs_f64(),
            limits: limits.map(|held| name_str(&held.record.name).to_owned()).collect(),
        })
    }
}
