//! Trials of a backend whose breaker is open: round after round, with the agent dead and alive.

use super::{RUN, all_are_well, here, name, policy, program};
use anyhow::{Context as _, Result, ensure};
use aya::maps::{Array, Map, MapData};
use rustix::net::sockopt::set_socket_linger;
use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};
use throttle_common::{
    breakers::{TRIAL_EXPIRES, TRIALS, Word},
    records::{FIRST_BACKEND, maps},
};
use throttle_tests::{
    agent::Site,
    backends::{Backend, Beats},
    machine, needs_root,
    netns::Namespace,
    say,
    slow::{at, open_at_once},
    standing::{breaker, changes, health, until},
    wire::{FAR_V4, NEAR_V4, Wire},
};

/// How long a client waits for a connection and for an answer.
const SOON: Duration = Duration::from_millis(300);
/// Rounds that are counted with the agent dead.
const ROUNDS: u64 = 3;

/// What clients do with a connection that they get.
#[derive(Clone, Copy, Debug)]
enum Manner {
    /// Ask, and read the answer.
    Ask,
    /// Say nothing, and keep it.
    Keep,
    /// Give it up at once, with a reset.
    Reset,
}

/// Clients that never cease to try, until they are dropped.
struct Clients {
    ends: Arc<AtomicBool>,
    manner: Arc<Mutex<Manner>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Clients {
    fn on(host: &Namespace, to: SocketAddr) -> Result<Self> {
        let (ends, manner) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Manner::Ask)));
        let (entry, end, how) = (host.entry()?, Arc::clone(&ends), Arc::clone(&manner));
        let try_on = move || {
            let mut kept = Vec::new();
            if entry.enter().is_err() {
                return;
            }
            while !end.load(Relaxed) {
                if let Ok(stream) = TcpStream::connect_timeout(&to, SOON) {
                    let manner = how.lock().map_or(Manner::Ask, |it| *it);
                    kept.extend(treat(stream, manner));
                }
                thread::sleep(Duration::from_millis(20));
            }
        };
        Ok(Self { ends, manner, thread: Some(thread::spawn(try_on)) })
    }

    fn behave(&self, manner: Manner) {
        if let Ok(mut held) = self.manner.lock() {
            *held = manner;
        }
    }
}

impl Drop for Clients {
    fn drop(&mut self) {
        self.ends.store(true, Relaxed);
        // One that panicked has ended too.
        let _ = self.thread.take().map(thread::JoinHandle::join);
    }
}

/// Gives the connection back where it is to be kept. Whatever the backend does with it, the next one comes.
fn treat(mut stream: TcpStream, manner: Manner) -> Option<TcpStream> {
    match manner {
        Manner::Ask => {
            stream.set_read_timeout(Some(SOON)).ok()?;
            stream.write_all(b"GET / HTTP/1.1\r\nhost: test\r\n\r\n").ok()?;
            // Whatever it answers.
            let _answer = stream.read(&mut [0; 1024]);
            None
        }
        Manner::Keep => Some(stream),
        Manner::Reset => {
            set_socket_linger(&stream, Some(Duration::ZERO)).ok()?;
            None
        }
    }
}

/// When the first backend's breaker that is open begins a round of trials, if nobody says anything more.
fn begins(pin_dir: &Path) -> Result<u64> {
    let map = MapData::from_pin(pin_dir.join("maps").join(maps::BREAKERS)).context("open the breakers")?;
    let breakers = Array::<_, [u64; 2]>::try_from(Map::Array(map))?;
    let mut words = (u32::from(FIRST_BACKEND)..breakers.len()).map(|number| breakers.get(&number, 0));
    let open =
        words.find_map(|words| words.map(|[word, _]| Some(Word::of(word)).filter(|it| !it.is_closed())).transpose());
    let now = machine::monotonic();
    open.context("a breaker is open")??.turns(now).next().context("it lets trials pass")
}

#[test]
fn with_the_agent_dead_rounds_let_ten_try_then_twice_as_many_each_however_they_end() -> Result<()> {
    needs_root!();
    let wire = Wire::new()?;
    let site = Site::on(&wire.far)?;
    let agent = site.start(&RUN)?;
    let (_other, dies) = (Backend::on(&wire.far, program(), 80)?, Backend::on(&wire.far, program(), 81)?);
    site.apply(&policy(&here(&[80, 81])))?;
    all_are_well(&site, 2)?;
    drop(dies);
    until(&site, "its breaker opens", |view| breaker(view, &name(1)) == "open")?;
    agent.kill()?;
    let back = Backend::on(&wire.far, program(), 81)?;
    let first = begins(&site.pin_dir())?;

    let clients = Clients::on(&wire.near, at(FAR_V4, 81))?;
    let manners = [Manner::Ask, Manner::Keep, Manner::Reset];
    for (round, manner) in (0..ROUNDS).zip(manners.into_iter().cycle()) {
        clients.behave(manner);
        let ends = first + (round + 1) * TRIAL_EXPIRES;
        thread::sleep(Duration::from_nanos(ends.saturating_sub(machine::monotonic())));
    }
    drop(clients);
    let accepted = back.accepted_from(NEAR_V4.parse()?);
    let early = accepted.iter().filter(|at| **at < first).count();
    let in_round = |round| {
        let begin = first + round * TRIAL_EXPIRES;
        accepted.iter().filter(|at| (begin..begin + TRIAL_EXPIRES).contains(*at)).count()
    };
    let rounds: Vec<_> = (0..ROUNDS).map(in_round).collect();
    say!("trials: with the agent dead {rounds:?} tried in rounds of 5 s, {early} before the first");
    ensure!(early == 0, "{early} were let in while it was open");
    let may = [1, 1, 2].map(|times| times * TRIALS as usize);
    ensure!(rounds == may, "{rounds:?} tried, of {may:?} that may");
    Ok(())
}

