//! What `explain` foretells is what happens: its answer against the kernel program's verdict on the very packet, under a
//! clock that the test sets, over random policies, sources and states; and the instants that it promises, to the
//! nanosecond.

use anyhow::{Context, Result, ensure};
use std::{collections::BTreeMap, fmt::Write as _, net::IpAddr};
use throttle_agent::{
    datapath::explain::{Explained, Weighed, packet},
    policy::sources::{FOR_EVER, Standing},
};
use throttle_common::{
    connections::PLACE,
    gcra::Ticks,
    packet::{Packet, protocol, tcp},
    proven::{Claim, Line},
    records::{PROVEN_LINES, Slot, Whose, maps},
    speed::{LEAD, Speed},
    table::WAYS,
    words::{Outcome, Reason},
};
use throttle_tests::{
    frames::{Dice, Frame},
    needs_root,
    program::{Program, SECOND},
    say,
};

/// Questions that are asked.
const QUESTIONS: usize = 10_000;
/// What all of them must have met.
const REASONS: [Reason; 9] = [
    Reason::Admitted,
    Reason::Allowed,
    Reason::Blocked,
    Reason::SourceLimit,
    Reason::SourceOverflow,
    Reason::ConnectionLimit,
    Reason::TenantLimit,
    Reason::ServiceLimit,
    Reason::HostLimit,
];
/// Under one policy.
const OF_A_POLICY: usize = 100;

/// Services that overlap, told apart by destination, and of every protocol; and tenants, whose sources are drawn.
const SERVICES: &str = r#"
[[tenant]]
name = "acme"
sources = ["203.0.113.0/26"]
[[tenant]]
name = "globex"
sources = ["203.0.113.64/26"]
[[service]]
name = "web"
protocol = "tcp"
ports = [80, "8000-8003"]
[[service]]
name = "web-here"
protocol = "tcp"
ports = [80]
destination = "192.0.2.1"
[[service]]
name = "web-there"
protocol = "tcp"
ports = [80]
destination = "2001:db8:1::/48"
[[service]]
name = "dns"
protocol = "udp"
ports = [53]
[[service]]
name = "ping"
protocol = "icmp"
"#;

fn pick<'a>(dice: &mut Dice, words: &[&'a str]) -> &'a str {
    words[dice.below(words.len())]
}

