//! A service of several backends of which some fail: the agent's detector, breakers and bound on who is kept away, in the
//! loop with the kernel's arithmetic of breakers, beside limits of the service as a whole.
//!
//! A balancer gives each request to the next backend, as one that looks at nothing does; where the kernel refuses the
//! connection it goes on to the one after. When a client gives up its connection is closed; the backend works on. A good
//! answer comes within [`OBJECTIVE`] of the first time that its client asked.

mod backend;
mod guard;

pub use guard::{Guard, Health, Only};

use self::backend::Backend;
use super::{
    agenda::Agenda,
    dice::Dice,
    limits::View,
    scenario::{BACKOFF, CAPACITY, Job, OBJECTIVE, RETRIES, TIMEOUT, Work},
};
use throttle_agent::health::{Nanos, SECOND, controller::PERIOD, watch::LOOKS, whole};

/// Backends, which have the workers of [`super::scenario`] between them.
pub const BACKENDS: usize = 4;
/// Of their capacity so much is asked for: three can bear it.
pub const LOAD: f64 = 0.6;

/// How a backend fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Its host is cut off: no packet of it comes.
    Silent,
    /// It takes connections and never answers.
    Hangs,
    /// Its work takes so many times as long.
    Slow(u32),
    /// It answers at once, with errors.
    Errors,
}

/// So many backends fail in one way for so long, after a time in which all are well; then comes a time in which all are again.
#[derive(Clone, Copy, Debug)]
pub struct Script {
    /// How many, the first of them.
    pub failing: usize,
    /// How.
    pub fault: Fault,
    /// Seconds of each of the three.
    pub seconds: [u64; 3],
}

/// What came of it.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Good answers, of what was asked for while all were well, while some failed, and after it.
    pub goodput: [f64; 3],
    /// How long after the fault all who fail were kept away, if ever.
    pub kept_away: Option<Nanos>,
    /// How long after its end nobody was any more, for good.
    pub let_in: Option<Nanos>,
    /// How many were kept away at once at most.
    pub most: usize,
    /// Times that a backend was kept away that did not fail.
    pub mistakes: u64,
}

/// What is to happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Arrive,
    /// A client tries, for the number's time.
    Try(u32, u8),
    /// It gives up waiting.
    GiveUp(u32, u8),
    /// A worker of a backend has done what it began.
    Done(usize, Job),
    /// An answer that is an error.
    Error(Job),
    Look,
}

/// A client: when it asked first, and which attempt it waits for, if any.
struct Client {
    asked: Nanos,
    waits: Option<u8>,
}

struct Run<'g> {
    agenda: Agenda<Event>,
    script: Script,
    dice: Dice,
    guard: &'g mut dyn Guard,
    backends: Vec<Backend>,
    next: usize,
    clients: Vec<Client>,
    completed: Vec<Nanos>,
    /// Clients that wait, each over a connection to the balancer, and how many did at most within the period.
    waiting: u32,
    most_in_flight: u32,
    asked: [u64; 3],
    good: [u64; 3],
    was_away: [bool; BACKENDS],
    outcome: Outcome,
}

/// Runs a script with a guard, by a seed.
pub fn run(script: Script, guard: &mut dyn Guard, seed: u64) -> Outcome {
    let mut run = Run {
        agenda: Agenda::new(),
        script,
        dice: Dice::new(seed),
        guard,
        backends: (0..BACKENDS).map(|_| Backend::default()).collect(),
        next: 0,
        clients: Vec::new(),
        completed: Vec::new(),
        waiting: 0,
        most_in_flight: 0,
        asked: [0; 3],
        good: [0; 3],
        was_away: [false; BACKENDS],
        outcome: Outcome::default(),
    };
    run.agenda.note(0, Event::Arrive);
    run.agenda.note(LOOKS, Event::Look);
    let end = script.seconds.iter().sum::<u64>() * SECOND;
    while let Some(event) = run.agenda.next_before(end) {
        run.happen(event);
    }
    let share = |phase: usize| run.good[phase] as f64 / run.asked[phase] as f64;
    Outcome { goodput: [share(0), share(1), share(2)], ..run.outcome }
}

