//! A client that asks at a constant rate, whether or not it is answered: an open loop. What waits behind a slow answer has
//! waited, so that each latency runs from when the request was due, not from when it could be sent.

use crate::netns::Namespace;
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

/// Asks a web server for `/` so many times a second, each time by a new connection, and gives all latencies, the shortest
/// first. Fails where a request does.
pub fn latencies(host: &Namespace, server: SocketAddr, per_second: u32, span: Duration) -> Result<Vec<Duration>> {
    let requests = (u128::from(per_second) * span.as_millis() / 1_000) as u32;
    let start = Instant::now() + Duration::from_millis(50);
    let mut all = thread::scope(|scope| {
        let mut lanes = Vec::new();
        for lane in 0..LANES {
            let entry = host.entry()?;
            lanes.push(scope.spawn(move || {
                entry.enter()?;
                let due = |request| start + Duration::from_secs_f64(f64::from(request) / f64::from(per_second));
                let asked = (lane..requests).step_by(LANES as usize).map(|request| {
                    thread::sleep(due(request).saturating_duration_since(Instant::now()));
                    ask(server).with_context(|| format!("request {request} of {requests}"))?;
                    Ok(due(request).elapsed())
                });
                asked.collect::<Result<Vec<_>>>()
            }));
        }
        let mut all = Vec::new();
        for lane in lanes {
            all.extend(lane.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?);
        }
        anyhow::Ok(all)
    })?;
    all.sort_unstable();
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

/// The latency below which so many percent of them lie; of an empty list none.
pub fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    sorted.get(sorted.len() * percent / 100).or(sorted.last()).copied().unwrap_or_default()
}
