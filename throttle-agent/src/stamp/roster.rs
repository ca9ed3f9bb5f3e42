//! Who is in the stamp and how each stands. Pure: what the gossip shows comes in, look by look, with the time; out come the
//! members, and what has changed.
//!
//! A host is a name at an address in a run of its agent. A later run takes the place of an earlier one; two that live under
//! one name at two addresses are both shown, and told of as a mistake.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    time::Duration,
};

use super::{LOOK, detector::Detector, facts::Facts};

/// Suspicion above which a host is suspect, and dead.
pub(super) const SUSPECT: f64 = 4.0;
pub(super) const DEAD: f64 = 8.0;
/// A look that comes later than this was held up: who was silent meanwhile may have spoken.
const DEAF: Duration = Duration::from_millis(3 * LOOK.as_millis() as u64);
/// How long two hosts must live under one name before it is told: one that has moved does so for a moment.
const DOUBLE: Duration = Duration::from_secs(3);
/// How long one that is gone is shown.
const FORGET: Duration = Duration::from_hours(24);
/// Hosts that are shown, at most.
pub(super) const MOST_HOSTS: usize = 512;

/// A run of an agent on a host.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Id {
    pub(super) name: String,
    /// Where it listens.
    pub(super) address: SocketAddr,
    /// Later runs have larger ones, where their host's clock is not set back.
    pub(super) generation: u64,
}

/// What the gossip shows of a host.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) id: Id,
    /// Grows while it lives.
    pub(super) heartbeat: u64,
    pub(super) facts: Facts,
}

/// How a host stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum State {
    /// It is heard as often as is usual.
    Alive,
    /// It has been silent for longer than is usual.
    Suspect,
    /// It has been silent for so long that it is taken to be dead.
    Dead,
    /// It has ended in good order.
    Left,
    /// Others know of it; this host has not heard it live.
    #[default]
    Unheard,
}

impl State {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Alive => "alive",
            Self::Suspect => "suspect",
            Self::Dead => "dead",
            Self::Left => "left",
            Self::Unheard => "unheard",
        }
    }

    /// Whether it takes part.
    pub(super) fn lives(self) -> bool {
        matches!(self, Self::Alive | Self::Suspect)
    }
}

/// A member.
#[derive(Clone, Debug, Default)]
pub(super) struct Member {
    pub(super) state: State,
    /// Since when.
    pub(super) since: Duration,
    pub(super) facts: Facts,
    pub(super) suspicion: f64,
    /// When it was heard last.
    pub(super) heard: Option<Duration>,
    heartbeat: u64,
    detector: Detector,
}

/// What has become of whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// A new one.
    Joined(Id),
    /// One that was dead, or another run of one that was known.
    Returned(Id),
    Suspect(Id),
    /// It was suspect, and is heard again.
    Recovered(Id),
    Died(Id),
    Left(Id),
    /// Two or more live under one name.
    Doubled(String),
    /// They do so no more.
    Single(String),
}

/// The members.
#[derive(Debug)]
pub(super) struct Roster {
    own: Id,
    members: BTreeMap<Id, Member>,
    looked: Duration,
    /// In whose place another run has come, with the last that was heard of them: the gossip shows them for a while.
    superseded: BTreeMap<Id, u64>,
    /// Names under which several live, since when, and whether that was told.
    doubled: BTreeMap<String, (Duration, bool)>,
}

impl Roster {
    /// That of a host which knows nobody yet.
    pub(super) fn new(own: Id, now: Duration) -> Self {
        let alive = Member { state: State::Alive, since: now, ..Member::default() };
        Self {
            members: [(own.clone(), alive)].into(),
            own,
            looked: now,
            superseded: BTreeMap::new(),
            doubled: BTreeMap::new(),
        }
    }

    pub(super) fn own(&self) -> &Id {
        &self.own
    }

    /// All of them, this host among them.
    pub(super) fn members(&self) -> &BTreeMap<Id, Member> {
        &self.members
    }

    /// The names under which several live.
    pub(super) fn doubled(&self) -> impl Iterator<Item = &str> {
        self.doubled.iter().filter(|(_, (_, told))| *told).map(|(name, _)| name.as_str())
    }

