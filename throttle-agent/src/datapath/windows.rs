//! The health windows of services: how many connections they admit at once while they are unwell.
//!
//! A window holds for a lease, as a speed does ([`super::LEASE`]), and whoever publishes it renews it by publishing it
//! again. It lies in the kernel's map, by the number of its service's health clock: so an agent that starts anew finds
//! what is in force.

use std::sync::atomic::Ordering;

use anyhow::{Result, ensure};
use throttle_common::{
    health_window::HealthWindow,
    records::{HOST_CLOCK, Limit, Service},
};

use super::{Datapath, LEASE};

/// A health window that is in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowState {
    /// How many connections the service admits at once.
    pub connections: u32,
    /// When its lease ends if nobody renews it, on the clock that the programs read.
    pub lease_until: u64,
}

impl Datapath {
    /// Has a service admit so many connections at once, for a lease; `None` for as many as policy says. With one store, so
    /// that no packet sees anything between the two.
    pub fn publish_window(&self, clock: u16, connections: Option<u32>) -> Result<()> {
        ensure!(
            clock != HOST_CLOCK && u32::from(clock) < self.tables.windows.len(),
            "no service has the clock {clock}"
        );
        let lease = LEASE.as_nanos() as u64;
        let window = connections.map_or(HealthWindow::NONE, |most| HealthWindow::new(most, self.now() + lease));
        self.store_window(clock, window);
        Ok(())
    }

    /// The health window of a service, by the number of its clock; `None` where policy's own numbers are in force.
    pub fn window_state(&self, clock: u16) -> Option<WindowState> {
        let window = Some(self.window(clock)).filter(|window| window.holds(self.now()))?;
        Some(WindowState { connections: window.connections(), lease_until: window.until() })
    }

    /// How many connections are open to a service under its own limits on them, what guarantees gave out included; `None`
    /// where it has no such limit. Those that no limit counts are not among them.
    pub fn open_at(&self, service: u16) -> Option<u32> {
        let Service { scope, clock, .. } = self.service(service)?;
        let (first, count) = (usize::from(scope.count), usize::from(scope.concurrent));
        let limits = scope.limits.iter().skip(first).take(count).map(|&number| self.tables.limit(number));
        let own = limits.filter(|limit: &Limit| limit.clock == clock);
        let (guarantees, rest): (Vec<_>, Vec<_>) = own.partition(Limit::is_guarantee);
        // Whoever has a place of a guarantee has none under the limits behind it.
        let shared =
            rest.iter().filter(|limit| limit.is_of_service()).map(|limit| self.open_connections(limit)).max()?;
        let reserved: u64 = guarantees.iter().map(|limit| self.open_connections(limit)).sum();
        Some(u32::try_from(shared + reserved).unwrap_or(u32::MAX))
    }

    /// The window of a service, whether or not it is in force.
    pub(super) fn window(&self, clock: u16) -> HealthWindow {
        let known = clock != HOST_CLOCK && u32::from(clock) < self.tables.windows.len();
        if known { HealthWindow::of(self.tables.windows.get(clock.into())) } else { HealthWindow::NONE }
    }

    /// After a policy is put in force: the windows of clocks that are nobody's any more are gone.
    pub(super) fn forget_windows(&self) {
        let held = self.tables.clocks_held();
        for (clock, word) in (0..).zip(self.tables.windows.run(0, self.tables.windows.len())) {
            if word.load(Ordering::Relaxed) != 0 && !held.contains(&clock) {
                word.store(0, Ordering::Relaxed);
            }
        }
    }

    pub(super) fn store_window(&self, clock: u16, window: HealthWindow) {
        self.tables.windows.words(clock.into())[0].store(window.word(), Ordering::Release);
    }
}
