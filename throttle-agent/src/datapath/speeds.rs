//! The health clocks: what they read, and how fast they run.
//!
//! [`Datapath::publish_speed`] is the one way to change a speed. It holds for a lease, which [`Datapath::renew_speeds`]
//! renews while the agent lives: when it falls silent, clocks run at real time's speed again, as policy says. What a clock
//! has read lies in the kernel's map, so that an agent's restart or a change of policy moves no reading; see
//! `throttle_common::speed`.
//!
//! A new speed begins [`LEAD`] after it is computed, and is published only while half of that is left. Between that look and
//! the store that publishes lie a few instructions: an agent that is stopped exactly there, for longer than the rest,
//! publishes a speed that began in the past. Then a clock that had been read meanwhile jumps once, by at most the time
//! stopped times the difference of the speeds: back where it is slowed, so that sources wait for that much longer, and
//! forward where it is quickened, as if that time had run at the new speed.

use std::{
    collections::BTreeMap,
    sync::atomic::{Ordering, fence},
    time::Duration,
};

use anyhow::{Result, bail, ensure};
use throttle_common::{
    gcra::{self, Ticks},
    health_clock::Publication,
    records::{HOST_CLOCK, Limit},
    speed::{LEAD, Speed, Timeline},
};

use super::Datapath;

/// For how long a speed holds if the agent falls silent: several of its looks at what is due, and short enough that
/// nobody waits for somebody to find out.
pub const LEASE: Duration = Duration::from_secs(5);

/// How often a publication is tried that is held up, or has to wait for those before it.
const TRIES: usize = 100;

/// The speeds that are renewed, by clock; all other clocks run at real time's.
#[derive(Debug, Default)]
pub(super) struct Speeds(BTreeMap<u16, Meant>);

/// How fast a clock is meant to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Meant {
    speed: Speed,
    /// Until when, on the clock that the programs read; for as long as it is renewed where there is no end.
    until: Option<u64>,
}

/// How a clock stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockState {
    /// How fast it runs now.
    pub speed: Speed,
    /// When its lease ends if nobody renews it, on the clock that the programs read; `None` where it has none.
    pub lease_until: Option<u64>,
    /// By how much it is behind CLOCK_MONOTONIC.
    pub behind: Duration,
}

impl Datapath {
    /// Has a clock run at a speed from a moment on, until an instant of the clock that the programs read, or for as long as
    /// [`Datapath::renew_speeds`] is called. It never jumps, whatever it did before, and may be called as often as one
    /// likes; within a millisecond the third call waits for that to pass.
    pub fn publish_speed(&mut self, clock: u16, speed: Speed, until: Option<u64>) -> Result<()> {
        ensure!(u32::from(clock) < self.tables.clocks.len(), "there is no clock {clock}");
        let meant = Meant { speed, until };
        self.publish(clock, meant)?;
        if speed == Speed::ONE {
            self.speeds.0.remove(&clock);
        } else {
            self.speeds.0.insert(clock, meant);
        }
        Ok(())
    }

    /// Renews the leases. To be called at least twice within [`LEASE`].
    pub fn renew_speeds(&mut self) -> Result<()> {
        let soon = self.now() + LEAD;
        // What ends by now ends in the kernel by itself: no lease is longer than the time that is left.
        self.speeds.0.retain(|_, meant| meant.until.is_none_or(|until| until > soon));
        for (&clock, &meant) in &self.speeds.0 {
            self.publish(clock, meant)?;
        }
        Ok(())
    }

    /// How a clock stands.
    pub fn clock_state(&self, clock: u16) -> ClockState {
        let (now, timeline) = (self.now(), self.followed(clock));
        let behind = gcra::ticks(now).wrapping_sub(timeline.at(now)) / gcra::TICKS_PER_NANO;
        ClockState {
            speed: timeline.speed_at(now),
            lease_until: timeline.lease_until().filter(|&until| until > now),
            behind: Duration::from_nanos(behind),
        }
    }

    /// The health clocks of services, by their names; [`HOST_CLOCK`] is the host's.
    pub fn clocks(&self) -> BTreeMap<String, u16> {
        self.tables.clocks_of_services()
    }

