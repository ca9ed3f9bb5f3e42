//! One policy after another, with their sources: what a packet meets in between, and what is left where it fails.

use anyhow::{Context, Result, ensure};
use throttle_agent::{
    datapath::{Datapath, Entries, Mode, Options},
    policy::{
        self, Compiled,
        sources::{resolve, stated},
    },
};
use throttle_common::{
    records::{Limit, maps},
    words::Outcome,
};
use throttle_tests::{
    denied::{Denied, denied},
    frames::Frame,
    generator::Sender,
    kernel::Order,
    machine, needs_root,
    pins::Pins,
    say,
    wire::{FAR, Wire},
};

use super::{SOURCE, apply, limit, open, options, passing};

/// A policy that enforces, with its sources.
fn read(datapath: &Datapath, revision: u64, text: &str) -> Result<(Compiled, Entries)> {
    let document = policy::parse(&format!("mode = \"enforce\"\n{text}")).map_err(|wrong| anyhow::anyhow!("{wrong}"))?;
    let compiled =
        policy::compile(&document, revision, &datapath.layout()).map_err(|wrong| anyhow::anyhow!("{wrong}"))?;
    let entries = resolve(stated(&document, &compiled.tenants));
    Ok((compiled, entries))
}

fn switch(datapath: &mut Datapath, revision: u64, text: &str) -> Result<()> {
    let (policy, sources) = read(datapath, revision, text)?;
    datapath.switch(&policy, &sources)
}

const ALLOWED: &str = "[sources]\nallow = [\"10.98.0.2\"]\n";

#[test]
fn nobody_is_refused_whom_both_policies_let_through() -> Result<()> {
    const SWITCHES: u64 = 40;
    needs_root!();
    let _machine = machine::alone()?;
    let (pins, wire) = (Pins::new()?, Wire::silent()?);
    let mut datapath = Datapath::open(&Options { test_clock: false, ..options(&pins) })?;
    wire.far.enter(|| datapath.attach(FAR, Mode::Native))??;
    // The first would refuse every packet if it did not allow the source, the second neither limits nor allows it, the
    // third blocks it and allows it.
    let policies = [
        limit("few", "1/hour", 1) + ALLOWED,
        String::new(),
        "[sources]\nallow = [\"10.98.0.0/24\"]\nblock = [\"10.98.0.2\"]\n".to_owned(),
    ];
    switch(&mut datapath, 1, &policies[0])?;
    let order = Order { honest: SOURCE.into(), honest_interval: 5_000, ..Order::SILENT };
    let flood = Sender::on(&wire)?.start(&wire.near, 0, &Frame::v4(SOURCE).length(60).bytes(), order)?;
    for revision in 2..2 + SWITCHES {
        switch(&mut datapath, revision, &policies[revision as usize % policies.len()])?;
    }
    let sent = flood.stop()?.honest;
    let tallies = datapath.reason_tallies()?;
    let dropped: Vec<_> = tallies.iter().filter(|(_, outcome, _)| *outcome == Outcome::Drop).collect();
    say!("{SWITCHES} switches of policy while {sent} frames came");
    ensure!(sent > 1_000 && dropped.is_empty(), "{dropped:?} of {sent}");
    Ok(())
}

#[test]
fn no_packet_meets_the_tenants_of_one_policy_under_the_limits_of_another() -> Result<()> {
    needs_root!();
    let pins = Pins::new()?;
    let mut datapath = Datapath::open(&Options { table_sets: 1 << 14, ..options(&pins) })?;
    datapath.set_clock(super::START)?;
    // Each gives the source to nobody, or to a tenant that it hardly limits; the limit of the other would refuse it.
    let policy = |tenants: [&str; 2], rate: &str| {
        let tenant = |name: &str, source: &str| format!("[[tenant]]\nname = \"{name}\"\nsources = [\"{source}\"]\n");
        let limit = format!("[[limit]]\nname = \"few\"\nunit = \"packets\"\nper = \"tenant\"\nrate = \"{rate}\"\n");
        tenant("a", tenants[0]) + &tenant("b", tenants[1]) + &limit
    };
    let policies =
        [policy(["10.98.0.2", "10.0.0.0/8"], "1000000/s"), policy(["192.0.2.0/24", "10.99.0.0/16"], "1/hour")];
    for revision in 1..8 {
        let (policy, sources) = read(&datapath, revision, &policies[revision as usize % 2])?;
        let mut looks = 0;
        datapath.switch_in_steps(&policy, &sources, |datapath| {
            looks += 1;
            assert_eq!(passing(datapath, SOURCE, 5).ok(), Some(5), "revision {revision}, look {looks}");
        })?;
        ensure!(looks == 2 && passing(&datapath, SOURCE, 5)? == 5, "revision {revision}");
    }
    Ok(())
}

