//! The time to first byte that the kernel measures, against real servers and clients at both ends of a wire: never less
//! than the server took, never more than the client waited.

mod forged;

use anyhow::{Context as _, Result, ensure};
use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    thread,
    time::{Duration, Instant},
};
use throttle_common::{exchanges::MOST_SAMPLE_SHIFT, words::Speaks};
use throttle_tests::{
    needs_root,
    program::Program,
    say,
    wire::{FAR_V4, FAR_V6, Wire},
};

const PORT: u16 = 8080;
const POLICY: &str = "mode = \"enforce\"\n[[service]]\nname = \"web\"\nprotocol = \"tcp\"\nports = [8080]\n";
/// Requests of one connection, one after the other.
const REQUESTS: u32 = 20;
/// A buckets' width, in parts of a hundred: times are known no better.
const WIDTH: u32 = 25;

/// What begins every message: a TLS record of application data is told by its first byte.
type Message = [u8; 64];

/// Answers every request on one connection after `delay`, and gives the shortest time that it took itself.
fn serve(listener: &TcpListener, answer: Message, delay: Duration) -> Result<Duration> {
    let (mut stream, _) = listener.accept().context("accept")?;
    let mut least = Duration::MAX;
    let mut request: Message = [0; 64];
    while stream.read_exact(&mut request).is_ok() {
        let heard = Instant::now();
        thread::sleep(delay);
        least = least.min(heard.elapsed());
        stream.write_all(&answer)?;
    }
    Ok(least)
}

/// Asks again and again on one connection, and gives the longest time that an answer took.
fn ask(address: &str, request: Message, times: u32) -> Result<Duration> {
    let mut stream = TcpStream::connect((address, PORT)).context("connect")?;
    stream.set_nodelay(true)?;
    let mut longest = Duration::ZERO;
    for _ in 0..times {
        let begun = Instant::now();
        stream.write_all(&request)?;
        stream.read_exact(&mut [0; 64])?;
        longest = longest.max(begun.elapsed());
    }
    Ok(longest)
}

/// One connection with its requests: what the server took at the least, and the client waited at the most.
fn converse(wire: &Wire, address: &str, request: Message, delay: Duration) -> Result<[Duration; 2]> {
    let listener = wire.far.enter(|| TcpListener::bind((address, PORT)))??;
    thread::scope(|scope| {
        let server = scope.spawn(|| serve(&listener, request, delay));
        let longest = wire.near.enter(|| ask(address, request, REQUESTS))??;
        let least = server.join().expect("it does not panic")?;
        Ok([least, longest])
    })
}

#[test]
fn what_is_measured_lies_between_what_the_server_took_and_what_the_client_waited() -> Result<()> {
    needs_root!();
    let wire = Wire::new()?;
    let mut program = Program::on(&wire, POLICY)?;
    let clock = program.measure_first(Speaks::Http)?;
    for (address, delay) in [(FAR_V4, 3), (FAR_V4, 40), (FAR_V6, 12)] {
        let before = program.datapath.answers(clock)?;
        let [least, longest] = converse(&wire, address, [b'G'; 64], Duration::from_millis(delay))?;
        let answers = program.datapath.answers(clock)?.since(&before);
        let median = answers.median().context("there were answers")?;
        say!("{address}: server {least:?} at least, measured {median:?}, client {longest:?} at most");
        assert_eq!([answers.requests(), answers.answers()], [u64::from(REQUESTS); 2]);
        ensure!(median * (100 + WIDTH) / 100 >= least, "{median:?} measured, the server took {least:?}");
        let most = answers.percentile(100.0).context("there were answers")?;
        ensure!(most * 100 / (100 + WIDTH) <= longest, "{most:?} measured, the client waited {longest:?}");
    }
    Ok(())
}

#[test]
fn within_tls_only_application_data_begins_an_exchange() -> Result<()> {
    needs_root!();
    let wire = Wire::new()?;
    let mut program = Program::on(&wire, POLICY)?;
    let clock = program.measure_first(Speaks::Tls)?;
    for (kind, expected) in [(0x16, 0), (0x17, u64::from(REQUESTS))] {
        let before = program.datapath.answers(clock)?;
        let _ = converse(&wire, FAR_V4, [kind; 64], Duration::from_millis(2))?;
        let answers = program.datapath.answers(clock)?.since(&before);
        assert_eq!([answers.requests(), answers.answers()], [expected; 2], "{kind:#x}");
    }
    Ok(())
}

#[test]
fn a_service_that_is_not_measured_and_connections_that_are_not_sampled_are_left_alone() -> Result<()> {
    needs_root!();
    let wire = Wire::new()?;
    let mut program = Program::on(&wire, POLICY)?;
    let clock = program.compiled.services[0].clock;
    let _ = converse(&wire, FAR_V4, [b'G'; 64], Duration::from_millis(2))?;
    assert_eq!(program.datapath.answers(clock)?.requests(), 0, "nobody asked for it");
    program.measure_first(Speaks::Http)?;
    program.change(|compiled| compiled.policy.sample_shift = MOST_SAMPLE_SHIFT)?;
    for _ in 0..5 {
        let _ = converse(&wire, FAR_V4, [b'G'; 64], Duration::from_millis(1))?;
    }
    let answers = program.datapath.answers(clock)?;
    // One connection of 65 536 would be; of those that are, all is.
    ensure!(answers.requests().is_multiple_of(REQUESTS.into()) && answers.requests() <= REQUESTS.into(), "{answers:?}");
    Ok(())
}
