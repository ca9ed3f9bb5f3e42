//! Hosts of a stamp on a network that cuts, loses, doubles and reorders, and that crash and start again: in simulated time,
//! with the real replicas, envelopes and pulls. Each seed is a schedule; whatever it is, all have the same in the end.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
    time::Duration,
};

use jiff::Timestamp;

use super::{Merged, Pulls, Replica, Standing, Versions, envelope};
use crate::{
    policy::{
        Document, Mode, Prefix,
        arbitrary::{backend, limit, prefix, service, tenant},
        check, edit,
    },
    stamp::{Key, Keys},
};

const HOSTS: usize = 4;
const STAMP: &str = "blue";
/// How long there are edits and faults.
const STORM: u64 = 20_000;
/// How long it may take after that until all have the same.
const CALM: u64 = 40_000;

/// Chance by a seed (SplitMix64, Steele et al. 2014).
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn one_in(&mut self, bound: u64) -> bool {
        self.below(bound) == 0
    }

    fn host(&mut self) -> usize {
        usize::try_from(self.below(HOSTS as u64)).unwrap()
    }
}

/// What goes over the network.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Message {
    Gossip { digest: String, changes: u64 },
    Ask { asking: u64, versions: Versions },
    Answer { asking: u64, versions: Versions, envelopes: Vec<Vec<u8>> },
    Rest { envelopes: Vec<Vec<u8>> },
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Tick(usize),
    Gossip(usize),
    Arrives { from: usize, to: usize, run: u64, message: Message },
    TooLate { host: usize, peer: usize, run: u64, asking: u64 },
    Restart(usize),
    Mischief,
}

struct Host {
    replica: Replica,
    /// What outlives a crash.
    disk: Vec<Vec<u8>>,
    in_force: Document,
    pulls: Pulls<usize>,
    seen: BTreeMap<usize, Standing>,
    asked: BTreeMap<usize, u64>,
    up: bool,
    /// Which run of its agent it is.
    run: u64,
    refused: u64,
}

struct World {
    chance: Chance,
    now: u64,
    number: u64,
    events: BinaryHeap<Reverse<(u64, u64, Event)>>,
    hosts: Vec<Host>,
    cut: [[bool; HOSTS]; HOSTS],
    keys: Keys,
    acknowledged: Vec<Vec<u8>>,
    crashes: u64,
}

impl World {
    fn new(seed: u64) -> Self {
        let host = |number: usize| Host {
            replica: Replica::open(&format!("host-{number}"), actor(seed, number, 0), []).unwrap(),
            disk: Vec::new(),
            in_force: Document::default(),
            pulls: Pulls::default(),
            seen: BTreeMap::new(),
            asked: BTreeMap::new(),
            up: true,
            run: 0,
            refused: 0,
        };
        let mut world = Self {
            chance: Chance(seed),
            now: 0,
            number: 0,
            events: BinaryHeap::new(),
            hosts: (0..HOSTS).map(host).collect(),
            cut: [[false; HOSTS]; HOSTS],
            keys: Keys::one(Key::of(1)),
            acknowledged: Vec::new(),
            crashes: 0,
        };
        for host in 0..HOSTS {
            world.after(0, Event::Tick(host));
            world.after(0, Event::Gossip(host));
        }
        world.after(100, Event::Mischief);
        world
    }

    fn after(&mut self, delay: u64, event: Event) {
        self.number += 1;
        self.events.push(Reverse((self.now + delay, self.number, event)));
    }

    fn stormy(&self) -> bool {
        self.now < STORM
    }

    fn send(&mut self, from: usize, to: usize, message: &Message) {
        let losses = if self.stormy() { 8 } else { 50 };
        let copies = if self.chance.one_in(losses) { 0 } else { 1 + u64::from(self.chance.one_in(10)) };
        for _ in 0..copies {
            let longest = if self.chance.one_in(10) { 1500 } else { 30 };
            let delay = 1 + self.chance.below(longest);
            let (message, run) = (self.spoilt(message.clone()), self.hosts[to].run);
            self.after(delay, Event::Arrives { from, to, run, message });
        }
    }

    /// Now and then somebody changes a byte on the way.
    fn spoilt(&mut self, mut message: Message) -> Message {
        if let Message::Answer { envelopes, .. } | Message::Rest { envelopes } = &mut message {
            for envelope in envelopes.iter_mut() {
                if self.stormy() && self.chance.one_in(12) {
                    let at = usize::try_from(self.chance.below(envelope.len() as u64)).unwrap();
                    envelope[at] ^= 1 << self.chance.below(8);
                }
            }
            // And a stranger speaks up, with a key of its own.
            if self.stormy() && self.chance.one_in(8) {
                let mut stranger = Replica::open("stranger", [0xee; 16], []).unwrap();
                let policy = edit::set_mode(&Document::default(), Mode::Enforce);
                let change = stranger.change(&Document::default(), &policy, "x", "x", Timestamp::UNIX_EPOCH).unwrap();
                envelopes.push(envelope::seal(&Key::of(9), STAMP, &change.unwrap()));
            }
        }
        message
    }