/// A policy with up to eight limits, as many as a packet may meet, on few sources, so that places run out.
fn policy(dice: &mut Dice) -> String {
    let mut text = format!("mode = \"{}\"\n", pick(dice, &["enforce", "enforce", "enforce", "observe"]));
    _ = writeln!(text, "[answers]\nrate = \"{}\"", pick(dice, &["1000/s", "3/s", "0/s"]));
    text += SERVICES;
    for number in 0..=dice.below(4) {
        let service = pick(dice, &["", "", "", "", "web", "web-here", "web-there", "dns", "ping"]);
        let unit = match service {
            "dns" | "ping" => pick(dice, &["packets", "bytes"]),
            _ => pick(dice, &["packets", "packets", "bytes", "connections"]),
        };
        let algorithm = pick(dice, &["token-bucket", "token-bucket", "leaky-bucket", "fixed-window", "sliding-window"]);
        let (rate, burst) = match unit {
            "bytes" if algorithm.ends_with("window") => (pick(dice, &["1522B/s", "5000B/min", "100KB/s"]), ""),
            "bytes" => (pick(dice, &["777B/s", "100KB/s"]), pick(dice, &["burst = 1522\n", "burst = 4000\n"])),
            _ => (pick(dice, &["1/min", "3/s", "977/s"]), pick(dice, &["burst = 1\n", "burst = 2\n", "burst = 5\n"])),
        };
        let burst = if algorithm == "token-bucket" { burst } else { "" };
        let (sources, prefix) = (pick(dice, &["3", "6", "24"]), pick(dice, &["32", "30"]));
        let v6 = pick(dice, &["64", "56", "128"]);
        _ = write!(
            text,
            "[[limit]]\nname = \"l{number}\"\nunit = \"{unit}\"\nrate = \"{rate}\"\n\
             algorithm = \"{algorithm}\"\n{burst}sources = {sources}\n\
             prefix = {{ ipv4 = {prefix}, ipv6 = {v6} }}\noverflow = \"{}\"\naction = \"{}\"\nmode = \"{}\"\n",
            pick(dice, &["aggregate", "refuse", "admit"]),
            pick(dice, &["drop", "reject"]),
            pick(dice, &["enforce", "enforce", "observe"]),
        );
        if !service.is_empty() {
            _ = writeln!(text, "service = \"{service}\"");
        }
        if algorithm == "token-bucket" && dice.below(2) == 0 {
            let whose = pick(dice, &["tenant = \"acme\"", "sources = [\"198.51.100.8/29\", \"2001:db8::/56\"]"]);
            let burst = if unit == "bytes" { "5000" } else { pick(dice, &["2", "7"]) };
            _ = writeln!(text, "[[limit.override]]\n{whose}\nburst = {burst}");
        }
    }
    for number in 0..dice.below(3) {
        let whose =
            ["tenant", "tenant\"\nservice = \"web", "service\"\nservice = \"web", "service\"\nservice = \"dns", "host"];
        let shared = pick(dice, &whose);
        let tenants = shared.starts_with("tenant");
        let rate = match shared {
            "host" => "20/s",
            _ if tenants => pick(dice, &["1/s", "4/min"]),
            _ => pick(dice, &["1/s", "20/min"]),
        };
        let mode = pick(dice, &["enforce", "enforce", "observe"]);
        let algorithm = pick(dice, &["token-bucket", "leaky-bucket", "fixed-window", "sliding-window"]);
        // Of each width one, so that no two guarantee the same.
        let first = shared != "host" && !text.contains(&format!("per = \"{shared}\""));
        let guarantee = if first {
            pick(dice, &["", "guarantee = \"1/min\"\n", "guarantee = \"2/min\"\nguarantee-burst = 1\n"])
        } else {
            ""
        };
        let overridden = if first && tenants && algorithm == "token-bucket" && dice.below(2) == 0 {
            "[[limit.override]]\ntenant = \"globex\"\nrate = \"2/s\"\nguarantee = \"3/min\"\n"
        } else {
            ""
        };
        _ = write!(
            text,
            "[[limit]]\nalgorithm = \"{algorithm}\"\nname = \"s{number}\"\nunit = \"packets\"\nrate = \"{rate}\"\n\
             mode = \"{mode}\"\nper = \"{shared}\"\n{guarantee}{overridden}",
        );
    }
    for number in 0..=dice.below(2) {
        let connections = pick(dice, &["2", "3", "5"]);
        _ = write!(
            text,
            "[[limit]]\nname = \"c{number}\"\nunit = \"connections\"\nconcurrent = {connections}\n\
             action = \"{}\"\nmode = \"{}\"\n",
            pick(dice, &["drop", "reject"]),
            pick(dice, &["enforce", "enforce", "observe"]),
        );
        let overflow = pick(dice, &["", "overflow = \"refuse\"\n", "overflow = \"admit\"\n"]);
        let whose = [
            &format!("sources = 3\n{overflow}"),
            &format!("sources = 24\nservice = \"web\"\n{overflow}"),
            "service = \"web\"\nper = \"service\"\n",
            "per = \"tenant\"\n",
            "per = \"tenant\"\nguarantee = 1\n",
        ];
        let whose = pick(dice, &whose);
        if !(whose.contains("guarantee") && text.contains("guarantee = 1\n")) {
            text += whose;
        }
    }
    text
}

/// One of two dozen sources of either family.
fn source(dice: &mut Dice) -> IpAddr {
    let low = dice.below(24) as u16;
    if dice.below(2) == 0 {
        [198, 51, 100, low as u8].into()
    } else {
        [0x2001, 0xdb8, 0, low / 2, 0, 0, 0, low % 2 + 1].into()
    }
}

/// A packet as `explain` is told of it, and the frame.
struct Question {
    packet: Packet,
    frame: Vec<u8>,
}

impl Question {
    fn draw(dice: &mut Dice) -> Self {
        let source = source(dice);
        let to = if source.is_ipv4() {
            pick(dice, &["192.0.2.1", "192.0.2.2"])
        } else {
            pick(dice, &["2001:db8:1::1", "2001:db8:2::1"])
        };
        let destination: IpAddr = to.parse().expect("an address");
        let (port, length) = ([80, 8001, 53, 9][dice.below(4)], [74, 300, 1514][dice.below(3)]);
        let frame = Frame::new(source, destination);
        let (number, opens, frame) = match dice.below(4) {
            0 => (protocol::TCP, true, frame.tcp(40_000, port, tcp::SYN)),
            1 => (protocol::TCP, false, frame.tcp(40_000, port, tcp::ACK)),
            2 => (protocol::UDP, false, frame.udp(40_000, port)),
            _ => (if source.is_ipv4() { protocol::ICMP } else { protocol::ICMPV6 }, false, frame.echo()),
        };
        Self { packet: packet(source, Some(destination), number, port, opens), frame: frame.length(length).bytes() }
    }