#[test]
fn where_the_policy_is_refused_the_sources_are_those_from_before() -> Result<()> {
    needs_root!();
    let pins = Pins::new()?;
    let mut datapath = open(&pins)?;
    switch(&mut datapath, 1, &format!("{}{ALLOWED}known = [\"10.0.0.0/8\"]\n", limit("a", "1/hour", 1)))?;
    assert_eq!(passing(&datapath, SOURCE, 5)?, 5);
    // A limit of another name has a number that must count from zero, which is an update that is refused.
    let next = limit("a", "1/hour", 1) + &limit("b", "1/hour", 1) + "[sources]\nblock = [\"10.98.0.2\"]\n";
    let (policy, sources) = read(&datapath, 2, &next)?;
    let refused = denied(Denied::UpdateElement, || datapath.switch(&policy, &sources))?;
    ensure!(refused.is_err() && !datapath.owes(), "nothing has begun, so nothing is owed: {refused:?}");
    assert_eq!((datapath.policy().revision, datapath.limits().len()), (1, 1));
    assert_eq!(passing(&datapath, SOURCE, 5)?, 5, "the source is allowed as before");
    drop(datapath);
    let mut datapath = open(&pins)?;
    let (_, before) = read(&datapath, 1, &format!("{ALLOWED}known = [\"10.0.0.0/8\"]\n"))?;
    assert_eq!(datapath.set_sources(&before)?, throttle_agent::datapath::SourceDelta::default());
    Ok(())
}

#[test]
fn what_cannot_be_done_after_the_flip_is_in_force_and_done_later() -> Result<()> {
    needs_root!();
    let pins = Pins::new()?;
    let mut datapath = open(&pins)?;
    apply(&mut datapath, 1, &limit("a", "1/hour", 2))?;
    assert_eq!(passing(&datapath, SOURCE, 5)?, 2);
    let freed = datapath.limits()[0].record;
    let (empty, _) = read(&datapath, 2, "")?;
    // The wait for packets is an update of an element; the flip is a store to memory.
    denied(Denied::UpdateElement, || datapath.apply(&empty))??;
    assert_eq!(datapath.policy().revision, 2, "the policy is in force");
    ensure!(datapath.owes() && datapath.occupancy(&freed).v4.busy == 1, "and its region is not cleared");

    let (next, _) = read(&datapath, 3, &limit("b", "1/hour", 2))?;
    let refused = denied(Denied::UpdateElement, || datapath.apply(&next))?;
    ensure!(refused.is_err() && datapath.policy().revision == 2, "packets may use what would be written: {refused:?}");
    datapath.settle()?;
    ensure!(!datapath.owes() && datapath.occupancy(&freed).v4.busy == 0, "what was owed is done");
    datapath.apply(&next)?;
    assert_eq!(datapath.limits()[0].record.v4, freed.v4);
    assert_eq!(passing(&datapath, SOURCE, 5)?, 2, "a bucket of its own");
    Ok(())
}

#[test]
fn sources_that_cannot_be_written_after_the_flip_are_written_later() -> Result<()> {
    needs_root!();
    let pins = Pins::new()?;
    let mut datapath = open(&pins)?;
    // Only the last step of three has something to write: the block.
    let (policy, sources) = read(&datapath, 1, "[sources]\nblock = [\"10.98.0.2\"]\n")?;
    denied(Denied::UpdateBatch, || datapath.switch(&policy, &sources))??;
    assert_eq!((datapath.policy().revision, datapath.owes()), (1, true));
    assert_eq!(passing(&datapath, SOURCE, 1)?, 1);
    datapath.settle()?;
    assert_eq!((datapath.owes(), passing(&datapath, SOURCE, 1)?), (false, 0));
    Ok(())
}

#[test]
fn debts_at_a_price_that_is_no_more_are_held_to_what_the_limit_allows() -> Result<()> {
    needs_root!();
    let pins = Pins::new()?;
    let mut datapath = open(&pins)?;
    apply(&mut datapath, 1, &limit("a", "10/min", 10))?;
    assert_eq!(passing(&datapath, SOURCE, 10)?, 10);
    let (faster, _) = read(&datapath, 2, &limit("a", "10/s", 10))?;
    // As an agent leaves it that dies between the flip and the scaling: the new price, and debts at the old one.
    let generation = pinned::<[u64; 5]>(&pins, maps::CONTROL)?.get(&0, 0)?[3] as u32 & 1;
    let mut limits = pinned::<Limit>(&pins, maps::LIMITS)?;
    let (number, record) = faster.limits[0];
    let place = generation * throttle_common::records::MAX_LIMITS + u32::from(number);
    assert_eq!(limits.get(&place, 0)?, datapath.limits()[0].record);
    limits.set(place, record, 0)?;
    let debt =
        |datapath: &Datapath| datapath.bucket(&record, [10, 98, 0, 2].into(), 1).map(|bucket| bucket.debt.as_millis());
    assert_eq!(debt(&datapath), Some(60_000));
    drop(datapath);
    let datapath = open(&pins)?;
    assert_eq!(debt(&datapath), Some(1_000), "ten packets at ten a second");
    assert_eq!(datapath.occupancy(&record).v4.busy, 1);
    Ok(())
}

fn pinned<T: aya::Pod>(pins: &Pins, name: &str) -> Result<aya::maps::Array<aya::maps::MapData, T>> {
    let map = aya::maps::MapData::from_pin(pins.pin_dir().join("maps").join(name)).context("open a pinned map")?;
    Ok(aya::maps::Map::Array(map).try_into()?)
}