    /// What the health clock of a limit reads now.
    pub(super) fn reads(&self, limit: &Limit) -> Ticks {
        self.followed(limit.clock).at(self.now())
    }

    /// What the health clock of a limit reads, now and as long as its speed is renewed as it is meant to be.
    pub fn timeline(&self, limit: &Limit) -> Timeline {
        let timeline = self.followed(limit.clock);
        self.speeds.0.get(&limit.clock).map_or(timeline, |meant| timeline.renewed(meant.until))
    }

    /// When a bucket of a limit that owes `debt` at `now` is full again, on the clock that the programs read.
    pub fn full_at(&self, limit: &Limit, debt: Ticks, now: u64) -> u64 {
        full_at(limit, &self.timeline(limit), debt, now)
    }

    /// Before a policy is put in force: the clocks of services that it adds begin anew, at real time. No packet reads them,
    /// and no bucket that is kept is theirs.
    pub(super) fn begin_clocks(&mut self, next: impl Iterator<Item = u16>) {
        let held = self.tables.clocks_held();
        for clock in next.filter(|clock| *clock != HOST_CLOCK && !held.contains(clock)) {
            self.speeds.0.remove(&clock);
            // The sequence number comes first: without one the rest means nothing.
            self.tables.clocks.words(clock.into()).iter().for_each(|word| word.store(0, Ordering::SeqCst));
        }
    }

    /// After a policy is put in force: the speeds of clocks that are nobody's any more are renewed no longer.
    pub(super) fn forget_clocks(&mut self) {
        if self.speeds.0.is_empty() {
            return;
        }
        let held = self.tables.clocks_held();
        self.speeds.0.retain(|clock, _| *clock == HOST_CLOCK || held.contains(clock));
    }

    /// The timeline that a clock follows, as the kernel has it. Only this process writes it, so that it is whole.
    pub fn followed(&self, clock: u16) -> Timeline {
        let known = u32::from(clock) < self.tables.clocks.len();
        if known { self.tables.clocks.get(clock.into()).timeline() } else { Timeline::REAL }
    }

    fn publish(&self, clock: u16, Meant { speed, until }: Meant) -> Result<()> {
        let words = self.tables.clocks.words(clock.into());
        for _ in 0..TRIES {
            let (now, held) = (self.now(), self.tables.clocks.get(clock.into()));
            let timeline = held.timeline();
            let left = until.map_or(u64::MAX, |until| until.saturating_sub(now + LEAD));
            let lease = (speed != Speed::ONE).then_some(left.min(LEASE.as_nanos() as u64));
            let Some(next) = timeline.then(now, speed, lease) else {
                std::thread::sleep(Duration::from_nanos(LEAD));
                continue;
            };
            if next == timeline {
                return Ok(());
            }
            let publication = Publication::of(held.sequence, timeline.at(now), next);
            publication.prepare(|word, value| words[word].store(value, Ordering::Relaxed));
            fence(Ordering::Release);
            // Nobody may have read beyond the instant at which the new speed begins. Where we were held up for so long, it
            // begins later.
            if self.now() < now + LEAD / 2 {
                publication.finish(|word, value| words[word].store(value, Ordering::Release));
                return Ok(());
            }
        }
        bail!("the agent is held up again and again while it publishes a speed; is the machine overloaded?")
    }
}

/// When the window ends that runs at `now`, or one of those after it, by the health clock of the limit.
pub(super) fn ends_at(limit: &Limit, clock: &Timeline, now: u64, later: u64) -> u64 {
    clock.when(now, limit.reading(clock.at(now)).wrapping_add((later + 1) * limit.window))
}

/// When a bucket that owes `debt` is full again, if nothing is charged: where windows count, when they have ended. Open
/// connections close when they do, and say now.
pub(super) fn full_at(limit: &Limit, clock: &Timeline, debt: Ticks, now: u64) -> u64 {
    match debt {
        0 => now,
        _ if limit.is_concurrency() => now,
        _ if limit.is_sliding() => ends_at(limit, clock, now, 1),
        _ if limit.window != 0 => ends_at(limit, clock, now, (debt - 1) / limit.window),
        _ => clock.when(now, clock.at(now).wrapping_add(debt)),
    }
}
