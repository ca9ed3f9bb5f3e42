//! What CPUs take ahead of a bucket that all share.

use anyhow::{Result, ensure};
use std::net::Ipv4Addr;
use throttle_agent::datapath::explain::{self, Weighed};
use throttle_common::{
    gcra::{self, Ticks},
    packet::protocol,
};
use throttle_tests::{
    frames::Frame,
    machine, needs_root,
    program::{Program, SECOND, action},
    say,
};

/// A host that admits a hundred packets at once.
const HOST: &str = r#"
mode = "enforce"
[[limit]]
name = "host"
unit = "packets"
rate = "10/s"
burst = 100
per = "host"
"#;
const BATCH: u32 = 10;
/// What a packet costs there.
const UNIT: Ticks = gcra::ticks(SECOND / 10);

/// What the host's limit has to say of one more.
fn explained(program: &Program) -> Result<Weighed> {
    let packet = explain::packet(Ipv4Addr::new(192, 0, 2, 1).into(), None, protocol::UDP, 9, false);
    Ok(program.datapath.explain(&packet, 60, program.now())?.limits[0])
}

/// How many of so many packets a CPU admits.
fn admitted(program: &Program, cpu: usize, packets: usize) -> Result<usize> {
    let frame = Frame::v4([192, 0, 2, 1]).bytes();
    machine::pin_to(cpu)?;
    let mut admitted = 0;
    for _ in 0..packets {
        admitted += usize::from(program.act(&frame)? == action::PASS);
    }
    Ok(admitted)
}

fn leased(policy: &str) -> Result<Program> {
    let mut program = Program::timed(policy)?;
    program.lease(BATCH)?;
    Ok(program)
}

#[test]
fn only_the_cpu_that_has_a_lease_passes_where_nothing_else_is_left_and_no_burst_is_exceeded() -> Result<()> {
    needs_root!();
    if machine::cpus() < 2 {
        say!("skipped what two CPUs take ahead: this machine has one");
        return Ok(());
    }
    let mut program = leased(HOST)?;
    // The first packet takes a batch as well; the others are of that.
    let bucket =
        |program: &Program| Ok::<_, anyhow::Error>(program.set_of(program.limit_record("host")?.1.v4.base)?[0]);
    ensure!(admitted(&program, 0, 2)? == 2);
    let before = bucket(&program)?;
    ensure!(admitted(&program, 0, 1)? == 1);
    assert_eq!(bucket(&program)?, before, "a packet that has a lease leaves the bucket alone");
    let told = explained(&program)?;
    assert_eq!(
        (told.debt, told.leased),
        (11 * UNIT, 8 * UNIT),
        "what is owed is told, and what of it is still to come"
    );
    assert_eq!(admitted(&program, 1, 1_000)?, 100 - 3 - 8, "another CPU has all that is not taken");
    assert_eq!(admitted(&program, 0, 1_000)?, 8);
    // What is due is not taken ahead: it goes to whoever comes first.
    program.wait(SECOND)?;
    assert_eq!((admitted(&program, 1, 7)?, admitted(&program, 0, 1_000)?), (7, 3));
    // What a silent CPU holds comes back with the time that it stands for.
    program.rest()?;
    ensure!(admitted(&program, 1, 1)? == 1);
    program.rest()?;
    assert_eq!(admitted(&program, 0, 1_000)?, 100);
    Ok(())
}

#[test]
fn a_lease_of_a_policy_before_is_worth_nothing_and_the_bucket_stays() -> Result<()> {
    needs_root!();
    let mut program = leased(HOST)?;
    ensure!(admitted(&program, 0, 2)? == 2);
    // To charging directly, and back.
    program.apply(HOST)?;
    assert_eq!(admitted(&program, 0, 3)?, 3);
    program.lease(BATCH)?;
    assert_eq!(admitted(&program, 0, 1_000)?, 100 - 1 - 3 - BATCH as usize, "what was taken ahead is gone");
    // It lapses there, as it would have in the lease.
    program.wait(10 * SECOND)?;
    assert_eq!(admitted(&program, 0, 1_000)?, 100);
    Ok(())
}

#[test]
fn a_limit_that_comes_back_or_changes_its_rate_begins_without_a_lease() -> Result<()> {
    needs_root!();
    let mut program = leased(HOST)?;
    ensure!(admitted(&program, 0, 2)? == 2);
    program.apply("mode = \"enforce\"")?;
    program.apply(&HOST.replace("burst = 100", "burst = 30"))?;
    program.lease(BATCH)?;
    assert_eq!(admitted(&program, 0, 1_000)?, 30);
    // At twice the rate, what is owed is owed for as many packets.
    program.apply(&HOST.replace("10/s", "20/s"))?;
    program.lease(BATCH)?;
    assert_eq!(admitted(&program, 0, 1_000)?, 70);
    Ok(())
}
