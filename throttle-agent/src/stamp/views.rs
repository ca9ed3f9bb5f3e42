//! Hosts, their differences and their policy, as the API tells of them.

use std::time::Duration;

use super::{
    facts::Fact,
    roster::{Id, Member},
    skew::Odd,
};
use crate::{
    api::wire::{RefusedChanges, SkewView, StampHostView, StampPolicy},
    control::Shares,
    replica::envelope::Refusal,
};

pub(super) fn skewed(odd: &Odd, seconds: impl Fn(Duration) -> f64) -> SkewView {
    SkewView {
        subject: odd.subject.name().to_owned(),
        host: odd.host.clone(),
        has: odd.has.clone(),
        most: odd.most.clone(),
        since_seconds: seconds(odd.since),
    }
}

pub(super) fn policy(shares: &Shares) -> StampPolicy {
    let figures = &shares.figures;
    let refused = Refusal::ALL.iter().zip(figures.refused);
    StampPolicy {
        belongs: shares.standing.is_some(),
        changes: shares.knows.changes,
        conflicts: shares.conflicts,
        set_aside: shares.set_aside,
        dead_letters: shares.dead_letters,
        made: figures.made,
        taken: figures.taken,
        conflicts_seen: figures.conflicts,
        refused: refused.map(|(why, changes)| RefusedChanges { reason: why.name().to_owned(), changes }).collect(),
    }
}

pub(super) fn host(id: &Id, member: &Member, own: bool, seconds: impl Fn(Duration) -> f64) -> StampHostView {
    let text = |fact| member.facts.get(fact).map(str::to_owned);
    let number = |fact| member.facts.number(fact);
    StampHostView {
        host: id.name.clone(),
        address: id.address.to_string(),
        own,
        state: member.state.name().to_owned(),
        since_seconds: seconds(member.since),
        suspicion: if member.state.lives() { member.suspicion } else { 0.0 },
        heard_seconds: member.heard.map(seconds),
        generation: id.generation,
        boot: text(Fact::Boot),
        build: text(Fact::Build),
        program: text(Fact::Program),
        revision: text(Fact::Revision).and_then(|text| text.parse().ok()),
        policy: text(Fact::Policy),
        mode: text(Fact::Mode),
        shares: text(Fact::Shares),
        load: number(Fact::Load),
        packets_per_second: number(Fact::Packets),
        refused_per_second: number(Fact::Refused),
        keys: member.facts.get(Fact::Keys).into_iter().flat_map(|keys| keys.split(' ')).map(str::to_owned).collect(),
    }
}