    /// One look at what the gossip shows; `facts` are this host's own.
    pub(super) fn look(&mut self, now: Duration, facts: Facts, seen: Vec<Seen>) -> Vec<Change> {
        let gap = now.saturating_sub(self.looked);
        let deaf = if gap > DEAF { gap.saturating_sub(LOOK) } else { Duration::ZERO };
        self.looked = now;
        let listed: BTreeSet<Id> = seen.iter().map(|it| it.id.clone()).collect();
        self.members.get_mut(&self.own).expect("this host is a member").facts = facts;
        for it in seen {
            self.hear(it, now, deaf);
        }
        let mut changes = Vec::new();
        for id in self.members.keys().filter(|id| **id != self.own).cloned().collect::<Vec<_>>() {
            // A later run may have taken its place a moment ago.
            let Some(member) = self.members.get_mut(&id) else { continue };
            let before = member.state;
            member.judge(now);
            let after = member.state;
            let supersedes = after.lives() && self.supersede(&id);
            changes.extend(match (before, after) {
                _ if before == after => None,
                (State::Suspect, State::Alive) => Some(Change::Recovered(id)),
                (State::Alive, State::Suspect) => Some(Change::Suspect(id)),
                (State::Unheard, State::Alive | State::Suspect) if !supersedes => Some(Change::Joined(id)),
                (_, State::Alive | State::Suspect) => Some(Change::Returned(id)),
                (_, State::Dead) => Some(Change::Died(id)),
                (_, State::Left) => Some(Change::Left(id)),
                (_, State::Unheard) => None,
            });
        }
        // Who died or left in favour of a later run is not told of.
        changes
            .retain(|change| !matches!(change, Change::Died(id) | Change::Left(id) if !self.members.contains_key(id)));
        self.members.retain(|id, member| {
            let kept = if member.state == State::Unheard { Duration::ZERO } else { FORGET };
            listed.contains(id) || member.state.lives() || now.saturating_sub(member.since) < kept
        });
        self.superseded.retain(|id, _| listed.contains(id));
        changes.extend(self.look_for_doubles(now));
        changes
    }

    fn hear(&mut self, seen: Seen, now: Duration, deaf: Duration) {
        if seen.id == self.own {
            return;
        }
        if !self.members.contains_key(&seen.id) {
            if self.superseded.get(&seen.id).is_some_and(|last| seen.heartbeat <= *last) {
                return;
            }
            let siblings = || self.members.iter().filter(|(id, _)| is_same(id, &seen.id));
            if siblings().any(|(id, it)| id.generation > seen.id.generation || *id == self.own && it.state.lives()) {
                return;
            }
            if self.members.len() >= MOST_HOSTS && !self.make_room() {
                return;
            }
        }
        let member = self.members.entry(seen.id).or_insert_with(|| Member { since: now, ..Member::default() });
        member.detector.excuse(deaf);
        member.facts = seen.facts;
        if seen.heartbeat > member.heartbeat {
            member.heartbeat = seen.heartbeat;
            member.heard = Some(now);
            member.detector.hear(now);
        }
    }

    /// Drops the one that has been gone the longest; `false` where all live.
    fn make_room(&mut self) -> bool {
        let gone = self.members.iter().filter(|(_, it)| !it.state.lives()).min_by_key(|(_, it)| it.since);
        let gone = gone.map(|(id, _)| id.clone());
        gone.is_some_and(|id| self.members.remove(&id).is_some())
    }

    /// Drops those in whose place one that lives has come; whether there were any.
    fn supersede(&mut self, heir: &Id) -> bool {
        let before = self.members.len();
        let (own, gone) = (&self.own, &mut self.superseded);
        self.members.retain(|id, member| {
            let is_earlier = id.generation < heir.generation;
            // One that is not heard yet may be a run later than this one.
            let was_here = matches!(member.state, State::Dead | State::Left);
            let superseded = if is_same(id, heir) { is_earlier || was_here } else { is_earlier && was_here };
            let stays = id == heir || id == own || id.name != heir.name || !superseded;
            if !stays {
                gone.insert(id.clone(), member.heartbeat);
            }
            stays
        });
        self.members.len() < before
    }

    fn look_for_doubles(&mut self, now: Duration) -> Vec<Change> {
        let mut living: BTreeMap<&str, u32> = BTreeMap::new();
        for (id, _) in self.members.iter().filter(|(_, it)| it.state.lives()) {
            *living.entry(&id.name).or_default() += 1;
        }
        let several: BTreeSet<String> =
            living.iter().filter(|(_, n)| **n > 1).map(|(name, _)| (*name).to_owned()).collect();
        let mut changes = Vec::new();
        self.doubled.retain(|name, (_, told)| {
            let stays = several.contains(name);
            if !stays && *told {
                changes.push(Change::Single(name.clone()));
            }
            stays
        });
        for name in several {
            let (since, told) = self.doubled.entry(name.clone()).or_insert((now, false));
            if !*told && now.saturating_sub(*since) >= DOUBLE {
                *told = true;
                changes.push(Change::Doubled(name));
            }
        }
        changes
    }
}

impl Member {
    fn judge(&mut self, now: Duration) {
        let suspicion = self.detector.suspicion(now);
        self.suspicion = suspicion.unwrap_or_default();
        let state = match suspicion {
            _ if self.facts.get(super::facts::Fact::Leaving).is_some() => State::Left,
            Some(suspicion) if suspicion <= SUSPECT => State::Alive,
            Some(suspicion) if suspicion > DEAD => State::Dead,
            Some(_) if self.state.lives() => State::Suspect,
            _ => self.state,
        };
        if state != self.state {
            (self.state, self.since) = (state, now);
            if state == State::Dead {
                self.detector.reset();
            }
        }
    }
}

/// Whether two are runs of one host.
fn is_same(one: &Id, other: &Id) -> bool {
    (&one.name, one.address) == (&other.name, other.address)
}

#[cfg(test)]
#[path = "roster_tests.rs"]
mod tests;
