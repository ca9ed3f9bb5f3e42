//! Backends to be killed, stopped and restarted: each a process of its own that answers HTTP over connections that are kept,
//! tells of every connection that it accepts, and beats by itself where it is asked to.
//!
//! The program is what the name [`SERVE`] makes of whichever binary calls [`serve`]; what it is told while it runs is the
//! status that it answers from then on and after how many milliseconds, a line each.

mod pushers;

use crate::{machine, netns::Namespace};
use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use std::{
    ffi::{OsStr, OsString},
    fs,
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, TcpListener, TcpStream},
    os::unix::net::UnixStream,
    path::Path,
    process::{Child, ChildStdin, Command, Stdio},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU16, AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

pub use pushers::Pushers;

/// What the program is called.
pub const SERVE: &str = "serve";
/// What it answers unless it is told otherwise.
const WELL: u16 = 200;
/// How long an agent may take to say what became of a heartbeat.
const PATIENCE: Duration = Duration::from_secs(1);

/// A backend's process; it ends when this is dropped.
#[derive(Debug)]
pub struct Backend {
    process: Child,
    told: ChildStdin,
    accepted: Arc<Mutex<Vec<Accepted>>>,
}

/// A connection that a backend accepted.
#[derive(Clone, Copy, Debug)]
pub struct Accepted {
    /// When: nanoseconds of CLOCK_MONOTONIC.
    pub at: u64,
    /// Whose it is.
    pub from: IpAddr,
}

/// The heartbeats that a backend pushes to an agent.
#[derive(Clone, Copy, Debug)]
pub struct Beats<'a> {
    /// The agent's socket.
    pub socket: &'a Path,
    /// The backend's name in the policy.
    pub name: &'a str,
    /// Which of its starts this is.
    pub generation: u64,
    /// How often it beats.
    pub every: Duration,
}

impl Backend {
    /// Starts one on a host, by a binary that calls [`serve`]; it listens on a port of its IPv4 addresses when this returns.
    pub fn on(host: &Namespace, binary: &Path, port: u16) -> Result<Self> {
        Self::start(host, binary, port, &[])
    }

    /// The same of one that also beats.
    pub fn beating(host: &Namespace, binary: &Path, port: u16, beats: &Beats<'_>) -> Result<Self> {
        let Beats { socket, name, generation, every } = beats;
        let (generation, every) = (generation.to_string(), every.as_millis().to_string());
        Self::start(host, binary, port, &[socket.as_ref(), name.as_ref(), generation.as_ref(), every.as_ref()])
    }

    fn start(host: &Namespace, binary: &Path, port: u16, beats: &[&OsStr]) -> Result<Self> {
        let mut command: Command = host.command(binary);
        command.arg(SERVE).arg(port.to_string()).args(beats).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.spawn().context("start a backend")?;
        let told = process.stdin.take().context("a backend has an input")?;
        let mut says = BufReader::new(process.stdout.take().context("a backend has an output")?);
        let accepted = Arc::new(Mutex::new(Vec::new()));
        let backend = Self { process, told, accepted: Arc::clone(&accepted) };
        ensure!(says.read_line(&mut String::new())? > 0, "a backend does not listen at port {port}");
        thread::spawn(move || {
            for line in says.lines().map_while(Result::ok) {
                let said = line
                    .split_once(' ')
                    .and_then(|(at, from)| Some(Accepted { at: at.parse().ok()?, from: from.parse().ok()? }));
                accepted.lock().unwrap_or_else(PoisonError::into_inner).extend(said);
            }
        });
        Ok(backend)
    }

    /// Answers with a status, and so late, from the next request on.
    pub fn answer(&mut self, status: u16, after: Duration) -> Result<()> {
        writeln!(self.told, "{status} {}", after.as_millis()).context("tell a backend")
    }

    /// Has it stand still, as a debugger or a host without memory would: its kernel goes on.
    pub fn pause(&self) -> Result<()> {
        machine::signal(self.process.id(), Signal::STOP)
    }

