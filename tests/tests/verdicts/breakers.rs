//! Breakers: whose new connections are kept away, and what becomes of trials while no agent speaks.

use anyhow::{Result, ensure};
use std::{net::SocketAddr, thread};
use throttle_agent::{datapath::explain, health::circuit::State};
use throttle_common::{
    breakers::{Forced, ROUNDS_ALONE, TRIALS},
    packet::{protocol, tcp},
    records::FIRST_BACKEND,
    words::{Outcome, Reason},
};
use throttle_tests::{
    frames::Frame,
    machine, needs_root,
    program::{Judged, Program, SECOND, action},
    say,
};

/// Two services, of which one has a breaker.
const WEB: &str = r#"
mode = "enforce"
[[service]]
name = "web"
protocol = "tcp"
ports = [80]
[[service]]
name = "ssh"
protocol = "tcp"
ports = [22]
"#;
const SOURCE: &str = "198.51.100.7";

fn syn(port: u16) -> Frame {
    Frame::from(SOURCE).tcp(40_000, port, tcp::SYN)
}

fn web() -> Result<(Program, u16)> {
    let mut program = Program::timed(WEB)?;
    let number = program.break_first()?;
    Ok((program, number))
}

fn met(program: &Program, frame: &Frame) -> Result<(Reason, Outcome)> {
    let Judged { reason, outcome, .. } = program.judge(&frame.bytes())?;
    Ok((reason, outcome))
}

/// How many of so many new connections pass.
fn admitted(program: &Program, arrivals: u32) -> Result<u32> {
    let frame = syn(80).bytes();
    (0..arrivals).try_fold(0, |sum, _| Ok(sum + u32::from(program.act(&frame)? == action::PASS)))
}

const PASSES: (Reason, Outcome) = (Reason::Admitted, Outcome::Pass);
const REFUSED: (Reason, Outcome) = (Reason::BreakerOpen, Outcome::Reject);

#[test]
fn an_open_breaker_refuses_new_connections_to_its_service_and_nothing_else() -> Result<()> {
    needs_root!();
    let (program, number) = web()?;
    assert_eq!(met(&program, &syn(80))?, PASSES);
    program.datapath.publish_breaker(number, State::Open { until: program.now() + 5 * SECOND })?;
    assert_eq!(met(&program, &syn(80))?, REFUSED);
    for other in [
        syn(22),
        Frame::from(SOURCE).tcp(40_000, 80, tcp::ACK).payload(100),
        Frame::from(SOURCE).tcp(40_000, 80, tcp::SYN | tcp::ACK),
        Frame::from(SOURCE).tcp(40_000, 80, tcp::RST),
        Frame::from(SOURCE).udp(40_000, 80),
    ] {
        assert_eq!(met(&program, &other)?, PASSES, "{other:?}");
    }
    program.datapath.publish_breaker(number, State::Closed)?;
    assert_eq!(met(&program, &syn(80))?, PASSES);
    program.datapath.publish_breaker(number, State::Forced(Forced::Open))?;
    assert_eq!(met(&program, &syn(80))?, REFUSED);
    program.datapath.publish_breaker(number, State::Forced(Forced::Closed))?;
    assert_eq!(met(&program, &syn(80))?, PASSES);
    Ok(())
}

#[test]
fn with_no_agent_it_half_opens_by_itself_rounds_of_five_seconds_grow_and_after_a_minute_all_pass() -> Result<()> {
    needs_root!();
    let (mut program, number) = web()?;
    program.datapath.publish_breaker(number, State::Open { until: program.now() + 5 * SECOND })?;
    program.wait(5 * SECOND - 1)?;
    assert_eq!(admitted(&program, 30)?, 0);
    for trials in [TRIALS, TRIALS, 2 * TRIALS, 4 * TRIALS] {
        program.wait(SECOND)?;
        assert_eq!(admitted(&program, 60)?, trials);
        assert_eq!(program.datapath.trials_taken(number), trials);
        assert_eq!(program.datapath.breaker_state(number), State::HalfOpen { left: 0 });
        program.wait(3 * SECOND)?;
        assert_eq!(admitted(&program, 60)?, 0);
        program.wait(SECOND)?;
    }
    program.wait((ROUNDS_ALONE - 4) * 5 * SECOND + SECOND)?;
    assert_eq!(admitted(&program, 1_000)?, 1_000);
    assert_eq!(program.datapath.breaker_state(number), State::Closed);
    // An agent that is back begins with few.
    program.datapath.publish_breaker(number, State::HalfOpen { left: TRIALS })?;
    assert_eq!(admitted(&program, 60)?, TRIALS);
    Ok(())
}

