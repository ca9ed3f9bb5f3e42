//! A source that wants far more than it may have, all at once and from several processes.

use super::{PATIENCE, address, eventually, host::Host};
use anyhow::{Context as _, Result, ensure};
use std::{
    io::{BufRead as _, BufReader, ErrorKind, Read as _, Write as _, stdin},
    net::{SocketAddr, TcpListener},
    process::{Child, ChildStdout, Stdio},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
};
use throttle_tests::{
    clients::connect_from,
    machine, needs_root, say,
    sockets::Sockets,
    wire::{FAR_V4, NEAR, NEAR_V4},
};

/// Another address of the near host.
const OTHER: &str = "10.98.0.7";
/// How many a source may have, how many it wants, and from how many processes.
const ALLOWED: u64 = 50;
const WANTED: u64 = 500;
const PROCESSES: u64 = 5;
/// How often the sockets are counted at least, from before they call until after all have been answered.
const SAMPLES: u64 = 100;
/// Tells a process whom to call.
const CALL: &str = "THROTTLE_TESTS_CALL";

#[test]
fn never_are_more_open_than_the_limit_however_many_are_wanted_at_once() -> Result<()> {
    needs_root!();
    let _machine = machine::alone()?;
    // Cookies as the kernel sends them when its queue overflows, and always.
    for cookies in ["1", "2"] {
        let mut host = Host::new()?;
        host.wire.near.ip(&["address", "add", &format!("{OTHER}/16"), "dev", NEAR])?;
        host.wire.far.enter(|| std::fs::write("/proc/sys/net/ipv4/tcp_syncookies", cookies))??;
        let listener = host.listen_deep(FAR_V4)?;
        let port = listener.local_addr()?.port();
        host.limit(port, &["concurrent = 50\naction = \"reject\"\nsources = 300"])?;
        let to = SocketAddr::new(address(FAR_V4), port);
        let sockets = Sockets::of(&host.wire.far)?;
        let (most, samples, done) = (AtomicU64::new(0), AtomicU64::new(0), AtomicBool::new(false));
        let mut callers = (0..PROCESSES).map(|_| Caller::start(&host, to)).collect::<Result<Vec<_>>>()?;
        let answers = thread::scope(|scope| -> Result<[u64; 2]> {
            scope.spawn(|| serve(&listener, &done));
            let watch = scope.spawn(|| watch(&sockets, port, [&most, &samples], &done));
            let looked = ask_all(&host, &mut callers, to, [&most, &samples]);
            done.store(true, Ordering::SeqCst);
            watch.join().expect("the watch does not panic")?;
            looked
        })?;
        let [most, samples] = [most, samples].map(AtomicU64::into_inner);
        say!(
            "tcp_syncookies={cookies}: {} of {WANTED} from {PROCESSES} processes at once were served, at most {most} \
             were open in {samples} samples",
            answers[0]
        );
        ensure!(answers == [ALLOWED, WANTED - ALLOWED], "served and refused: {answers:?}");
        ensure!(most == ALLOWED, "{most} were open at once");
        // Silence is asked again after a second, an answer is none: at once it was, but where the machine stood still.
        let again = host.wire.near.sent_again()?;
        ensure!(again * 10 <= WANTED, "{again} segments were sent again");
        drop((callers, listener));
        eventually(&0, || Ok(host.open(0)))?;
    }
    Ok(())
}

/// Has all processes call at once, and another source while they hold what they got. How many were served and refused.
fn ask_all(host: &Host, callers: &mut [Caller], to: SocketAddr, [most, samples]: [&AtomicU64; 2]) -> Result<[u64; 2]> {
    callers.iter_mut().try_for_each(Caller::call)?;
    let mut sum = [0; 2];
    for caller in callers {
        let [served, refused] = caller.answers()?;
        sum = [sum[0] + served, sum[1] + refused];
    }
    let mut other = host.connect(Some(OTHER), to)?.context("another source")?;
    other.read_exact(&mut [0]).context("another source is served")?;
    eventually(&ALLOWED, || Ok(most.load(Ordering::SeqCst)))?;
    eventually(&true, || Ok(samples.load(Ordering::SeqCst) >= SAMPLES))?;
    ensure!(host.open(0) >= ALLOWED, "{} places were taken when all had been answered", host.open(0));
    Ok(sum)
}

