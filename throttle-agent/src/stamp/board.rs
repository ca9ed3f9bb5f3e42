//! What is known of the stamp at this moment, for whoever asks: the API, the metrics, the status.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt::Write as _,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use jiff::Timestamp;
use tokio::sync::watch;

use super::{
    KeyFile,
    exchange::take_in,
    facts::{Fact, Facts},
    roster::{Change, Id, Member, Roster, Seen, State},
    skew::{Odd, Skew, Subject, Turn},
    speech::Heard,
    transport::Datagrams,
    views,
};
use crate::{
    api::wire::{Problem, RefusedDatagrams, StampChange, StampDatagrams, StampExchanges, StampView},
    control::{Control, Shares},
    replica::Standing,
};

/// Changes that are kept.
const CHANGES: usize = 100;
/// How long a host may hear nobody before that is told: others may be about to start.
const LONELY: Duration = Duration::from_secs(5);

/// Failures in a row after which it is told that a host gives no changes.
const TOLD: u32 = 3;

/// Another host of the stamp, and how it stands in its policy.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    pub(super) name: String,
    pub(super) address: SocketAddr,
    /// None where it has not got the stamp's policy.
    pub(super) standing: Option<Standing>,
    /// The number of its own policy.
    pub(super) revision: u64,
}

/// What came of asking others for changes, counted since the agent was started.
#[derive(Debug, Default)]
pub(super) struct Exchanges {
    pub(super) done: AtomicU64,
    pub(super) failed: AtomicU64,
    /// Connections of whoever has none of the stamp's keys.
    pub(super) strangers: AtomicU64,
}

/// The one place where it is written; whoever clones this reads the same.
#[derive(Clone, Debug)]
pub struct Board(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    stamp: String,
    keys: Arc<KeyFile>,
    datagrams: Arc<Datagrams>,
    exchanges: Exchanges,
    shares: watch::Receiver<Arc<Shares>>,
    start: Instant,
    held: Mutex<Held>,
}

#[derive(Debug)]
struct Held {
    roster: Roster,
    skew: Skew,
    changes: VecDeque<StampChange>,
    /// Those whose gossip this host's policy refuses, with the reason.
    refused: Vec<(SocketAddr, String)>,
    /// Those that give no changes: how often in a row, and why.
    failing: BTreeMap<SocketAddr, (String, u32, String)>,
    /// Whether there are seeds, so that somebody is to be heard.
    seeds: bool,
    /// Since when nobody else takes part.
    lonely: Option<Duration>,
}

impl Board {
    pub(super) fn new(
        stamp: &str,
        own: Id,
        seeds: bool,
        keys: Arc<KeyFile>,
        datagrams: Arc<Datagrams>,
        shares: watch::Receiver<Arc<Shares>>,
    ) -> Self {
        let held = Held {
            roster: Roster::new(own, Duration::ZERO),
            skew: Skew::default(),
            changes: VecDeque::new(),
            refused: Vec::new(),
            failing: BTreeMap::new(),
            seeds,
            lonely: Some(Duration::ZERO),
        };
        let start = Instant::now();
        let (stamp, exchanges, held) = (stamp.to_owned(), Exchanges::default(), Mutex::new(held));
        Self(Arc::new(Shared { stamp, keys, datagrams, exchanges, shares, start, held }))
    }

    fn held(&self) -> (MutexGuard<'_, Held>, Duration) {
        (self.0.held.lock().unwrap_or_else(PoisonError::into_inner), self.0.start.elapsed())
    }

    /// Begins anew, as another run: whoever was known is heard again.
    pub(super) fn begin(&self, own: Id) {
        let (mut held, now) = self.held();
        held.roster = Roster::new(own, now);
    }

    /// Takes in one look at the gossip, and says what has changed.
    pub(super) fn look(&self, facts: Facts, seen: Vec<Seen>) {
        let (mut held, now) = self.held();
        let changes = held.roster.look(now, facts, seen);
        let Held { roster, skew, .. } = &mut *held;
        let living = || roster.members().iter().filter(|(_, it)| it.state.lives());
        let turns = skew.look(now, living().flat_map(|(id, it)| said(&id.name, it)));
        let alone = living().count() < 2;
        held.lonely = alone.then(|| held.lonely.unwrap_or(now));
        for change in &changes {
            held.tell(&self.0.stamp, change);
        }
        for turn in &turns {
            held.turn(&self.0.stamp, turn);
        }
    }

    /// Notes whose gossip this host's policy refuses.
    pub(super) fn refuse(&self, refused: Vec<(SocketAddr, String)>) {
        self.held().0.refused = refused;
    }

    /// The others that take part and say how they stand in the policy.
    pub(super) fn sharing(&self) -> Vec<Peer> {
        let (held, _) = self.held();
        let peer = |(id, it): (&Id, &Member)| {
            let said = it.facts.get(Fact::Shares)?;
            let standing = said.split_once(' ').and_then(|(digest, changes)| {
                Some(Standing { digest: digest.to_owned(), changes: changes.parse().ok()? })
            });
            let revision = it.facts.get(Fact::Revision).and_then(|text| text.parse().ok()).unwrap_or_default();
            Some(Peer { name: id.name.clone(), address: id.address, standing, revision })
        };
        held.others().filter_map(peer).collect()
    }

