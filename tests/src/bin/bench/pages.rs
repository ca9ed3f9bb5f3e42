//! What a refused request costs that is answered with 429: by throttle before there is a socket, and by nginx's `limit_req`;
//! beside a packet that is dropped.
//!
//! Of throttle every packet of such a connection is run by itself (`BPF_PROG_TEST_RUN`), because each leaves another frame
//! behind; what is around a run is in each figure, that of the bare drop included. nginx is asked by wrk over the veth, and so
//! is throttle; what nginx takes of a CPU is its processes' own time.

use super::{
    agent::cpu_time,
    beside::bare,
    median,
    report::{Effort, Section},
    seized_here,
};
use anyhow::{Context, Result, ensure};
use aya::programs::{TestRun as _, TestRunOptions, Xdp};
use std::{fmt::Write as _, time::Duration};
use throttle_common::packet::tcp;
use throttle_tests::{
    clients::wrk_within,
    frames::{Checked, Frame},
    generator::Sender,
    kernel,
    netns::Namespace,
    nginx::Server,
    program::{Program, action},
    wire::{FAR_V4, NEAR_V4, Wire},
};

/// Runs of each packet.
const RUNS: usize = 20_000;
const ROUNDS: usize = 5;
const SPAN: Duration = Duration::from_secs(4);
const CONNECTIONS: u32 = 16;

const POLICY: &str = "mode = \"enforce\"\n[[service]]\nname = \"web\"\nprotocol = \"tcp\"\nports = [80]\n[service.http]\n\
                      [[limit]]\nname = \"opens\"\nservice = \"web\"\nunit = \"connections\"\nrate = \"1/day\"\n\
                      action = \"reject\"\n[answers]\nrate = \"10000000/s\"\n";

/// Measures, and gives the tables.
pub(super) fn measure(effort: Effort) -> Result<Section> {
    let runs = if effort.short { RUNS / 100 } else { RUNS };
    let packets = packets(runs)?;
    let rounds = effort.rounds(ROUNDS);
    let (mut throttle, mut nginx) = (Vec::new(), Vec::new());
    for round in 1..=rounds {
        eprintln!("round {round} of {rounds}");
        throttle.push(asked_of_throttle(effort.span(SPAN))?);
        nginx.push(asked_of_nginx(effort.span(SPAN))?);
    }
    report(&packets, runs, (median(throttle), &nginx), rounds)
}

fn report(packets: &Packets, runs: usize, (throttle, nginx): (f64, &[(f64, f64)]), rounds: usize) -> Result<Section> {
    let mut text = format!(
        "Nanoseconds of each packet of a connection that is refused, `BPF_PROG_TEST_RUN`, median of {runs} single runs.\n\n\
         | packet | its answer | nanoseconds |\n|---|---|---:|\n| any | none: bare XDP_DROP | {} |\n",
        packets.drop
    );
    for ((name, answer, _, _), nanos) in KINDS.iter().zip(packets.kinds) {
        writeln!(text, "| {name} | {answer} | {nanos} |")?;
    }
    let each: u32 = packets.kinds.iter().sum();
    let per_core = 1e9 / f64::from(each);
    let (served, cpu) = (median(nginx.iter().map(|it| it.0).collect()), median(nginx.iter().map(|it| it.1).collect()));
    write!(
        text,
        "\nRefused requests, median of {rounds} rounds in turns: what wrk with {CONNECTIONS} connections is answered with 429 \
         over a veth, client and server on the same CPUs; and what one core can do by the time that it takes of a CPU.\n\n\
         | who answers | 429s a second, wrk | CPU time of one | one core, by that |\n|---|---:|---:|---:|\n\
         | throttle, its program alone | {throttle:.0} | {:.2} us | {:.0}/s |\n\
         | nginx `limit_req`, its processes alone | {served:.0} | {cpu:.2} us | {:.0}/s |\n\
         | nobody: bare XDP_DROP of its first packet | | {:.2} us | {:.0}/s |\n\n\
         - throttle answers {:.1} times as many of wrk's requests with 429 as nginx, and takes 1/{:.0} of its CPU time for \
         each. Neither figure of CPU time has what the kernel does around it: drivers, and for nginx its sockets.\n",
        f64::from(each) / 1e3,
        per_core,
        1e6 / cpu,
        f64::from(packets.drop) / 1e3,
        1e9 / f64::from(packets.drop),
        throttle / served,
        cpu * 1e3 / f64::from(each),
    )?;
    Ok(text.into())
}

