//! A client that asks at a constant rate, whether or not it is answered: an open loop. What waits behind a slow answer has
//! waited, so that each latency runs from when the request was due, not from when it could be sent.

use crate::{machine, netns::Namespace};
use anyhow::{Context, Result, ensure};
use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    thread,
    time::{Duration, Instant},
};

/// Threads that take turns: as many requests may be under way.
const LANES: u32 = 32;
/// How long a request may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// What became of the requests.
#[derive(Debug, Default)]
pub struct Answers {
    /// Of those that were answered, the shortest first.
    pub latencies: Vec<Duration>,
    /// Why the others were not.
    pub lost: Vec<String>,
}

impl Answers {
    /// The latency below which so many percent of them lie; of none no time.
    pub fn percentile(&self, percent: usize) -> Duration {
        let sorted = &self.latencies;
        sorted.get(sorted.len() * percent / 100).or(sorted.last()).copied().unwrap_or_default()
    }
}

/// Asks a web server for `/` so many times a second, each time by a new connection, ahead of ordinary processes.
pub fn ask_at(host: &Namespace, server: SocketAddr, per_second: u32, span: Duration) -> Result<Answers> {
    let requests = (u128::from(per_second) * span.as_millis() / 1_000) as u32;
    let start = Instant::now() + Duration::from_millis(50);
    let due = |request| start + Duration::from_secs_f64(f64::from(request) / f64::from(per_second));
    let lane = |lane| {
        let mut answers = Answers::default();
        for request in (lane..requests).step_by(LANES as usize) {
            thread::sleep(due(request).saturating_duration_since(Instant::now()));
            match ask(server) {
                Ok(()) => answers.latencies.push(due(request).elapsed()),
                Err(error) => answers.lost.push(format!("request {request} of {requests}: {error:#}")),
            }
        }
        answers
    };
    let mut all = thread::scope(|scope| {
        let mut lanes = Vec::new();
        for number in 0..LANES {
            let entry = host.entry()?;
            lanes.push(scope.spawn(move || {
                machine::go_first(2)?;
                entry.enter()?;
                anyhow::Ok(lane(number))
            }));
        }
        let mut all = Answers::default();
        for lane in lanes {
            let answers = lane.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            all.latencies.extend(answers.latencies);
            all.lost.extend(answers.lost);
        }
        anyhow::Ok(all)
    })?;
    all.latencies.sort_unstable();
    Ok(all)
}

/// One request by a connection of its own.
fn ask(server: SocketAddr) -> Result<()> {
    let mut stream = TcpStream::connect_timeout(&server, PATIENCE).context("connect")?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET / HTTP/1.1\r\nhost: throttle\r\nconnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).context("read the answer")?;
    ensure!(answer.starts_with(b"HTTP/1.1 200"), "the server answers {:?}", String::from_utf8_lossy(&answer));
    Ok(())
}
