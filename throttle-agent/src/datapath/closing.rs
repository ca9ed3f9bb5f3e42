//! Closing connections that are kept: what is open goes on whatever limits become, unless somebody ends it.

use anyhow::{Context, Result};
use throttle_common::records::{Connection, Ends};

use super::{Datapath, connections::Held, sockdiag};

impl Datapath {
    /// Closes so many connections to a service that hold places, those that have been open longest. Gives how many it closed,
    /// also where it could not go on. Whoever has a guaranteed place keeps it, and what is only forwarded has no socket here.
    pub fn close_oldest(&self, service: u16, count: usize) -> (usize, Result<()>) {
        let mut open: Vec<Held> = match self.connections() {
            Ok(open) => open,
            Err(error) => return (0, Err(error)),
        };
        open.retain(|(ends, connection)| {
            connection.state == Connection::OPEN
                && self.number_of(ends) == Some(service)
                && !connection.holds.iter().any(|hold| hold.is_some() && self.is_guaranteed(hold.limit))
        });
        let oldest = oldest(&mut open, count);
        let (closed, outcome) = sockdiag::close(oldest);
        (closed, outcome.context("close connections; the kernel needs CONFIG_INET_DIAG_DESTROY for it"))
    }

    fn is_guaranteed(&self, limit: u16) -> bool {
        self.tables.limit(limit).is_guarantee()
    }
}

/// Those that have been open longest, up to so many.
fn oldest(open: &mut [Held], count: usize) -> impl Iterator<Item = Ends> {
    open.sort_unstable_by_key(|(_, connection)| connection.began());
    open.iter().take(count).map(|(ends, _)| *ends)
}
