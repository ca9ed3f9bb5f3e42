//! A flood of one tenant, or service, takes nothing of what its neighbour is guaranteed.

use anyhow::{Context, Result, ensure};
use std::{net::SocketAddr, thread, time::Duration};
use throttle_tests::{
    bulkheads::{BETWEEN, Between, HELD, Rates, TIMES, frame},
    clients::HTTP,
    generator::{Counter, Flood, Sender},
    kernel::{NEVER, Order},
    machine, needs_root,
    nginx::Server,
    paced::ask_at,
    program::{Program, SECOND},
    say,
    wire::{FAR_V4, Wire},
};

/// In connections a second; the host holds a fifth of a second too, which is how long its senders may pause.
const RATES: Rates = Rates { host: 50_000, ceiling: 40_000, guarantee: 20_000, burst: 50_000 / HELD };
/// How long a sender may be kept from sending, so that no bucket runs over.
const PAUSE: u64 = SECOND / HELD * 3 / 4;
const SPAN: u64 = 2 * SECOND;
/// Where a real server answers: A may have all that the host admits, and without its guarantee B would have of that no more
/// than a five-hundredth, as of all that comes.
const SERVED: Rates = Rates { host: 10_000, ceiling: 10_000, guarantee: 200, burst: 10_000 / HELD };

#[test]
fn a_neighbour_at_its_guarantee_loses_nothing_and_the_flood_gets_the_rest() -> Result<()> {
    needs_root!();
    let _machine = machine::alone()?;
    for between in BETWEEN {
        for cpus in 1..=machine::cpus().min(2) {
            settle(between, cpus)?;
        }
    }
    Ok(())
}

/// Floods until no sender was kept from sending for so long that the host's bucket ran over.
fn settle(between: Between, cpus: usize) -> Result<()> {
    const ATTEMPTS: usize = 5;
    for _ in 0..ATTEMPTS {
        if withstand(between, cpus)? {
            return Ok(());
        }
    }
    anyhow::bail!("other processes keep the senders from sending: measured {ATTEMPTS} times in vain")
}

/// Floods from so many CPUs, the last of which also sends what B is guaranteed. Whether no sender was kept from sending
/// for longer than buckets hold, and the flood got all that was left.
fn withstand(between: Between, cpus: usize) -> Result<bool> {
    let wire = Wire::silent()?;
    let mut program = Program::live(&between.policy(RATES))?;
    program.attach(&wire)?;
    let order = |steady| Order { catch_up: SECOND / HELD / 2, begin: NEVER, ..between.order(RATES, steady) };
    let counter = Counter::on(&wire, order(true))?;
    let sender = Sender::on(&wire)?;
    let last = machine::cpus() - 1;
    let senders = machine::cpus() - cpus..machine::cpus();
    let start = |cpu| sender.start_steady(&wire.near, cpu, &frame(), order(cpu == last));
    let mut floods = senders.clone().map(start).collect::<Result<Vec<_>>>()?;
    let begin = machine::monotonic() + SECOND / 4;
    let end = begin + SPAN;
    for (cpu, flood) in senders.zip(&mut floods) {
        flood.follow(Order { begin, end, ..order(cpu == last) })?;
    }
    thread::sleep(Duration::from_nanos(end.saturating_sub(machine::monotonic())));
    let sent = Flood::stop_all(floods)?;
    ensure!(wire.lost()? == 0, "the wire lost packets");
    let received = counter.received()?;
    let (flood, honest) = sent.iter().fold((0, 0), |sum, it| (sum.0 + it.flood, sum.1 + it.honest));
    let first = sent.iter().map(|sent| sent.first).min().context("a flood ran")?;
    let last = sent.iter().map(|sent| sent.last).max().context("a flood ran")?;
    let pause = sent.iter().map(|sent| sent.pause).max().context("a flood ran")?;
    let all = RATES.burst as f64 + RATES.host as f64 * (last - first) as f64 / SECOND as f64;
    let due = all - honest as f64;
    say!(
        "between {}, {cpus} CPU{}: {} of {honest} of the neighbour's came through; of {flood} of the flood {}, {due:.1} \
         due ({:+.3} %)",
        between.name(),
        if cpus == 1 { "" } else { "s" },
        received.honest,
        received.other,
        (received.other as f64 / due - 1.0) * 100.0,
    );
    ensure!(honest as f64 >= 0.9 * RATES.guarantee as f64 * (SPAN / SECOND) as f64, "the neighbour sent too little");
    ensure!(received.honest == honest, "the neighbour lost {} of {honest}", honest - received.honest);
    ensure!(flood >= (TIMES - 1) * RATES.ceiling * (SPAN / SECOND), "only {flood} packets were a flood");
    ensure!(received.other as f64 <= 1.01 * due, "the flood got {} of {due}", received.other);
    let settled = pause < PAUSE && received.other as f64 >= 0.99 * due;
    if !settled {
        say!("a sender was paused for {} ms; once more", pause / 1_000_000);
    }
    Ok(settled)
}

#[test]
fn a_web_server_answers_the_neighbour_every_request() -> Result<()> {
    needs_root!();
    let _machine = machine::alone()?;
    for between in BETWEEN {
        let wire = Wire::new()?;
        let _server = Server::on(&wire.far)?;
        let mut program = Program::live(&between.policy(SERVED))?;
        program.attach(&wire)?;
        let sender = Sender::on(&wire)?;
        let flood = sender.start_steady(&wire.near, machine::cpus() - 1, &frame(), between.order(SERVED, false))?;
        let server = SocketAddr::new(FAR_V4.parse()?, HTTP);
        let answers = ask_at(&wire.near, server, SERVED.guarantee as u32, Duration::from_secs(2))?;
        let sent = flood.stop()?;
        let host = program.limit("host")?;
        say!(
            "between {}: nginx answered {} requests beside a flood of {}; {} connections were admitted in all",
            between.name(),
            answers.latencies.len(),
            sent.flood,
            host.admitted.packets,
        );
        ensure!(answers.lost.is_empty(), "the neighbour's requests were lost: {:?}", answers.lost);
        ensure!(sent.flood > 4 * host.admitted.packets, "it was no flood: {} of {host:?}", sent.flood);
    }
    Ok(())
}