    /// Lets it go on.
    pub fn go_on(&self) -> Result<()> {
        machine::signal(self.process.id(), Signal::CONT)
    }

    /// When it accepted connections from an address, in nanoseconds of CLOCK_MONOTONIC.
    pub fn accepted_from(&self, from: IpAddr) -> Vec<u64> {
        let accepted = self.accepted.lock().unwrap_or_else(PoisonError::into_inner);
        accepted.iter().filter(|it| it.from == from).map(|it| it.at).collect()
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        // Both fail only where it has ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Serves until nobody holds the input open: at a port, and with heartbeats where they are described.
pub fn serve(arguments: &[OsString]) -> Result<()> {
    let words: Vec<_> = arguments.iter().map(|it| it.to_string_lossy()).collect();
    let port = words.first().context("a port")?.parse::<u16>().context("a port")?;
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).context("listen")?;
    let answers = Arc::new((AtomicU16::new(WELL), AtomicU64::new(0)));
    say("listens")?;
    if let [_, socket, name, generation, every] = &words[..] {
        let (socket, name) = (socket.to_string(), name.to_string());
        let (generation, every) = (generation.parse()?, Duration::from_millis(every.parse()?));
        thread::spawn(move || beat(&Beats { socket: socket.as_ref(), name: &name, generation, every }));
    }
    let given = Arc::clone(&answers);
    thread::spawn(move || {
        while let Ok((client, from)) = listener.accept() {
            // Who started it reads this for as long as it lives.
            let _ = say(&format!("{} {}", machine::monotonic(), from.ip()));
            let given = Arc::clone(&given);
            // Whoever goes away is no fault of the server.
            thread::spawn(move || answer(&client, &given));
        }
    });
    for line in io::stdin().lock().lines() {
        let line = line?;
        let (status, after) = line.split_once(' ').context("a status and a time")?;
        answers.0.store(status.parse().context("a status")?, Relaxed);
        answers.1.store(after.parse().context("a time")?, Relaxed);
    }
    std::process::exit(0)
}

fn say(line: &str) -> io::Result<()> {
    let mut output = io::stdout().lock();
    writeln!(output, "{line}")?;
    output.flush()
}

/// Answers one request after the other, with a status and after so many milliseconds.
fn answer(mut client: &TcpStream, (status, after): &(AtomicU16, AtomicU64)) -> io::Result<()> {
    client.set_nodelay(true)?;
    let mut requests = BufReader::new(client);
    let mut line = String::new();
    while requests.read_line(&mut line)? > 0 {
        if line == "\r\n" {
            thread::sleep(Duration::from_millis(after.load(Relaxed)));
            let status = status.load(Relaxed);
            client.write_all(format!("HTTP/1.1 {status} Said\r\ncontent-length: 0\r\n\r\n").as_bytes())?;
        }
        line.clear();
    }
    Ok(())
}

/// Beats as long as the process lives.
fn beat(beats: &Beats<'_>) {
    for sequence in 1.. {
        beat_once(beats.socket, beats.name, beats.generation, sequence, None);
        thread::sleep(beats.every);
    }
}

/// One heartbeat, with the load of the backend where that is told. What an agent does not take is lost, as it would be by a
/// real backend.
pub fn beat_once(socket: &Path, name: &str, generation: u64, sequence: u64, load: Option<f64>) {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let body = serde_json::json!({
        "backend": name, "node": "here", "boot_id": boot, "generation": generation, "sequence": sequence,
        "time": "2026-01-02T03:04:05Z", "load": load,
    });
    let _ = post(socket, "/v1/heartbeats", &body.to_string());
}

fn post(socket: &Path, path: &str, body: &str) -> io::Result<usize> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let length = body.len();
    write!(
        stream,
        "POST {path} HTTP/1.1\r\nhost: throttle\r\nconnection: close\r\ncontent-type: application/json\r\n\
         content-length: {length}\r\n\r\n{body}"
    )?;
    stream.read_to_end(&mut Vec::new())
}
