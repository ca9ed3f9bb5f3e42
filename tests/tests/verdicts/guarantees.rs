//! What tenants and services are guaranteed of what all share, and what they borrow.

use super::{Case, MINUTE, Step, pass_times, passes, show, step};
use anyhow::{Result, ensure};
use throttle_common::{
    packet::tcp,
    speed::{LEAD, Speed},
    words::{Outcome, Reason},
};
use throttle_tests::{
    frames::Frame,
    needs_root,
    program::{Program, SECOND, action},
};

/// Two tenants under a host that admits ten packets a minute: each has three of them for sure, and eight at most.
const TENANTS: &str = r#"
mode = "enforce"
[[tenant]]
name = "acme"
sources = ["10.1.0.0/16"]
[[tenant]]
name = "globex"
sources = ["10.2.0.0/16"]
[[limit]]
name = "tenants"
unit = "packets"
rate = "8/min"
per = "tenant"
guarantee = "3/min"
[[limit]]
name = "host"
unit = "packets"
rate = "10/min"
per = "host"
"#;

/// Two services under the same host.
const SERVICES: &str = r#"
mode = "enforce"
[[service]]
name = "web"
protocol = "tcp"
ports = [80]
[[service]]
name = "api"
protocol = "tcp"
ports = [443]
[[limit]]
name = "web"
service = "web"
unit = "packets"
rate = "10/min"
per = "service"
guarantee = "3/min"
[[limit]]
name = "api"
service = "api"
unit = "packets"
rate = "10/min"
per = "service"
guarantee = "3/min"
[[limit]]
name = "host"
unit = "packets"
rate = "10/min"
per = "host"
"#;

fn by_tenant(frame: &Frame) -> Step {
    step(frame, Reason::TenantLimit, Outcome::Drop)
}

fn by_host(frame: &Frame) -> Step {
    step(frame, Reason::HostLimit, Outcome::Drop)
}

#[test]
fn a_tenant_has_its_guarantee_however_much_another_borrows() -> Result<()> {
    needs_root!();
    let [a, other, b, nobody] = ["10.1.0.1", "10.1.9.9", "10.2.0.1", "192.0.2.1"].map(Frame::from);
    let fixed = TENANTS.replace("per = \"host\"", "per = \"host\"\nalgorithm = \"fixed-window\"").leak() as &str;
    // Ten that the host admits, and three beyond them that are guaranteed.
    let three_beyond = || [pass_times(&a, 8), pass_times(&nobody, 2), pass_times(&b, 3)].concat();
    let flood = |policy| Case {
        sentence: "the first borrows all that is left, and the second is guaranteed three",
        policy,
        steps: [
            pass_times(&a, 8),
            vec![by_tenant(&other)],
            pass_times(&nobody, 2),
            vec![by_host(&nobody)],
            pass_times(&b, 3),
            vec![by_host(&b), by_tenant(&a), by_host(&nobody)],
        ]
        .concat(),
    };
    show(vec![
        flood(TENANTS),
        flood(fixed),
        Case {
            sentence: "what a window admitted beyond the host's rate counts in the next",
            policy: fixed,
            steps: [
                three_beyond(),
                // Windows begin with the minute, which the test's clock does not: this is the next one.
                vec![passes(&nobody).after(MINUTE)],
                pass_times(&nobody, 6),
                vec![by_host(&nobody)],
                pass_times(&b, 3),
                vec![passes(&nobody).after(MINUTE)],
                pass_times(&nobody, 6),
                vec![by_host(&nobody), passes(&nobody).after(MINUTE)],
            ]
            .concat(),
        },
        Case {
            sentence: "what was admitted beyond the host's rate is owed, by whoever borrows",
            policy: TENANTS,
            steps: [
                three_beyond(),
                // Three came beyond ten: the host has room again for a fourth after four times six seconds.
                vec![by_host(&nobody).after(24 * SECOND - 1), passes(&nobody).after(1), by_host(&nobody)],
            ]
            .concat(),
        },
        Case {
            sentence: "a guarantee comes back with time, at its own rate",
            policy: TENANTS,
            steps: [
                pass_times(&a, 8),
                // Its ceiling has one every 7.5 s, its guarantee one every 20 s, which the ceiling cannot refuse but owes.
                vec![passes(&a).after(7_500_000_000), passes(&a).after(7_500_000_000)],
                vec![by_tenant(&a).after(5 * SECOND - 1), passes(&a).after(1)],
                vec![by_tenant(&a).after(10 * SECOND - 1), passes(&a).after(1)],
            ]
            .concat(),
        },
        Case {
            sentence: "a minute and more later all is as it was",
            policy: TENANTS,
            steps: [
                three_beyond(),
                vec![passes(&nobody).after(2 * MINUTE)],
                pass_times(&nobody, 9),
                vec![by_host(&nobody)],
                pass_times(&a, 3),
                pass_times(&b, 3),
                vec![by_host(&a), by_host(&b)],
            ]
            .concat(),
        },
    ])
}

