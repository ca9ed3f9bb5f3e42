//! What a flood of one tenant does to the places of another's sources: nothing.

use anyhow::{Result, ensure};
use throttle_tests::{
    frames::Frame,
    needs_root, policies,
    program::{Program, action},
};

/// What the limits per source are that the tenants meet: every way of counting, and every rule for who finds no place.
const LIMITS: [&str; 5] = [
    "rate = \"1/min\"\noverflow = \"refuse\"",
    "rate = \"2/min\"\noverflow = \"aggregate\"",
    "rate = \"2/min\"\nalgorithm = \"leaky-bucket\"\noverflow = \"admit\"",
    "rate = \"2/min\"\nalgorithm = \"fixed-window\"\noverflow = \"aggregate\"",
    "rate = \"2/min\"\nalgorithm = \"sliding-window\"\noverflow = \"aggregate\"",
];
/// The tenant of a number, with networks of its own.
fn tenant(number: u32) -> String {
    policies::tenant(number, &format!("\"10.{number}.0.0/16\", \"2001:db8:{number}::/48\""))
}

/// The tenant of all the rest.
fn rest() -> String {
    policies::tenant(0, "\"0.0.0.0/0\", \"::/0\"")
}

/// A policy of tenants with a limit for so many sources; `limit` are its lines behind those.
fn policy(tenants: impl IntoIterator<Item = String>, sources: u32, limit: &str) -> String {
    let tenants: String = tenants.into_iter().collect();
    format!("mode = \"enforce\"\n{tenants}[[limit]]\nname = \"l\"\nunit = \"packets\"\nsources = {sources}\n{limit}\n")
}

/// A packet each from more sources than the whole table has places for.
fn flood(source: impl Fn(u16) -> String) -> Vec<Vec<u8>> {
    (0..2_500).map(|number| Frame::from(&source(number)).bytes()).collect()
}

/// Two packets each from more sources than a compartment has places for.
fn asks(source: impl Fn(u16) -> String) -> Vec<Vec<u8>> {
    (0..600).map(|number| Frame::from(&source(number)).bytes()).flat_map(|frame| [frame.clone(), frame]).collect()
}

fn judge(program: &Program, frames: &[Vec<u8>]) -> Result<Vec<u32>> {
    frames.iter().map(|frame| program.act(frame)).collect()
}

#[test]
fn a_flood_of_one_tenant_changes_no_verdict_on_anothers_sources() -> Result<()> {
    needs_root!();
    // The third is nobody's, and then that of all the rest, which has the part of those of none.
    for (limit, rest) in LIMITS.into_iter().map(|limit| (limit, None)).chain([(LIMITS[1], Some(rest()))]) {
        let mut program =
            Program::timed(&policy([tenant(1), tenant(2)].into_iter().chain(rest.clone()), 1_500, limit))?;
        for family in [4, 6] {
            let source = |tenant: u8| {
                move |number: u16| match family {
                    4 => format!("10.{tenant}.{}.{}", number / 16, number % 16),
                    _ => format!("2001:db8:{tenant}:{number:x}::1"),
                }
            };
            for (flooder, flooded) in [(1, 2), (2, 1), (1, 3), (3, 1)] {
                let context = || format!("{flooder} floods {flooded}, IPv{family}: {limit}, rest: {rest:?}");
                let (frames, others, own) = (flood(source(flooder)), asks(source(flooded)), asks(source(flooder)));
                let mut judge_after = |before: &[Vec<u8>], asked| {
                    program.rest()?;
                    judge(&program, before)?;
                    judge(&program, asked)
                };
                let (alone, beside) = (judge_after(&[], &others)?, judge_after(&frames, &others)?);
                ensure!(beside == alone, "other verdicts: {}", context());
                // Its own sources are in each other's way: the flood is one.
                let (quiet, within) = (judge_after(&[], &own)?, judge_after(&frames[own.len() / 2..], &own)?);
                ensure!(within != quiet, "not so much as its own: {}", context());
            }
        }
    }
    Ok(())
}

#[test]
fn what_sources_owe_stays_theirs_however_tenants_divide_the_table() -> Result<()> {
    needs_root!();
    for limit in LIMITS {
        let divided = |tenants: &[u32]| policy(tenants.iter().copied().map(tenant), 6_000, limit);
        let mut program = Program::timed(&divided(&[]))?;
        let sources = (1..=20).flat_map(|it| [format!("10.{it}.0.{it}"), format!("2001:db8:{it}::{it}")]);
        let frames: Vec<_> = sources.map(|source| Frame::from(&source).bytes()).collect();
        // Until each of them has used up what it may.
        while judge(&program, &frames)?.contains(&action::PASS) {}
        // Nobody's, in ever more and then fewer compartments, each another's, and nobody's again.
        for tenants in [&[1][..], &[1, 2], &[1, 2, 3], &[1, 2, 3, 4, 5, 6, 7, 8, 9], &[9, 2, 8], &[5], &[]] {
            program.apply(&divided(tenants))?;
            let passed = judge(&program, &frames)?.iter().filter(|verdict| **verdict == action::PASS).count();
            ensure!(
                passed == 0,
                "{passed} of {} owe nothing any more beside the tenants {tenants:?}: {limit}",
                frames.len()
            );
        }
        let exchanged = [tenant(1).replace("10.1.", "10.2."), tenant(2).replace("10.2.", "10.1.")];
        for tenants in [[tenant(1), tenant(2)], exchanged] {
            program.apply(&policy(tenants, 6_000, limit))?;
            ensure!(
                !judge(&program, &frames)?.contains(&action::PASS),
                "a prefix that becomes another's begins anew: {limit}"
            );
        }
    }
    Ok(())
}

#[test]
fn a_source_with_several_tenants_in_it_keeps_a_bucket_in_each_ones_part() -> Result<()> {
    needs_root!();
    let tenant = |number: u32| policies::tenant(number, &format!("\"10.0.0.{}/28\"", number * 16));
    let limit = "rate = \"1/min\"\noverflow = \"refuse\"\nprefix = { ipv4 = 24 }";
    let divided = |tenants: u32| policy((0..tenants).map(tenant), 6_000, limit);
    let mut program = Program::timed(&divided(3))?;
    let frames = [3, 19, 35, 200].map(|last| Frame::from(&format!("10.0.0.{last}")).bytes());
    ensure!(judge(&program, &frames)? == [action::PASS; 4], "each part has a bucket of its own");
    // There is room for a fourth: nothing is divided anew, and nobody can tell from the table whose bucket is whose.
    program.apply(&divided(4))?;
    ensure!(judge(&program, &frames)? == [action::DROP; 4], "buckets went astray");
    Ok(())
}
