//! Policies and sources that change while buckets stay.

use std::{collections::BTreeMap, time::Instant};

use anyhow::{Context, Result};
use ipnet::IpNet;
use throttle_agent::{datapath::SourceDelta, policy};
use throttle_common::{
    records::{LimitTally, SourceEntry},
    words::Reason,
};
use throttle_tests::{
    needs_root,
    pins::Pins,
    program::{SECOND, START},
    say,
};

use super::{SETS, SOURCE, apply, limit, open, passing};

#[test]
fn a_bucket_owes_as_many_packets_after_its_rate_has_changed() -> Result<()> {
    needs_root!();
    let pins = Pins::new()?;
    let mut datapath = open(&pins)?;
    apply(&mut datapath, 1, &limit("a", "10/s", 10))?;
    assert_eq!(passing(&datapath, SOURCE, 10)?, 10);
    apply(&mut datapath, 2, &limit("a", "10/min", 10))?;
    let record = datapath.limits()[0].record;
    let bucket = datapath.bucket(&record, [10, 98, 0, 2].into(), 1).context("IPv4 is limited")?;
    assert!(bucket.held && bucket.debt.as_millis().abs_diff(60_000) <= 1, "10 packets at 6 s each: {bucket:?}");
    assert!(bucket.wait.as_millis().abs_diff(6_000) <= 1, "{bucket:?}");
    assert_eq!(passing(&datapath, SOURCE, 1)?, 0);
    datapath.set_clock(START + 6 * SECOND + 1_000_000)?;
    assert_eq!(passing(&datapath, SOURCE, 2)?, 1);
    Ok(())
}

#[test]
fn a_region_is_empty_when_another_limit_gets_it() -> Result<()> {
    needs_root!();
    let pins = Pins::new()?;
    let mut datapath = open(&pins)?;
    apply(&mut datapath, 1, &limit("a", "1/min", 2))?;
    assert_eq!(passing(&datapath, SOURCE, 5)?, 2);
    let record = datapath.limits()[0].record;
    let used = datapath.occupancy(&record).v4;
    assert_eq!((used.busy, used.slots), (1, u64::from(record.v4.sets) * 4));
    apply(&mut datapath, 2, "")?;
    assert_eq!(datapath.occupancy(&record).v4.busy, 0);
    apply(&mut datapath, 3, &limit("b", "1/min", 2))?;
    assert_eq!(datapath.limits()[0].record.v4, record.v4);
    assert_eq!(datapath.limit_tally(0)?, LimitTally::default(), "the count of the number's earlier limit");
    assert_eq!(passing(&datapath, SOURCE, 5)?, 2);
    Ok(())
}

#[test]
fn a_policy_that_does_not_fit_changes_nothing() -> Result<()> {
    needs_root!();
    let pins = Pins::new()?;
    let mut datapath = open(&pins)?;
    apply(&mut datapath, 1, &limit("a", "1/min", 2))?;
    let document = policy::parse(&limit("b", "1/min", 2)).map_err(|wrong| anyhow::anyhow!("{wrong}"))?;
    let larger = policy::Layout { sets: 1 << 20, ..policy::Layout::default() };
    let mut compiled = policy::compile(&document, 2, &larger).map_err(|wrong| anyhow::anyhow!("{wrong}"))?;
    compiled.limits[0].1.v6.base = SETS;
    assert!(datapath.apply(&compiled).is_err());
    assert_eq!((datapath.policy().revision, datapath.limits().len()), (1, 1));
    Ok(())
}

#[test]
fn a_hundred_thousand_sources_are_written_and_read_back() -> Result<()> {
    needs_root!();
    let pins = Pins::new()?;
    let mut datapath = open(&pins)?;
    let wanted: BTreeMap<IpNet, SourceEntry> = (0..100_000u32)
        .map(|number| {
            let address = std::net::Ipv4Addr::from(0x0b00_0000 + number * 256);
            let length = if number % 4 == 0 { 24 } else { 32 };
            let prefix = ipnet::Ipv4Net::new(address, length).expect("a length");
            (prefix.into(), SourceEntry { blocked_until: START + u64::from(number), ..SourceEntry::default() })
        })
        .collect();
    let start = Instant::now();
    let delta = datapath.set_sources(&wanted)?;
    let written = start.elapsed();
    assert_eq!(delta, SourceDelta { added: 100_000, changed: 0, removed: 0 });
    drop(datapath);
    let start = Instant::now();
    let mut datapath = open(&pins)?;
    let adopted = start.elapsed();
    assert_eq!(datapath.set_sources(&wanted)?, SourceDelta::default());
    let start = Instant::now();
    assert_eq!(datapath.set_sources(&BTreeMap::new())?.removed, 100_000);
    say!("100 000 sources: written in {written:?}, adopted in {adopted:?}, removed in {:?}", start.elapsed());
    Ok(())
}

#[test]
fn a_refusal_is_reported() -> Result<()> {
    needs_root!();
    let pins = Pins::new()?;
    let mut datapath = open(&pins)?;
    apply(&mut datapath, 1, &limit("a", "1/min", 1))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut events = runtime.block_on(async { datapath.events() })?;
    assert!(datapath.events().is_err(), "there is one stream");
    assert_eq!(passing(&datapath, SOURCE, 3)?, 1);
    let event = runtime.block_on(events.next())?;
    assert_eq!((event.source.low, event.limit, event.time), (SOURCE.into(), 0, START));
    assert_eq!(Reason::from_number(event.reason), Some(Reason::SourceLimit));
    Ok(())
}