    fn run(&mut self) {
        while let Some(Reverse((time, _, event))) = self.events.pop() {
            self.now = time;
            if time > STORM + CALM || (time > STORM + 2000 && self.agreed()) {
                return;
            }
            match event {
                Event::Tick(host) => self.tick(host),
                Event::Gossip(host) => self.gossip(host),
                Event::Arrives { from, to, run, message } => {
                    let host = &self.hosts[to];
                    if host.up && host.run == run && !self.cut[from][to] {
                        self.receive(from, to, message);
                    }
                }
                Event::TooLate { host, peer, run, asking } => {
                    let it = &self.hosts[host];
                    if it.up && it.run == run && it.asked.get(&peer) == Some(&asking) {
                        self.done(host, peer, false);
                    }
                }
                Event::Restart(host) => self.restart(host),
                Event::Mischief => self.mischief(),
            }
        }
    }

    fn agreed(&self) -> bool {
        self.hosts.iter().all(|it| it.up && it.replica.standing() == self.hosts[0].replica.standing())
    }

    fn gossip(&mut self, host: usize) {
        self.after(200, Event::Gossip(host));
        if self.hosts[host].up {
            let Standing { digest, changes } = self.hosts[host].replica.standing();
            for peer in (0..HOSTS).filter(|peer| *peer != host) {
                self.send(host, peer, &Message::Gossip { digest: digest.clone(), changes });
            }
        }
    }

    fn tick(&mut self, host: usize) {
        self.after(100, Event::Tick(host));
        if !self.hosts[host].up {
            return;
        }
        let (now, chance) = (Duration::from_millis(self.now), self.chance.next());
        let it = &mut self.hosts[host];
        let own = it.replica.standing();
        for peer in it.pulls.next(now, &own, &it.seen, chance) {
            self.number += 1;
            let (asking, it) = (self.number, &mut self.hosts[host]);
            it.asked.insert(peer, asking);
            let (versions, run) = (it.replica.versions().clone(), it.run);
            self.send(host, peer, &Message::Ask { asking, versions });
            self.after(5000, Event::TooLate { host, peer, run, asking });
        }
    }

    fn done(&mut self, host: usize, peer: usize, went_well: bool) {
        let (now, chance) = (Duration::from_millis(self.now), self.chance.next());
        self.hosts[host].asked.remove(&peer);
        self.hosts[host].pulls.done(now, &peer, went_well, chance);
    }

    fn receive(&mut self, from: usize, to: usize, message: Message) {
        match message {
            Message::Gossip { digest, changes } => {
                self.hosts[to].seen.insert(from, Standing { digest, changes });
            }
            Message::Ask { asking, versions } => {
                let envelopes = self.envelopes(to, &versions);
                let versions = self.hosts[to].replica.versions().clone();
                self.send(to, from, &Message::Answer { asking, versions, envelopes });
            }
            Message::Answer { asking, versions, envelopes } => {
                self.take_in(to, &envelopes);
                if self.hosts[to].asked.get(&from) == Some(&asking) {
                    self.done(to, from, true);
                }
                let envelopes = self.envelopes(to, &versions);
                self.send(to, from, &Message::Rest { envelopes });
            }
            Message::Rest { envelopes } => self.take_in(to, &envelopes),
        }
    }

    fn envelopes(&self, host: usize, versions: &Versions) -> Vec<Vec<u8>> {
        let missing = self.hosts[host].replica.missing(versions);
        missing.map(|change| envelope::seal(self.keys.sealing(), STAMP, change)).collect()
    }

    fn take_in(&mut self, host: usize, envelopes: &[Vec<u8>]) {
        let it = &mut self.hosts[host];
        let mut changes = Vec::new();
        for sealed in envelopes {
            match envelope::open(&self.keys, STAMP, sealed) {
                Ok(change) => changes.push(change.to_vec()),
                Err(_) => it.refused += 1,
            }
        }
        let taken = it.replica.take_in(changes);
        assert!(taken.unfit.is_empty(), "{:?}", taken.unfit);
        it.disk.extend(taken.changes.into_iter().map(|(_, change)| change));
        it.enforce();
    }

    fn restart(&mut self, host: usize) {
        let it = &mut self.hosts[host];
        it.run += 1;
        let actor = actor(self.chance.next(), host, it.run);
        it.replica = Replica::open(&format!("host-{host}"), actor, it.disk.clone()).unwrap();
        (it.up, it.pulls) = (true, Pulls::default());
        it.seen.clear();
        it.asked.clear();
        it.enforce();
    }

