//! Real clients of a server: they come by chance, in an open loop, whatever becomes of those before them; each has its time
//! and its patience, and tries again when it is refused or waits in vain. As the simulated ones do, by the same numbers.

use crate::{
    clients::HTTP,
    machine,
    netns::Namespace,
    outcome::Outcome,
    simulator::{
        dice::Dice,
        scenario::{BACKOFF, CAPACITY, OBJECTIVE, Phase, RETRIES, TIMEOUT},
    },
    wire::{FAR_V4, NEAR},
};
use anyhow::{Context, Result, ensure};
use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};
use throttle_agent::health::{SECOND, whole};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpSocket,
    time::{sleep, sleep_until, timeout},
};

/// Addresses that clients come from.
const SOURCES: u32 = 64;
/// The bits that all of these share, and those in which they differ.
pub const CLIENTS: (u32, u32) = (10 << 24 | 98 << 16 | 5 << 8, 0xff);
/// Threads that clients run on, each with its part of them: one could not open as many connections as an overload takes.
const LANES: usize = 2;
/// The first phase begins so much later, when all lanes are ready.
const AHEAD: Duration = Duration::from_millis(200);

/// What came of it, and what it was made of.
#[derive(Debug, Default)]
pub struct Answers {
    /// Phase by phase.
    pub phases: Vec<Outcome>,
    /// Attempts that were made, refused, and given up waiting.
    pub attempts: Attempts,
    /// How late the latest of 99 % of the clients came: what an open loop owes to a machine that is busy.
    pub late: Duration,
}

/// How attempts ended that did not end with an answer.
#[derive(Clone, Copy, Debug, Default)]
pub struct Attempts {
    /// All of them.
    pub made: u64,
    /// By a reset, or another error at once.
    pub refused: u64,
    /// By the client's timeout.
    pub timed_out: u64,
}

/// Gives a host the addresses that clients come from.
pub fn add_sources(host: &Namespace) -> Result<()> {
    (0..SOURCES)
        .try_for_each(|number| host.ip(&["address", "add", &format!("{}/16", source(number)), "dev", NEAR]).map(drop))
}

fn source(number: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(CLIENTS.0 | (1 + number))
}

/// Has clients of a host ask through the phases; `begin` is called when each begins.
pub fn ask(host: &Namespace, phases: &[Phase], mut begin: impl FnMut(&Phase) -> Result<()>) -> Result<Answers> {
    let server = SocketAddr::new(FAR_V4.parse()?, HTTP);
    let start = Instant::now() + AHEAD;
    let seen = thread::scope(|scope| {
        let mut lanes = Vec::new();
        for number in 0..LANES {
            let entry = host.entry()?;
            lanes.push(scope.spawn(move || {
                machine::go_first(1)?;
                entry.enter()?;
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
                let seen = Arc::new(Mutex::new(Seen::new(start, server, phases)));
                runtime.block_on(come(&seen, phases, Dice::new(number as u64)));
                drop(runtime);
                Ok::<_, anyhow::Error>(seen)
            }));
        }
        let mut at = start;
        for phase in phases {
            thread::sleep(at.saturating_duration_since(Instant::now()));
            begin(phase)?;
            at += Duration::from_secs(phase.seconds);
        }
        let mut all = Seen::new(start, server, phases);
        for lane in lanes {
            let seen = lane.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            all.add(&mut seen.lock().expect("no lane panicked"));
        }
        anyhow::Ok(all)
    })?;
    Ok(seen.answers(phases))
}

/// What a lane has seen.
#[derive(Debug)]
struct Seen {
    start: Instant,
    server: SocketAddr,
    /// The ends of the phases, in tenths of a second from the start.
    ends: Vec<usize>,
    /// Good answers in each tenth of a second.
    good: Vec<u32>,
    /// Requests and waits of answers, phase by phase.
    asked: Vec<u64>,
    waits: Vec<Vec<u64>>,
    attempts: Attempts,
    late: Vec<Duration>,
}

impl Seen {
    fn new(start: Instant, server: SocketAddr, phases: &[Phase]) -> Self {
        let add = |end: &mut usize, phase: &Phase| {
            *end += phase.seconds as usize * 10;
            Some(*end)
        };
        let ends: Vec<_> = phases.iter().scan(0, add).collect();
        let tenths = ends.last().copied().unwrap_or_default();
        let (asked, waits) = (vec![0; phases.len()], vec![Vec::new(); phases.len()]);
        let (attempts, late) = (Attempts::default(), Vec::new());
        Self { start, server, ends, good: vec![0; tenths], asked, waits, attempts, late }
    }

