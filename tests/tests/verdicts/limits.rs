//! Limits: units, bursts, refill, overflow rules, several on one packet.

use super::{Case, MINUTE, Step, pass_times, passes, refused, show, step};
use anyhow::Result;
use throttle_common::{
    packet::tcp,
    words::{Outcome, Reason},
};
use throttle_tests::{
    frames::Frame,
    needs_root,
    program::{Program, SECOND},
};

const SOURCE: &str = "198.51.100.7";

#[test]
fn a_limit_counts_packets_bytes_or_new_connections() -> Result<()> {
    needs_root!();
    let packets = "mode = \"enforce\"\n[[limit]]\nname = \"p\"\nunit = \"packets\"\nrate = \"10/s\"\nburst = 3\n";
    let bytes =
        "mode = \"enforce\"\n[[limit]]\nname = \"b\"\nunit = \"bytes\"\nrate = \"1000B/s\"\nburst = \"3000B\"\n";
    let opens = "mode = \"enforce\"\n[[limit]]\nname = \"c\"\nunit = \"connections\"\nrate = \"50/min\"\nburst = 2\n";
    let plain = Frame::from(SOURCE);
    let syn = plain.clone().tcp(40_000, 80, tcp::SYN);
    let data = plain.clone().tcp(40_000, 80, tcp::ACK).payload(700);
    let answer = plain.clone().tcp(80, 40_000, tcp::SYN | tcp::ACK);
    let join = |mut first: Vec<Step>, then: Vec<Step>| {
        first.extend(then);
        first
    };
    show(vec![
        Case {
            sentence: "it refuses the packet after the burst",
            policy: packets,
            steps: join(pass_times(&plain, 3), vec![refused(&plain), refused(&plain)]),
        },
        Case {
            sentence: "it admits again exactly at the promised time",
            policy: packets,
            steps: join(
                pass_times(&plain, 3),
                vec![refused(&plain).after(SECOND / 10 - 1), passes(&plain).after(1), refused(&plain)],
            ),
        },
        Case {
            sentence: "it saves up the burst, and no more",
            policy: packets,
            steps: join(
                pass_times(&plain, 3),
                join(vec![passes(&plain).after(MINUTE), passes(&plain), passes(&plain)], vec![refused(&plain)]),
            ),
        },
        Case {
            sentence: "bytes are those of the whole frame",
            policy: bytes,
            steps: vec![
                passes(&plain.clone().length(1400)),
                passes(&plain.clone().length(1400)),
                refused(&plain.clone().length(201)),
                passes(&plain.clone().length(200)),
                refused(&plain.clone().length(60)),
                passes(&plain.clone().length(60)).after(SECOND * 60 / 1000),
            ],
        },
        Case {
            sentence: "a connection is a SYN without an ACK, and nothing else is charged",
            policy: opens,
            steps: vec![
                passes(&syn),
                passes(&data),
                passes(&answer),
                passes(&plain),
                passes(&syn),
                refused(&syn),
                passes(&data),
                passes(&plain.clone().tcp(1, 80, tcp::SYN | tcp::RST)),
                passes(&syn).after(MINUTE / 50),
                refused(&syn),
            ],
        },
    ])
}

#[test]
fn the_overflow_rule_decides_for_a_source_without_a_place() -> Result<()> {
    needs_root!();
    let policy = |rule: &str| {
        format!(
            "mode = \"enforce\"\n[[limit]]\nname = \"{rule}\"\nunit = \"packets\"\nrate = \"2/min\"\nsources = 3\n\
             overflow = \"{rule}\"\n"
        )
    };
    let mut program = Program::timed("")?;
    // What becomes of the late ones, and how many found no place.
    let mut fill = |rule: &str| -> Result<(Vec<Reason>, u64)> {
        program.apply(&policy(rule))?;
        program.rest()?;
        for host in 1..=3 {
            assert_eq!(program.judge(&Frame::v4([192, 0, 2, host]).bytes())?.reason, Reason::Admitted);
        }
        // All of one /24, each for the first time; then one of another /24.
        let late = (1..=4).map(|host| [198, 51, 100, host]).chain([[203, 0, 113, 1]]);
        let met = late.map(|source| Ok(program.judge(&Frame::v4(source).bytes())?.reason)).collect::<Result<_>>()?;
        Ok((met, program.limit(rule)?.overflowed.packets))
    };
    assert_eq!(fill("admit")?, (vec![Reason::Admitted; 5], 5));
    assert_eq!(fill("refuse")?, (vec![Reason::SourceOverflow; 5], 5));
    // One aggregate for each set, and there is one set: the /24s meet in it.
    let shared = [[Reason::Admitted; 2].as_slice(), &[Reason::SourceOverflow; 3]].concat();
    assert_eq!(fill("aggregate")?, (shared, 5));
    Ok(())
}

