//! What policy says of sources: blocks, allows, known ones; addresses and prefixes; expiry by the clock.

use super::{Case, passes, refused, show, step};
use anyhow::Result;
use throttle_agent::policy::sources::{FOR_EVER, Standing};
use throttle_common::words::{Outcome, Reason};
use throttle_tests::{
    frames::Frame,
    needs_root,
    program::{Program, SECOND},
};

const STANDINGS: &str = r#"
mode = "enforce"
[sources]
allow = ["192.0.2.66", "203.0.113.128/25", "2001:db8:a::/48"]
block = ["192.0.2.0/24", "203.0.113.0/24", "198.51.100.9", "2001:db8:a:b::/64", "2001:db8:b::/48", "2001:db8:c::1"]
[[limit]]
name = "packets"
unit = "packets"
rate = "1/min"
"#;

#[test]
fn blocks_and_allows_hold_for_addresses_and_prefixes_of_both_families() -> Result<()> {
    needs_root!();
    let blocked = |source| step(&Frame::from(source), Reason::Blocked, Outcome::Drop);
    let allowed = |source| step(&Frame::from(source), Reason::Allowed, Outcome::Pass);
    let case = |sentence, steps| Case { sentence, policy: STANDINGS, steps };
    show(vec![
        case("a blocked address is refused", vec![blocked("198.51.100.9"), blocked("2001:db8:c::1")]),
        case(
            "its neighbour is not",
            vec![passes(&Frame::from("198.51.100.10")), passes(&Frame::from("2001:db8:c::2"))],
        ),
        case(
            "a blocked prefix is refused",
            vec![blocked("192.0.2.1"), blocked("192.0.2.255"), blocked("2001:db8:b:7::1")],
        ),
        case("an allowed address in a blocked prefix passes", vec![allowed("192.0.2.66"), allowed("192.0.2.66")]),
        case("an allowed prefix in a blocked one passes", vec![allowed("203.0.113.129"), blocked("203.0.113.127")]),
        case("an allow wins over a longer block", vec![allowed("2001:db8:a:b::1"), allowed("2001:db8:a::1")]),
        case("an allowed source meets no limit", vec![allowed("203.0.113.200"), allowed("203.0.113.200")]),
        case(
            "others meet the limit",
            vec![passes(&Frame::from("198.51.100.1")), refused(&Frame::from("198.51.100.1"))],
        ),
        Case {
            sentence: "a host that observes blocks nobody",
            policy: "mode = \"observe\"\n[sources]\nblock = [\"192.0.2.0/24\"]\n",
            steps: vec![step(&Frame::from("192.0.2.1"), Reason::Blocked, Outcome::Observe)],
        },
    ])
}

#[test]
fn what_was_found_of_a_source_is_found_anew_when_an_entry_changes_and_is_no_other_familys() -> Result<()> {
    const OFTEN: usize = 40;
    needs_root!();
    let mut program = Program::timed("mode = \"enforce\"")?;
    let (v4, v6) = ("192.0.2.1", "::192.0.2.1");
    let blocked = |program: &Program, source| -> Result<bool> {
        Ok(program.judge(&Frame::from(source).bytes())?.reason == Reason::Blocked)
    };
    let block = |source: &str| -> Result<_> { Ok((source.parse()?, Standing::Block { until: FOR_EVER })) };
    for said in [[block("192.0.2.1/32")?], [block("192.0.2.0/24")?]] {
        program.set_sources(said)?;
        // So often that what is found is kept.
        for _ in 0..OFTEN {
            anyhow::ensure!(!blocked(&program, v6)? && blocked(&program, v4)?, "{said:?}");
        }
        program.set_sources([block("198.51.100.1/32")?])?;
        anyhow::ensure!(!blocked(&program, v4)?, "only a neighbour is blocked");
        program.set_sources([block("::192.0.2.1/128")?])?;
        for _ in 0..OFTEN {
            anyhow::ensure!(!blocked(&program, v4)? && blocked(&program, v6)?, "only the other family's");
        }
        program.set_sources([])?;
        anyhow::ensure!(!blocked(&program, v4)? && !blocked(&program, v6)?, "nothing is said any more");
    }
    Ok(())
}

#[test]
fn a_block_ends_when_the_clock_says_so() -> Result<()> {
    needs_root!();
    let mut program = Program::timed("mode = \"enforce\"")?;
    let until = program.now() + 10 * SECOND;
    let block = |net: &str, until| (net.parse().expect("a prefix"), Standing::Block { until });
    program.set_sources([
        block("192.0.2.1/32", until),
        block("198.51.100.0/24", until),
        block("2001:db8:c::1/128", until),
        block("198.51.100.7/32", until + SECOND),
    ])?;
    let reasons = |program: &Program| -> Result<Vec<Reason>> {
        let sources = ["192.0.2.1", "198.51.100.1", "2001:db8:c::1", "198.51.100.7"];
        sources.iter().map(|source| Ok(program.judge(&Frame::from(source).bytes())?.reason)).collect()
    };
    program.wait(10 * SECOND - 1)?;
    assert_eq!(reasons(&program)?, [Reason::Blocked; 4]);
    program.wait(1)?;
    assert_eq!(reasons(&program)?, [Reason::Admitted, Reason::Admitted, Reason::Admitted, Reason::Blocked]);
    program.wait(SECOND)?;
    assert_eq!(reasons(&program)?, [Reason::Admitted; 4]);
    Ok(())
}

#[test]
fn what_is_no_longer_said_of_a_source_no_longer_holds() -> Result<()> {
    needs_root!();
    let mut program = Program::timed(STANDINGS)?;
    let frame = Frame::from("198.51.100.9").bytes();
    assert_eq!(program.judge(&frame)?.reason, Reason::Blocked);
    program.apply("mode = \"enforce\"")?;
    assert_eq!(program.judge(&frame)?.reason, Reason::Admitted);
    Ok(())
}

#[test]
fn a_known_source_finds_a_place_in_a_full_region() -> Result<()> {
    needs_root!();
    let policy = r#"
mode = "enforce"
[sources]
known = ["198.51.100.7", "2001:db8:7::/48"]
[[limit]]
name = "packets"
unit = "packets"
rate = "1/min"
sources = 3
overflow = "refuse"
"#;
    let program = Program::timed(policy)?;
    // One set: three ways that anybody may take, one for the known.
    let (_, record) = program.limit_record("packets")?;
    assert_eq!((record.v4.sets, record.v6.sets), (1, 1));
    let strangers = (1..=5)
        .map(|host| Frame::v4([192, 0, 2, host]))
        .chain((1..=5).map(|host| Frame::v6([0x2001, 0xdb8, 0, host, 0, 0, 0, 1])));
    let mut reasons = Vec::new();
    for stranger in strangers {
        reasons.push(program.judge(&stranger.bytes())?.reason);
    }
    let each = [Reason::Admitted, Reason::Admitted, Reason::Admitted, Reason::SourceOverflow, Reason::SourceOverflow];
    assert_eq!(reasons, [each, each].concat());
    for known in ["198.51.100.7", "2001:db8:7:8::9"] {
        assert_eq!(program.judge(&Frame::from(known).bytes())?.reason, Reason::Admitted, "{known}");
        assert_eq!(program.judge(&Frame::from(known).bytes())?.reason, Reason::SourceLimit, "{known}");
    }
    let tally = program.limit("packets")?;
    assert_eq!((tally.admitted.packets, tally.refused.packets, tally.overflowed.packets), (8, 6, 4));
    Ok(())
}