    /// What came of asking others for changes.
    pub(super) fn exchanges(&self) -> &Exchanges {
        &self.0.exchanges
    }

    /// Notes what came of asking one: whether anything was learned, or why not.
    pub(super) fn exchanged(&self, peer: &Peer, outcome: Result<bool, String>) {
        let (mut held, _) = self.held();
        let (done, failed) = (&self.0.exchanges.done, &self.0.exchanges.failed);
        match outcome {
            Ok(_) => {
                done.fetch_add(1, Relaxed);
                held.failing.remove(&peer.address);
            }
            Err(cause) => {
                failed.fetch_add(1, Relaxed);
                let times = held.failing.get(&peer.address).map_or(0, |(_, times, _)| *times) + 1;
                if times == TOLD {
                    tracing::warn!(host = peer.name, cause, "no changes of the policy can be had from it");
                }
                held.failing.insert(peer.address, (peer.name.clone(), times, cause));
            }
        }
        let Held { failing, roster, .. } = &mut *held;
        failing.retain(|address, _| roster.members().iter().any(|(id, it)| id.address == *address && it.state.lives()));
    }

    /// The envelopes of changes that one of the stamp's keys has sealed, and the others.
    pub(super) fn open(&self, envelopes: Vec<Vec<u8>>) -> Heard {
        Heard::open(&self.0.keys.keys(), &self.0.stamp, envelopes)
    }

    /// Has these taken in as if they came from a host now: gives how many changes were new.
    pub fn replay(&self, control: &mut Control, envelopes: Vec<Vec<u8>>) -> Result<usize, Problem> {
        take_in(control, "replayed", self.open(envelopes))
    }

    /// Where the others listen that take part.
    pub(super) fn peers(&self) -> Vec<SocketAddr> {
        let (held, _) = self.held();
        held.others().map(|(id, _)| id.address).collect()
    }

    /// Where all others listen that are known.
    pub(super) fn addresses(&self) -> Vec<SocketAddr> {
        let (held, _) = self.held();
        held.roster.members().keys().filter(|id| *id != held.roster.own()).map(|id| id.address).collect()
    }

    /// What is wrong, each with its remedy.
    pub fn warnings(&self) -> Vec<String> {
        let (held, now) = self.held();
        let stamp = &self.0.stamp;
        held.warnings(now, &self.refusals()).into_iter().map(|warning| format!("stamp {stamp}: {warning}")).collect()
    }

    /// All of it.
    pub fn view(&self) -> StampView {
        let (held, now) = self.held();
        let own = held.roster.own();
        let seconds = |since: Duration| now.saturating_sub(since).as_secs_f64();
        let datagrams = &self.0.datagrams;
        StampView {
            stamp: self.0.stamp.clone(),
            host: own.name.clone(),
            warnings: held.warnings(now, &self.refusals()),
            hosts: held.roster.members().iter().map(|(id, it)| views::host(id, it, id == own, seconds)).collect(),
            skew: held.skew.all().map(|odd| views::skewed(odd, seconds)).collect(),
            keys: self.0.keys.keys().all().iter().map(super::Key::name).collect(),
            datagrams: StampDatagrams {
                sent: datagrams.sent.load(Relaxed),
                unsent: datagrams.unsent.load(Relaxed),
                received: datagrams.received.load(Relaxed),
                refused: self.refusals(),
            },
            exchanges: StampExchanges {
                done: self.0.exchanges.done.load(Relaxed),
                failed: self.0.exchanges.failed.load(Relaxed),
                strangers: self.0.exchanges.strangers.load(Relaxed),
            },
            policy: views::policy(&self.0.shares.borrow()),
            changes: held.changes.iter().cloned().collect(),
        }
    }

    fn refusals(&self) -> Vec<RefusedDatagrams> {
        let all = self.0.datagrams.refused();
        all.map(|(why, datagrams)| RefusedDatagrams { reason: why.name().to_owned(), datagrams }).collect()
    }
}

impl Held {
    /// The others that take part.
    fn others(&self) -> impl Iterator<Item = (&Id, &Member)> {
        self.roster.members().iter().filter(|(id, it)| *id != self.roster.own() && it.state.lives())
    }