/// A packet, its answer, its flags, and whether it has payload.
const KINDS: [(&str, &str, u8, usize); 4] = [
    ("SYN", "SYN-ACK", tcp::SYN, 0),
    ("acknowledgement of that", "none", tcp::ACK, 0),
    ("request of 77 bytes", "429", tcp::PSH | tcp::ACK, 77),
    ("end of the connection", "acknowledgement", tcp::FIN | tcp::ACK, 0),
];

/// Nanoseconds of each.
struct Packets {
    drop: u32,
    kinds: [u32; KINDS.len()],
}

fn packets(runs: usize) -> Result<Packets> {
    let program = Program::live(POLICY)?;
    let frame = |flags, acknowledged, payload| {
        Frame::from(NEAR_V4).to(FAR_V4).tcp(40_000, 80, flags).acknowledging(acknowledged).payload(payload).bytes()
    };
    let syn = frame(tcp::SYN, 0, 0);
    program.act(&syn)?;
    let answered = |asked: &[u8]| -> Result<(u32, usize)> {
        let run = program.datapath.test_run(asked, 1)?;
        ensure!(run.action == action::TX, "a packet of a refused connection met {}", run.action);
        let segment = Checked::of(&run.frame).map_err(anyhow::Error::msg)?.segment;
        Ok((u32::from_be_bytes(segment[4..8].try_into()?).wrapping_add(1), segment.len() - 20))
    };
    let since = answered(&syn)?.0;
    let request = frame(tcp::ACK, since, 77);
    let behind = since.wrapping_add(answered(&request)?.1 as u32 + 1);
    let mut object = kernel::load(64)?;
    let bare: &Xdp = kernel::xdp(&mut object, "drop")?;
    let dropped = |frame: &[u8]| -> Result<u32> {
        let options = TestRunOptions { data_in: Some(frame), ..TestRunOptions::default() };
        Ok(bare.test_run(options)?.duration.as_nanos() as u32)
    };
    let often = |run: &dyn Fn() -> Result<u32>| -> Result<u32> {
        Ok(median((0..runs).map(|_| run()).collect::<Result<Vec<_>>>()?))
    };
    let measure = || {
        let mut kinds = [0; KINDS.len()];
        for ((name, _, flags, payload), nanos) in KINDS.into_iter().zip(&mut kinds) {
            let acknowledged = if flags & tcp::FIN != 0 { behind } else { since };
            let frame = frame(flags, acknowledged, payload);
            *nanos = often(&|| Ok(program.datapath.test_run(&frame, 1)?.nanos)).context(name)?;
        }
        Ok(Packets { drop: often(&|| dropped(&syn))?, kinds })
    };
    // On a thread of its own the CPU is given back.
    let measured = seized_here(measure);
    let tally = program.datapath.page_tally()?;
    ensure!(tally.told > runs as u64 && tally.acknowledged >= runs as u64 && tally.cut == 0, "{tally:?}");
    measured
}

/// What wrk is answered with 429 in a second.
fn asked(near: &Namespace, span: Duration) -> Result<(f64, u64)> {
    let server = FAR_V4.parse()?;
    let requests = wrk_within(near, server, span, CONNECTIONS, Duration::from_secs(2))?;
    ensure!(requests.served - requests.failed < 3, "not every request was refused, and nothing else: {requests:?}");
    Ok((requests.served as f64 / span.as_secs_f64(), requests.served))
}

fn asked_of_throttle(span: Duration) -> Result<f64> {
    let wire = Wire::new()?;
    let _near = Sender::on(&wire)?;
    let _server = Server::on(&wire.far)?;
    let _program = Program::on(&wire, POLICY)?;
    Ok(asked(&wire.near, span)?.0)
}

/// The same, and the microseconds of a CPU that nginx takes for each.
fn asked_of_nginx(span: Duration) -> Result<(f64, f64)> {
    let wire = Wire::new()?;
    let _near = Sender::on(&wire)?;
    let server = Server::limiting_on(&wire.far)?;
    // Attached it turns offloads off at the other end, as throttle does.
    let _bare = bare(&wire.far, "pass")?;
    let processes = server.processes()?;
    let used = || processes.iter().map(|&process| cpu_time(process)).sum::<Result<f64>>();
    let before = used()?;
    let (rate, requests) = asked(&wire.near, span)?;
    Ok((rate, (used()? - before) * 1e6 / requests as f64))
}
