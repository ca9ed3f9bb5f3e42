//! What is measured though strangers send what they like: segments of no connection, and of those of others.

use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    os::fd::AsFd as _,
    sync::atomic::{AtomicU16, AtomicU32, Ordering::SeqCst},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use throttle_common::{packet::tcp, words::Speaks};
use throttle_tests::{
    needs_root,
    program::Program,
    say,
    slow::at,
    stranger::Stranger,
    wire::{FAR_V4, NEAR_V4, Wire},
};

use super::{POLICY, PORT, WIDTH, serve};

/// Sources that nobody has, and how much is sent of each kind before the first honest request.
const STRANGERS: [&str; 2] = ["10.98.77.1", "10.98.77.2"];
const FIRST: u32 = 40_000;
/// Honest connections, and requests of each.
const CLIENTS: u32 = 6;
const REQUESTS: u32 = 10;
/// A flag of TCP that nobody here else needs.
const PUSH: u8 = 8;
const TAKES: Duration = Duration::from_millis(5);

/// Sends stray acknowledgements and stray data, and data as if of the connection from this port, until told to end.
fn flood(wire: &Wire, port: &AtomicU16, sent: &AtomicU32, ends: &AtomicU32) -> Result<()> {
    let strangers = STRANGERS.map(|source| Stranger::new(wire, source, at(FAR_V4, PORT)));
    let thief = Stranger::new(wire, NEAR_V4, at(FAR_V4, PORT))?;
    let mut number = 1_u32;
    while ends.load(SeqCst) == 0 {
        for stranger in &strangers {
            let stranger = stranger.as_ref().map_err(|error| anyhow::anyhow!("{error:#}"))?;
            let (from, numbers) = ((1_024 + number % 60_000) as u16, [number.wrapping_mul(0x9e37_79b9), number]);
            stranger.says(from, numbers, tcp::ACK, 0)?;
            stranger.says(from, numbers, tcp::ACK | PUSH, 64)?;
        }
        let stolen = port.load(SeqCst);
        if stolen != 0 {
            thief.says(stolen, [number.wrapping_mul(0x9e37_79b9), number], tcp::ACK | PUSH, 64)?;
        }
        number = number.wrapping_add(1);
        sent.fetch_add(1, SeqCst);
    }
    Ok(())
}

/// A connection with its requests, and how long the quickest answer took its server.
fn converse(wire: &Wire, port: &AtomicU16) -> Result<Duration> {
    let listener = wire.far.enter(|| TcpListener::bind((FAR_V4, PORT)))??;
    thread::scope(|scope| {
        let server = scope.spawn(|| serve(&listener, [b'A'; 64], TAKES));
        let mut stream = wire.near.enter(|| TcpStream::connect((FAR_V4, PORT)))??;
        port.store(stream.local_addr()?.port(), SeqCst);
        for _ in 0..REQUESTS {
            stream.write_all(&[b'G'; 64])?;
            stream.read_exact(&mut [0; 64])?;
            // Data of others comes while nothing is asked, too.
            thread::sleep(Duration::from_millis(2));
        }
        port.store(0, SeqCst);
        drop(stream);
        server.join().expect("it does not panic")
    })
}

#[test]
fn no_segment_that_belongs_to_no_connection_changes_what_is_measured() -> Result<()> {
    needs_root!();
    let wire = Wire::new()?;
    let mut program = Program::on(&wire, POLICY)?;
    let clock = program.measure_first(Speaks::Http)?;
    let (port, sent, ends) = (AtomicU16::new(0), AtomicU32::new(0), AtomicU32::new(0));
    let least = thread::scope(|scope| {
        let flood = scope.spawn(|| flood(&wire, &port, &sent, &ends));
        while sent.load(SeqCst) < FIRST && !flood.is_finished() {
            thread::sleep(Duration::from_millis(10));
        }
        let least: Result<Vec<_>> = (0..CLIENTS).map(|_| converse(&wire, &port)).collect();
        ends.store(1, SeqCst);
        flood.join().expect("it does not panic").and(least)
    })?;
    let answers = program.datapath.answers(clock)?;
    let median = answers.median().context("there were answers")?;
    let honest = u64::from(CLIENTS * REQUESTS);
    say!(
        "{} rounds of strays: {} requests, {} answers in {median:?}, {} resets",
        sent.load(SeqCst),
        answers.requests(),
        answers.answers(),
        answers.resets()
    );
    assert_eq!([answers.requests(), answers.answers(), answers.resets()], [honest, honest, 0]);
    let least = least.into_iter().min().context("there were servers")?;
    ensure!(median * (100 + WIDTH) / 100 >= least, "{median:?} measured, servers took {least:?}");
    Ok(())
}

