//! What a packet costs that is refused, on a veth under a live-frame generator, beside a bare XDP_DROP: by throttle and by
//! its [`rivals`], with one limit, and with the full policy by the last of its limits. The generator that sends the packet is
//! on the same CPU.

use super::{
    beside::bare,
    chart, median,
    report::{Effort, Section},
    rivals,
};
use anyhow::Result;
use aya::Ebpf;
use std::{fmt::Write as _, thread, time::Duration};
use throttle_common::packet::tcp;
use throttle_tests::{
    frames::Frame,
    generator::Sender,
    kernel::Order,
    machine,
    policies::{self, Difference, Level, PORT, STRICT, limit},
    program::Program,
    wire::Wire,
};

const ROUNDS: usize = 7;
const SPAN: Duration = Duration::from_millis(300);
/// Sources: one, and so many that each has had its first packet after a moment.
const SPREADS: [(&str, u64); 2] = [("1 source", 0), ("2^16 sources", 0xffff)];
/// 10.0.0.0 and up.
const SOURCE: u64 = 10 << 24;

/// Who refuses.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rival {
    Nobody,
    Throttle(Terms),
    Nftables(Terms),
    Iptables(Terms),
}

/// By what.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Terms {
    One,
    Full,
}

use Terms::{Full, One};

const RIVALS: [(Rival, &str); 7] = [
    (Rival::Nobody, "bare XDP_DROP"),
    (Rival::Throttle(One), "throttle, one limit"),
    (Rival::Nftables(One), "nftables, one limit: a dynamic set, at ingress"),
    (Rival::Iptables(One), "iptables, one limit: hashlimit, raw table"),
    (Rival::Throttle(Full), "throttle, full policy, by its last limit"),
    (Rival::Nftables(Full), "nftables, the same policy"),
    (Rival::Iptables(Full), "iptables, its four limits alone"),
];

/// What adds at most which part of what another adds: the rows of [`RIVALS`].
const GOALS: [(usize, usize, &str); 6] =
    [(1, 2, "1/10"), (1, 3, "1/10"), (4, 5, "1/5"), (4, 6, "1/5"), (4, 2, "none"), (4, 3, "none")];

/// Measures, and gives the table.
pub(super) fn measure(effort: Effort) -> Result<Section> {
    let rounds = effort.rounds(ROUNDS);
    let hosts = RIVALS.map(|(rival, _)| Host::new(rival));
    let mut cells = [const { [const { Vec::new() }; SPREADS.len()] }; RIVALS.len()];
    // The first round is for buckets to be used up.
    for round in 0..=rounds {
        eprintln!("round {round} of {rounds}");
        for (host, cells) in hosts.iter().zip(&mut cells) {
            let Ok(host) = host else { continue };
            for ((_, random), cell) in SPREADS.into_iter().zip(cells) {
                let nanos = host.refused(random)?;
                if round > 0 {
                    cell.push(nanos);
                }
            }
        }
    }
    for ((_, name), host) in RIVALS.iter().zip(&hosts) {
        if let Err(error) = host {
            eprintln!("skipped {name}: {error:#}");
        }
    }
    let nanos = cells.map(|row| row.map(|cell| (!cell.is_empty()).then(|| median(cell))));
    report(&nanos, rounds)
}

fn report(nanos: &[[Option<f64>; SPREADS.len()]; RIVALS.len()], rounds: usize) -> Result<Section> {
    let mut text = format!(
        "Nanoseconds of a packet that is refused, on a veth, with the generator that sends it on the same CPU: median of \
         {rounds} interleaved rounds. What it adds is beyond bare XDP_DROP.\n\n\
         | who refuses | 1 source | 2^16 | adds, 1 source | adds, 2^16 |\n|---|---:|---:|---:|---:|\n"
    );
    let added = |row: usize, spread: usize| Some(nanos[row][spread]? - nanos[0][spread]?);
    let said =
        |value: Option<f64>| value.map_or_else(|| "not on this machine".to_owned(), |value| format!("{value:.0}"));
    for (row, (_, name)) in RIVALS.iter().enumerate() {
        let [one, many] = nanos[row];
        let [one, many, adds_one, adds_many] = [one, many, added(row, 0), added(row, 1)].map(said);
        writeln!(text, "| {name} | {one} | {many} | {adds_one} | {adds_many} |")?;
    }
    writeln!(text)?;
    for (own, rival, goal) in GOALS {
        let ratios = [0, 1].map(|spread| Some(added(rival, spread)? / added(own, spread)?));
        let [Some(one), Some(many)] = ratios else { continue };
        let (own, rival) = (RIVALS[own].1, RIVALS[rival].1);
        writeln!(
            text,
            "- {own}: adds 1/{one:.1} of what `{rival}` adds; with 2^16 sources 1/{many:.1} (goal: {goal})."
        )?;
    }
    let mut section = Section::from(text);
    let title = "A refused packet on a veth";
    let rows: Vec<_> = RIVALS.iter().zip(nanos).map(|((_, name), cells)| (*name, cells.to_vec())).collect();
    section.draw("refusals", title, chart::bars(title, "nanoseconds a packet", &SPREADS.map(|(name, _)| name), &rows));
    Ok(section)
}

/// A far end that one of them guards.
struct Host {
    /// A program of one line, where throttle does not judge.
    _bare: Option<Ebpf>,
    _program: Option<Program>,
    sender: Sender,
    wire: Wire,
}

impl Host {
    fn new(rival: Rival) -> Result<Self> {
        let wire = Wire::silent()?;
        let sender = Sender::on(&wire)?;
        let far = &wire.far;
        let (mut program, mut one_line) = (None, None);
        match rival {
            Rival::Nobody => one_line = Some("drop"),
            Rival::Throttle(One) => {
                let strict = limit("source", "source", STRICT, "sources = 786432\noverflow = \"refuse\"");
                program = Some(Program::on(&wire, &format!("mode = \"enforce\"\n{strict}"))?);
            }
            Rival::Throttle(Full) => {
                let difference = Difference { allow_all: false, block_all: false, strict: Some(Level::Host) };
                program = Some(Program::on(&wire, &policies::full(difference))?);
            }
            Rival::Nftables(terms) => {
                rivals::nftables(far, terms == Full)?;
                one_line = Some("pass");
            }
            Rival::Iptables(terms) => {
                rivals::iptables(far, terms == Full)?;
                one_line = Some("pass");
            }
        }
        let bare = one_line.map(|name| bare(far, name)).transpose()?;
        Ok(Self { _bare: bare, _program: program, sender, wire })
    }

    /// Nanoseconds of a packet that is refused.
    fn refused(&self, random: u64) -> Result<f64> {
        let frame = Frame::v4(SOURCE as u32).tcp(40_000, PORT, tcp::ACK).length(60).bytes();
        let order = Order { flood: SOURCE, random, flood_interval: 0, clock_every: 64, ..Order::SILENT };
        let lost = self.wire.lost()?;
        let flood = self.sender.start_steady(&self.wire.near, machine::cpus() - 1, &frame, order)?;
        thread::sleep(SPAN);
        let sent = flood.stop()?;
        let lost = self.wire.lost()? - lost;
        Ok((sent.last - sent.first) as f64 / (sent.flood - lost) as f64)
    }
}
