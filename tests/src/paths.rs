//! The paths of a packet under the full policy.

use anyhow::{Result, ensure};
use throttle_common::{
    packet::tcp,
    words::{Outcome, Reason},
};

use crate::{
    calls::Tracer,
    frames::Frame,
    policies::{self, Difference, Level, PORT},
    program::{Program, difference},
};

/// A path: how the policy differs, and what becomes of its packets.
pub struct Path {
    /// What becomes of its packets, in words.
    pub name: &'static str,
    difference: Difference,
    /// Whether CPUs take ahead of what sources share.
    leased: bool,
    ends: (Reason, Outcome),
    /// How much of parse + clock it may cost, if it may not cost what it likes.
    pub goal: Option<f64>,
}

const SAME: Difference = Difference { allow_all: false, block_all: false, strict: None };

/// All of them.
pub const PATHS: [Path; 6] = [
    Path {
        name: "allowed",
        difference: Difference { allow_all: true, ..SAME },
        leased: true,
        ends: (Reason::Allowed, Outcome::Pass),
        goal: None,
    },
    Path {
        name: "blocked by prefix",
        difference: Difference { block_all: true, ..SAME },
        leased: true,
        ends: (Reason::Blocked, Outcome::Drop),
        goal: None,
    },
    Path {
        name: "refused by the source's limit",
        difference: Difference { strict: Some(Level::Source), ..SAME },
        leased: true,
        ends: (Reason::SourceLimit, Outcome::Drop),
        goal: Some(2.5),
    },
    Path {
        name: "refused by the host's, the last of four",
        difference: Difference { strict: Some(Level::Host), ..SAME },
        leased: true,
        ends: (Reason::HostLimit, Outcome::Drop),
        goal: Some(3.5),
    },
    Path {
        name: "admitted by all four",
        difference: SAME,
        leased: true,
        ends: (Reason::Admitted, Outcome::Pass),
        goal: None,
    },
    Path {
        name: "the same, without leases",
        difference: SAME,
        leased: false,
        ends: (Reason::Admitted, Outcome::Pass),
        goal: None,
    },
];

/// A packet for any of them.
pub fn frame() -> Vec<u8> {
    Frame::v4([198, 51, 100, 7]).tcp(40_000, PORT, tcp::ACK).length(60).bytes()
}

impl Path {
    /// A program whose packets take it.
    pub fn program(&self) -> Result<Program> {
        let mut program = Program::live(&policies::full(self.difference))?;
        if !self.leased {
            program.lease(0)?;
        }
        Ok(program)
    }

    /// A hot source's packets must all take the path, but for the one that its bucket holds.
    pub fn check(&self, program: &Program, frame: &[u8]) -> Result<()> {
        const PACKETS: u32 = 1_000;
        let before = program.tallies()?;
        program.datapath.test_run(frame, PACKETS)?;
        let tallies = difference(&program.tallies()?, &before);
        let on_path = tallies.get(&self.ends).map_or(0, |tally| tally.packets);
        ensure!(
            on_path >= u64::from(PACKETS) - 1,
            "{}: {on_path} of {PACKETS} packets took the path: {tallies:?}",
            self.name
        );
        Ok(())
    }

    /// The helpers that a packet of a hot source calls, each with how often.
    pub fn calls(&self, program: &Program, frame: &[u8]) -> Result<Vec<(String, u32)>> {
        /// Enough that the budget of events is used up, as in a flood.
        const BEFORE: u32 = 100_000;
        const TRACED: u32 = 64;
        let tracer = Tracer::new()?;
        program.datapath.test_run(frame, BEFORE)?;
        let calls = tracer.calls(|| program.datapath.test_run(frame, TRACED).map(drop))?;
        let each = calls.into_iter().map(|(name, calls)| (name, (calls + TRACED / 2) / TRACED));
        Ok(each.filter(|(_, calls)| *calls > 0).collect())
    }
}
