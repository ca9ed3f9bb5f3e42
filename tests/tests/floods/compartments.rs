//! A flood from a hundred thousand sources of one tenant takes no place of another's sources, known or not.

use super::{Family, HONEST, Order, RATES, flood, policy, steady, woven};
use anyhow::{Result, ensure};
use throttle_tests::{machine, needs_root, say};

/// So many sources flood: more than twice as many as a compartment of two has places for.
const SOURCES: u64 = 1 << 17;
/// Who floods, and whose sources are honest.
const TENANTS: &str = "[[tenant]]\nname = \"flooder\"\nsources = [\"10.0.0.0/8\"]\n\
                       [[tenant]]\nname = \"honest\"\nsources = [\"198.51.0.0/16\"]\n";

#[test]
fn a_flood_from_a_hundred_thousand_sources_of_one_tenant_costs_anothers_no_packet() -> Result<()> {
    needs_root!();
    let _machine = machine::alone()?;
    let (rate, interval) = RATES[2];
    let order = Order { random: SOURCES - 1, flood: 10 << 24, ..woven(Family::V4, interval) };
    for (tenants, divided) in [("", false), (TENANTS, true)] {
        let seen = steady(|| {
            flood(Family::V4, &(policy(rate, &[]) + "overflow = \"refuse\"\n" + tenants), order, 10 * SOURCES)
        })?;
        let lost = seen.sent.honest - seen.received.honest;
        say!(
            "{SOURCES} sources flood, {}: {lost} of {} of another's packets lost; {} of {} of the flood found no place",
            if divided { "tenants apart" } else { "nobody apart" },
            seen.sent.honest,
            seen.whole.overflowed.packets,
            seen.sent.flood,
        );
        ensure!(seen.sent.honest >= 2 * HONEST, "the honest sources sent too little to tell: {:?}", seen.sent);
        ensure!(seen.whole.overflowed.packets > SOURCES, "it was no flood: {:?}", seen.whole);
        ensure!((lost == 0) == divided, "{lost} of {} packets were lost", seen.sent.honest);
    }
    Ok(())
}
