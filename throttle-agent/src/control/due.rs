//! What time brings: blocks, sessions and speeds that end, policies that nobody confirmed, and interfaces that come and go.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use throttle_common::{packet::Family, records::Limit, table::WAYS};

use super::{Control, kernel, trends, views};
use crate::{api::wire::Problem, policy::HeldLimit};

/// The longest pause between two looks.
const TICK: Duration = Duration::from_secs(1);
/// How often the table is looked over, which takes it some 20 ms.
const SWEEP: Duration = Duration::from_hours(1);

impl Control {
    /// Does what is due, and says how long nothing will be.
    pub fn tick(&mut self) -> Duration {
        let (now, instant) = (Timestamp::now(), Instant::now());
        if self.clock.follow() {
            tracing::info!("the wall clock was set; the ends of blocks are written anew");
            self.stale = true;
            self.publish_names();
        }
        self.end_sessions(now);
        self.end_blocks(now);
        self.forget_sentences(now);
        self.renew_speeds();
        self.go_back_when_due(instant);
        self.reattach_when_due(instant);
        if self.datapath.owes() {
            let settled = self.datapath.settle();
            self.faults.note("kernel", settled.map_err(|error| format!("a change is not wholly done yet: {error:#}")));
        }
        self.count_when_due(instant);
        if self.swept.elapsed() >= SWEEP {
            self.datapath.bound_debts();
            self.swept = Instant::now();
        }
        if self.looked.is_none_or(|looked| looked.elapsed() >= trends::PAUSE) {
            self.look_at_limits();
            self.looked = Some(Instant::now());
        }
        if self.stale {
            let written = self.write_sources();
            self.faults.note("sources", written.map_err(|problem| problem.to_string()));
        }
        self.publish_state();
        self.pause(now, instant)
    }

    /// Whether the control thread answers and the maps can be read.
    pub fn beat(&mut self) -> Result<(), Problem> {
        self.datapath.losses().map(|_| ()).map_err(|error| kernel(&error))
    }

    fn end_sessions(&mut self, now: Timestamp) {
        match self.sessions.expire(now) {
            Ok(true) => {
                tracing::info!("an administrator's session is no longer allowed by itself");
                self.stale = true;
            }
            Ok(false) => {}
            Err(error) => self.faults.note("sessions", Err(format!("the allowed sessions cannot be written: {error}"))),
        }
    }

    fn end_blocks(&mut self, now: Timestamp) {
        let before = self.blocks.len();
        self.blocks.retain(|_, block| block.until.is_none_or(|until| until > now));
        let ended = before - self.blocks.len();
        if ended == 0 {
            return;
        }
        tracing::info!(blocks = ended, "blocks ended");
        self.stale = true;
        let purged = self.store.purge(now);
        self.faults
            .note("blocks", purged.map(|_| ()).map_err(|error| format!("ended blocks stay in the store: {error}")));
    }

    /// Looks who uses the limits, and lets the trends follow.
    fn look_at_limits(&mut self) {
        let look = |(_, held): (_, HeldLimit)| {
            let record = held.record;
            let families = [Family::V4, Family::V6];
            let regions = families.map(|family| self.look_at_region(&record, family));
            let tally = self.datapath.limit_tally(held.number).ok()?;
            let open = if record.is_concurrency() { self.datapath.open_connections(&record) } else { 0 };
            Some((held.number, record, trends::Look { at: self.datapath.now(), tally, regions, open }))
        };
        let looks = self.held_limits().into_iter().filter_map(look).collect();
        self.trends.add(looks);
    }

    fn look_at_region(&self, record: &Limit, family: Family) -> trends::Region {
        let region = record.region(family);
        let talkers = self.datapath.talkers(record, family, trends::NAMED);
        let fullest = match talkers.fullest {
            Some(fullest) => {
                let load = self.compartment(record, region, fullest);
                trends::Part { whose: Some(load.whose()), busy: load.busy, slots: load.slots }
            }
            None => trends::Part { whose: None, busy: talkers.busy, slots: u64::from(region.sets) * WAYS as u64 },
        };
        trends::Region { most: talkers.most, busy: talkers.busy, fullest }
    }

    fn publish_state(&self) {
        if let Ok(losses) = self.datapath.losses() {
            let losses = views::losses(&losses);
            self.published.losses.send_if_modified(|held| std::mem::replace(held, losses) != losses);
        }
        let summary = self.summary();
        self.published.summary.send_if_modified(|held| {
            let differs = *held != summary;
            *held = summary;
            differs
        });
    }

    fn pause(&self, now: Timestamp, instant: Instant) -> Duration {
        let ends = self.blocks.values().filter_map(|block| block.until);
        let ends =
            ends.chain(self.sessions.allows().iter().map(|allow| allow.until)).map(|end| end.duration_since(now));
        let block = ends.min().map_or(TICK, |rest| Duration::try_from(rest).unwrap_or(Duration::ZERO));
        let back = self.until_going_back(instant).unwrap_or(TICK);
        // A fault in what is due must not make the thread spin.
        block.min(back).clamp(Duration::from_millis(10), TICK)
    }
}
