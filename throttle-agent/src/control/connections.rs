//! Holding the count of open connections against the sockets that there are.

use std::time::{Duration, Instant};

use super::Control;
use crate::datapath::Drift;

/// How often, where there are few sockets.
const PERIOD: Duration = Duration::from_secs(1);
/// The part of a CPU that it may take where there are many: a twentieth.
const PARTS: u32 = 20;

/// When to look next, and what was found so far.
#[derive(Debug)]
pub(super) struct Counting {
    next: Instant,
    /// Whether nothing is written down, and nothing will be as long as no limit counts: then there is nothing to mend.
    at_rest: bool,
    drift: Drift,
}

impl Counting {
    pub(super) fn new() -> Self {
        Self { next: Instant::now(), at_rest: false, drift: Drift::default() }
    }

    /// All that was mended since the start.
    pub(super) fn drift(&self) -> Drift {
        self.drift
    }
}

impl Control {
    /// Mends the count, where a limit needs one and it is time.
    pub(super) fn count_when_due(&mut self, now: Instant) {
        if now >= self.counting.next {
            let mended = self.count_connections();
            // A packet that was under another policy when this one came has long had its verdict.
            self.counting.at_rest = mended && !self.counts();
        }
    }

    /// Mends the count now: also when the policy has changed, because it may count what is open already. Says whether it
    /// could.
    pub(super) fn count_connections(&mut self) -> bool {
        if self.counting.at_rest && !self.counts() {
            self.counting.next = Instant::now() + PERIOD;
            return true;
        }
        self.counting.at_rest = false;
        let before = cpu_time();
        let mended = self.datapath.reconcile_connections();
        // By what it takes of a CPU: on a busy host it waits long for one, and would else mend the less, the busier it is.
        self.counting.next = Instant::now() + PERIOD.max(cpu_time().saturating_sub(before) * PARTS);
        let note = match mended {
            Ok(Drift { closed, open, idle }) => {
                self.counting.drift.closed += closed;
                self.counting.drift.open += open;
                self.counting.drift.idle += idle;
                if closed + open + idle > 0 {
                    tracing::debug!(closed, open, idle, "the count of open connections was mended");
                }
                Ok(())
            }
            Err(error) => Err(format!("open connections cannot be held against the sockets: {error:#}")),
        };
        let mended = note.is_ok();
        self.faults.note("connections", note);
        mended
    }

    /// Whether a limit of the policy in force counts open connections.
    fn counts(&self) -> bool {
        self.datapath.policy().counts_connections != 0
    }
}

/// How long this thread has been on a CPU.
fn cpu_time() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(now.tv_sec.cast_unsigned(), now.tv_nsec.cast_unsigned() as u32)
}