impl Run<'_> {
    /// Which of the three times it is at an instant, and when the second and the third begin.
    fn phase(&self, at: Nanos) -> usize {
        self.turns().iter().filter(|turn| at >= **turn).count()
    }

    fn turns(&self) -> [Nanos; 2] {
        let [before, during, _] = self.script.seconds;
        [before * SECOND, (before + during) * SECOND]
    }

    fn fault(&self, backend: usize) -> Option<Fault> {
        (self.phase(self.agenda.now) == 1 && backend < self.script.failing).then_some(self.script.fault)
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Arrive => {
                let next = self.agenda.now + self.dice.exponential(whole(SECOND as f64 / (LOAD * CAPACITY)));
                self.agenda.note(next, Event::Arrive);
                self.clients.push(Client { asked: self.agenda.now, waits: None });
                self.asked[self.phase(self.agenda.now)] += 1;
                self.try_once(self.clients.len() as u32 - 1, 0);
            }
            Event::Try(client, attempt) => self.try_once(client, attempt),
            Event::GiveUp(client, attempt) => {
                if self.ends(client, attempt) {
                    self.backends.iter_mut().for_each(|it| it.forget(client, attempt));
                    self.fail(client, attempt);
                }
            }
            Event::Done(backend, job) => {
                self.backends[backend].busy -= 1;
                self.answer(job);
                self.work(backend);
            }
            Event::Error(job) => {
                if self.ends(job.client, job.attempt) {
                    self.completed.push(self.agenda.now - job.admitted);
                    self.fail(job.client, job.attempt);
                }
            }
            Event::Look => self.look(),
        }
    }

    fn try_once(&mut self, client: u32, attempt: u8) {
        if !self.guard.admit(self.agenda.now, self.waiting) {
            return self.fail(client, attempt);
        }
        let first = self.next;
        let mut turns = (0..BACKENDS).map(|turn| (first + turn) % BACKENDS);
        let Some(backend) = turns.find(|backend| self.guard.connects(self.agenda.now, *backend)) else {
            return self.fail(client, attempt);
        };
        self.next = (backend + 1) % BACKENDS;
        self.clients[client as usize].waits = Some(attempt);
        self.waiting += 1;
        self.agenda.after(TIMEOUT, Event::GiveUp(client, attempt));
        let job = Job { client, attempt, admitted: self.agenda.now };
        match self.fault(backend) {
            Some(Fault::Errors) => self.agenda.after(backend::QUICK, Event::Error(job)),
            Some(Fault::Silent | Fault::Hangs) => self.backends[backend].stuck.push(job),
            Some(Fault::Slow(_)) | None => {
                self.backends[backend].queue.push_back(job);
                self.work(backend);
            }
        }
        self.most_in_flight = self.most_in_flight.max(self.waiting);
    }

    fn fail(&mut self, client: u32, attempt: u8) {
        if attempt < RETRIES {
            self.agenda.after(BACKOFF << attempt, Event::Try(client, attempt + 1));
        }
    }

    fn work(&mut self, number: usize) {
        if matches!(self.fault(number), Some(Fault::Silent | Fault::Hangs)) {
            return;
        }
        let times = if let Some(Fault::Slow(times)) = self.fault(number) { u64::from(times) } else { 1 };
        while let Some(job) = self.backends[number].take_up() {
            let time = Work::Exponential.draw(&mut self.dice) * times;
            self.agenda.after(time, Event::Done(number, job));
        }
    }

    /// Whether a client waits for an attempt, which it does no more.
    fn ends(&mut self, client: u32, attempt: u8) -> bool {
        let waits = &mut self.clients[client as usize].waits;
        let ends = *waits == Some(attempt);
        if ends {
            *waits = None;
            self.waiting -= 1;
        }
        ends
    }

    /// A backend has answered; of who has gone nobody knows how long that took.
    fn answer(&mut self, job: Job) {
        if !self.ends(job.client, job.attempt) {
            return;
        }
        self.completed.push(self.agenda.now - job.admitted);
        let asked = self.clients[job.client as usize].asked;
        if self.agenda.now - asked <= OBJECTIVE {
            let phase = self.phase(asked);
            self.good[phase] += 1;
        }
    }

    fn look(&mut self) {
        self.agenda.after(LOOKS, Event::Look);
        let mut seen = Vec::with_capacity(BACKENDS);
        for number in 0..BACKENDS {
            // What a fault has held up goes on when that is over.
            self.work(number);
            seen.push((self.fault(number), self.backends[number].waits()));
        }
        self.guard.watch(self.agenda.now, &seen, &mut self.dice);
        let whole_period = (self.agenda.now / LOOKS).is_multiple_of(PERIOD / LOOKS);
        if whole_period {
            let (in_flight, most_in_flight) = (self.waiting, self.most_in_flight);
            self.guard.look(
                self.agenda.now,
                &View { completed: &self.completed, in_flight, most_in_flight },
                &mut self.dice,
            );
            self.completed.clear();
            self.most_in_flight = in_flight;
        }
        self.note();
    }

    /// Notes who is kept away.
    fn note(&mut self) {
        let [begins, ends] = self.turns();
        let away: Vec<bool> = (0..BACKENDS).map(|number| self.guard.is_away(number)).collect();
        let outcome = &mut self.outcome;
        outcome.most = outcome.most.max(away.iter().filter(|it| **it).count());
        for (number, away) in away.iter().enumerate() {
            let was = std::mem::replace(&mut self.was_away[number], *away);
            outcome.mistakes += u64::from(*away && !was && number >= self.script.failing);
        }
        if self.agenda.now >= begins && self.agenda.now < ends && away[..self.script.failing].iter().all(|it| *it) {
            outcome.kept_away.get_or_insert(self.agenda.now - begins);
        }
        if self.agenda.now >= ends {
            outcome.let_in = if away.contains(&true) { None } else { outcome.let_in.or(Some(self.agenda.now - ends)) };
        }
    }
}
