//! What the agent takes of a CPU: idle, with 10^6 sources in debt, while `throttle top` looks at them, and with 100 000
//! connections whose count it holds against the sockets; how long one such reconciliation takes, and how long it is until the
//! kernel has what health decides, beside those sources.
//!
//! The agent is the real one, on a host of its own. Shares are CPU time of its process, and of the client's, by the time
//! that passed.

use super::{
    median,
    report::{Effort, Section},
    sockets::{held, listen},
};
use anyhow::{Context, Result, ensure};
use std::{
    fmt::Write as _,
    fs,
    process::Stdio,
    thread,
    time::{Duration, Instant},
};
use throttle_agent::datapath::{Datapath, Drift, Options};
use throttle_common::speed::Speed;
use throttle_tests::{
    agent::Site,
    frames::Frame,
    generator::Sender,
    kernel::Order,
    program::DEFAULT_SETS,
    wire::{FAR, Wire},
};

/// Sources that must be in debt.
const SOURCES: u64 = 1_000_000;
/// Sources that speak: 172.0.0.0 and up, every other one. Some find no place.
const SPEAKERS: u64 = 1 << 21;
/// A limit under which who has spoken once is in debt for all of the measurement, with half as many places again.
const LIMIT: &str = "mode = \"enforce\"\n[[limit]]\nname = \"packets\"\nunit = \"packets\"\nrate = \"1/h\"\nburst = 24\n\
                     sources = 1500000\n[[service]]\nname = \"web\"\nprotocol = \"tcp\"\nports = [80]\n\
                     [[limit]]\nname = \"open\"\nservice = \"web\"\nunit = \"connections\"\nconcurrent = 100\nsources = 1000\n";
const CONNECTIONS: u32 = 100_000;
/// How long a share is measured, after what came before has settled.
const SPAN: Duration = Duration::from_secs(10);
/// Several reconciliations long.
const LONG_SPAN: Duration = Duration::from_secs(40);
const SETTLED: Duration = Duration::from_secs(2);
const ROUNDS: usize = 7;
/// Decisions that are put in force, and the time between two: more than a clock asks for.
const DECISIONS: usize = 1_000;
const APART: Duration = Duration::from_millis(2);

/// Measures, and gives the table.
pub(super) fn measure(effort: Effort) -> Result<Section> {
    let (span, long_span) = (effort.span(SPAN), effort.span(LONG_SPAN));
    let wire = Wire::new()?;
    let site = Site::on(&wire.far)?;
    let agent = site.start(&["--interface", FAR])?;
    let process = [agent.process()];
    site.apply(LIMIT)?;
    let idle = share(&process, span)?;
    let busy = speak(&wire, &site)?;
    let alone = share(&process, span)?;
    let top = under_top(&site, agent.process(), span)?;
    let by_hand = set_speeds(&site, effort.rounds(3 * ROUNDS))?;
    agent.stop()?;
    let [speed, window] = decide(&wire, &site, if effort.short { DECISIONS / 10 } else { DECISIONS })?;

    let agent = site.start(&["--interface", FAR])?;
    let listener = listen(&wire.far)?;
    let port = listener.local_addr()?.port();
    site.apply(&counting(port))?;
    let held = held(&wire, &listener, CONNECTIONS)?;
    let counting = share(&[agent.process()], long_span)?;
    let counted = site.limit("open")?.open.context("the limit counts nothing")?;
    ensure!(counted == u64::from(CONNECTIONS), "{counted} of {CONNECTIONS} connections are counted");
    agent.stop()?;
    let (elapsed, used) = reconcile(&wire, &site)?;
    drop(held);

    let mut text = format!(
        "The agent's part of one CPU over {} s, the last row's over {} s.\n\n| what it does | of one CPU |\n|---|---:|\n",
        span.as_secs(),
        long_span.as_secs()
    );
    for (what, share) in [
        ("idle, no source in debt".to_owned(), idle),
        (format!("{busy} sources in debt, nobody looks"), alone),
        (format!("{busy} sources in debt, `throttle top` looks every second; with the client's part"), top),
        (format!("{CONNECTIONS} open connections to hold against the sockets"), counting),
    ] {
        writeln!(text, "| {what} | {:.1} % |", share * 100.0)?;
    }
    writeln!(
        text,
        "\n`throttle top` at {busy} sources costs {:.1} % of one CPU (goal: below 5 %).",
        (top - alone) * 100.0
    )?;
    writeln!(
        text,
        "Beside them the kernel has a new speed of a service {:.1} us after it is decided ({:.1} us at most of {DECISIONS}), a \
         new window after {:.1} us ({:.1} us): one write each, whatever the sources; `throttle speed set` returns after {:.1} ms \
         (goal: below 10 ms).",
        speed[0] * 1e6,
        speed[1] * 1e6,
        window[0] * 1e6,
        window[1] * 1e6,
        by_hand * 1e3
    )?;
    writeln!(
        text,
        "One reconciliation of {CONNECTIONS} connections takes {:.0} ms, {:.0} ms of them on a CPU; the agent waits a second \
         or 20 times that before the next, so that it takes {:.1} % of one CPU at most.",
        elapsed * 1e3,
        used * 1e3,
        used / (elapsed + (20.0 * used).max(1.0)) * 100.0
    )?;
    Ok(text.into())
}

/// A limit on the open connections to a port that none of them reaches.
fn counting(port: u16) -> String {
    format!(
        "mode = \"enforce\"\n[[service]]\nname = \"web\"\nprotocol = \"tcp\"\nports = [{port}]\n\
         [[limit]]\nname = \"open\"\nservice = \"web\"\nunit = \"connections\"\nconcurrent = {CONNECTIONS}\nsources = 10000\n"
    )
}

