//! Buckets that sources share: those of tenants, of services and of the host.

use super::{Case, MINUTE, Step, pass_times, passes, refused, show, step};
use anyhow::{Result, ensure};
use throttle_common::{
    packet::tcp,
    records::MAX_TENANTS,
    words::{Outcome, Reason},
};
use throttle_tests::{
    frames::Frame,
    needs_root,
    program::{Program, SECOND},
};

/// Two tenants, one of them within the other's sources, and a limit of three packets a minute for each.
const TENANTS: &str = r#"
mode = "enforce"
[[tenant]]
name = "acme"
sources = ["10.1.0.0/16", "2001:db8:1::/48"]
[[tenant]]
name = "globex"
sources = ["10.1.7.0/24", "10.9.9.9"]
[[limit]]
name = "tenants"
unit = "packets"
rate = "3/min"
per = "tenant"
"#;

/// A service and the host, each with a bucket for all.
const SHARED: &str = r#"
mode = "enforce"
[[service]]
name = "web"
protocol = "tcp"
ports = [80]
[[limit]]
name = "host"
unit = "packets"
rate = "5/min"
per = "host"
[[limit]]
name = "web"
service = "web"
unit = "packets"
rate = "3/min"
per = "service"
[[limit]]
name = "sources"
service = "web"
unit = "packets"
rate = "2/min"
"#;

fn by_tenant(frame: &Frame) -> Step {
    step(frame, Reason::TenantLimit, Outcome::Drop)
}

fn to_web(source: &str) -> Frame {
    Frame::from(source).tcp(40_000, 80, tcp::ACK)
}

#[test]
fn every_tenant_has_its_slot_before_its_first_packet() -> Result<()> {
    needs_root!();
    let program = Program::timed(TENANTS)?;
    let region = program.limit_record("tenants")?.1.v4;
    let owners = (region.base..region.base + region.sets).map(|set| Ok(program.set_of(set)?.map(|slot| slot.key)));
    let owners = owners.collect::<Result<Vec<_>>>()?.concat();
    ensure!(owners.iter().copied().eq(0..u64::from(MAX_TENANTS)), "{owners:?}");
    Ok(())
}

#[test]
fn a_tenants_sources_share_a_bucket() -> Result<()> {
    needs_root!();
    let [one, other, v6] = ["10.1.0.1", "10.1.255.255", "2001:db8:1:2::3"].map(Frame::from);
    let [within, alone, nobody] = ["10.1.7.7", "10.9.9.9", "192.0.2.1"].map(Frame::from);
    show(vec![
        Case {
            sentence: "whatever their addresses and families",
            policy: TENANTS,
            steps: vec![passes(&one), passes(&other), passes(&v6), by_tenant(&one), by_tenant(&other), by_tenant(&v6)],
        },
        Case {
            sentence: "the longest prefix says whose a source is",
            policy: TENANTS,
            steps: [pass_times(&one, 3), vec![by_tenant(&one)], pass_times(&within, 2), pass_times(&alone, 1)]
                .into_iter()
                .flatten()
                .chain([by_tenant(&within), by_tenant(&alone)])
                .collect(),
        },
        Case {
            sentence: "it is full again at the promised time",
            policy: TENANTS,
            steps: [
                pass_times(&one, 3),
                vec![by_tenant(&other).after(20 * SECOND - 1), passes(&v6).after(1), by_tenant(&one)],
            ]
            .concat(),
        },
        Case {
            sentence: "who is no tenant's has no part in it",
            policy: TENANTS,
            steps: [pass_times(&one, 3), pass_times(&nobody, 10)].concat(),
        },
    ])
}

#[test]
fn all_that_reaches_a_service_or_the_host_may_share_a_bucket() -> Result<()> {
    needs_root!();
    let [a, b, c, v6] = ["192.0.2.1", "192.0.2.2", "192.0.2.3", "2001:db8::1"].map(to_web);
    let elsewhere = Frame::from("192.0.2.9").udp(4_000, 53);
    let by_service = |frame: &Frame| step(frame, Reason::ServiceLimit, Outcome::Drop);
    let by_host = |frame: &Frame| step(frame, Reason::HostLimit, Outcome::Drop);
    show(vec![
        Case {
            sentence: "the narrowest names the verdict, and the wider are not charged for what it refuses",
            policy: SHARED,
            steps: vec![
                passes(&a),
                passes(&a),
                refused(&a),
                refused(&a),
                passes(&b),
                by_service(&b),
                by_service(&c),
                by_service(&v6),
                passes(&elsewhere),
                passes(&elsewhere),
                by_host(&elsewhere),
                by_service(&c),
            ],
        },
        Case {
            sentence: "what the host refuses charges nobody",
            policy: SHARED,
            steps: [
                pass_times(&elsewhere, 5),
                vec![by_host(&a), by_host(&b)],
                vec![passes(&a).after(12 * SECOND), by_host(&a), passes(&a).after(12 * SECOND)],
            ]
            .concat(),
        },
        Case {
            sentence: "a minute later all is as it was",
            policy: SHARED,
            steps: vec![passes(&a), passes(&a), refused(&a), passes(&a).after(MINUTE)],
        },
    ])
}

#[test]
fn a_tenant_keeps_what_it_owes_while_others_come_and_go() -> Result<()> {
    needs_root!();
    let frame = Frame::from("10.9.9.9").bytes();
    let mut program = Program::timed(TENANTS)?;
    for _ in 0..3 {
        ensure!(program.judge(&frame)?.reason == Reason::Admitted, "within the burst");
    }
    let another = "\n[[tenant]]\nname = \"initech\"\nsources = [\"10.2.0.0/16\"]\n";
    let without_acme =
        TENANTS.replace("name = \"acme\"\nsources = [\"10.1.0.0/16\", \"2001:db8:1::/48\"]\n[[tenant]]\n", "");
    for policy in [TENANTS.to_owned() + another, without_acme.clone() + another, without_acme] {
        program.apply(&policy)?;
        ensure!(program.judge(&frame)?.reason == Reason::TenantLimit, "it owes what it owed, under {policy}");
    }
    program.wait(20 * SECOND)?;
    ensure!(program.judge(&frame)?.reason == Reason::Admitted, "and no more");
    Ok(())
}
