//! A day of backends that beat over a bad network, pause, crash and come back: what the agent's detector makes of it, and
//! what fixed timeouts make of the same beats.

use super::{
    dice::Dice,
    network::{Link, PAUSE, Pauses, RUNS},
};
use std::collections::VecDeque;
use throttle_agent::health::{
    Nanos, SECOND,
    detector::{CONFIRM_EVERY, INTERVAL, Incarnation, KNOCKS, Level, Sign},
    watch::{Changed, LOOKS, Watch},
    whole,
};

/// How long a backend lives between two crashes, on average, and how long it is away.
pub const LIVES: Nanos = 4_000 * SECOND;
/// How long a crashed host is away.
pub const AWAY: Nanos = 40 * SECOND;
/// How long the observer runs between two stalls, and how long these last, on average.
pub const STALLS: [Nanos; 2] = [3_600 * SECOND, SECOND * 12 / 10];
/// The fixed timeouts that see the same beats, in tenths of an interval.
pub const TIMEOUTS: [u64; 9] = [31, 41, 51, 61, 81, 101, 121, 151, 201];

/// What is watched.
#[derive(Clone, Copy, Debug)]
pub struct Day {
    /// Backends.
    pub nodes: usize,
    /// How long.
    pub hours: u64,
    /// Whether the kernel sees packets of a backend in each period, as it does where it has any work.
    pub traffic: bool,
}

/// What came of it, for one way to detect.
#[derive(Clone, Debug, Default)]
pub struct Detected {
    /// Verdicts on backends that lived.
    pub mistakes: u64,
    /// How long it took from a crash to the verdict, in nanoseconds.
    pub times: Vec<Nanos>,
}

impl Detected {
    /// Mistakes in a node's day.
    pub fn per_node_day(&self, day: Day) -> f64 {
        self.mistakes as f64 * 24.0 / (day.hours as f64 * day.nodes as f64)
    }

    /// A percentile of the times to detect, in milliseconds.
    pub fn percentile(&self, percent: usize) -> f64 {
        let mut sorted = self.times.clone();
        sorted.sort_unstable();
        let at = (sorted.len() * percent / 100).min(sorted.len().saturating_sub(1));
        sorted.get(at).map_or(f64::NAN, |time| *time as f64 / 1e6)
    }
}

/// What came of a day.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// The agent's suspicions.
    pub soft: Detected,
    /// Its verdicts.
    pub hard: Detected,
    /// Each of [`TIMEOUTS`], which forgives the observer's own stalls as ours does.
    pub fixed: [Detected; TIMEOUTS.len()],
    /// Backends that were ejected at once at most.
    pub most_ejected: usize,
}

/// One backend and the way to it.
struct Node {
    dice: Dice,
    link: Link,
    pauses: Pauses,
    next_beat: Nanos,
    sequence: u64,
    generation: u64,
    /// When beats arrive.
    arriving: VecDeque<(Nanos, Sign)>,
    crashes: Nanos,
    crashed: Option<Nanos>,
    found: [bool; 2],
    /// What probes came to, when their time is over.
    answers: VecDeque<(Nanos, Sign)>,
    heard: Nanos,
    silent: [bool; TIMEOUTS.len()],
}

impl Node {
    fn new(seed: u64) -> Self {
        let mut dice = Dice::new(seed);
        Self {
            link: Link::new(&mut dice),
            pauses: Pauses::new(RUNS, PAUSE, &mut dice),
            next_beat: dice.any() % INTERVAL,
            sequence: 0,
            generation: 1,
            arriving: VecDeque::new(),
            crashes: dice.exponential(LIVES) + 60 * SECOND,
            crashed: None,
            found: [false; 2],
            answers: VecDeque::new(),
            heard: 0,
            silent: [false; TIMEOUTS.len()],
            dice,
        }
    }

    /// Lives on until `now`: beats, crashes, comes back.
    fn live(&mut self, now: Nanos) {
        if let Some(crashed) = self.crashed
            && now >= crashed + AWAY
        {
            (self.crashed, self.next_beat, self.sequence) = (None, now, 0);
            self.generation += 1;
            self.crashes = now + self.dice.exponential(LIVES) + 60 * SECOND;
        }
        if self.crashed.is_none() && now >= self.crashes {
            (self.crashed, self.found) = (Some(self.crashes), [false; 2]);
        }
        while self.next_beat <= now && self.crashed.is_none_or(|crashed| self.next_beat < crashed) {
            let at = self.next_beat;
            if let Some(until) = self.pauses.until(at, &mut self.dice) {
                self.next_beat = until;
                continue;
            }
            self.sequence += 1;
            let of = Incarnation { boot: 1, generation: self.generation };
            if let Some(takes) = self.link.carry(at, &mut self.dice) {
                self.arriving.push_back((at + takes, Sign::Beat { of, sequence: self.sequence }));
            }
            let jitter = self.dice.unit() * 0.2 - 0.1;
            self.next_beat = at + whole(INTERVAL as f64 * (1.0 + jitter));
        }
    }

