//! What time brings: blocks and sessions that end, policies that nobody confirmed, and interfaces that come and go.

use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::{AGENT, Control, kernel, views};
use crate::{api::wire::Problem, datapath::Change};

/// The longest pause between two looks.
const TICK: Duration = Duration::from_secs(1);

/// A deadline on a clock that nobody sets.
pub(super) fn instant(deadline: Timestamp, now: Timestamp) -> Instant {
    Instant::now() + Duration::try_from(deadline.duration_since(now)).unwrap_or(Duration::ZERO)
}

impl Control {
    /// Does what is due, and says how long nothing will be.
    pub fn tick(&mut self) -> Duration {
        let now = Timestamp::now();
        if self.clock.follow() {
            tracing::info!("the wall clock was set; the ends of blocks are written anew");
            self.stale = true;
            self.publish_names();
        }
        self.end_sessions(now);
        self.end_blocks(now);
        self.go_back_when_due(now);
        if self.stale {
            let written = self.write_sources(None);
            self.note("sources", written.map_err(|problem| problem.to_string()));
        }
        self.publish_state();
        self.pause(now)
    }

    /// Attaches to interfaces that came and forgets those that went.
    pub fn reattach(&mut self) -> Result<(), Problem> {
        for change in self.datapath.reattach(Instant::now()).map_err(|error| kernel(&error))? {
            match change {
                Change::Attached(it) => {
                    tracing::info!(interface = it.interface, standing = ?it.standing, "attached again");
                }
                Change::Gone(interface) => tracing::warn!(interface, "the interface is gone; waiting for it"),
                Change::Refused { interface, error } => tracing::error!(interface, "not attached: {error:#}"),
            }
        }
        self.publish_names();
        Ok(())
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
            Err(error) => self.note("sessions", Err(format!("the allowed sessions cannot be written: {error}"))),
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
        self.note("blocks", purged.map(|_| ()).map_err(|error| format!("ended blocks stay in the store: {error}")));
    }

    fn go_back_when_due(&mut self, now: Timestamp) {
        if self.pending.is_none_or(|(_, deadline)| deadline > Instant::now()) {
            return;
        }
        let gone_back = self.go_back(AGENT, now);
        self.note("confirmation", gone_back.map(|_| ()).map_err(|problem| format!("going back failed: {problem}")));
    }

    /// Remembers a fault for the status, and logs it when it is new or over.
    fn note(&mut self, subject: &'static str, outcome: Result<(), String>) {
        match outcome {
            Ok(()) => {
                if self.faults.remove(subject).is_some() {
                    tracing::info!(subject, "well again");
                }
            }
            Err(fault) => {
                if self.faults.get(subject) != Some(&fault) {
                    tracing::error!(subject, "{fault}");
                }
                self.faults.insert(subject, fault);
            }
        }
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

    fn pause(&self, now: Timestamp) -> Duration {
        let ends = self.blocks.values().filter_map(|block| block.until);
        let ends =
            ends.chain(self.sessions.allows().iter().map(|allow| allow.until)).map(|end| end.duration_since(now));
        let block = ends.min().map_or(TICK, |rest| Duration::try_from(rest).unwrap_or(Duration::ZERO));
        let back = self.pending.map_or(TICK, |(_, deadline)| deadline.saturating_duration_since(Instant::now()));
        // A fault in what is due must not make the thread spin.
        block.min(back).clamp(Duration::from_millis(10), TICK)
    }
}