    fn warnings(&self, now: Duration, refused: &[RefusedDatagrams]) -> Vec<String> {
        let mut warnings = Vec::new();
        let ago = |since: Duration| format!("{} s", now.saturating_sub(since).as_secs());
        for (id, it) in self.roster.members().iter().filter(|(_, it)| it.state == State::Dead) {
            let Id { name, address, .. } = id;
            warnings.push(format!(
                "{name} ({address}) is dead for {}: start its agent, or look at the network; it is shown for a day",
                ago(it.since)
            ));
        }
        for name in self.roster.doubled() {
            let living = self.roster.members().iter().filter(|(id, it)| id.name == name && it.state.lives());
            let at: Vec<_> = living.map(|(id, _)| id.address.to_string()).collect();
            let at = at.join(" and ");
            warnings.push(format!("several hosts are called {name}, at {at}: give each a name with --stamp-host"));
        }
        for odd in self.skew.all() {
            warnings.push(format!("{} for {}", differs(odd), ago(odd.since)));
        }
        for (peer, why) in &self.refused {
            let named = self.roster.members().keys().find(|id| id.address == *peer).map_or("a host", |id| &id.name);
            let ip = peer.ip();
            warnings.push(format!(
                "this host's policy refuses what {named} ({ip}) gossips to it ({why}): `throttle allow add {ip}`"
            ));
        }
        for (name, times, cause) in self.failing.values().filter(|(_, times, _)| *times >= TOLD) {
            warnings.push(format!(
                "changes of the policy cannot be had from {name}, {times} times in a row: {cause}; let hosts of the stamp reach \
                 each other by TCP"
            ));
        }
        if self.seeds && self.lonely.is_some_and(|since| now.saturating_sub(since) > LONELY) {
            let mut alone = "nobody else is heard: are its seeds right, and does its UDP port reach them?".to_owned();
            let unknown = refused.iter().find(|it| it.reason == super::seal::Refusal::UnknownKey.name());
            if let Some(count) = unknown.map(|it| it.datagrams).filter(|count| *count > 0) {
                _ = write!(
                    alone,
                    " {count} datagrams came that are sealed with a key that it has not, or for another stamp: compare \
                     `throttle stamp key list FILE` on both"
                );
            }
            warnings.push(alone);
        }
        warnings
    }

    fn tell(&mut self, stamp: &str, change: &Change) {
        let (message, is_bad) = match change {
            Change::Joined(id) => (format!("joined at {}", id.address), false),
            Change::Returned(id) => (format!("is back at {}", id.address), false),
            Change::Suspect(_) => ("is suspect: it is silent for longer than is usual".to_owned(), false),
            Change::Recovered(_) => ("is heard again".to_owned(), false),
            Change::Died(id) => (format!("is dead: nothing is heard from {}", id.address), true),
            Change::Left(_) => ("left in good order".to_owned(), false),
            Change::Doubled(_) => ("is the name of several hosts".to_owned(), true),
            Change::Single(_) => ("is the name of one host again".to_owned(), false),
        };
        let host = match change {
            Change::Doubled(name) | Change::Single(name) => name,
            Change::Joined(id)
            | Change::Returned(id)
            | Change::Suspect(id)
            | Change::Recovered(id)
            | Change::Died(id)
            | Change::Left(id) => &id.name,
        };
        self.note(stamp, host, message, is_bad);
    }

    fn turn(&mut self, stamp: &str, turn: &Turn) {
        match turn {
            Turn::Differs(odd) => {
                let message = differs(odd);
                let message = message.strip_prefix(&odd.host).unwrap_or(&message).trim_start().to_owned();
                self.note(stamp, &odd.host, message, true);
            }
            Turn::Agrees { subject, host } => {
                self.note(stamp, host, format!("differs no more in its {}", subject.name()), false);
            }
        }
    }

    fn note(&mut self, stamp: &str, host: &str, message: String, is_bad: bool) {
        if is_bad {
            tracing::warn!(stamp, host, "{host} {message}");
        } else {
            tracing::info!(stamp, host, "{host} {message}");
        }
        self.changes.push_front(StampChange { time: Timestamp::now(), host: host.to_owned(), message });
        self.changes.truncate(CHANGES);
    }
}

/// That in which a host may differ from others.
fn said<'m>(name: &'m str, member: &'m Member) -> impl Iterator<Item = (&'m str, Subject, &'m str)> {
    Subject::ALL.into_iter().filter_map(move |subject| {
        let fact = |fact| member.facts.get(fact);
        let value = match subject {
            Subject::Build => fact(Fact::Build),
            Subject::Program => fact(Fact::Program),
            Subject::Policy => fact(Fact::Policy),
            Subject::Key => fact(Fact::Keys).and_then(|keys| keys.split(' ').next()),
        };
        Some((name, subject, value?))
    })
}

/// A difference in words, the host first.
fn differs(odd: &Odd) -> String {
    let Odd { subject, host, has, most, .. } = odd;
    let (has, most) = (short(has), most.as_deref().map(short));
    let most = most.map_or("more than half agree on none".to_owned(), |most| format!("most have {most}"));
    match subject {
        Subject::Build => format!("{host} runs another build, {has}: {most}"),
        Subject::Program => format!("{host} runs another XDP program, {has}: {most}"),
        Subject::Policy => format!("{host} has another policy in force, {has}: {most}"),
        Subject::Key => format!("{host} seals with another key, {has}: {most}"),
    }
}

/// As much of a digest as tells it from others.
fn short(value: &str) -> &str {
    value.get(..8).unwrap_or(value)
}