/// Gives a byte to whoever connects, and keeps the connection until all is done.
fn serve(listener: &TcpListener, done: &AtomicBool) -> Result<()> {
    listener.set_nonblocking(true)?;
    let mut served = Vec::new();
    while !done.load(Ordering::SeqCst) {
        match listener.accept() {
            Ok((mut client, _)) => {
                client.write_all(b"!")?;
                served.push(client);
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => thread::yield_now(),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Notes how many connections of the first source the kernel says are open, at most, and how often it was asked.
fn watch(sockets: &Sockets, port: u16, [most, samples]: [&AtomicU64; 2], done: &AtomicBool) -> Result<()> {
    let source = address(NEAR_V4);
    while !done.load(Ordering::SeqCst) {
        let open = sockets.open(port)?.iter().filter(|peer| peer.ip() == source).count();
        most.fetch_max(open as u64, Ordering::SeqCst);
        samples.fetch_add(1, Ordering::SeqCst);
    }
    Ok(())
}

/// A process on the near host: this program, which runs [`calls_when_it_is_told_to`] alone.
struct Caller {
    process: Child,
    said: BufReader<ChildStdout>,
}

impl Caller {
    /// Starts one that waits to be told.
    fn start(host: &Host, to: SocketAddr) -> Result<Self> {
        let mut command = host.wire.near.command(std::env::current_exe()?);
        command.args(["--exact", "--ignored", "--nocapture", "processes::calls_when_it_is_told_to"]);
        command.env(CALL, to.to_string()).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.spawn().context("start a process that calls")?;
        let said = BufReader::new(process.stdout.take().context("it has an output")?);
        let mut caller = Self { process, said };
        caller.hear("ready")?;
        Ok(caller)
    }

    fn call(&mut self) -> Result<()> {
        Ok(self.process.stdin.as_mut().context("it has an input")?.write_all(b"call\n")?)
    }

    /// How many of its connections were served, and how many refused.
    fn answers(&mut self) -> Result<[u64; 2]> {
        let said = self.hear("answers ")?;
        let numbers = said.split(' ').map(str::parse).collect::<Result<Vec<u64>, _>>()?;
        <[u64; 2]>::try_from(numbers.as_slice()).with_context(|| format!("two numbers in {said}"))
    }

    /// What follows on a line that begins so.
    fn hear(&mut self, begin: &str) -> Result<String> {
        for line in self.said.by_ref().lines() {
            let line = line?;
            if let Some((_, rest)) = line.split_once(begin) {
                return Ok(rest.to_owned());
            }
        }
        anyhow::bail!("the process that calls ended and never said {begin:?}")
    }
}

impl Drop for Caller {
    fn drop(&mut self) {
        // Its connections end with it.
        if self.process.kill().and_then(|()| self.process.wait()).is_err() {
            machine::print("left behind: a process that calls");
        }
    }
}

#[test]
#[ignore = "it is what the processes of another test run"]
fn calls_when_it_is_told_to() -> Result<()> {
    let Ok(to) = std::env::var(CALL) else { return Ok(()) };
    let to = to.parse()?;
    say!("ready");
    stdin().read_line(&mut String::new())?;
    let calls: Vec<_> = (0..WANTED / PROCESSES).map(|_| thread::spawn(move || call(to))).collect();
    let (mut clients, mut refused) = (Vec::new(), 0);
    for call in calls {
        match call.join().expect("no call panics") {
            Ok(client) => clients.push(client),
            Err(error) if matches!(error.kind(), ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset) => {
                refused += 1;
            }
            Err(error) => return Err(error).context("neither served nor refused at once"),
        }
    }
    say!("answers {} {refused}", clients.len());
    // They are held until somebody has looked.
    stdin().read_line(&mut String::new())?;
    Ok(())
}

/// A handshake that completes is no service yet: that is a byte.
fn call(to: SocketAddr) -> std::io::Result<std::net::TcpStream> {
    let mut client = connect_from(address(NEAR_V4), to)?;
    client.set_read_timeout(Some(PATIENCE))?;
    client.read_exact(&mut [0])?;
    Ok(client)
}