    /// Notes an answer; what comes after the last phase counts no more.
    fn answered(&mut self, wait: Duration) {
        let tenth = (self.start.elapsed().as_millis() / 100) as usize;
        if let Some(phase) = self.ends.iter().position(|end| tenth < *end) {
            let wait = wait.as_nanos() as u64;
            self.waits[phase].push(wait);
            self.good[tenth] += u32::from(wait <= OBJECTIVE);
        }
    }

    fn add(&mut self, other: &mut Self) {
        self.good.iter_mut().zip(&other.good).for_each(|(all, lane)| *all += lane);
        self.asked.iter_mut().zip(&other.asked).for_each(|(all, lane)| *all += lane);
        self.waits.iter_mut().zip(&mut other.waits).for_each(|(all, lane)| all.append(lane));
        self.late.append(&mut other.late);
        let (all, lane) = (&mut self.attempts, other.attempts);
        all.made += lane.made;
        all.refused += lane.refused;
        all.timed_out += lane.timed_out;
    }

    fn answers(mut self, phases: &[Phase]) -> Answers {
        let begins = std::iter::once(0).chain(self.ends.iter().copied());
        let parts = begins.zip(&self.ends).map(|(begin, end)| self.good[begin..*end].to_vec());
        let outcomes = parts.zip(phases).zip(self.asked.iter().zip(self.waits));
        let phases = outcomes.map(|((good, phase), (asked, waits))| Outcome::new(good, *asked, phase.capacity, waits));
        let phases = phases.collect();
        self.late.sort_unstable();
        let late = self.late.get(self.late.len() * 99 / 100).copied().unwrap_or_default();
        Answers { phases, attempts: self.attempts, late }
    }
}

/// Clients come, by chance, until the last phase ends.
async fn come(seen: &Arc<Mutex<Seen>>, phases: &[Phase], mut dice: Dice) {
    let start = seen.lock().expect("no client panicked").start;
    let (mut due, mut end) = (start, start);
    for (number, phase) in phases.iter().enumerate() {
        end += Duration::from_secs(phase.seconds);
        let gap = whole(SECOND as f64 * LANES as f64 / (phase.load * CAPACITY));
        while due < end {
            sleep_until(due.into()).await;
            {
                let mut seen = seen.lock().expect("no client panicked");
                seen.asked[number] += 1;
                seen.late.push(due.elapsed());
            }
            let from = source((dice.any() % u64::from(SOURCES)) as u32);
            tokio::spawn(try_for_it(Arc::clone(seen), from));
            due += Duration::from_nanos(dice.exponential(gap));
        }
    }
    sleep_until(end.into()).await;
}

/// One client: it tries, and tries again.
async fn try_for_it(seen: Arc<Mutex<Seen>>, from: Ipv4Addr) {
    let server = seen.lock().expect("no client panicked").server;
    for attempt in 0..=RETRIES {
        let began = Instant::now();
        let ended = timeout(Duration::from_nanos(TIMEOUT), fetch(from, server)).await;
        {
            let mut seen = seen.lock().expect("no client panicked");
            seen.attempts.made += 1;
            match ended {
                Ok(Ok(())) => return seen.answered(began.elapsed()),
                Ok(Err(_)) => seen.attempts.refused += 1,
                Err(_) => seen.attempts.timed_out += 1,
            }
        }
        if attempt < RETRIES {
            sleep(Duration::from_nanos(BACKOFF << attempt)).await;
        }
    }
}

/// One attempt, by a connection of its own.
async fn fetch(from: Ipv4Addr, server: SocketAddr) -> Result<()> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::from((from, 0))).context("bind")?;
    let mut stream = socket.connect(server).await?;
    stream.write_all(b"GET / HTTP/1.0\r\nhost: throttle\r\n\r\n").await?;
    let mut answer = Vec::with_capacity(128);
    stream.read_to_end(&mut answer).await?;
    ensure!(answer.starts_with(b"HTTP/1.0 200"), io::Error::from(io::ErrorKind::InvalidData));
    Ok(())
}
