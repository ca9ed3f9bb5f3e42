//! What `explain` says of a source's next connection is what becomes of it, also where the table has no place for it.

use super::{address, eventually, host::Host};
use anyhow::{Result, bail, ensure};
use std::{
    io::ErrorKind,
    net::{SocketAddr, TcpListener, TcpStream},
};
use throttle_common::words::{Outcome, Reason};
use throttle_tests::{
    frames::Dice,
    machine, needs_root, say,
    wire::{FAR_V4, NEAR},
};

/// Sources that want connections, and how often one of them asks or hangs up.
const SOURCES: usize = 16;
const TURNS: usize = 120;

/// A connection, and whether it has a place.
type Open = (TcpStream, TcpStream, bool);

#[test]
fn the_next_connection_is_served_or_refused_as_explain_says_whatever_the_overflow_rule() -> Result<()> {
    needs_root!();
    let given = std::env::var("THROTTLE_TESTS_SEED").ok().and_then(|text| text.parse().ok());
    let seed = given.unwrap_or_else(machine::monotonic);
    say!("connections: THROTTLE_TESTS_SEED={seed}");
    let mut dice = Dice::new(seed);
    for overflow in ["refuse", "aggregate", "admit"] {
        let mut host = Host::new()?;
        for source in (0..SOURCES).map(name) {
            host.wire.near.ip(&["address", "add", &format!("{source}/16"), "dev", NEAR])?;
        }
        let listener = host.listen(FAR_V4)?;
        listener.set_nonblocking(true)?;
        let to = SocketAddr::new(address(FAR_V4), listener.local_addr()?.port());
        let limit = format!("concurrent = 2\nsources = 4\noverflow = \"{overflow}\"\naction = \"reject\"");
        host.limit(to.port(), &[&limit])?;
        let (mut open, mut refused, mut overflown): (Vec<Open>, _, _) = (Vec::new(), 0, 0);
        for _ in 0..TURNS {
            if !open.is_empty() && dice.below(4) == 0 {
                let (client, server, counted) = open.swap_remove(dice.below(open.len()));
                let left = host.connections()? - usize::from(counted);
                drop((client, server));
                eventually(&left, || host.connections())?;
                continue;
            }
            let source = name(dice.below(SOURCES));
            let (told, held) = (host.explain(address(&source), to.port())?.verdict, host.connections()?);
            if told.outcome == Outcome::Pass {
                let Ok(client) = host.connect(Some(&source), to)? else { bail!("{source} is refused, but {told:?}") };
                let server = accept(&listener)?;
                open.push((client, server, host.connections()? > held));
            } else {
                let met = host.connect(Some(&source), to)?.err().map(|error| error.kind());
                ensure!(met == Some(ErrorKind::ConnectionRefused), "{source} met {met:?}, but {told:?}");
                refused += 1;
                overflown += usize::from(told.reason == Reason::SourceOverflow);
            }
        }
        let uncounted = open.iter().filter(|(.., counted)| !counted).count();
        say!(
            "{overflow}: {} open, {uncounted} of them uncounted; {refused} refused, {overflown} overflown",
            open.len()
        );
        ensure!((overflow == "admit") == (uncounted > 0), "{uncounted} are uncounted");
        ensure!((overflow == "admit") == (overflown == 0), "{overflown} found no place");
    }
    Ok(())
}

fn name(source: usize) -> String {
    format!("10.98.1.{}", source + 1)
}

fn accept(listener: &TcpListener) -> Result<TcpStream> {
    let mut accepted = None;
    eventually(&true, || {
        accepted = listener.accept().ok();
        Ok(accepted.is_some())
    })?;
    Ok(accepted.expect("there was one").0)
}
