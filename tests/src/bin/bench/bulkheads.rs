//! What a flood costs its neighbour: A floods at ten times its ceiling from 16 384 sources, B asks a real nginx as often as
//! it is guaranteed, by an open loop. They are tenants, or services; the flood meets throttle, or a bare XDP_DROP that
//! knows A's sources. Then what B does not use of its guarantee, and how soon A has it and B has it back.
//!
//! What is admitted of the flood ends in the network stack, where its checksums are found to be wrong.

use super::{
    chart, median,
    report::{Effort, Section},
};
use anyhow::{Context, Result, ensure};
use aya::{Ebpf, maps::Array, programs::XdpMode};
use std::{
    fmt::Write as _,
    net::SocketAddr,
    thread,
    time::{Duration, Instant},
};
use throttle_tests::{
    bulkheads::{BETWEEN, Between, Rates, TIMES, frame},
    clients::HTTP,
    generator::{Counter, Sender},
    kernel::{self, Order, Received},
    machine,
    netns::Namespace,
    nginx::Server,
    paced::ask_at,
    program::Program,
    wire::{FAR, FAR_V4, Wire},
};

const ROUNDS: usize = 5;
const SPAN: Duration = Duration::from_secs(5);
/// Beside nginx: B asks so often that no latency is a queue's. A may have all that the host admits: what B gets, it gets by
/// its guarantee.
const SERVED: Rates = Rates { host: 10_000, ceiling: 10_000, guarantee: 500, burst: 100 };
/// Where it is only counted what comes through.
const COUNTED: Rates = Rates { host: 50_000, ceiling: 40_000, guarantee: 20_000, burst: 50 };
/// How long B sends, or does not, and how often it is looked at what came through.
const TURN: Duration = Duration::from_millis(300);
const GLANCE: Duration = Duration::from_millis(10);

/// What those figures can show.
const SHOWN: &str = "\
- What p99 shows: the flood's sender keeps one of the CPUs busy, and where there are two, one request in a hundred waits tens \
of milliseconds for the scheduler, whatever the flood meets. Beside that a millisecond more for each request would not be \
seen in p99. It would be in p50, of which that is ten times as much; and a SYN that is refused is sent again after a second, \
which is counted.\n\
- What it does not: SYNs of the flood that throttle admits have wrong checksums and end before TCP. Real ones would take \
room in the server's queue of handshakes, which B needs too; a limit on open connections is what guards that. Bare XDP_DROP \
admits none.\n";

const GUARDS: [&str; 2] = ["bare XDP_DROP", "throttle"];

/// Measures, and gives the tables.
pub(super) fn measure(effort: Effort) -> Result<Section> {
    let (rounds, span) = (effort.rounds(ROUNDS), effort.span(SPAN));
    let Rates { host, ceiling, guarantee, .. } = SERVED;
    let mut text = format!(
        "B asks nginx {guarantee} times a second, a connection for each request, by an open loop: latencies run from when a \
         request was due. A floods with SYNs of 16384 sources, {TIMES} times its ceiling. The host admits {host} connections \
         a second; each of the two {ceiling} at most, and {guarantee} for sure. Median of {rounds} alternating rounds; \
         requests that were lost, and segments that were sent again, of all rounds.\n\n\
         | between | A's flood meets | p50, us | p99, us | requests lost | sent again | A admitted a second |\n\
         |---|---|---:|---:|---:|---:|---:|\n"
    );
    let mut ratios = String::new();
    for between in BETWEEN {
        let rows = serve(between, rounds, span)?;
        for (name, row) in GUARDS.iter().zip(&rows) {
            let [half, most] =
                [|it: &Served| it.half, |it: &Served| it.most].map(|of| median(row.iter().map(of).collect()));
            let lost: usize = row.iter().map(|served| served.lost).sum();
            let again: u64 = row.iter().map(|served| served.again).sum();
            let admitted = row.iter().map(|served| served.admitted).collect::<Option<Vec<_>>>().map(median);
            let admitted = admitted.map_or_else(|| "0".to_owned(), |rate| format!("{rate:.0}"));
            let between = between.name();
            writeln!(text, "| {between} | {name} | {half:.0} | {most:.0} | {lost} | {again} | {admitted} |")?;
        }
        let most = rows.each_ref().map(|row| median(row.iter().map(|served| served.most).collect()));
        let pairs: Vec<_> = rows[0].iter().zip(&rows[1]).map(|(bare, own)| own.most / bare.most).collect();
        let each = pairs.iter().map(|ratio| format!("{ratio:.2}")).collect::<Vec<_>>().join(", ");
        writeln!(
            ratios,
            "- Between {}, B's p99 under throttle is {:.2}x of that under bare XDP_DROP (goal: within 10 %); round by round \
             {each}.",
            between.name(),
            most[1] / most[0]
        )?;
    }
    writeln!(text, "\n{ratios}{SHOWN}")?;
    let mut section = Section::from(text);
    lend(&mut section, rounds)?;
    Ok(section)
}