#[test]
fn a_service_has_its_guarantee_too_and_what_nobody_uses_is_lent() -> Result<()> {
    needs_root!();
    let to = |port| Frame::from("192.0.2.1").tcp(40_000, port, tcp::ACK);
    let (web, api, elsewhere) = (to(80), to(443), to(22));
    show(vec![
        Case {
            sentence: "beside another service that takes all",
            policy: SERVICES,
            steps: [pass_times(&web, 10), pass_times(&api, 3), vec![by_host(&api), by_host(&elsewhere)]].concat(),
        },
        Case {
            sentence: "and what it does not use others have at once",
            policy: SERVICES,
            steps: [pass_times(&elsewhere, 10), vec![by_host(&elsewhere)], pass_times(&web, 3), pass_times(&api, 3)]
                .concat(),
        },
    ])
}

#[test]
fn narrower_limits_and_other_units_still_refuse_what_is_guaranteed() -> Result<()> {
    needs_root!();
    let a = Frame::from("10.1.0.1").length(1_000);
    let more = "\n[[limit]]\nname = \"sources\"\nunit = \"packets\"\nrate = \"2/min\"\n";
    let bytes = "\n[[limit]]\nname = \"bytes\"\nunit = \"bytes\"\nrate = \"2000B/min\"\nper = \"host\"\nburst = 2000\n";
    let [narrow, other] = [more, bytes].map(|more| (TENANTS.to_owned() + more).leak() as &str);
    let by_source = step(&a, Reason::SourceLimit, Outcome::Drop);
    show(vec![
        Case { sentence: "a source's own limit", policy: narrow, steps: [pass_times(&a, 2), vec![by_source]].concat() },
        Case { sentence: "one on bytes", policy: other, steps: [pass_times(&a, 2), vec![by_host(&a)]].concat() },
    ])
}

#[test]
fn what_is_refused_uses_up_no_guarantee_and_counters_tell_it_apart() -> Result<()> {
    needs_root!();
    let more = "\n[[limit]]\nname = \"bytes\"\nunit = \"bytes\"\nrate = \"2000B/min\"\nper = \"host\"\nburst = 2000\n";
    let mut program = Program::timed(&(TENANTS.to_owned() + more))?;
    let frame = Frame::from("10.1.0.1").length(1_000).bytes();
    for _ in 0..5 {
        program.judge(&frame)?;
    }
    let (own, ceiling) = (program.limit("tenants:guarantee")?, program.limit("tenants")?);
    ensure!((own.admitted.packets, own.spared.packets, own.refused.packets) == (2, 3, 0), "{own:?}");
    ensure!((ceiling.admitted.packets, ceiling.spared.packets) == (2, 3), "{ceiling:?}");
    // The third had room until the bytes were asked: another of few bytes still has it.
    ensure!(program.judge(&Frame::from("10.1.0.1").length(60).bytes())?.reason == Reason::HostLimit, "of bytes none");
    program.wait(2 * MINUTE)?;
    for _ in 0..2 {
        ensure!(program.judge(&frame)?.reason == Reason::Admitted);
    }
    ensure!(program.limit("tenants:guarantee")?.admitted.packets == 4);
    Ok(())
}

