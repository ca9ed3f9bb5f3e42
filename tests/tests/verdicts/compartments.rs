//! What a flood of one tenant does to the places of another's sources: nothing.

use anyhow::{Result, ensure};
use throttle_tests::{
    frames::Frame,
    needs_root,
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
/// Who is in the way of whom. The last tenant is that of all the rest, and has the part of those of none.
const TENANTS: &str = r#"
mode = "enforce"
[[tenant]]
name = "acme"
sources = ["10.1.0.0/16", "2001:db8:1::/48"]
[[tenant]]
name = "globex"
sources = ["10.2.0.0/16", "2001:db8:2::/48"]
"#;
const REST: &str = r#"
[[tenant]]
name = "rest"
sources = ["0.0.0.0/0", "::/0"]
"#;

/// A packet each from more sources than the whole table has places for.
fn flood(source: impl Fn(u16) -> String) -> Vec<Vec<u8>> {
    (0..1_000).map(|number| Frame::from(&source(number)).bytes()).collect()
}

/// Two packets each from more sources than a compartment has places for.
fn asks(source: impl Fn(u16) -> String) -> Vec<Vec<u8>> {
    (0..200).map(|number| Frame::from(&source(number)).bytes()).flat_map(|frame| [frame.clone(), frame]).collect()
}

fn judge(program: &Program, frames: &[Vec<u8>]) -> Result<Vec<u32>> {
    frames.iter().map(|frame| program.act(frame)).collect()
}

#[test]
fn a_flood_of_one_tenant_changes_no_verdict_on_anothers_sources() -> Result<()> {
    needs_root!();
    for (limit, rest) in LIMITS.iter().flat_map(|limit| ["", REST].map(|rest| (limit, rest))) {
        let policy = format!("{TENANTS}{rest}[[limit]]\nname = \"l\"\nunit = \"packets\"\nsources = 400\n{limit}\n");
        let mut program = Program::timed(&policy)?;
        for family in [4, 6] {
            let source = |tenant: u8| {
                move |number: u16| match family {
                    4 => format!("10.{tenant}.{}.{}", number / 16, number % 16),
                    _ => format!("2001:db8:{tenant}:{number:x}::1"),
                }
            };
            for (flooder, flooded) in [(1, 2), (2, 1), (1, 3), (3, 1)] {
                let context = || format!("{flooder} floods {flooded}, IPv{family}: {limit}{rest}");
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
fn buckets_stay_where_another_tenant_divides_the_table_no_further() -> Result<()> {
    needs_root!();
    let limit = "[[limit]]\nname = \"l\"\nunit = \"packets\"\nrate = \"1/min\"\nsources = 300\n";
    let mut program = Program::timed(&format!("{TENANTS}{limit}"))?;
    let frames = ["10.1.0.1", "10.2.0.1", "192.0.2.1"].map(|source| Frame::from(source).bytes());
    let verdicts = [action::PASS, action::DROP].map(|verdict| vec![verdict; frames.len()]);
    ensure!([judge(&program, &frames)?, judge(&program, &frames)?] == verdicts);
    program.apply(&format!("{TENANTS}[[tenant]]\nname = \"initech\"\nsources = [\"10.3.0.0/16\"]\n{limit}"))?;
    ensure!(judge(&program, &frames)? == verdicts[1], "buckets were lost");
    Ok(())
}