/// What a round has measured.
struct Served {
    /// Microseconds within which half of the requests are answered, and 99 %.
    half: f64,
    most: f64,
    lost: usize,
    /// Segments that either end sent again.
    again: u64,
    /// What was admitted of the flood in a second, where it is counted.
    admitted: Option<f64>,
}

/// Alternates between the two guards.
fn serve(between: Between, rounds: usize, span: Duration) -> Result<[Vec<Served>; 2]> {
    let hosts = [Host::new(between, false)?, Host::new(between, true)?];
    let mut rows = [const { Vec::new() }; 2];
    for round in 1..=rounds {
        eprintln!("{}, round {round} of {rounds}", between.name());
        for ((host, row), name) in hosts.iter().zip(&mut rows).zip(GUARDS) {
            row.push(host.serve(between, span).context(name)?);
        }
    }
    Ok(rows)
}

/// A far end with nginx on it, guarded by throttle or by a program of one line.
struct Host {
    program: Option<Program>,
    _bare: Option<Ebpf>,
    _server: Server,
    sender: Sender,
    wire: Wire,
}

impl Host {
    fn new(between: Between, throttled: bool) -> Result<Self> {
        let wire = Wire::new()?;
        let server = Server::ahead_on(&wire.far)?;
        let program = if throttled { Some(Program::on(&wire, &between.policy(SERVED))?) } else { None };
        let bare = if throttled { None } else { Some(bare(&wire.far, between.order(SERVED, false))?) };
        Ok(Self { program, _bare: bare, _server: server, sender: Sender::on(&wire)?, wire })
    }

    fn serve(&self, between: Between, span: Duration) -> Result<Served> {
        let before = (self.sent_again()?, self.admitted()?);
        let order = between.order(SERVED, false);
        let flood = self.sender.start_steady(&self.wire.near, machine::cpus() - 1, &frame(), order)?;
        let server = SocketAddr::new(FAR_V4.parse()?, HTTP);
        let answers = ask_at(&self.wire.near, server, SERVED.guarantee as u32, span)?;
        let sent = flood.stop()?;
        let (again, admitted) = (self.sent_again()? - before.0, self.admitted()?);
        answers.lost.iter().for_each(|why| eprintln!("{why}"));
        let requests = (answers.latencies.len() + answers.lost.len()) as u64;
        let seconds = (sent.last - sent.first) as f64 / 1e9;
        // Of the host's connections, what is not B's.
        let of_flood = |(before, after)| (after - before - requests) as f64 / seconds;
        let micros = |percent| answers.percentile(percent).as_secs_f64() * 1e6;
        Ok(Served {
            half: micros(50),
            most: micros(99),
            lost: answers.lost.len(),
            again,
            admitted: before.1.zip(admitted).map(of_flood),
        })
    }

    /// Connections that the host's limit has admitted.
    fn admitted(&self) -> Result<Option<u64>> {
        self.program.as_ref().map(|program| Ok(program.limit("host")?.admitted.packets)).transpose()
    }

    /// TCP segments that either end has sent again.
    fn sent_again(&self) -> Result<u64> {
        Ok(self.wire.near.sent_again()? + self.wire.far.sent_again()?)
    }
}

/// Puts the program on the far end that drops what the flood's sources send.
fn bare(far: &Namespace, flood: Order) -> Result<Ebpf> {
    let mut object = kernel::load(64)?;
    Array::try_from(object.map_mut("SPREAD").context("no map SPREAD")?)?.set(0, flood, 0)?;
    let program = kernel::xdp(&mut object, "drop_flood")?;
    far.enter(|| program.attach(FAR, XdpMode::Driver))?.context("attach drop_flood")?;
    Ok(object)
}

/// A moment, in seconds from the first on, and what had come through by then.
type Moment = (f64, Received);

