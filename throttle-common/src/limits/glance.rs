//! The commonest case of a limit: its clock flows, its terms are the same for all, and there is a bucket or room for one.

use super::{Charge, Clock, Question, Table, begin};
use crate::{
    records::Limit,
    table::{Check, check},
};

/// What a glance at a limit says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Glance {
    /// The limit has no say in the packet.
    Nothing,
    /// There is room: the charge is [`Charge::HELD`] or [`Charge::FREE`].
    Room,
    /// There is none.
    Exceeded,
    /// It takes more than a glance.
    Elsewhere,
}

/// Says of a plain limit (see [`crate::records::Scope::plain`]) what [`super::weigh`] says, where the set has a slot for the
/// bucket that any source may take; else [`Glance::Elsewhere`]. Writes to no bucket.
#[inline(always)]
pub fn glance<T: Table, C: Clock>(
    limit: &Limit,
    question: &Question,
    table: &T,
    clock: &mut C,
    charge: &mut Charge,
) -> Glance {
    charge.clear();
    let Some(units) = begin(limit, question, charge) else { return Glance::Nothing };
    let Some(set) = table.set(charge.place) else { return Glance::Nothing };
    (charge.cost, charge.depth, charge.now) = (limit.price.cost(units), limit.depth, clock.reads(limit.clock));
    match check(&set, &charge.request()) {
        Check::Held { way, seen } => charge.aim(Charge::HELD, way, seen),
        Check::Free { way, seen } => charge.aim(Charge::FREE, way, seen),
        Check::Exceeded => return Glance::Exceeded,
        Check::Full => return Glance::Elsewhere,
    }
    Glance::Room
}