/// How a connection ends in the middle of a request.
#[derive(Clone, Copy, Debug)]
enum End {
    ClientResets,
    ServerCloses,
    ServerResets,
}

#[test]
fn a_request_that_ends_without_an_answer_waits_no_more() -> Result<()> {
    needs_root!();
    let wire = Wire::new()?;
    let mut program = Program::on(&wire, POLICY)?;
    let clock = program.measure_first(Speaks::Http)?;
    let at_once = |stream: &TcpStream| rustix::net::sockopt::set_socket_linger(stream.as_fd(), Some(Duration::ZERO));
    for (end, resets) in [(End::ClientResets, 0), (End::ServerCloses, 0), (End::ServerResets, 1)] {
        let before = program.datapath.answers(clock)?;
        let listener = wire.far.enter(|| TcpListener::bind((FAR_V4, PORT)))??;
        let mut client = wire.near.enter(|| TcpStream::connect((FAR_V4, PORT)))??;
        let (mut server, _) = listener.accept()?;
        client.write_all(b"half of")?;
        server.read_exact(&mut [0; 7])?;
        let waits = program.datapath.answers(clock)?.since(&before);
        assert_eq!((waits.requests(), waits.waiting()), (1, 1), "{end:?}");
        match end {
            End::ClientResets => at_once(&client)?,
            End::ServerCloses => {}
            End::ServerResets => at_once(&server)?,
        }
        if matches!(end, End::ClientResets) {
            drop(client);
            ensure!(server.read(&mut [0]).is_err(), "it is reset");
        } else {
            drop(server);
            ensure!(!matches!(client.read(&mut [0]), Ok(1..)), "it ends");
        }
        let ended = program.datapath.answers(clock)?.since(&before);
        assert_eq!((ended.waiting(), ended.resets(), ended.answers()), (0, resets, 0), "{end:?}");
    }
    Ok(())
}

#[test]
fn a_client_that_is_slow_to_ask_is_no_server_that_is_slow_to_answer() -> Result<()> {
    needs_root!();
    let wire = Wire::new()?;
    let mut program = Program::on(&wire, POLICY)?;
    for (speaks, whole, rest) in [(Speaks::Http, b'P', b'P'), (Speaks::Tls, 0x17, 0)] {
        let clock = program.measure_first(speaks)?;
        let before = program.datapath.answers(clock)?;
        let listener = wire.far.enter(|| TcpListener::bind((FAR_V4, PORT)))??;
        let server = thread::spawn(move || serve(&listener, [whole; 64], TAKES));
        let mut client = wire.near.enter(|| TcpStream::connect((FAR_V4, PORT)))??;
        client.set_nodelay(true)?;
        for part in 0..8 {
            client.write_all(&[if part == 0 { whole } else { rest }; 8])?;
            thread::sleep(Duration::from_millis(if part < 7 { 50 } else { 0 }));
        }
        client.read_exact(&mut [0; 64])?;
        drop(client);
        let least = server.join().expect("it does not panic")?;
        let answers = program.datapath.answers(clock)?.since(&before);
        let took = answers.median().context("there was an answer")?;
        say!("{speaks:?}: asked for 350 ms, answered within {least:?}, measured {took:?}");
        assert_eq!((answers.requests(), answers.answers()), (1, 1));
        ensure!(took * (100 + WIDTH) / 100 >= least && took < Duration::from_millis(150), "{took:?} measured");
    }
    Ok(())
}