/// Has more than a million sources speak until they are in debt; gives how many are.
fn speak(wire: &Wire, site: &Site<'_>) -> Result<u64> {
    let sender = Sender::on(wire)?;
    let order = Order { honest: 172 << 24, turns: (SPEAKERS - 1) << 1, honest_interval: 0, ..Order::SILENT };
    let flood = sender.start(&wire.near, 0, &Frame::v4([172, 0, 0, 0]).length(60).bytes(), order)?;
    let start = Instant::now();
    let busy = loop {
        thread::sleep(Duration::from_millis(500));
        let busy = site.limit("packets")?.regions.iter().map(|region| region.busy).sum();
        if busy >= SOURCES {
            break busy;
        }
        ensure!(start.elapsed() < Duration::from_mins(1), "only {busy} sources are in debt");
    };
    flood.stop()?;
    Ok(busy)
}

/// What agent and client take while a client looks every second, as it does unless it is told otherwise.
fn under_top(site: &Site<'_>, agent: u32, span: Duration) -> Result<f64> {
    let mut top = site.command(["top", "--batch"])?;
    let mut top = top.stdin(Stdio::null()).stdout(Stdio::null()).spawn().context("start throttle top")?;
    let share = share(&[agent, top.id()], span);
    ensure!(top.try_wait()?.is_none(), "throttle top has ended");
    top.kill()?;
    top.wait()?;
    share
}

/// The part of one CPU that processes take together, once they have settled.
pub(super) fn share(processes: &[u32], span: Duration) -> Result<f64> {
    let used = || processes.iter().map(|&process| cpu_time(process)).sum::<Result<f64>>();
    thread::sleep(SETTLED);
    let (start, before) = (Instant::now(), used()?);
    thread::sleep(span);
    Ok((used()? - before) / start.elapsed().as_secs_f64())
}

/// Seconds that a process has been on a CPU, to the kernel's hundredth (proc_pid_stat(5)).
pub(super) fn cpu_time(process: u32) -> Result<f64> {
    let path = format!("/proc/{process}/stat");
    let stat = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    let (_, fields) = stat.rsplit_once(')').with_context(|| format!("read {path}: {stat}"))?;
    let ticks = fields.split_whitespace().skip(11).take(2).map(str::parse::<f64>);
    let ticks = ticks.sum::<Result<f64, _>>().with_context(|| format!("read {path}: {stat}"))?;
    Ok(ticks / rustix::param::clock_ticks_per_second() as f64)
}

/// Seconds that one reconciliation takes, and that it is on a CPU.
fn reconcile(wire: &Wire, site: &Site<'_>) -> Result<(f64, f64)> {
    wire.far.enter(|| {
        let datapath = open(site)?;
        let (mut elapsed, mut used) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            let (start, before) = (Instant::now(), thread_time());
            let drift = datapath.reconcile_connections()?;
            elapsed.push(start.elapsed().as_secs_f64());
            used.push(thread_time() - before);
            ensure!(drift == Drift::default(), "the count had drifted: {drift:?}");
        }
        Ok((median(elapsed), median(used)))
    })?
}

/// Seconds until `throttle speed set` returns, when the kernel has the speed.
fn set_speeds(site: &Site<'_>, rounds: usize) -> Result<f64> {
    let times = (0..rounds).map(|round| {
        let speed = if round % 2 == 0 { "0.5" } else { "0.9" };
        let start = Instant::now();
        site.ask(&["speed", "set", speed, "--service", "web", "--for", "10m"])?;
        Ok(start.elapsed().as_secs_f64())
    });
    let times = times.collect::<Result<_>>()?;
    site.ask(&["speed", "reset", "--service", "web"])?;
    Ok(median(times))
}

/// Seconds until the kernel has a speed, and a window, that is decided for a service: the median, and the most.
fn decide(wire: &Wire, site: &Site<'_>, decisions: usize) -> Result<[[f64; 2]; 2]> {
    let mut datapath = wire.far.enter(|| open(site))??;
    let clock = *datapath.clocks().get("web").context("the service has no clock")?;
    let (mut speeds, mut windows) = (Vec::new(), Vec::new());
    for round in 0..decisions {
        let start = Instant::now();
        let speed = if round % 2 == 0 { Speed::LEAST } else { Speed::ONE };
        datapath.publish_speed(clock, speed, None)?;
        while datapath.clock_state(clock).speed != speed {
            ensure!(start.elapsed() < SETTLED, "another speed is in force");
            thread::sleep(APART / 100);
        }
        speeds.push(start.elapsed().as_secs_f64());
        let (start, most) = (Instant::now(), 10 + round as u32);
        datapath.publish_window(clock, Some(most))?;
        let window = datapath.window_state(clock).context("no window is in force")?;
        ensure!(window.connections == most, "another window is in force: {}", window.connections);
        windows.push(start.elapsed().as_secs_f64());
        thread::sleep(APART);
    }
    datapath.publish_speed(clock, Speed::ONE, None)?;
    datapath.publish_window(clock, None)?;
    Ok([speeds, windows].map(|times| [median(times.clone()), times.into_iter().fold(0.0, f64::max)]))
}

/// Takes over what an agent has left.
fn open(site: &Site<'_>) -> Result<Datapath> {
    let options =
        Options { pin_dir: site.pin_dir(), table_sets: DEFAULT_SETS, debug: false, test_clock: false, adopt: true };
    Ok(Datapath::open(&options)?)
}

/// Seconds that this thread has been on a CPU.
fn thread_time() -> f64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    now.tv_sec as f64 + now.tv_nsec as f64 / 1e9
}