const TWO: &str = r#"
mode = "enforce"
[[limit]]
name = "wide"
unit = "packets"
rate = "5/min"
[[limit]]
name = "narrow"
unit = "packets"
rate = "2/min"
"#;

#[test]
fn all_limits_of_a_packet_are_checked_before_any_is_charged() -> Result<()> {
    needs_root!();
    let frame = Frame::from(SOURCE);
    let mut program = Program::timed(TWO)?;
    for _ in 0..2 {
        assert_eq!(program.judge(&frame.bytes())?.reason, Reason::Admitted);
    }
    for _ in 0..10 {
        assert_eq!(program.judge(&frame.bytes())?.reason, Reason::SourceLimit);
    }
    let (wide, narrow) = (program.limit("wide")?, program.limit("narrow")?);
    assert_eq!((wide.admitted.packets, wide.refused.packets, wide.spared.packets), (2, 0, 10));
    assert_eq!((narrow.admitted.packets, narrow.refused.packets, narrow.spared.packets), (2, 10, 0));
    // What the narrow limit refused cost the wide one nothing: three of its five are left.
    program.apply(&TWO.replace(
        "\"narrow\"\nunit = \"packets\"\nrate = \"2/min\"",
        "\"other\"\nunit = \"packets\"\nrate = \"100/min\"",
    ))?;
    for _ in 0..3 {
        assert_eq!(program.judge(&frame.bytes())?.reason, Reason::Admitted);
    }
    assert_eq!(program.judge(&frame.bytes())?.reason, Reason::SourceLimit);
    let wide = program.limit("wide")?;
    assert_eq!((wide.admitted.packets, wide.refused.packets, wide.spared.packets), (5, 1, 10));
    Ok(())
}

#[test]
fn eight_limits_of_one_packet_are_all_charged() -> Result<()> {
    needs_root!();
    let limit = |n| format!("[[limit]]\nname = \"l{n}\"\nunit = \"packets\"\nrate = \"{}/min\"\n", 20 - n);
    let limits = (0..8).map(limit).collect::<Vec<_>>().concat();
    let program = Program::timed(&format!("mode = \"enforce\"\n{limits}"))?;
    for _ in 0..13 {
        assert_eq!(program.judge(&Frame::from(SOURCE).bytes())?.reason, Reason::Admitted);
    }
    assert_eq!(program.judge(&Frame::from(SOURCE).bytes())?.reason, Reason::SourceLimit);
    for n in 0..8 {
        let tally = program.limit(&format!("l{n}"))?;
        let refused = u64::from(n == 7);
        assert_eq!(
            (tally.admitted.packets, tally.refused.packets, tally.spared.packets),
            (13, refused, 1 - refused),
            "l{n}"
        );
    }
    Ok(())
}

#[test]
fn observing_lets_pass_what_it_counts() -> Result<()> {
    needs_root!();
    let frame = Frame::from(SOURCE);
    let observed = |frame| step(frame, Reason::SourceLimit, Outcome::Observe);
    show(vec![Case {
        sentence: "a host that observes refuses nobody",
        policy: "[[limit]]\nname = \"p\"\nunit = \"packets\"\nrate = \"1/min\"\n",
        steps: vec![passes(&frame), observed(&frame), observed(&frame), passes(&frame).after(MINUTE)],
    }])?;
    let mut program = Program::timed(&TWO.replace("\"2/min\"", "\"2/min\"\nmode = \"observe\""))?;
    let outcomes: Vec<_> = (0..6).map(|_| Ok(program.judge(&frame.bytes())?.outcome)).collect::<Result<_>>()?;
    let (pass, observe) = (Outcome::Pass, Outcome::Observe);
    assert_eq!(outcomes, [pass, pass, observe, observe, observe, Outcome::Drop]);
    let (wide, narrow) = (program.limit("wide")?, program.limit("narrow")?);
    assert_eq!((wide.admitted.packets, wide.refused.packets), (5, 1));
    // The sixth was refused before this one was asked.
    assert_eq!((narrow.admitted.packets, narrow.refused.packets, narrow.observed.packets), (2, 0, 3));
    program.rest()?;
    assert_eq!(program.judge(&frame.bytes())?.outcome, Outcome::Pass);
    Ok(())
}

#[test]
fn a_limit_without_a_bucket_deep_enough_for_the_packet_refuses_it() -> Result<()> {
    needs_root!();
    let policy =
        "mode = \"enforce\"\n[[limit]]\nname = \"b\"\nunit = \"bytes\"\nrate = \"1000B/s\"\nburst = \"2000B\"\n";
    let (large, small) = (Frame::from(SOURCE).length(2001), Frame::from(SOURCE).length(2000));
    show(vec![Case {
        sentence: "a packet above the burst never passes, and costs nothing",
        policy,
        steps: vec![refused(&large), refused(&large).after(MINUTE), passes(&small)],
    }])
}
