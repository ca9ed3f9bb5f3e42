//! Real connections, by the hundred thousand where they are wanted.

use anyhow::{Context, Result, bail, ensure};
use std::{
    ffi::OsString,
    fs,
    io::{self, Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    os::fd::AsRawFd as _,
    process::{Child, Stdio},
};
use throttle_tests::{
    netns::Namespace,
    wire::{FAR_V4, NEAR, Wire},
};

/// A server on the far host that takes connections and does nothing with them.
pub(super) fn listen(host: &Namespace) -> Result<TcpListener> {
    host.enter(|| {
        let listener = TcpListener::bind((FAR_V4, 0)).context("listen")?;
        rustix::net::listen(&listener, 4096).map_err(io::Error::from)?;
        anyhow::Ok(listener)
    })?
}

/// The address of a client on the near host: 10.98.4.1 and up.
pub(super) fn source(number: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(10 << 24 | 98 << 16 | 4 << 8 | (1 + number))
}

/// Gives the near host the addresses of so many clients, up to 254.
pub(super) fn add_sources(wire: &Wire, count: u32) -> Result<()> {
    (0..count).try_for_each(|number| {
        wire.near.ip(&["address", "add", &format!("{}/16", source(number)), "dev", NEAR]).map(drop)
    })
}

/// Opens a connection from an address of this thread's namespace; gives both ends.
pub(super) fn connect(from: Ipv4Addr, listener: &TcpListener) -> Result<[TcpStream; 2]> {
    Ok([connect_from(from, listener.local_addr()?)?, listener.accept().context("accept")?.0])
}

fn connect_from(from: Ipv4Addr, server: SocketAddr) -> Result<TcpStream> {
    use rustix::net::{AddressFamily, SocketType, bind, connect, socket};
    let near = socket(AddressFamily::INET, SocketType::STREAM, None)?;
    bind(&near, &SocketAddr::new(IpAddr::V4(from), 0)).context("bind")?;
    connect(&near, &server).context("connect")?;
    Ok(near.into())
}

/// Has a connection end with a reset, which leaves nothing behind at either end.
pub(super) fn reset([near, far]: [TcpStream; 2]) -> Result<()> {
    throttle_tests::clients::reset(near)?;
    drop(far);
    Ok(())
}

/// The next number that a socket says, and the next that it waits for.
pub(super) fn numbers(socket: &TcpStream) -> Result<[u32; 2]> {
    // Of include/uapi/linux/tcp.h: the queues, and the end of a repair that says nothing to the other end.
    const QUEUES: [i32; 2] = [2, 1];
    const OFF_NO_WP: i32 = -1;
    let set = |option, value: i32| {
        // SAFETY: the value lives through the call, and is as long as it says.
        let set =
            unsafe { libc::setsockopt(socket.as_raw_fd(), libc::IPPROTO_TCP, option, (&raw const value).cast(), 4) };
        ensure!(set == 0, "repair a socket: {}", io::Error::last_os_error());
        Ok(())
    };
    set(libc::TCP_REPAIR, 1)?;
    let mut numbers = [0_u32; 2];
    for (number, queue) in numbers.iter_mut().zip(QUEUES) {
        set(libc::TCP_REPAIR_QUEUE, queue)?;
        let (number, mut length) = (&raw mut *number, 4);
        // SAFETY: as above.
        let got = unsafe {
            libc::getsockopt(socket.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_QUEUE_SEQ, number.cast(), &raw mut length)
        };
        ensure!(got == 0, "ask for a number: {}", io::Error::last_os_error());
    }
    set(libc::TCP_REPAIR, OFF_NO_WP)?;
    Ok(numbers)
}

/// Processes that hold the clients' ends of connections, one for each address: a process may not open as many files as
/// there are connections. The server's ends wait to be accepted, and so take no files.
pub(super) struct Held(Vec<Child>);

/// Sources of the connections that are [`held`].
const SOURCES: u32 = 16;

/// Has so many connections from the near host open until what this gives is dropped.
pub(super) fn held(wire: &Wire, listener: &TcpListener, count: u32) -> Result<Held> {
    add_sources(wire, SOURCES)?;
    wire.far.enter(|| {
        let backlog = "/proc/sys/net/core/somaxconn";
        fs::write(backlog, "1048576").with_context(|| format!("write {backlog}"))?;
        rustix::net::listen(listener, 1 << 20).map_err(anyhow::Error::from)
    })??;
    let mut held = Held(Vec::new());
    for number in 0..SOURCES {
        let mut command = wire.near.command(std::env::current_exe()?);
        command.args([HOLD, &number.to_string(), &listener.local_addr()?.to_string(), &(count / SOURCES).to_string()]);
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().context("start a client")?;
        held.0.push(child);
    }
    for child in &mut held.0 {
        let read = child.stdout.as_mut().context("a client has an output")?.read(&mut [0])?;
        ensure!(read == 1, "a client could not open its connections");
    }
    Ok(held)
}

impl Drop for Held {
    fn drop(&mut self) {
        for child in &mut self.0 {
            // Both fail only where it has ended already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// What such a process is started with, before the number of its source, the server and the number of connections.
pub(super) const HOLD: &str = "hold-connections";

/// What it does: it opens them, says so with one byte, and keeps them until nobody holds its input open.
pub(super) fn hold(arguments: &[OsString]) -> Result<()> {
    let text: Vec<_> = arguments.iter().map(|argument| argument.to_string_lossy()).collect();
    let [number, server, count] = &text[..] else { bail!("{HOLD} SOURCE SERVER COUNT") };
    let (from, server, count) = (source(number.parse()?), server.parse()?, count.parse::<u32>()?);
    allow_files(u64::from(count) + 64)?;
    let ends = (0..count).map(|_| connect_from(from, server)).collect::<Result<Vec<_>>>()?;
    io::stdout().write_all(b"1")?;
    io::stdout().flush()?;
    io::stdin().read_to_end(&mut Vec::new())?;
    drop(ends);
    Ok(())
}

/// Lets this process open so many files.
pub(super) fn allow_files(count: u64) -> Result<()> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let old = getrlimit(Resource::Nofile);
    if old.current.is_none_or(|current| current >= count) {
        return Ok(());
    }
    let maximum = old.maximum.map(|maximum| maximum.max(count));
    let raised = setrlimit(Resource::Nofile, Rlimit { current: Some(count), maximum });
    ensure!(raised.is_ok(), "{count} open files are not allowed: raise fs.nr_open: {}", raised.unwrap_err());
    Ok(())
}
