//! Having the kernel mend what is written down of a connection.
//!
//! The agent finds out what is amiss; what is taken, given back and written down for it a kernel program does in one run
//! (`BPF_PROG_TEST_RUN`), which comes to its end whatever becomes of the agent. See `throttle-ebpf/src/mending.rs`.

use anyhow::{Context, Result, bail};
use aya::programs::{TestRun as _, TestRunOptions, Xdp};
use throttle_common::records::{CONNECTION_LIMITS, Connection, Ends, Hold, Home, Limit, Mending, SourceEntry};

use super::{Datapath, mapped::bytes_of};

/// The program, and what it answers where it changed something and where not: `XDP_PASS` and `XDP_DROP`.
pub(super) const PROGRAM: &str = "mend";
const CHANGED: u32 = 2;
const UNCHANGED: u32 = 1;

/// What a connection holds, against what it should.
struct Due {
    /// The places that it keeps.
    kept: Vec<Hold>,
    /// Whether it holds others too.
    exceeds: bool,
    /// Whether it lacks some.
    lacks: bool,
    /// Whether it asks for none of a guarantee, because it has one or needs none.
    settled: bool,
}

impl Datapath {
    /// Counts a connection that is open and not written down; `false` where it is by now, or no limit has room for it.
    pub(super) fn adopt_now(&self, ends: &Ends) -> Result<bool> {
        self.run_mending(&Mending { act: Mending::ADOPT, ..nothing(ends) }).context("count a connection")
    }

    /// Gives the places of a connection that has ended back; `false` where it has become another one, or somebody else does.
    pub fn close(&self, ends: &Ends, seen: &Connection) -> Result<bool> {
        let mut found = *seen;
        if found.since & Connection::MARKS != 0 {
            // Whoever has marked it does what is to be done, unless it could not.
            self.grace.wait().context("wait for whoever ends a connection")?;
            match self.connection(ends)? {
                Some(now) if now.since == found.since => found = now,
                _ => return Ok(false),
            }
        }
        let asked = Mending { act: Mending::END, found, ..nothing(ends) };
        self.run_mending(&asked).context("forget a connection")
    }

    /// Has a connection, as it was seen written down, hold the places that it should, and no others, in a state: that of a
    /// socket, or of one that is counted by its packets; or else in the one that it is in. `true` where it did not.
    pub(super) fn mend(&self, ends: &Ends, state: Option<u32>, seen: &Connection) -> Result<bool> {
        if !self.due(ends, &seen.holds).is_amiss() && state.is_none_or(|state| seen.state == state) {
            return Ok(false);
        }
        let mended = self.hold_what_is_due(ends, state, seen)?;
        // What it held behind a guarantee of which it has got a place is for others.
        Ok(self.has_guarantee(ends) && self.hold_what_is_due(ends, None, seen)? || mended)
    }

    /// The same as it is written down now. What is so no more has closed since it was read, and of what is another connection
    /// by now nobody has seen the state.
    fn hold_what_is_due(&self, ends: &Ends, state: Option<u32>, seen: &Connection) -> Result<bool> {
        let Some(found) = self.connection(ends)? else { return Ok(false) };
        let state = state.filter(|_| found.since == seen.since);
        let due = self.due(ends, &found.holds);
        if !due.is_amiss() && state.is_none_or(|state| found.state == state) {
            return Ok(false);
        }
        let state = state.unwrap_or(Mending::SAME);
        let mut holds = [Hold::NONE; CONNECTION_LIMITS];
        holds.iter_mut().zip(&due.kept).for_each(|(place, kept)| *place = *kept);
        let (found, settled) = (Connection { holds, ..found }, due.settled.into());
        let asked = Mending { act: Mending::HOLD, state, found, settled, ..nothing(ends) };
        self.run_mending(&asked).context("mend a connection")
    }

    /// What a connection should hold: a place under every limit, but under none that stands behind a guarantee of which it has
    /// one. One that has all its places by itself goes on without the guarantee's.
    fn due(&self, ends: &Ends, holds: &[Hold]) -> Due {
        let (limits, whose, secret) = (self.limits_of(ends), self.whose(ends), self.tables.control().secret);
        let is_at_home = |it: &Hold, limit: &Limit| {
            limit.home(&whose, secret).is_some_and(|Home { key, set }| {
                let place = if it.in_aggregate() { limit.aggregate(&whose, secret) } else { set };
                (key, place) == (it.key, it.place)
            })
        };
        let of = |(number, limit): &(u16, Limit)| {
            holds.iter().find(|hold| hold.is_some() && hold.limit == *number && is_at_home(hold, limit))
        };
        let guaranteed = limits.iter().any(|limit| limit.1.is_guarantee() && of(limit).is_some());
        let settled = guaranteed || limits.iter().all(|limit| limit.1.is_guarantee() || of(limit).is_some());
        let (mut kept, mut lacks) = (Vec::new(), false);
        for limit in &limits {
            let (held, reserves) = (of(limit), limit.1.is_guarantee());
            kept.extend(held);
            lacks |= held.is_none() && !(reserves && settled);
            if reserves && held.is_some() {
                break;
            }
        }
        let exceeds = holds.iter().any(|hold| hold.is_some() && !kept.contains(hold));
        Due { kept, exceeds, lacks, settled }
    }

    fn has_guarantee(&self, ends: &Ends) -> bool {
        self.limits_of(ends).iter().any(|(_, limit)| limit.is_guarantee())
    }

    /// The limits on open connections that count a connection, as the programs find them.
    pub(super) fn limits_of(&self, ends: &Ends) -> Vec<(u16, Limit)> {
        if self.entry_of(ends).is_some_and(SourceEntry::allows) {
            return Vec::new();
        }
        let (whose, secret) = (self.whose(ends), self.tables.control().secret);
        let scope = self.service_of(ends).map_or_else(|| self.policy().scope, |service| service.scope);
        let concurrent = scope.limits.into_iter().skip(scope.count.into()).take(scope.concurrent.into());
        let limits = concurrent.map(|number| (number, self.tables.limit(number)));
        limits.filter(|(_, limit)| limit.home(&whose, secret).is_some()).collect()
    }

    fn run_mending(&self, asked: &Mending) -> Result<bool> {
        // What it keeps meanwhile is of one connection.
        let _one = self.mending.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let program: &Xdp = self.ebpf.program(PROGRAM).context("the object has no such program")?.try_into()?;
        let frame = bytes_of(std::slice::from_ref(asked));
        match program.test_run(TestRunOptions { data_in: Some(frame), ..TestRunOptions::default() })?.return_value {
            CHANGED => Ok(true),
            UNCHANGED => Ok(false),
            other => bail!("the program answers {other}"),
        }
    }
}

impl Due {
    fn is_amiss(&self) -> bool {
        self.exceeds || self.lacks
    }
}

/// Nothing to be mended of a connection.
const fn nothing(ends: &Ends) -> Mending {
    Mending { ends: *ends, act: Mending::END, state: Connection::OPEN, found: Connection::NEW, settled: 0 }
}
