//! A server of known capacity, clients that give up and try again, and a limit before it.

use super::{
    agenda::Agenda,
    dice::Dice,
    limits::{Limit, View},
    scenario::{BACKOFF, CAPACITY, Job, OBJECTIVE, Phase, RETRIES, TIMEOUT, WORKERS, Work},
};
use crate::outcome::Outcome;
use std::collections::VecDeque;
use throttle_agent::health::{MILLISECOND, Nanos, SECOND, controller::PERIOD, whole};

/// How finely good answers are counted.
const TENTH: Nanos = 100 * MILLISECOND;

/// What is to happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// The next new request.
    Arrive,
    /// A client tries, for the number's time.
    Try(u32, u8),
    /// A client gives up waiting.
    GiveUp(u32, u8),
    /// A worker has done it.
    Done(Job),
    /// The limit looks at what was.
    Look,
}

/// Which attempt a client waits for; [`NONE`] when it has its answer or has given up.
type Waits = u8;
const NONE: Waits = u8::MAX;

struct Run<'l> {
    agenda: Agenda<Event>,
    dice: Dice,
    work: Work,
    limit: &'l mut dyn Limit,
    clients: Vec<Waits>,
    queue: VecDeque<Job>,
    busy: u32,
    phase: Phase,
    most_in_flight: u32,
    completed: Vec<Nanos>,
    asked: u64,
    good_at: Vec<Nanos>,
    waits: Vec<Nanos>,
}

/// Runs the phases with a limit, by a seed.
pub fn run(phases: &[Phase], work: Work, limit: &mut dyn Limit, seed: u64) -> Vec<Outcome> {
    let mut run = Run {
        agenda: Agenda::new(),
        dice: Dice::new(seed),
        work,
        limit,
        clients: Vec::new(),
        queue: VecDeque::new(),
        busy: 0,
        phase: phases[0],
        most_in_flight: 0,
        completed: Vec::new(),
        asked: 0,
        good_at: Vec::new(),
        waits: Vec::new(),
    };
    run.agenda.note(0, Event::Arrive);
    run.agenda.note(PERIOD, Event::Look);
    phases.iter().map(|phase| run.phase(*phase)).collect()
}

impl Run<'_> {
    fn phase(&mut self, phase: Phase) -> Outcome {
        self.phase = phase;
        let begin = self.agenda.now;
        let end = begin + phase.seconds * SECOND;
        while let Some(event) = self.agenda.next_before(end) {
            self.happen(event);
        }
        self.agenda.now = end;
        let mut good = vec![0; (phase.seconds * SECOND / TENTH) as usize];
        for at in self.good_at.drain(..) {
            good[((at - begin) / TENTH) as usize] += 1;
        }
        let (asked, waits) = (std::mem::take(&mut self.asked), std::mem::take(&mut self.waits));
        Outcome::new(good, asked, phase.capacity, waits)
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Arrive => {
                let gap = SECOND as f64 / (self.phase.load * CAPACITY);
                let next = self.agenda.now + self.dice.exponential(whole(gap));
                self.agenda.note(next, Event::Arrive);
                self.clients.push(NONE);
                self.asked += 1;
                self.try_again(self.clients.len() as u32 - 1, 0);
            }
            Event::Try(client, attempt) => self.try_again(client, attempt),
            Event::GiveUp(client, attempt) => {
                if self.clients[client as usize] == attempt {
                    self.clients[client as usize] = NONE;
                    self.fail(client, attempt);
                }
            }
            Event::Done(job) => self.done(job),
            Event::Look => {
                let view = View {
                    completed: &self.completed,
                    in_flight: self.in_flight(),
                    most_in_flight: self.most_in_flight,
                };
                self.limit.look(self.agenda.now, &view);
                self.completed.clear();
                self.most_in_flight = self.in_flight();
                self.agenda.after(PERIOD, Event::Look);
            }
        }
    }

    fn in_flight(&self) -> u32 {
        self.busy + self.queue.len() as u32
    }

    fn try_again(&mut self, client: u32, attempt: u8) {
        if !self.limit.admit(self.agenda.now, self.in_flight()) {
            return self.fail(client, attempt);
        }
        self.clients[client as usize] = attempt;
        self.agenda.after(TIMEOUT, Event::GiveUp(client, attempt));
        self.queue.push_back(Job { client, attempt, admitted: self.agenda.now });
        self.most_in_flight = self.most_in_flight.max(self.in_flight());
        self.work();
    }

    /// An attempt was refused or took too long: there may be another.
    fn fail(&mut self, client: u32, attempt: u8) {
        if attempt < RETRIES {
            self.agenda.after(BACKOFF << attempt, Event::Try(client, attempt + 1));
        }
    }

    fn work(&mut self) {
        while self.busy < WORKERS
            && let Some(job) = self.queue.pop_front()
        {
            self.busy += 1;
            let time = self.work.draw(&mut self.dice) as f64 / self.phase.capacity;
            self.agenda.after(whole(time), Event::Done(job));
        }
    }

    fn done(&mut self, job: Job) {
        self.busy -= 1;
        let wait = self.agenda.now - job.admitted;
        self.completed.push(wait);
        if self.clients[job.client as usize] == job.attempt {
            self.clients[job.client as usize] = NONE;
            self.waits.push(wait);
            if wait <= OBJECTIVE {
                self.good_at.push(self.agenda.now);
            }
        }
        self.work();
    }
}
