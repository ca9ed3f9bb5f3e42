//! Health windows: what they leave of the limits on open connections of their service, and for how long.

use anyhow::Result;
use throttle_agent::datapath::{LEASE, WindowState, explain};
use throttle_common::{
    connections::depth,
    packet::{protocol, tcp},
    records::Slot,
    words::Reason,
};
use throttle_tests::{
    frames::Frame,
    needs_root,
    program::{Program, SECOND, action},
};

/// A service that may have ten connections, of each source five; the host has a limit of its own.
const WEB: &str = r#"
mode = "enforce"
[[service]]
name = "web"
protocol = "tcp"
ports = [80]
[[limit]]
name = "all"
service = "web"
per = "service"
unit = "connections"
concurrent = 10
[[limit]]
name = "each"
service = "web"
unit = "connections"
concurrent = 5
[[limit]]
name = "host"
per = "host"
unit = "connections"
concurrent = 30
"#;

fn source(number: u8) -> [u8; 4] {
    [198, 51, 100, number]
}

fn syn(from: u8) -> Vec<u8> {
    Frame::v4(source(from)).tcp(40_000, 80, tcp::SYN).bytes()
}

/// How many new connections of a source of its own pass, of so many.
fn admitted(program: &Program, sources: impl Iterator<Item = u8>) -> Result<usize> {
    let mut admitted = 0;
    for from in sources {
        admitted += usize::from(program.act(&syn(from))? == action::PASS);
    }
    Ok(admitted)
}

fn web() -> Result<(Program, u16)> {
    let program = Program::timed(WEB)?;
    let clock = program.compiled.services[0].clock;
    Ok((program, clock))
}

/// Has so many connections hold places under the service's limit.
fn open(program: &Program, connections: u32) -> Result<()> {
    let (_, all) = program.limit_record("all")?;
    program.put(all.v4.base, 0, Slot { key: 0, tat: depth(connections) })
}

#[test]
fn a_window_bounds_what_all_and_what_each_source_may_have() -> Result<()> {
    needs_root!();
    let (mut program, clock) = web()?;
    assert_eq!(admitted(&program, 1..=20)?, 10);
    program.rest()?;
    program.datapath.publish_window(clock, Some(4))?;
    assert_eq!(admitted(&program, 1..=20)?, 4);
    program.rest()?;
    program.datapath.publish_window(clock, Some(4))?;
    assert_eq!(admitted(&program, [7; 20].into_iter())?, 2, "of five four tenths");
    let judged = program.judge(&syn(7))?;
    assert_eq!(judged.reason, Reason::ConnectionLimit);
    Ok(())
}

#[test]
fn what_is_open_stays_open_and_counts() -> Result<()> {
    needs_root!();
    let (program, clock) = web()?;
    open(&program, 6)?;
    assert_eq!(program.datapath.open_at(1), Some(6));
    program.datapath.publish_window(clock, Some(4))?;
    assert_eq!(admitted(&program, 1..=20)?, 0);
    assert_eq!(program.datapath.open_at(1), Some(6), "nothing is closed");
    program.datapath.publish_window(clock, Some(8))?;
    assert_eq!(admitted(&program, 1..=20)?, 2);
    Ok(())
}

#[test]
fn a_window_that_nobody_renews_ends_and_policy_is_in_force_again() -> Result<()> {
    needs_root!();
    let (mut program, clock) = web()?;
    let lease = LEASE.as_nanos() as u64;
    program.datapath.publish_window(clock, Some(4))?;
    let Some(WindowState { connections: 4, lease_until }) = program.datapath.window_state(clock) else {
        anyhow::bail!("{:?}", program.datapath.window_state(clock))
    };
    assert!((program.now() + lease..program.now() + lease + SECOND / 100).contains(&lease_until));
    program.wait(lease_until - program.now())?;
    assert_eq!(program.datapath.window_state(clock), None);
    assert_eq!(admitted(&program, 1..=20)?, 10);
    // Renewed, it holds.
    program.rest()?;
    for _ in 0..3 {
        program.datapath.publish_window(clock, Some(4))?;
        program.wait(lease)?;
    }
    assert_eq!(admitted(&program, 1..=20)?, 4);
    program.datapath.publish_window(clock, None)?;
    assert_eq!(program.datapath.window_state(clock), None);
    Ok(())
}

#[test]
fn a_window_outlives_a_change_of_policy_and_goes_with_its_service() -> Result<()> {
    needs_root!();
    let (mut program, clock) = web()?;
    program.datapath.publish_window(clock, Some(4))?;
    program.apply(&WEB.replace("concurrent = 10", "concurrent = 20"))?;
    assert_eq!(admitted(&program, 1..=20)?, 4);
    program.apply("")?;
    assert_eq!(program.datapath.window_state(clock), None);
    Ok(())
}

#[test]
fn explain_goes_by_the_window() -> Result<()> {
    needs_root!();
    let (mut program, clock) = web()?;
    open(&program, 6)?;
    let packet = explain::packet(source(9).into(), Some([192, 0, 2, 1].into()), protocol::TCP, 80, true);
    let explained = |program: &Program| program.datapath.explain(&packet, 60, program.now());
    assert_eq!(explained(&program)?.verdict.reason, Reason::Admitted);
    program.datapath.publish_window(clock, Some(4))?;
    let told = explained(&program)?;
    assert_eq!(told.verdict.reason, Reason::ConnectionLimit);
    let of_all = told.limits.iter().find(|it| it.record.is_of_service()).expect("it is asked");
    assert_eq!(of_all.record.depth, depth(4));
    // Nobody renews it: the instant that is promised is the one at which the next connection passes.
    let passes_at = told.passes_at.expect("the lease ends");
    program.wait(passes_at - 1 - program.now())?;
    assert_eq!(program.act(&syn(9))?, action::DROP);
    program.wait(1)?;
    assert_eq!(program.act(&syn(9))?, action::PASS);
    Ok(())
}