#[test]
fn what_the_kernel_admitted_before_the_agent_knew_counts_for_the_agents_round() -> Result<()> {
    needs_root!();
    let (mut program, number) = web()?;
    program.datapath.publish_breaker(number, State::Open { until: program.now() })?;
    program.wait(SECOND)?;
    assert_eq!(admitted(&program, 4)?, 4);
    program.datapath.publish_breaker(number, State::HalfOpen { left: TRIALS })?;
    assert_eq!(program.datapath.trials_taken(number), 4);
    assert_eq!(admitted(&program, 30)?, TRIALS - 4);
    // As long as the agent says so, this stays its round.
    for _ in 0..20 {
        program.wait(SECOND)?;
        program.datapath.publish_breaker(number, State::HalfOpen { left: 0 })?;
        assert_eq!(admitted(&program, 3)?, 0);
    }
    program.datapath.publish_breaker(number, State::Closed)?;
    assert_eq!(admitted(&program, 30)?, 30);
    Ok(())
}

#[test]
fn a_connection_that_a_limit_refuses_is_no_trial() -> Result<()> {
    needs_root!();
    let limit = "[[limit]]\nname = \"syn\"\nunit = \"connections\"\nrate = \"1/min\"\nburst = 1\n";
    let mut program = Program::timed(&format!("{WEB}{limit}"))?;
    let number = program.break_first()?;
    program.datapath.publish_breaker(number, State::HalfOpen { left: TRIALS })?;
    assert_eq!(met(&program, &syn(80))?, PASSES);
    for _ in 0..30 {
        assert_eq!(met(&program, &syn(80))?, (Reason::SourceLimit, Outcome::Drop));
    }
    assert_eq!(program.datapath.trials_taken(number), 1);
    Ok(())
}

#[test]
fn a_backend_is_known_by_its_address_whatever_its_service() -> Result<()> {
    needs_root!();
    let (mut program, _) = web()?;
    let number = FIRST_BACKEND + 7;
    let there = |to: &str| Frame::from(if to.contains(':') { "2001:db8::7" } else { SOURCE }).to(to);
    let at: Vec<SocketAddr> = vec!["192.0.2.9:8080".parse()?, "[2001:db8::9]:8080".parse()?];
    let backends: Vec<_> = at.iter().map(|&at| (at, protocol::TCP, number)).collect();
    program.datapath.set_backends(&backends)?;
    assert_eq!(program.datapath.backends()?.len(), 2);
    program.datapath.publish_breaker(number, State::Open { until: program.now() + 5 * SECOND })?;
    for to in ["192.0.2.9", "2001:db8::9"] {
        assert_eq!(met(&program, &there(to).tcp(1, 8080, tcp::SYN))?, REFUSED, "{to}");
        assert_eq!(met(&program, &there(to).tcp(1, 8081, tcp::SYN))?, PASSES, "{to}");
    }
    for to in ["192.0.2.8", "2001:db8::8"] {
        assert_eq!(met(&program, &there(to).tcp(1, 8080, tcp::SYN))?, PASSES, "{to}");
    }
    // Whoever is no backend any more has no breaker either, and it does not come back as it was.
    program.datapath.set_backends(&[])?;
    assert_eq!(program.datapath.breaker_state(number), State::Closed);
    program.datapath.set_backends(&backends)?;
    assert_eq!(met(&program, &there("192.0.2.9").tcp(1, 8080, tcp::SYN))?, PASSES);
    program.wait(SECOND)?;
    // Nor has another backend that gets its number.
    program.datapath.publish_breaker(number, State::Open { until: program.now() + 5 * SECOND })?;
    program.datapath.set_backends(&[("192.0.2.7:8080".parse()?, protocol::TCP, number)])?;
    assert_eq!(met(&program, &there("192.0.2.7").tcp(1, 8080, tcp::SYN))?, PASSES);
    program.datapath.set_backends(&backends)?;
    ensure!(program.datapath.set_backends(&[(at[0], protocol::TCP, 3)]).is_err(), "3 is the breaker of a service");
    Ok(())
}