/// Measures how soon what B leaves is lent, and how soon it is back, and says so.
fn lend(section: &mut Section, rounds: usize) -> Result<()> {
    let Rates { host, ceiling, guarantee, burst } = COUNTED;
    writeln!(
        section.text,
        "B sends for {TURN:?} what it is guaranteed, {guarantee} connections a second, and as long nothing; A floods at \
         {TIMES} times its ceiling of {ceiling} all the while, under a host that admits {host}. Looked at every {GLANCE:?}: \
         when A has its ceiling after B's last packet, and B its guarantee, and A no more than what that leaves, after B's \
         first. Median of {rounds} rounds; the longest in parentheses. Buckets are shallow here: {burst} connections, and of \
         a guarantee a fifth of a second. By default each holds a second: then B may have that much of its guarantee at once \
         when it comes back, here what the host admits in {:.1} s, and A borrows nothing for as long. Windows, which lend only \
         with the next one, are not measured.\n\n\
         | between | lent after, ms | back after, ms | B lost, of |\n|---|---:|---:|---:|",
        guarantee as f64 / host as f64
    )?;
    let (title, mut svg) = ("What B leaves of its guarantee is lent", String::new());
    for between in BETWEEN {
        let (turns, lost, sent) = take_turns(between, rounds)?;
        let said = |steady: bool| -> Result<String> {
            let those = turns.iter().filter(|turn| turn.steady == steady);
            let settled =
                those.map(|turn| turn.settled().context("the rates did not settle")).collect::<Result<Vec<_>>>()?;
            let most = settled.iter().copied().fold(0.0, f64::max);
            Ok(format!("{:.0} ({most:.0})", median(settled)))
        };
        writeln!(section.text, "| {} | {} | {} | {lost} of {sent} |", between.name(), said(false)?, said(true)?)?;
        if between == Between::Tenants {
            let moments: Vec<_> = turns.iter().take(4).flat_map(|turn| turn.moments.iter().copied()).collect();
            let lines = [("A, which floods", rates(&moments, |it| it.other)), ("B", rates(&moments, |it| it.honest))];
            svg = chart::lines(title, ["seconds", "connections a second"], &lines);
        }
    }
    section.draw("bulkheads", title, svg);
    Ok(())
}

/// A time in which B sends, or does not.
struct Turn {
    steady: bool,
    moments: Vec<Moment>,
}

impl Turn {
    /// Milliseconds from its first moment until both have what they are due; `None` where they never do.
    fn settled(&self) -> Option<f64> {
        let Rates { host, ceiling, guarantee, .. } = COUNTED;
        let due = if self.steady { [host - guarantee, guarantee] } else { [ceiling, 0] };
        let [a, b] = [rates(&self.moments, |it| it.other), rates(&self.moments, |it| it.honest)];
        let near = |[_, rate]: [f64; 2], due: u64| (rate - due as f64).abs() <= 0.05 * due as f64;
        let at = a.iter().zip(&b).position(|(a, b)| near(*a, due[0]) && near(*b, due[1]))?;
        Some((self.moments[at + 1].0 - self.moments[0].0) * 1e3)
    }
}

/// What a second had between any two moments, each at the later.
fn rates(moments: &[Moment], of: fn(&Received) -> u64) -> Vec<[f64; 2]> {
    let rate = |[before, after]: &[Moment; 2]| [after.0, (of(&after.1) - of(&before.1)) as f64 / (after.0 - before.0)];
    moments.array_windows().map(rate).collect()
}

/// Has B send and be silent by turns; gives also what it lost of what it sent.
fn take_turns(between: Between, rounds: usize) -> Result<(Vec<Turn>, u64, u64)> {
    let wire = Wire::silent()?;
    let _program = Program::on(&wire, &between.policy(COUNTED))?;
    let orders = [false, true].map(|steady| between.order(COUNTED, steady));
    let counter = Counter::on(&wire, orders[0])?;
    let sender = Sender::on(&wire)?;
    let mut flood = sender.start_steady(&wire.near, machine::cpus() - 1, &frame(), orders[0])?;
    // The buckets are used up by then.
    thread::sleep(2 * TURN);
    let start = Instant::now();
    let look = || Ok::<_, anyhow::Error>((start.elapsed().as_secs_f64(), counter.received()?));
    let mut turns = Vec::new();
    for turn in 0..2 * rounds {
        let steady = turn % 2 == 0;
        flood.follow(orders[usize::from(steady)])?;
        let mut moments = vec![look()?];
        while moments[moments.len() - 1].0 - moments[0].0 < TURN.as_secs_f64() {
            thread::sleep(GLANCE);
            moments.push(look()?);
        }
        turns.push(Turn { steady, moments });
    }
    let sent = flood.stop()?;
    ensure!(wire.lost()? == 0, "the wire lost packets");
    Ok((turns, sent.honest - counter.received()?.honest, sent.honest))
}