#[test]
fn a_guarantee_is_lent_and_back_within_a_tenth_of_a_second_under_a_flood_from_many_sources() -> Result<()> {
    const TENTH: u64 = SECOND / 10;
    needs_root!();
    let faster = |text: &str| text.replace("8/min", "1000/s").replace("3/min", "400/s").replace("10/min", "1000/s");
    for (between, policy, flooded) in [("tenants", TENANTS, 443), ("services", SERVICES, 80)] {
        let policy = faster(policy).replace("guarantee = ", "burst = 10\nguarantee-burst = 10\nguarantee = ");
        let mut program = Program::timed(&policy.replace("per = \"host\"", "per = \"host\"\nburst = 10"))?;
        let steady = Frame::from("10.2.0.1").tcp(40_000, 443, tcp::ACK).bytes();
        // Ten times what all may have, from ten thousand addresses; the other joins in from the fifth tenth to the tenth.
        let mut admitted = Vec::new();
        for tenth in 0..15_u32 {
            let (mut borrowed, mut guaranteed) = (0, 0);
            let both = (5..10).contains(&tenth);
            for number in 0..1_000_u32 {
                program.wait(TENTH / 1_000)?;
                if both && number % 25 == 0 {
                    let told = program.act(&steady)?;
                    ensure!(told == action::PASS, "{between}: it keeps to its guarantee, in tenth {tenth}");
                    guaranteed += 1;
                }
                let source = tenth * 1_000 + number;
                let flood = Frame::from(format!("10.1.{}.{}", source / 200 % 50, source % 200 + 1).as_str());
                let flood = flood.tcp(40_000, flooded, tcp::ACK).bytes();
                borrowed += i32::from(program.act(&flood)? == action::PASS);
            }
            ensure!(guaranteed == if both { 40 } else { 0 });
            admitted.push(borrowed);
        }
        // All of the host's rate, less what the other is guaranteed and takes; the first tenth has the burst too.
        for (tenth, borrowed) in admitted.iter().enumerate() {
            let due = if (5..10).contains(&tenth) { 60 } else { 100 } + if tenth == 0 { 10 } else { 0 };
            ensure!((borrowed - due).abs() <= 2, "{between}: {due} are due in tenth {tenth}: {admitted:?}");
        }
    }
    Ok(())
}

/// A tenant of all services, and one of them that is unwell. In each minute the tenant has six for sure, and the service ten.
const UNWELL: &str = r#"
mode = "enforce"
[[service]]
name = "web"
protocol = "tcp"
ports = [80]
[[tenant]]
name = "acme"
sources = ["10.1.0.0/16"]
[[limit]]
name = "tenants"
unit = "packets"
rate = "60/min"
per = "tenant"
guarantee = "6/min"
guarantee-burst = 1
[[limit]]
name = "web"
service = "web"
unit = "packets"
rate = "10/min"
burst = 2
per = "service"
"#;

#[test]
fn a_service_that_is_unwell_admits_what_its_clock_says_whoever_is_guaranteed_more_and_recovers_at_once() -> Result<()> {
    needs_root!();
    let mut program = Program::timed(UNWELL)?;
    let [tenant, nobody] = ["10.1.0.1", "192.0.2.1"].map(|it| Frame::from(it).tcp(40_000, 80, tcp::ACK).bytes());
    let clock = program.datapath.clocks()["web"];
    let (_, web) = program.limit_record("web")?;
    program.datapath.publish_speed(clock, Speed::LEAST, None)?;
    program.wait(LEAD)?;
    let mut admitted = [0, 0];
    for second in 0..3_600 {
        for (count, frame) in admitted.iter_mut().zip([&tenant, &nobody]) {
            // Its burst is used in the first minute, and what is guaranteed is more than it has.
            *count += u64::from(program.act(frame)? == action::PASS && second >= 60);
        }
        program.wait(SECOND)?;
        program.datapath.renew_speeds()?;
    }
    program.datapath.publish_speed(clock, Speed::ONE, None)?;
    // A sixteenth of ten a minute, and what may be owed beyond the depth once.
    let owed = web.overdraft() / web.price.cost(1);
    ensure!((36..=37 + owed).contains(&admitted[0]), "{admitted:?} admitted, of 37 and {owed}");
    ensure!(admitted[1] == 0, "others were served before who is guaranteed: {admitted:?}");
    // All is well again: what is owed is paid back by what the guarantee leaves of ten a minute.
    for second in 0.. {
        ensure!(second < 120, "after two minutes others find no room still");
        if program.act(&nobody)? == action::PASS {
            break;
        }
        program.act(&tenant)?;
        program.wait(SECOND)?;
    }
    Ok(())
}