#[test]
fn a_host_that_observes_counts_and_lets_pass() -> Result<()> {
    needs_root!();
    let mut program = Program::timed(&WEB.replace("enforce", "observe"))?;
    let number = program.break_first()?;
    program.datapath.publish_breaker(number, State::Open { until: program.now() + 5 * SECOND })?;
    assert_eq!(met(&program, &syn(80))?, (Reason::BreakerOpen, Outcome::Observe));
    Ok(())
}

#[test]
fn a_blocked_source_takes_no_trial_of_another_where_the_host_observes() -> Result<()> {
    needs_root!();
    let source = "198.51.100.8";
    let blocks = format!("{}[sources]\nblock = [\"{source}\"]\n", WEB.replace("enforce", "observe"));
    let mut program = Program::timed(&blocks)?;
    let number = program.break_first()?;
    program.datapath.publish_breaker(number, State::HalfOpen { left: 1 })?;
    let taken = program.datapath.trials_taken(number);
    machine::pin_to(0)?;
    assert_eq!(met(&program, &syn(80))?, PASSES);
    for _ in 0..3 {
        let blocked = Frame::from(source).tcp(40_000, 80, tcp::SYN);
        assert_eq!(met(&program, &blocked)?, (Reason::Blocked, Outcome::Observe));
    }
    assert_eq!(program.datapath.trials_taken(number), taken + 1);
    Ok(())
}

#[test]
fn a_breaker_that_policy_takes_away_is_closed() -> Result<()> {
    needs_root!();
    let (mut program, number) = web()?;
    program.datapath.publish_breaker(number, State::Forced(Forced::Open))?;
    program.apply(WEB)?;
    assert_eq!(program.datapath.breaker_state(number), State::Closed);
    program.break_first()?;
    assert_eq!(met(&program, &syn(80))?, PASSES);
    Ok(())
}

#[test]
fn two_cpus_together_admit_no_more_trials_than_a_round_has() -> Result<()> {
    needs_root!();
    if machine::cpus() < 2 {
        say!("skipped the trials of two CPUs: this machine has one");
        return Ok(());
    }
    let (mut program, number) = web()?;
    for _ in 0..200 {
        program.wait(10 * SECOND)?;
        program.datapath.publish_breaker(number, State::Closed)?;
        program.datapath.publish_breaker(number, State::HalfOpen { left: TRIALS })?;
        let program = &program;
        let sum: u32 = thread::scope(|scope| -> Result<u32> {
            let on = |cpu| {
                scope.spawn(move || {
                    machine::pin_to(cpu)?;
                    admitted(program, TRIALS)
                })
            };
            let both = [on(0), on(1)];
            both.into_iter().try_fold(0, |sum, cpu| Ok(sum + cpu.join().expect("it does not panic")?))
        })?;
        ensure!(sum == TRIALS, "{sum} of {TRIALS}");
    }
    Ok(())
}

#[test]
fn explain_says_who_is_kept_away_and_from_when_on_not() -> Result<()> {
    needs_root!();
    let (mut program, number) = web()?;
    let until = program.now() + 5 * SECOND;
    program.datapath.publish_breaker(number, State::Open { until })?;
    let packet = explain::packet(SOURCE.parse()?, Some("192.0.2.1".parse()?), protocol::TCP, 80, true);
    let explained = program.datapath.explain(&packet, 60, program.now())?;
    assert_eq!((explained.verdict.reason, explained.verdict.outcome), REFUSED);
    let passes_at = explained.passes_at.expect("it half-opens by itself");
    program.wait(passes_at - 1 - program.now())?;
    assert_eq!(met(&program, &syn(80))?, REFUSED);
    program.wait(1)?;
    assert_eq!(met(&program, &syn(80))?, PASSES);
    assert_eq!(admitted(&program, 30)?, TRIALS - 1);
    let explained = program.datapath.explain(&packet, 60, program.now())?;
    let passes_at = explained.passes_at.expect("another round begins");
    program.wait(passes_at - 1 - program.now())?;
    assert_eq!(met(&program, &syn(80))?, REFUSED);
    program.wait(1)?;
    assert_eq!(met(&program, &syn(80))?, PASSES);
    Ok(())
}