    fn explain(&self, program: &Program) -> Result<Explained> {
        program.datapath.explain(&self.packet, self.frame.len() as u32, program.now())
    }

    /// Has the kernel judge the frame, and fails where that is not what was foretold.
    fn agrees(&self, program: &Program) -> Result<Outcome> {
        let told = self.explain(program)?;
        let names: Vec<_> = program.compiled.limits.iter().map(|(number, _)| *number).collect();
        let before = names.iter().map(|&number| program.datapath.limit_tally(number)).collect::<Result<Vec<_>>>()?;
        let judged = program.judge(&self.frame)?;
        let verdict = told.verdict;
        ensure!(
            (judged.reason, judged.outcome) == (verdict.reason, verdict.outcome),
            "{:?} {:?}, but foretold was {verdict:?}",
            judged.reason,
            judged.outcome
        );
        for (&number, before) in names.iter().zip(before) {
            let after = program.datapath.limit_tally(number)?;
            let refused = after.refused != before.refused || after.observed != before.observed;
            let foretold = told.limits.iter().any(|it| it.number == number && it.refusal.is_some());
            let blamed = verdict.limit == Some(number);
            ensure!(!refused || foretold, "limit {number} refused, and was not said to: {told:?}");
            ensure!(refused || !blamed, "limit {number} was said to refuse, and did not: {told:?}");
        }
        Ok(judged.outcome)
    }
}

/// Whether a limit on open connections has no place left for the source.
fn has_no_room_for_a_connection(told: &Explained) -> bool {
    let of_connections = |it: &Weighed| it.record.is_concurrency() && it.refusal == Some(Reason::SourceOverflow);
    told.limits.iter().any(of_connections)
}

fn passes(outcome: Outcome) -> bool {
    matches!(outcome, Outcome::Pass | Outcome::Observe)
}

/// Some are blocked for a while or for ever, some are allowed or known; some completed a handshake.
fn standings(program: &mut Program, dice: &mut Dice) -> Result<()> {
    let mut said = Vec::new();
    for _ in 0..20 {
        let standing = match dice.below(14) {
            0 => Standing::Allow,
            1 => Standing::Known,
            2 => Standing::Block { until: FOR_EVER },
            3..9 => Standing::Tenant(1 + dice.below(2) as u16),
            9..13 => Standing::Class(1 + dice.below(3) as u16),
            _ => Standing::Block { until: program.now() + dice.roll() % (3 * SECOND) },
        };
        let source = source(dice);
        let whole = if source.is_ipv4() { 32 } else { 128 };
        let length = if dice.below(3) == 0 { whole - 1 - dice.below(3) as u8 } else { whole };
        said.push((ipnet::IpNet::new(source, length)?.trunc(), standing));
    }
    program.set_sources(said)?;
    let secret = program.control()?.secret;
    let mut proven = program.map::<Line>(maps::PROVEN)?;
    for _ in 0..8 {
        let packet = packet(source(dice), None, protocol::TCP, 0, true);
        let claim = Claim::of(packet.source, packet.family, PROVEN_LINES, secret);
        let mut line = proven.get(&claim.line, 0)?;
        let (cell, value) = claim.remember(&line, program.now());
        line[cell] = value;
        proven.set(claim.line, line, 0)?;
    }
    Ok(())
}

/// Some have connections open, by what the table says, and so have the aggregates of others.
fn open_connections(program: &Program, dice: &mut Dice) -> Result<()> {
    let secret = program.control()?.secret;
    let mut aggregates = program.map::<Ticks>(maps::AGGREGATES)?;
    for (_, limit) in program.compiled.limits.iter().filter(|(_, limit)| limit.is_concurrency()) {
        for _ in 0..[12, 36][dice.below(2)] {
            let Packet { source, family, .. } = packet(source(dice), None, protocol::TCP, 0, true);
            let tenant = 1 + dice.below(2) as u16;
            let Some(home) = limit.home(&Whose { source, family, tenant }, secret) else { continue };
            // Whoever shares a bucket has a slot that is nobody else's.
            let way = if limit.is_shared() { home.key as usize % WAYS } else { dice.below(WAYS) };
            let open = (1 + dice.roll() % (limit.depth / PLACE).max(1)) * PLACE;
            program.put(home.set, way, Slot { key: home.key, tat: open })?;
            if !limit.is_shared() {
                let taken = dice.roll() % (limit.depth / PLACE + 1) * PLACE;
                aggregates.set(limit.region(family).aggregate(source, family, secret), taken, 0)?;
            }
        }
    }
    Ok(())
}

