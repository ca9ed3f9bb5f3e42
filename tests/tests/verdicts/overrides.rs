//! Overrides: what a bucket owes when its terms change, and by which terms sources share one.

use anyhow::{Result, ensure};
use throttle_agent::datapath::explain::{Bucket, packet};
use throttle_common::{packet::protocol, words::Outcome};
use throttle_tests::{
    frames::Frame,
    needs_root,
    program::{Program, SECOND},
};

/// A limit, per source or per tenant, with an override for the tenant that sends.
fn policy(per: &str, all: &str, own: &str) -> String {
    format!(
        "mode = \"enforce\"\n[[tenant]]\nname = \"acme\"\nsources = [\"10.1.0.0/16\"]\n\
         [[tenant]]\nname = \"globex\"\nsources = [\"10.2.0.0/16\"]\n\
         [[limit]]\nname = \"all\"\nunit = \"packets\"\nper = \"{per}\"\n{all}\n\
         [[limit.override]]\ntenant = \"acme\"\n{own}\n"
    )
}

const SLOW: &str = "rate = \"10/min\"\nburst = 100";
const QUICK: &str = "rate = \"1000/s\"\nburst = 500";
const LESS: &str = "rate = \"10/min\"\nburst = 30";

/// Sends so many packets of each.
fn send(program: &Program, frames: &[&Frame], times: usize) -> Result<()> {
    frames.iter().try_for_each(|frame| (0..times).try_for_each(|_| program.act(&frame.bytes()).map(drop)))
}

/// How many packets pass at an instant.
fn pass(program: &Program, frame: &Frame) -> Result<usize> {
    let mut passed = 0;
    while program.judge(&frame.bytes())?.outcome == Outcome::Pass {
        passed += 1;
    }
    Ok(passed)
}

#[test]
fn who_shares_the_bucket_of_an_aggregate_does_so_by_the_terms_that_all_have() -> Result<()> {
    needs_root!();
    let mut program = Program::timed(
        "mode = \"enforce\"\n[[limit]]\nname = \"all\"\nunit = \"packets\"\nrate = \"1000/s\"\nburst = 100\n\
         sources = 3\n[[limit.override]]\nsources = [\"10.1.0.1\"]\nrate = \"10/min\"\nburst = 60\n",
    )?;
    // Three places, which others need for a tenth of a second.
    let others = [1, 2, 3].map(|number| Frame::v4([198, 51, 100, number]));
    send(&program, &others.each_ref(), 100)?;
    let [overridden, beside] = [[10, 1, 0, 1], [10, 1, 0, 2]].map(Frame::v4);
    ensure!(pass(&program, &overridden)? == 100, "it has what its aggregate has");
    let asked = packet([10, 1, 0, 1].into(), None, protocol::UDP, 9, false);
    let told = program.datapath.explain(&asked, 60, program.now())?;
    let (weighed, (_, limit)) = (&told.limits[0], program.limit_record("all")?);
    let shown = (weighed.bucket, weighed.overridden, weighed.record.depth);
    ensure!(shown == (Bucket::Shared, false, limit.depth), "explain shows {weighed:?}");
    let wait = told.passes_at.map(|at| at - program.now());
    ensure!(wait.is_some_and(|wait| wait <= SECOND / 999), "explain has it wait for {wait:?}");
    program.wait(SECOND / 20)?;
    ensure!(pass(&program, &beside)? == 50, "and costs those who share that what each of them does");
    Ok(())
}

#[test]
fn a_bucket_goes_on_owing_as_many_units_by_its_own_terms_before_and_after() -> Result<()> {
    needs_root!();
    let used = 60;
    let [acme, globex] = [[10, 1, 0, 1], [10, 2, 0, 1]].map(Frame::v4);
    for per in ["source", "tenant"] {
        let mut program = Program::timed(&policy(per, SLOW, SLOW))?;
        send(&program, &[&acme, &globex], used)?;
        // Of an override, and of the limit beside it; what each has left when the other changes, and when it does itself.
        program.apply(&policy(per, SLOW, QUICK))?;
        ensure!(pass(&program, &acme)? == 500 - used, "raised by its override, per {per}");
        ensure!(pass(&program, &globex)? == 100 - used, "whom no override is for, per {per}");
        program.rest()?;
        send(&program, &[&acme, &globex], used)?;
        program.apply(&policy(per, QUICK, QUICK))?;
        ensure!(pass(&program, &acme)? == 500 - used, "an override stays as it is where the limit changes, per {per}");
        ensure!(pass(&program, &globex)? == 500 - used, "the limit's own, per {per}");
        program.rest()?;
        send(&program, &[&acme], used)?;
        program.apply(&policy(per, QUICK, LESS))?;
        ensure!(pass(&program, &acme)? == 0, "no more than it may owe, per {per}");
        program.wait(6 * SECOND)?;
        ensure!(pass(&program, &acme)? == 1, "nor for longer than that, per {per}");
        // An override that goes.
        program.rest()?;
        send(&program, &[&acme], 20)?;
        let gone = policy(per, QUICK, LESS).replace("tenant = \"acme\"\nrate", "tenant = \"globex\"\nrate");
        program.apply(&gone)?;
        ensure!(pass(&program, &acme)? == 480, "of whom an override has gone, per {per}");
    }
    Ok(())
}
