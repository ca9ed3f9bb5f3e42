//! A real nginx behind throttle with the full policy, and behind a bare XDP_PASS: what wrk gets out of it with a connection
//! for each request, and how long a request takes that an open-loop client makes at a constant rate.

use super::{
    beside::bare,
    chart, median,
    report::{Effort, Section},
};
use anyhow::{Context, Result, ensure};
use aya::Ebpf;
use std::{fmt::Write as _, net::SocketAddr, time::Duration};
use throttle_tests::{
    agent::{Agent, Site},
    clients::{HTTP, wrk},
    nginx::Server,
    paced::ask_at,
    policies::{self, Difference, PORT},
    wire::{FAR, FAR_V4, Wire},
};

const ROUNDS: usize = 5;
const SPAN: Duration = Duration::from_secs(5);
const CONNECTIONS: u32 = 32;
/// Well below what nginx can do here, so that a latency is no queue's.
const PER_SECOND: u32 = 1_000;

/// What a round has measured: requests a second, and the latencies in microseconds below which half and 99 % lie.
type Figures = [f64; 3];

const NAMES: [&str; 2] = ["bare XDP_PASS", "throttle, full policy"];

/// Measures, and gives the table.
pub(super) fn measure(effort: Effort) -> Result<Section> {
    let (rounds, span) = (effort.rounds(ROUNDS), effort.span(SPAN));
    let wires = [Wire::new()?, Wire::new()?];
    let site = Site::on(&wires[1].far)?;
    let _bare: Ebpf = bare(&wires[0].far, "pass")?;
    let _agent: Agent = site.start(&["--interface", FAR])?;
    let policy = policies::full(Difference { allow_all: false, block_all: false, strict: None });
    // nginx in the place of the first service.
    site.apply(&policy.replace(&format!("[{PORT}]"), &format!("[{HTTP}]")))?;
    let _servers = [Server::on(&wires[0].far)?, Server::on(&wires[1].far)?];
    let mut cells = [const { [const { Vec::new() }; 3] }; 2];
    for round in 1..=rounds {
        eprintln!("round {round} of {rounds}");
        for ((wire, cells), name) in wires.iter().zip(&mut cells).zip(NAMES) {
            let figures = load(wire, span).context(name)?;
            figures.into_iter().zip(cells).for_each(|(figure, cell)| cell.push(figure));
        }
    }
    report(&cells.map(|row| row.map(median)), rounds)
}

fn load(wire: &Wire, span: Duration) -> Result<Figures> {
    let server: SocketAddr = format!("{FAR_V4}:{HTTP}").parse()?;
    let each_second = wrk(&wire.near, server.ip(), span, CONNECTIONS)? as f64 / span.as_secs_f64();
    let answers = ask_at(&wire.near, server, PER_SECOND, span)?;
    ensure!(answers.lost.is_empty(), "requests were not answered: {:?}", answers.lost);
    let micros = |percent| answers.percentile(percent).as_secs_f64() * 1e6;
    Ok([each_second, micros(50), micros(99)])
}

fn report(rows: &[Figures; 2], rounds: usize) -> Result<Section> {
    let mut text = format!(
        "nginx, a connection for each request, median of {rounds} alternating rounds: wrk with {CONNECTIONS} connections, then \
         an open-loop client that asks {PER_SECOND} times a second; its latencies run from when a request was due.\n\n\
         | before nginx | requests a second | p50, us | p99, us |\n|---|---:|---:|---:|\n"
    );
    for (name, [served, half, most]) in NAMES.iter().zip(rows) {
        writeln!(text, "| {name} | {served:.0} | {half:.0} | {most:.0} |")?;
    }
    let change = |figure: usize| (rows[1][figure] / rows[0][figure] - 1.0) * 100.0;
    writeln!(text, "\nThroughput {:+.1} %, p99 {:+.1} % (goal: within 2 %).", change(0), change(2))?;
    let mut section = Section::from(text);
    let title = "A request to nginx behind throttle";
    let bars: Vec<_> = NAMES.iter().zip(rows).map(|(name, row)| (*name, vec![Some(row[1]), Some(row[2])])).collect();
    section.draw("web", title, chart::bars(title, "microseconds", &["half within", "99 % within"], &bars));
    Ok(section)
}