#[test]
fn explain_foretells_the_verdict_and_the_instant_at_which_it_changes() -> Result<()> {
    needs_root!();
    let given = std::env::var("THROTTLE_TESTS_SEED").ok().and_then(|text| text.parse().ok());
    let seed = given.unwrap_or_else(throttle_tests::machine::monotonic);
    say!("explain: THROTTLE_TESTS_SEED={seed}");
    let mut dice = Dice::new(seed);
    let mut program = Program::timed("mode = \"enforce\"")?;
    let (mut asked, mut promises, mut speeds, mut published_at, mut crowded) = (0, 0, 0, 0, 0);
    let mut verdicts: BTreeMap<(Reason, Outcome), usize> = BTreeMap::new();
    while asked < QUESTIONS {
        let text = policy(&mut dice);
        program.rest()?;
        program.apply(&text)?;
        standings(&mut program, &mut dice)?;
        open_connections(&program, &mut dice)?;
        for number in 0..OF_A_POLICY {
            program.wait([0, 0, 1, dice.roll() % 1_000_000, dice.roll() % (SECOND / 10)][dice.below(5)])?;
            // A third one within the lead waits for it to pass, and this clock stands still meanwhile.
            if dice.below(8) == 0 && program.now() >= published_at + LEAD {
                // Of the host or one of the five services, for a while that no lease cuts short.
                let slower = Speed::of_parts((1 + dice.roll() % 16) << 12).expect("from a sixteenth to one");
                let until = program.now() + 2 * LEAD + dice.roll() % (4 * SECOND);
                program.datapath.publish_speed(dice.below(6) as u16, slower, Some(until))?;
                (published_at, speeds) = (program.now(), speeds + 1);
                program.wait([0, LEAD + dice.roll() % LEAD][dice.below(2)])?;
            }
            let question = Question::draw(&mut dice);
            let told = question.explain(&program)?;
            let context = || format!("question {number} at {}: {told:?}\nunder {text}", program.now());
            question.agrees(&program).with_context(context)?;
            asked += 1;
            crowded += usize::from(has_no_room_for_a_connection(&told));
            *verdicts.entry((told.verdict.reason, told.verdict.outcome)).or_default() += 1;
            match told.passes_at {
                // Waiting for it fills other buckets too, so that not every promise is put to the test.
                Some(at) if at > program.now() && dice.below(2) > 0 => {
                    ensure!(!passes(told.verdict.outcome), "{told:?}");
                }
                Some(at) if at > program.now() => {
                    promises += 1;
                    let refused_at = program.now();
                    program.wait(at - 1 - refused_at)?;
                    let just_before = question.agrees(&program).with_context(|| format!("just before: {told:?}"))?;
                    ensure!(!passes(just_before), "it passes before the promised instant: {told:?}\nunder {text}");
                    program.wait(1)?;
                    let then = question.agrees(&program).with_context(|| format!("at the instant: {told:?}"))?;
                    ensure!(passes(then), "it does not pass at the promised instant: {told:?}\nunder {text}");
                }
                Some(at) => ensure!(at == program.now() && passes(told.verdict.outcome), "{told:?}"),
                None => {
                    ensure!(!passes(told.verdict.outcome), "{told:?}");
                    program.wait(86_400 * SECOND)?;
                    ensure!(!passes(question.agrees(&program)?), "it was said never to pass: {told:?}\nunder {text}");
                }
            }
        }
    }
    say!("explain: {asked} questions, {promises} promised instants, {speeds} speeds, no difference");
    for ((reason, outcome), count) in &verdicts {
        say!("explain: {count:>6} {} {}", reason.name(), outcome.name());
    }
    let of = |reason| verdicts.iter().filter(|((it, _), _)| *it == reason).map(|(_, count)| count).sum::<usize>();
    for reason in REASONS {
        ensure!(of(reason) >= QUESTIONS / 200, "{reason:?} is hardly asked about: {verdicts:?}");
    }
    ensure!(crowded >= QUESTIONS / 200, "only {crowded} connections found no place");
    ensure!(promises >= QUESTIONS / 100, "only {promises} promises were kept");
    Ok(())
}
