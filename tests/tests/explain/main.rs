//! What `explain` foretells is what happens: its answer against the kernel program's verdict on the very packet, under a
//! clock that the test sets, over random policies, sources and states; and the instants that it promises, to the
//! nanosecond.

mod policies;
mod states;

use anyhow::{Context, Result, ensure};
use policies::{pick, policy};
use states::source;
use std::{collections::BTreeMap, net::IpAddr};
use throttle_agent::datapath::explain::{Explained, Weighed, packet};
use throttle_common::{
    breakers::State,
    packet::{Packet, protocol, tcp},
    speed::{LEAD, Speed},
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
const REASONS: [Reason; 10] = [
    Reason::Admitted,
    Reason::Allowed,
    Reason::Blocked,
    Reason::BreakerOpen,
    Reason::SourceLimit,
    Reason::SourceOverflow,
    Reason::ConnectionLimit,
    Reason::TenantLimit,
    Reason::ServiceLimit,
    Reason::HostLimit,
];
/// Under one policy.
const OF_A_POLICY: usize = 100;

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
        let (port, length) = ([80, 80, 8001, 53, 9][dice.below(5)], [74, 300, 1514][dice.below(3)]);
        let frame = Frame::new(source, destination);
        let (number, opens, frame) = match dice.below(6) {
            0..3 => (protocol::TCP, true, frame.tcp(40_000, port, tcp::SYN)),
            3 => (protocol::TCP, false, frame.tcp(40_000, port, tcp::ACK)),
            4 => (protocol::UDP, false, frame.udp(40_000, port)),
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
        let kept_away = told.breakers.iter().any(|it| it.refuses);
        ensure!(
            kept_away == (judged.reason == Reason::BreakerOpen)
                || matches!(judged.reason, Reason::Allowed | Reason::Blocked),
            "{:?}, but breakers were said to be {:?}",
            judged.reason,
            told.breakers
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

/// What was asked about, beside reasons.
#[derive(Debug, Default)]
struct Met {
    /// Limits on open connections that have no place left for the source.
    crowded: usize,
    /// Those that refuse, and leave less than policy says because of a health window.
    narrowed: usize,
    /// Connections whose limits are not asked, because what leaves is not seen; and those that are, and refused.
    unseen: usize,
    forwarded: usize,
    /// Trials of half-open breakers.
    trials: usize,
}

impl Met {
    fn note(&mut self, told: &Explained, question: &Question, program: &Program) {
        let has_no_room = |it: &&Weighed| it.record.is_concurrency() && it.refusal.is_some();
        let narrower = |it: &Weighed| {
            let said = program.compiled.limits.iter().find(|(number, _)| *number == it.number);
            said.is_some_and(|(_, said)| it.record.depth < said.depth)
        };
        let counted = told.limits.iter().any(|it| it.record.is_concurrency()) && question.packet.opens_connection();
        let refusing = || told.limits.iter().filter(has_no_room);
        let passed = passes(told.verdict.outcome) && told.verdict.reason != Reason::Allowed;
        self.crowded += usize::from(refusing().any(|it| it.refusal == Some(Reason::SourceOverflow)));
        self.narrowed += usize::from(refusing().any(|it| !it.overridden && narrower(it)));
        self.unseen += usize::from(told.unseen && counted);
        let forwarded = told.service.is_some_and(|(_, service)| service.forwarded != 0);
        self.forwarded += usize::from(forwarded && refusing().next().is_some());
        let half_open = told.breakers.iter().any(|it| matches!(it.state, State::HalfOpen { .. }) && !it.refuses);
        self.trials += usize::from(half_open && passed);
    }
}

fn passes(outcome: Outcome) -> bool {
    matches!(outcome, Outcome::Pass | Outcome::Observe)
}

#[test]
fn explain_foretells_the_verdict_and_the_instant_at_which_it_changes() -> Result<()> {
    needs_root!();
    let given = std::env::var("THROTTLE_TESTS_SEED").ok().and_then(|text| text.parse().ok());
    let seed = given.unwrap_or_else(throttle_tests::machine::monotonic);
    say!("explain: THROTTLE_TESTS_SEED={seed}");
    let mut dice = Dice::new(seed);
    let mut program = Program::timed("mode = \"enforce\"")?;
    let (mut asked, mut promises, mut speeds, mut published_at) = (0, 0, 0, 0);
    let mut met = Met::default();
    let mut verdicts: BTreeMap<(Reason, Outcome), usize> = BTreeMap::new();
    while asked < QUESTIONS {
        let text = policy(&mut dice);
        program.rest()?;
        // As the agent does: what is never admitted takes days of this clock, which so wraps.
        program.datapath.bound_debts();
        program.apply(&text)?;
        states::standings(&mut program, &mut dice)?;
        states::open_connections(&program, &mut dice)?;
        states::sight(&program, &mut dice)?;
        states::backends(&program, &mut dice)?;
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
            match dice.below(8) {
                0..2 => states::turn_breaker(&program, &mut dice)?,
                2..4 => states::turn_window(&program, &mut dice)?,
                _ => {}
            }
            let question = Question::draw(&mut dice);
            let told = question.explain(&program)?;
            let context = || format!("question {number} at {}: {told:?}\nunder {text}", program.now());
            question.agrees(&program).with_context(context)?;
            asked += 1;
            met.note(&told, &question, &program);
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
    say!("explain: {asked} questions, {promises} promised instants, {speeds} speeds, {met:?}, no difference");
    for ((reason, outcome), count) in &verdicts {
        say!("explain: {count:>6} {} {}", reason.name(), outcome.name());
    }
    let of = |reason| verdicts.iter().filter(|((it, _), _)| *it == reason).map(|(_, count)| count).sum::<usize>();
    for reason in REASONS {
        ensure!(of(reason) >= QUESTIONS / 200, "{reason:?} is hardly asked about: {verdicts:?}");
    }
    let Met { crowded, narrowed, unseen, forwarded, trials } = met;
    ensure!(
        [crowded, narrowed, unseen, forwarded, trials].iter().all(|&it| it >= QUESTIONS / 200),
        "hardly met: {met:?}"
    );
    ensure!(promises >= QUESTIONS / 100, "only {promises} promises were kept");
    Ok(())
}
