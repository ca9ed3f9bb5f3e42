//! A real web server of a known capacity, as simple as a server can be that overload ruins: [`WORKERS`] workers, each with one
//! request at a time, first come first served from the kernel's own queue of connections. It works on for clients that have
//! given up, because it does not look.
//!
//! Work is waiting, exponential around 8 ms, so that its capacity is not the machine's. It is a program of its own, under
//! the name [`WORK`] of whichever binary calls [`work`]; what it is told while it runs is the share of its capacity that is
//! left to it, a line each.

use crate::{
    clients::HTTP,
    machine,
    netns::Namespace,
    simulator::{
        dice::Dice,
        scenario::{WORKERS, Work},
    },
};
use anyhow::{Context, Result, ensure};
use std::{
    convert::Infallible,
    io::{self, BufRead as _, Read as _, Write as _},
    net::{Ipv4Addr, TcpListener, TcpStream},
    path::Path,
    process::{Child, ChildStdin, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

/// What the program is called.
pub const WORK: &str = "work";
/// Connections that wait to be accepted at most: the kernel's own default, four seconds of work.
const BACKLOG: i32 = 4096;
/// How long a client may take to say what it wants.
const PATIENCE: Duration = Duration::from_secs(1);
const ANSWER: &[u8] = b"HTTP/1.0 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\nok\n";

/// The server's process; it ends when this is dropped.
#[derive(Debug)]
pub struct Workers {
    process: Child,
    told: ChildStdin,
}

impl Workers {
    /// Starts it on a host, by a binary that calls [`work`]; it listens on port [`HTTP`] when this returns.
    pub fn on(host: &Namespace, binary: &Path) -> Result<Self> {
        let mut command = host.command(binary);
        command.arg(WORK).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.spawn().context("start the server")?;
        let told = process.stdin.take().context("the server has an input")?;
        let mut server = Self { process, told };
        let read = server.process.stdout.as_mut().context("the server has an output")?.read(&mut [0])?;
        ensure!(read == 1, "the server does not listen");
        Ok(server)
    }

    /// Leaves it such a share of its capacity, from the next request on.
    pub fn set_capacity(&mut self, share: f64) -> Result<()> {
        writeln!(self.told, "{share}").context("tell the server")
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        // Both fail only where it has ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Serves, ahead of ordinary processes, until nobody holds the input open.
pub fn work() -> Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, HTTP)).context("listen")?;
    rustix::net::listen(&listener, BACKLOG).map_err(io::Error::from)?;
    let slowness = AtomicU32::new(1f32.to_bits());
    io::stdout().write_all(b"1")?;
    io::stdout().flush()?;
    thread::scope(|scope| {
        for seed in 0..u64::from(WORKERS) {
            let (listener, slowness) = (&listener, &slowness);
            scope.spawn(move || {
                let Err(error) = machine::go_first(2).and_then(|()| take_turns(listener, slowness, seed));
                // A server with fewer workers than it is said to have would be worse than none.
                eprintln!("{error:#}");
                std::process::exit(1)
            });
        }
        for line in io::stdin().lock().lines() {
            let share: f32 = line?.parse().context("a share of the capacity")?;
            slowness.store((1.0 / share).to_bits(), Ordering::Relaxed);
        }
        // Workers that wait for a connection are not to be stopped otherwise.
        std::process::exit(0)
    })
}

/// What one worker does.
fn take_turns(listener: &TcpListener, slowness: &AtomicU32, seed: u64) -> Result<Infallible> {
    let mut dice = Dice::new(seed);
    // What it has taken longer than its work was to take: to wake, to write, to close. The next work is so much shorter, or
    // the server would do less than it is said to.
    let mut owed = Duration::ZERO;
    loop {
        let (stream, _) = match listener.accept() {
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
            accepted => accepted.context("accept")?,
        };
        let began = Instant::now();
        let Ok(asked) = take_request(&stream) else { continue };
        if !asked {
            continue;
        }
        let times = f32::from_bits(slowness.load(Ordering::Relaxed));
        let work = Duration::from_nanos(Work::Exponential.draw(&mut dice)).mul_f32(times);
        let rest = work.saturating_sub(owed);
        owed = owed.saturating_sub(work);
        thread::sleep(rest.saturating_sub(began.elapsed()));
        // Whoever has given up does not read it.
        let _ = (&stream).write_all(ANSWER);
        drop(stream);
        owed += began.elapsed().saturating_sub(rest);
    }
}

/// Reads a request; whether there was one: a client that gave up before it could ask leaves nothing but its end.
fn take_request(mut stream: &TcpStream) -> Result<bool> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let (mut request, mut read) = ([0; 1024], 0);
    while !request[..read].ends_with(b"\r\n\r\n") {
        match stream.read(&mut request[read..])? {
            0 => return Ok(false),
            more => read += more,
        }
    }
    Ok(true)
}