#[test]
fn one_that_fails_on_is_tried_by_ten_at_a_time_and_one_that_is_well_is_let_in() -> Result<()> {
    needs_root!();
    let wire = Wire::new()?;
    let site = Site::on(&wire.far)?;
    let _agent = site.start(&RUN)?;
    let (_other, mut fails) = (Backend::on(&wire.far, program(), 80)?, Backend::on(&wire.far, program(), 81)?);
    site.apply(&policy(&here(&[80, 81])))?;
    all_are_well(&site, 2)?;
    fails.answer(503, Duration::ZERO)?;
    let clients = Clients::on(&wire.near, at(FAR_V4, 81))?;
    clients.behave(Manner::Keep);
    let openings = || -> Result<Vec<_>> {
        let all = changes(&site, "web")?.into_iter();
        Ok(all.filter(|it| it.backend.is_some() && it.kind == "breaker" && it.to == "open").collect())
    };
    // In the midst of an open time nobody is under way.
    let mut counts = Vec::new();
    for opening in 1..=2 {
        let start = Instant::now();
        while openings()?.len() < opening {
            ensure!(start.elapsed() < Duration::from_mins(1), "its breaker does not open for the {opening}. time");
            thread::sleep(Duration::from_millis(100));
        }
        thread::sleep(Duration::from_secs(2));
        counts.push(fails.accepted_from(NEAR_V4.parse()?).len());
    }
    let tried = counts[1] - counts[0];
    fails.answer(200, Duration::ZERO)?;
    drop(clients);
    until(&site, "its breaker closes", |view| breaker(view, &name(1)) == "closed")?;
    let all = open_at_once(&wire.near, 20, at(FAR_V4, 81))?.len();
    say!("trials: with the agent alive {tried} clients tried one that fails on, {all} of 20 came in when it was well");
    ensure!(tried <= TRIALS as usize, "{tried} tried, of {TRIALS} that may");
    ensure!(all == 20, "{all} of 20 came in");
    Ok(())
}

/// So late that no confirmation waits for it, and yet in time.
const LATE: Duration = Duration::from_millis(150);

#[test]
fn one_that_takes_its_time_and_one_that_beats_are_let_in_when_they_are_back() -> Result<()> {
    needs_root!();
    let wire = Wire::new()?;
    let site = Site::on(&wire.far)?;
    let _agent = site.start(&RUN)?;
    let (socket, every) = (site.file("api.sock"), Duration::from_millis(500));
    let beats = |generation| Beats { socket: &socket, name: "web-2", generation, every };
    let asked = || -> Result<Backend> {
        let mut asked = Backend::on(&wire.far, program(), 80)?;
        asked.answer(200, LATE)?;
        Ok(asked)
    };
    let beating = |generation| Backend::beating(&wire.far, program(), 81, &beats(generation));
    let _others = [Backend::on(&wire.far, program(), 82)?, Backend::on(&wire.far, program(), 83)?];
    let (first, second) = (asked()?, beating(1)?);
    let mut backends = here(&[80, 81, 82, 83]);
    backends[1].1 = "\"push\"\ninterval = \"500ms\"";
    site.apply(&policy(&backends))?;
    until(&site, "all are well", |view| view.backends.len() == 4 && view.backends.iter().all(|it| it.suspicion < 1.0))?;
    drop((first, second));
    let are = |state: &'static str| until(&site, state, |view| (0..2).all(|it| breaker(view, &name(it)) == state));
    are("open")?;
    let _back = (asked()?, beating(2)?);
    are("closed")?;
    ensure!(open_at_once(&wire.near, 20, at(FAR_V4, 80))?.len() == 20);
    Ok(())
}

#[test]
fn one_that_beats_rarely_is_let_in_though_clients_use_up_every_trial() -> Result<()> {
    needs_root!();
    let wire = Wire::new()?;
    let site = Site::on(&wire.far)?;
    let _agent = site.start(&RUN)?;
    let (socket, every) = (site.file("api.sock"), Duration::from_millis(1_500));
    let beating = |generation| {
        Backend::beating(&wire.far, program(), 80, &Beats { socket: &socket, name: "web-1", generation, every })
    };
    let (first, _other) = (beating(1)?, Backend::on(&wire.far, program(), 81)?);
    let mut backends = here(&[80, 81]);
    backends[0].1 = "\"push\"\ninterval = \"1500ms\"";
    site.apply(&policy(&backends))?;
    until(&site, "both are known", |view| view.backends.len() == 2)?;
    drop(first);
    until(&site, "its breaker opens", |view| breaker(view, &name(0)) == "open")?;
    let start = Instant::now();
    let back = beating(2)?;
    let clients = Clients::on(&wire.near, at(FAR_V4, 80))?;
    clients.behave(Manner::Keep);
    until(&site, "its breaker tries it", |view| breaker(view, &name(0)) == "half-open")?;
    until(&site, "its breaker closes", |view| breaker(view, &name(0)) != "half-open")?;
    let tried = back.accepted_from(NEAR_V4.parse()?).len();
    drop(clients);
    ensure!(breaker(&health(&site, "web")?, &name(0)) == "closed", "nobody says that a trial failed");
    say!("trials: {tried} clients tried one that beats every {every:?} and was let in after {:?}", start.elapsed());
    ensure!(open_at_once(&wire.near, 20, at(FAR_V4, 80))?.len() == 20);
    Ok(())
}