    /// Probes it: its application, and its host by connections, each there and back.
    fn probe(&mut self, now: Nanos) {
        let mut there_and_back = |link: &mut Link| {
            let [there, back] = [(); 2].map(|()| link.carry(now, &mut self.dice));
            there.zip(back).is_some_and(|(there, back)| there + back < CONFIRM_EVERY)
        };
        let application = there_and_back(&mut self.link);
        let knocks = [(); KNOCKS].map(|()| there_and_back(&mut self.link));
        let paused = self.pauses.until(now, &mut self.dice).is_some();
        let lives = self.crashed.is_none();
        let answer = match application && lives {
            true if paused => Sign::Mute,
            true => Sign::Answered,
            false => Sign::Unanswered,
        };
        self.answers.push_back((now + CONFIRM_EVERY, answer));
        if knocks.contains(&true) && lives {
            self.answers.push_back((now + CONFIRM_EVERY, Sign::Packet));
        }
    }

    /// What has arrived until `now`, each with the instant at which the observer reads it: at once, but for what came in
    /// its stall.
    fn arrived(&mut self, now: Nanos) -> Vec<(Nanos, Sign)> {
        let mut signs = Vec::new();
        while let Some(answer) = self.answers.front().copied().filter(|(at, _)| *at <= now) {
            self.answers.pop_front();
            signs.push(answer);
        }
        while let Some((at, sign)) = self.arriving.front().copied().filter(|(at, _)| *at <= now) {
            self.arriving.pop_front();
            let read = at.max(now - LOOKS);
            self.heard = read;
            signs.push((read, sign));
        }
        signs
    }
}

/// Watches a day, by a seed.
pub fn run(day: Day, seed: u64) -> Outcome {
    let mut dice = Dice::new(seed);
    let mut nodes: Vec<_> = (0..day.nodes).map(|_| Node::new(dice.any())).collect();
    let mut watch = Watch::new(0, day.nodes, INTERVAL, LOOKS);
    let mut stalls = Pauses::new(STALLS[0], STALLS[1], &mut dice);
    let mut outcome = Outcome::default();
    let (mut now, end) = (0, day.hours * 3_600 * SECOND);
    while now < end {
        let before = now;
        now += LOOKS;
        if let Some(until) = stalls.until(now, &mut dice) {
            now = until;
        }
        for node in &mut nodes {
            node.live(now);
        }
        // The worst order: it looks at the time before it reads what came meanwhile.
        let stalled = now - before - LOOKS;
        if stalled > 0 {
            for node in &mut nodes {
                node.heard = (node.heard + stalled).min(now);
            }
            for change in watch.tick(now, false) {
                note(&mut outcome, &mut nodes, now, change);
            }
        }
        for number in 0..day.nodes {
            let node = &mut nodes[number];
            let mut signs = node.arrived(now);
            let level = watch.backends()[number].level();
            let sends = level == Level::Suspect && day.traffic && node.crashed.is_none();
            if sends && node.link.carry(now, &mut node.dice).is_some() {
                signs.push((now, Sign::Packet));
            }
            for (read, sign) in signs {
                if let Some(change) = watch.sign(read.min(now), number, sign) {
                    note(&mut outcome, &mut nodes, now, change);
                }
            }
        }
        if stalled == 0 {
            for change in watch.tick(now, false) {
                note(&mut outcome, &mut nodes, now, change);
            }
        }
        for (number, node) in nodes.iter_mut().enumerate() {
            let level = watch.backends()[number].level();
            // A backend that is out is asked once in an interval whether it is back.
            if watch.probe_is_due(now, number) || level == Level::Dead && (now / LOOKS).is_multiple_of(4) {
                node.probe(now);
            }
            by_timeouts(&mut outcome, node, now);
        }
        let ejected = (0..day.nodes).filter(|node| watch.is_ejected(*node)).count();
        outcome.most_ejected = outcome.most_ejected.max(ejected);
    }
    outcome
}

/// Notes what the agent says of a node against what is so.
fn note(outcome: &mut Outcome, nodes: &mut [Node], now: Nanos, Changed { backend, change }: Changed) {
    let (which, detected) = match change.to {
        Level::Suspect => (0, &mut outcome.soft),
        Level::Dead => (1, &mut outcome.hard),
        _ => return,
    };
    let node = &mut nodes[backend];
    match node.crashed {
        None => detected.mistakes += 1,
        Some(crashed) if !node.found[which] => {
            node.found[which] = true;
            detected.times.push(now.saturating_sub(crashed));
        }
        Some(_) => {}
    }
}

/// Notes the same for the fixed timeouts.
fn by_timeouts(outcome: &mut Outcome, node: &mut Node, now: Nanos) {
    let silence = now - node.heard;
    for (timeout, (silent, detected)) in TIMEOUTS.iter().zip(node.silent.iter_mut().zip(&mut outcome.fixed)) {
        let was = std::mem::replace(silent, silence * 10 >= INTERVAL * timeout);
        match node.crashed {
            _ if was || !*silent => {}
            None => detected.mistakes += 1,
            Some(crashed) => detected.times.push(now.saturating_sub(crashed)),
        }
    }
}