    fn mischief(&mut self) {
        if !self.stormy() {
            self.cut = [[false; HOSTS]; HOSTS];
            return;
        }
        let pause = 50 + self.chance.below(500);
        self.after(pause, Event::Mischief);
        match self.chance.below(10) {
            0 => {
                let (one, other) = (self.chance.host(), self.chance.host());
                // A cut may be of one direction alone.
                self.cut[one][other] = true;
                self.cut[other][one] = !self.chance.one_in(3);
            }
            1 => self.cut = [[false; HOSTS]; HOSTS],
            2 => {
                let host = self.chance.host();
                if std::mem::take(&mut self.hosts[host].up) {
                    self.crashes += 1;
                    let back = 200 + self.chance.below(4000);
                    self.after(back, Event::Restart(host));
                }
            }
            _ => self.edit(),
        }
    }

    /// Somebody changes the policy on a host: it is kept and in force there before anybody hears of it.
    fn edit(&mut self) {
        let (host, kind) = (self.chance.host(), self.chance.below(9));
        let (name, variant) = (self.chance.below(6) as u8, 1 + self.chance.below(3) as u8);
        let it = &mut self.hosts[host];
        if !it.up {
            return;
        }
        let (held, some): (_, [Prefix; 1]) = (&it.in_force, [prefix(name)]);
        let edited = match kind {
            0 => Ok(edit::set_mode(held, if variant == 1 { Mode::Observe } else { Mode::Enforce })),
            1 => Ok(edit::set_limit(held, limit(name, variant))),
            2 => Ok(edit::set_service(held, service(name, variant))),
            3 => Ok(edit::set_tenant(held, tenant(name, variant))),
            4 => Ok(edit::set_backend(held, backend(name, variant))),
            5 => Ok(edit::add_sources(held, edit::List::Allow, &some)),
            6 => edit::delete_limit(held, &format!("limit-{name}")),
            7 => edit::delete_service(held, &format!("service-{name}")),
            _ => edit::delete_tenant(held, &format!("tenant-{name}")),
        };
        let Some(edited) = edited.ok().filter(|edited| check(edited).is_ok()) else { return };
        let made = it.replica.change(&it.in_force.clone(), &edited, "root", "an edit", Timestamp::UNIX_EPOCH).unwrap();
        let Some(change) = made else { return };
        if self.chance.one_in(12) {
            // It dies before the change is kept: then nobody was told that it is.
            self.hosts[host].up = false;
            self.crashes += 1;
            self.after(1000, Event::Restart(host));
            return;
        }
        let it = &mut self.hosts[host];
        it.disk.push(change.clone());
        it.enforce();
        self.acknowledged.push(change);
    }

    fn check(&self, seed: u64) {
        let first = &self.hosts[0];
        for (number, host) in self.hosts.iter().enumerate() {
            let (own, theirs) = (host.replica.standing(), first.replica.standing());
            assert_eq!(own, theirs, "seed {seed}: host {number} and host 0 have other changes at {} ms", self.now);
            assert_eq!(host.in_force, first.in_force, "seed {seed}: host {number} and host 0 enforce other policies");
            assert_eq!(host.replica.conflicts(), first.replica.conflicts(), "seed {seed}: host {number}");
            let held: Vec<_> = host.replica.missing(&Versions::new()).map(<[u8]>::to_vec).collect();
            let lost = self.acknowledged.iter().filter(|change| !held.contains(change)).count();
            assert_eq!(lost, 0, "seed {seed}: host {number} lacks what was acknowledged");
            assert_eq!(held.len(), self.acknowledged.len(), "seed {seed}: host {number} has what nobody made");
        }
    }
}

impl Host {
    fn enforce(&mut self) {
        let Merged { document, .. } = self.replica.merged().unwrap();
        check(document).unwrap();
        self.in_force = document.clone();
    }
}

fn actor(seed: u64, host: usize, run: u64) -> [u8; 16] {
    let mut chance = Chance(seed ^ (host as u64) << 32 ^ run << 48);
    let halves = [chance.next().to_be_bytes(), chance.next().to_be_bytes()];
    halves.concat().try_into().unwrap()
}

#[test]
fn hosts_come_to_the_same_after_any_schedule_of_cuts_crashes_and_edits() {
    let (mut edits, mut crashes, mut refused, mut latest) = (0, 0, 0, 0);
    for seed in 0..200 {
        let mut world = World::new(seed);
        let ran = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| world.run()));
        assert!(ran.is_ok(), "seed {seed}: see the panic above");
        world.check(seed);
        edits += world.acknowledged.len();
        crashes += world.crashes;
        refused += world.hosts.iter().map(|it| it.refused).sum::<u64>();
        latest = latest.max(world.now.saturating_sub(STORM));
    }
    println!("200 seeds: {edits} edits, {crashes} crashes, {refused} envelopes refused, all alike within {latest} ms");
    assert!(edits > 2000 && crashes > 200 && refused > 200, "{edits} edits, {crashes} crashes, {refused} refused");
}
