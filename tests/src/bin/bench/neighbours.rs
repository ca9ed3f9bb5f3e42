//! Two services on one host, one of which fails: it is asked for twice what it can do, and has lost 60 % of that. The other
//! is a real nginx, asked by an open loop. Beside it the same with what is for the failing one meeting a bare XDP_DROP.

use super::{
    median,
    report::{Effort, Section},
};
use anyhow::{Context, Result, ensure};
use aya::{Ebpf, maps::Array, programs::XdpMode};
use std::{fmt::Write as _, net::SocketAddr, thread, time::Duration};
use throttle_agent::health::MILLISECOND;
use throttle_tests::{
    agent::Site,
    demand,
    generator::Sender,
    kernel::{self, Order},
    nginx::{BESIDE, Server},
    overload::Guard,
    paced::ask_at,
    simulator::scenario::{OBJECTIVE, Phase},
    wire::{FAR, FAR_V4, Wire},
    workers::Workers,
};

const ROUNDS: usize = 5;
const SPAN: Duration = Duration::from_secs(8);
/// So seldom that no latency is a queue's.
const PER_SECOND: u32 = 200;
const LOAD: f64 = 2.0;
const LEFT: f64 = 0.4;
const GUARDS: [&str; 2] = ["bare XDP_DROP", "throttle, by health"];

/// What a round has measured of the service that is well: answers of what was asked for, and microseconds.
struct Served {
    goodput: f64,
    half: f64,
    most: f64,
}

/// Measures, and gives the table.
pub(super) fn measure(effort: Effort) -> Result<Section> {
    let (rounds, span) = (effort.rounds(ROUNDS), effort.span(SPAN));
    let wires = [Wire::new()?, Wire::new()?];
    let _near = [Sender::on(&wires[0])?, Sender::on(&wires[1])?];
    let _beside = [Server::beside_on(&wires[0].far)?, Server::beside_on(&wires[1].far)?];
    wires.iter().try_for_each(|wire| demand::add_sources(&wire.near))?;
    let _bare = bare(&wires[0])?;
    let site = Site::on(&wires[1].far)?;
    let _agent = site.start(&["--interface", FAR, "--mode=native"])?;
    site.apply(&Guard::Health.policy().context("a policy")?)?;
    let mut rows = [const { Vec::new() }; 2];
    for round in 1..=rounds {
        eprintln!("round {round} of {rounds}");
        for ((wire, row), name) in wires.iter().zip(&mut rows).zip(GUARDS) {
            row.push(serve(wire, span).context(name)?);
        }
    }
    let refused = site.limit("web")?.tallies.refused.packets;
    ensure!(refused > 0, "throttle has refused nothing: it was not there");
    report(&rows, rounds, refused)
}

fn report(rows: &[Vec<Served>; 2], rounds: usize, refused: u64) -> Result<Section> {
    let mut text = format!(
        "Service A fails: of its capacity {:.0} % is left, and it is asked for {LOAD} times the whole of it by clients that give \
         up and try again. Service B is an nginx on the same host that is asked {PER_SECOND} times a second, a connection for \
         each request, by an open loop; its latencies run from when a request was due. Median of {rounds} alternating \
         rounds.\n\n\
         | what is for A meets | B's answers within {} ms, of what was asked | p50, us | p99, us |\n|---|---:|---:|---:|\n",
        LEFT * 100.0,
        OBJECTIVE / MILLISECOND
    );
    let column = |row: &[Served], of: fn(&Served) -> f64| median(row.iter().map(of).collect());
    for (name, row) in GUARDS.iter().zip(rows) {
        let [goodput, half, most] = [|it: &Served| it.goodput, |it: &Served| it.half, |it: &Served| it.most]
            .map(|of: fn(&Served) -> f64| column(row, of));
        writeln!(text, "| {name} | {goodput:.4} | {half:.0} | {most:.0} |")?;
    }
    let [goodput, most] = [|it: &Served| it.goodput, |it: &Served| it.most]
        .map(|of: fn(&Served) -> f64| column(&rows[1], of) / column(&rows[0], of));
    writeln!(
        text,
        "\nB's goodput is {goodput:.3}x of that beside XDP_DROP, its p99 {most:.2}x (goals: within 5 %). Throttle refused A's \
         clients {refused} times."
    )?;
    Ok(Section::from(text))
}

/// Has both be asked: the failing one by whom it cannot serve, the other one at its pace.
fn serve(wire: &Wire, span: Duration) -> Result<Served> {
    let mut workers = Workers::on(&wire.far, &std::env::current_exe()?)?;
    workers.set_capacity(LEFT)?;
    let failing = [Phase { name: "failing", seconds: span.as_secs(), load: LOAD, capacity: LEFT }];
    let near = &wire.near;
    let answers = thread::scope(|scope| -> Result<_> {
        let asked = scope.spawn(|| demand::ask(near, &failing, |_| Ok(())));
        let answers = ask_at(near, SocketAddr::new(FAR_V4.parse()?, BESIDE), PER_SECOND, span);
        asked.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        answers
    })?;
    let micros = |percent| answers.percentile(percent).as_secs_f64() * 1e6;
    let all = answers.latencies.len() + answers.lost.len();
    let good = answers.latencies.iter().filter(|it| it.as_nanos() <= u128::from(OBJECTIVE)).count();
    Ok(Served { goodput: good as f64 / all.max(1) as f64, half: micros(50), most: micros(99) })
}

/// Puts the program on the far end that drops what the failing service's clients send.
fn bare(wire: &Wire) -> Result<Ebpf> {
    let mut object = kernel::load(64)?;
    let clients = Order { flood: demand::CLIENTS.0.into(), random: demand::CLIENTS.1.into(), ..Order::SILENT };
    Array::try_from(object.map_mut("SPREAD").context("no map SPREAD")?)?.set(0, clients, 0)?;
    let program = kernel::xdp(&mut object, "drop_flood")?;
    wire.far.enter(|| program.attach(FAR, XdpMode::Driver))?.context("attach drop_flood")?;
    Ok(object)
}
