//! What becomes of a packet, and why.

use throttle_common::{
    records::{Event, NONE, Policy},
    words::{Fate, Outcome, Reason},
};

/// A decision on its way to the account.
#[derive(Clone, Copy)]
pub struct Verdict {
    /// Why: the number of a [`Reason`], because the verifier does not know which numbers an enum may have.
    pub reason: u8,
    /// What becomes of the packet.
    pub outcome: Outcome,
    /// The limit that refused, or [`Event::NO_LIMIT`].
    pub limit: u16,
    /// The service it was for, or [`NONE`].
    pub service: u16,
}

impl Verdict {
    /// Lets it pass.
    #[inline(always)]
    pub fn pass(reason: Reason) -> Self {
        Self { reason: reason as u8, outcome: Outcome::Pass, limit: Event::NO_LIMIT, service: NONE }
    }

    /// Refuses it, or says that it would be where the host observes.
    #[inline(always)]
    pub fn refuse(reason: Reason, policy: &Policy) -> Self {
        let outcome = if policy.observe == 0 { Outcome::Drop } else { Outcome::Observe };
        Self { reason: reason as u8, outcome, limit: Event::NO_LIMIT, service: NONE }
    }

    /// The fate that policy chose for a frame that cannot be judged by its addresses; `None` for the numbers that are
    /// no shape's.
    #[inline(always)]
    pub fn of_shape(number: u32, policy: &Policy) -> Option<Self> {
        let fate = policy.fates.get(number as usize)?;
        let verdict = if *fate == Fate::Pass as u8 {
            Self::pass(Reason::Admitted)
        } else {
            Self::refuse(Reason::Admitted, policy)
        };
        Some(Self { reason: number as u8, ..verdict })
    }
}
