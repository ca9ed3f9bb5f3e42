//! Many backends that push heartbeats, at an even pace, over a few connections that are kept.

use std::{
    fs,
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    os::unix::net::UnixStream,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// Backends that share a connection: the API's socket has room for 64.
const OF_A_CONNECTION: usize = 20;

/// Backends that beat until this is dropped.
#[derive(Debug)]
pub struct Pushers {
    threads: Vec<JoinHandle<()>>,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    boot: String,
    every: Duration,
    ends: AtomicBool,
    refused: AtomicU64,
}

impl Pushers {
    /// These beat to an agent's socket from now on, each so often.
    pub fn start(socket: &Path, names: &[String], every: Duration) -> Self {
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned();
        let shared = Arc::new(Shared { boot, every, ends: AtomicBool::default(), refused: AtomicU64::default() });
        let of_a_connection = |names: &[String]| {
            let (socket, names, shared) = (socket.to_owned(), names.to_vec(), Arc::clone(&shared));
            thread::spawn(move || {
                if shared.beat(&socket, &names).is_err() {
                    shared.refused.fetch_add(1, Relaxed);
                }
            })
        };
        let threads = names.chunks(OF_A_CONNECTION).map(of_a_connection).collect();
        Self { threads, shared }
    }

    /// Beats that were not taken, and connections that broke.
    pub fn refused(&self) -> u64 {
        self.shared.refused.load(Relaxed)
    }
}

impl Drop for Pushers {
    fn drop(&mut self) {
        self.shared.ends.store(true, Relaxed);
        self.threads.drain(..).for_each(|thread| drop(thread.join()));
    }
}

impl Shared {
    fn beat(&self, socket: &Path, names: &[String]) -> io::Result<()> {
        let mut stream = BufReader::new(UnixStream::connect(socket)?);
        let (mut due, between) = (Instant::now(), self.every / names.len() as u32);
        for sequence in 1_u64.. {
            for name in names {
                if self.ends.load(Relaxed) {
                    return Ok(());
                }
                thread::sleep(due.saturating_duration_since(Instant::now()));
                due += between;
                let body = serde_json::json!({
                    "backend": name, "node": "here", "boot_id": self.boot, "generation": 1, "sequence": sequence,
                    "time": "2026-01-02T03:04:05Z", "load": 0.4,
                });
                if !post(&mut stream, &body.to_string())? {
                    self.refused.fetch_add(1, Relaxed);
                }
            }
        }
        Ok(())
    }
}

/// Sends one beat, and says whether it was taken.
fn post(stream: &mut BufReader<UnixStream>, body: &str) -> io::Result<bool> {
    let request = format!(
        "POST /v1/heartbeats HTTP/1.1\r\nhost: throttle\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.get_mut().write_all(request.as_bytes())?;
    let (mut line, mut length) = (String::new(), 0);
    stream.read_line(&mut line)?;
    let taken = line.split(' ').nth(1).is_some_and(|status| status.starts_with('2'));
    loop {
        line.clear();
        if stream.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if line == "\r\n" {
            break;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().map_err(io::Error::other)?;
        }
    }
    stream.read_exact(&mut vec![0; length])?;
    Ok(taken)
}
