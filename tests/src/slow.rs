//! A server that takes as long as the test says, and clients that ask it again and again.

use crate::netns::Namespace;
use anyhow::{Context, Result};
use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

/// Requests that it works on at once.
const WORKERS: usize = 8;
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
/// How long a client waits for an answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// The server: its threads end when it is dropped, and nobody listens any more.
#[derive(Debug)]
pub struct SlowServer {
    port: u16,
    host: crate::netns::Entry,
    takes: Arc<AtomicU64>,
    ends: Arc<AtomicBool>,
    workers: Vec<JoinHandle<()>>,
}

impl SlowServer {
    /// One that listens at a port of a host's IPv4 addresses.
    pub fn on(host: &Namespace, port: u16) -> Result<Self> {
        let listen = || TcpListener::bind((Ipv4Addr::UNSPECIFIED, port));
        let listener = host.enter(listen)?.with_context(|| format!("listen at port {port}"))?;
        let (takes, ends) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let work = || {
            let (listener, takes, ends) = (listener.try_clone()?, Arc::clone(&takes), Arc::clone(&ends));
            Ok(thread::spawn(move || work(&listener, &takes, &ends)))
        };
        let workers = (0..WORKERS).map(|_| work()).collect::<Result<_>>()?;
        Ok(Self { port, host: host.entry()?, takes, ends, workers })
    }

    /// How long each answer takes from now on.
    pub fn take(&self, time: Duration) {
        self.takes.store(time.as_millis() as u64, Relaxed);
    }
}

impl Drop for SlowServer {
    fn drop(&mut self) {
        self.ends.store(true, Relaxed);
        // Each worker waits for a connection, the last of which says that it is over.
        let (host, port, workers) = (&self.host, self.port, self.workers.len());
        thread::scope(|scope| {
            scope.spawn(|| {
                if host.enter().is_ok() {
                    (0..workers).for_each(|_| drop(TcpStream::connect((Ipv4Addr::LOCALHOST, port))));
                }
            });
        });
        for worker in self.workers.drain(..) {
            // One that panicked has ended too.
            let _ = worker.join();
        }
    }
}

fn work(listener: &TcpListener, takes: &AtomicU64, ends: &AtomicBool) {
    while let Ok((mut client, _)) = listener.accept() {
        if ends.load(Relaxed) {
            return;
        }
        // Whoever goes away is no fault of the server.
        let _ = answer(&mut client, takes);
    }
}

fn answer(client: &mut TcpStream, takes: &AtomicU64) -> std::io::Result<()> {
    client.set_read_timeout(Some(PATIENCE))?;
    if client.read(&mut [0; 1024])? > 0 {
        thread::sleep(Duration::from_millis(takes.load(Relaxed)));
        client.write_all(ANSWER)?;
    }
    Ok(())
}

/// Clients that ask until they are dropped, each over one new connection after the other.
#[derive(Debug)]
pub struct Askers {
    ends: Arc<AtomicBool>,
    clients: Vec<JoinHandle<()>>,
}

impl Askers {
    /// So many on a host, of the server at an address.
    pub fn on(host: &Namespace, count: usize, to: SocketAddr) -> Result<Self> {
        let ends = Arc::new(AtomicBool::new(false));
        let client = |_| {
            let (entry, ends) = (host.entry()?, Arc::clone(&ends));
            Ok(thread::spawn(move || {
                if entry.enter().is_ok() {
                    ask(to, &ends);
                }
            }))
        };
        let clients = (0..count).map(client).collect::<Result<_>>()?;
        Ok(Self { ends, clients })
    }
}

impl Drop for Askers {
    fn drop(&mut self) {
        self.ends.store(true, Relaxed);
        for client in self.clients.drain(..) {
            // One that panicked has ended too.
            let _ = client.join();
        }
    }
}

fn ask(to: SocketAddr, ends: &AtomicBool) {
    while !ends.load(Relaxed) {
        let asked = TcpStream::connect_timeout(&to, PATIENCE).and_then(|mut server| {
            server.set_read_timeout(Some(PATIENCE))?;
            server.write_all(b"GET / HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n")?;
            server.read_to_end(&mut Vec::new())
        });
        // Who was refused tries again soon, and not at once.
        thread::sleep(Duration::from_millis(if asked.is_ok() { 5 } else { 20 }));
    }
}

/// How many of so many connections to a server are open at once, tried one after the other on a host.
pub fn open_at_once(host: &Namespace, count: usize, to: SocketAddr) -> Result<Vec<TcpStream>> {
    let open = || {
        let one = |_| TcpStream::connect_timeout(&to, Duration::from_millis(200)).ok();
        (0..count).filter_map(one).collect()
    };
    host.enter(open)
}

/// The address of a port.
pub fn at(address: &str, port: u16) -> SocketAddr {
    let address: IpAddr = address.parse().expect("an address of the tests");
    (address, port).into()
}
