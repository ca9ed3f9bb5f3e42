//! An agent that stood still, and finds that what it had in force has lapsed: policy's values hold by now, and it goes on from
//! those instead of bringing back what was right before.

use std::sync::Arc;

use anyhow::Result;
use throttle_common::speed::Speed;

use super::{Control, Nanos};
use crate::health::SECOND;

/// A shorter pause is none: looks are often later than they should be.
const PAUSE: Nanos = SECOND;

impl Control {
    /// Begins again where something has lapsed since the control thread last came by here. To be called before leases are
    /// renewed.
    pub(in crate::control) fn notice_a_pause(&mut self) {
        let now = self.datapath.now();
        let before = std::mem::replace(&mut self.health.passed, now);
        if before == 0 || now.saturating_sub(before) < PAUSE {
            return;
        }
        let mut lapsed: Vec<(Arc<str>, u16)> = Vec::new();
        for (name, followed) in &mut self.health.services {
            followed.earlier.begin_anew(now);
            let (clock, published) = (followed.clock, followed.published.as_ref());
            let had_window = published.is_some_and(|it| it.window.is_some());
            let had_speed = published.is_some_and(|it| it.speed != Speed::ONE);
            let window = had_window && self.datapath.window_state(clock).is_none();
            let speed = had_speed && self.datapath.clock_state(clock).speed == Speed::ONE;
            if window || speed {
                followed.health.lapse();
                lapsed.push((Arc::clone(name), clock));
            }
        }
        for (name, clock) in lapsed {
            let pause = (now - before) / SECOND;
            tracing::warn!(
                service = &*name,
                "limits of {name} are what policy says: the agent stood still for {pause} s"
            );
            let done = self.put_policy_in_force(&name, clock);
            self.faults.note("health", done.map_err(|error| format!("{name} does not begin again: {error:#}")));
        }
    }

    fn put_policy_in_force(&mut self, name: &str, clock: u16) -> Result<()> {
        self.datapath.publish_window(clock, None)?;
        let speed = self.put_speed_in_force(name, clock, Speed::ONE)?;
        if let Some(followed) = self.health.services.get_mut(name) {
            followed.speed = Some(speed);
        }
        Ok(())
    }
}
