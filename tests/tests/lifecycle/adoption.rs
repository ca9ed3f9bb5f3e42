//! Agents that die, and those that come after them.

use std::collections::BTreeMap;

use anyhow::Result;
use throttle_agent::datapath::{Datapath, OpenError, Options, SourceDelta};
use throttle_common::{
    packet::tcp,
    records::{Slot, SourceFlags, maps},
    table::{WAYS, lock},
    words::{Outcome, Reason},
};
use throttle_tests::{frames::Frame, needs_root, pins::Pins, program::action};

use super::{SETS, SOURCE, apply, entry, limit, names, open, options, passing};

#[test]
fn enforces_nothing_until_a_policy_is_applied() -> Result<()> {
    needs_root!();
    let pins = Pins::new()?;
    let datapath = open(&pins)?;
    assert_eq!(passing(&datapath, SOURCE, 100)?, 100);
    assert_eq!((datapath.policy().observe, datapath.limits().len()), (1, 0));
    let tallies = datapath.reason_tallies()?;
    assert_eq!(tallies.len(), 1);
    assert_eq!((tallies[0].0, tallies[0].1, tallies[0].2.packets), (Reason::Admitted, Outcome::Pass, 100));
    Ok(())
}

#[test]
fn a_new_agent_takes_over_buckets_counters_and_blocks() -> Result<()> {
    needs_root!();
    let pins = Pins::new()?;
    let mut datapath = open(&pins)?;
    apply(&mut datapath, 7, &limit("a", "1/min", 5))?;
    let blocked =
        BTreeMap::from([entry("203.0.113.0/24", u64::MAX, 0), entry("203.0.113.9/32", u64::MAX, SourceFlags::ALLOW)]);
    datapath.set_sources(&blocked)?;
    assert_eq!(passing(&datapath, SOURCE, 3)?, 3);
    let (secret_bucket, tag) =
        (datapath.bucket(&datapath.limits()[0].record, [10, 98, 0, 2].into(), 1), datapath.program_tag()?);
    drop(datapath);

    let mut datapath = open(&pins)?;
    assert_eq!(datapath.policy().revision, 7);
    assert_eq!(datapath.bucket(&datapath.limits()[0].record, [10, 98, 0, 2].into(), 1), secret_bucket);
    assert_eq!(datapath.program_tag()?, tag);
    assert_eq!(datapath.limit_tally(0)?.admitted.packets, 3);
    assert_eq!(passing(&datapath, SOURCE, 5)?, 2, "the bucket of 5 had been charged 3 times");
    assert_eq!(passing(&datapath, u32::from_be_bytes([203, 0, 113, 8]), 1)?, 0);
    assert_eq!(passing(&datapath, u32::from_be_bytes([203, 0, 113, 9]), 1)?, 1);
    assert_eq!(datapath.set_sources(&blocked)?, SourceDelta::default(), "the kernel has them already");
    Ok(())
}

#[test]
fn maps_of_a_build_before_pages_are_taken_over_and_pages_begin_with_the_next_policy() -> Result<()> {
    const PAGE: &str = "[[service]]\nname = \"web\"\nprotocol = \"tcp\"\nports = [80]\n[service.http]\n\
                        [[limit]]\nname = \"few\"\nservice = \"web\"\nunit = \"connections\"\nrate = \"1/day\"\nsources = 300\n\
                        action = \"reject\"\n";
    needs_root!();
    let pins = Pins::new()?;
    let syn = Frame::v4(SOURCE).tcp(40_000, 80, tcp::SYN).bytes();
    // The flags of the answer to a SYN that is refused.
    let answer = |datapath: &Datapath| -> Result<u8> { Ok(datapath.test_run(&syn, 1)?.frame[47]) };
    let mut datapath = open(&pins)?;
    apply(&mut datapath, 1, PAGE)?;
    assert_eq!(datapath.test_run(&syn, 1)?.action, action::PASS);
    assert_eq!(answer(&datapath)?, tcp::SYN | tcp::ACK);
    drop(datapath);

    let datapath = open(&pins)?;
    assert_eq!(answer(&datapath)?, tcp::SYN | tcp::ACK, "the next agent goes on with the pages that there are");
    assert_eq!(datapath.page_tally()?.greeted, 2, "and with their count");
    drop(datapath);

    let directory = pins.pin_dir().join("maps");
    for map in [maps::PAGES, maps::PAGE_TALLIES] {
        std::fs::remove_file(directory.join(map))?;
    }
    let mut datapath = open(&pins)?;
    assert!([maps::PAGES, maps::PAGE_TALLIES].iter().all(|map| directory.join(map).exists()), "they are made");
    apply(&mut datapath, 2, PAGE)?;
    assert_eq!(answer(&datapath)?, tcp::SYN | tcp::ACK, "the bucket is as empty as before, and the page there");
    assert_eq!(datapath.page_tally()?.greeted, 1);
    Ok(())
}

#[test]
fn maps_of_a_build_before_penalties_are_taken_over_and_penalties_begin_with_the_next_policy() -> Result<()> {
    const LATER: [&str; 5] =
        [maps::PENALTIES, maps::REFUSALS, maps::OFFENCES, maps::OFFENCE_BUCKETS, maps::PENALTY_TALLIES];
    const PENALTY: &str = "[[limit]]\nname = \"few\"\nunit = \"packets\"\nrate = \"1/day\"\nsources = 300\n\
                           [limit.penalty]\nafter = 3\nwithin = \"1h\"\nblock = \"1h\"\nunproven = true\n";
    needs_root!();
    let pins = Pins::new()?;
    let source = std::net::IpAddr::from(SOURCE.to_be_bytes());
    let counted = |datapath: &Datapath| {
        let limit = datapath.limits()[0].record;
        datapath.refused(&limit, source, datapath.now()).times
    };
    let mut datapath = open(&pins)?;
    apply(&mut datapath, 1, PENALTY)?;
    assert_eq!(passing(&datapath, SOURCE, 3)?, 1);
    assert_eq!(counted(&datapath), 2);
    drop(datapath);

    let datapath = open(&pins)?;
    assert_eq!(passing(&datapath, SOURCE, 1)?, 0);
    assert_eq!((counted(&datapath), datapath.penalty_tally()?.told), (3, 1), "the next agent goes on counting");
    drop(datapath);

    let directory = pins.pin_dir().join("maps");
    for map in LATER {
        std::fs::remove_file(directory.join(map))?;
    }
    let mut datapath = open(&pins)?;
    assert!(LATER.iter().all(|map| directory.join(map).exists()), "they are made");
    assert_eq!((passing(&datapath, SOURCE, 9)?, counted(&datapath)), (0, 0), "there are no penalties yet");
    apply(&mut datapath, 2, PENALTY)?;
    assert_eq!((passing(&datapath, SOURCE, 3)?, counted(&datapath)), (0, 3));
    assert_eq!(datapath.penalty_tally()?.told, 1);
    Ok(())
}

#[test]
fn places_that_an_agent_was_taking_when_it_died_are_free_again() -> Result<()> {
    type Words = [u64; size_of::<Slot>() / 8 * WAYS];
    needs_root!();
    let pins = Pins::new()?;
    let mut datapath = open(&pins)?;
    let limit =
        "[[limit]]\nname = \"open\"\nunit = \"connections\"\nconcurrent = 5\nsources = 300\noverflow = \"refuse\"\n";
    apply(&mut datapath, 1, limit)?;
    let region = datapath.limits()[0].record.v4;
    let syn = Frame::v4(SOURCE).tcp(40_000, 80, tcp::SYN).bytes();
    assert_eq!(datapath.test_run(&syn, 1)?.action, action::PASS);

    let map = aya::maps::MapData::from_pin(pins.pin_dir().join("maps").join(maps::BUCKETS))?;
    let mut buckets = aya::maps::Array::<_, Words>::try_from(aya::maps::Map::Array(map))?;
    let mut locked = [7; size_of::<Slot>() / 8 * WAYS];
    locked.iter_mut().skip(1).step_by(2).for_each(|tat| *tat = lock(7));
    (region.base..region.base + region.sets).try_for_each(|set| buckets.set(set, locked, 0))?;
    assert_eq!(datapath.test_run(&syn, 1)?.action, action::DROP);
    drop(datapath);

    assert_eq!(open(&pins)?.test_run(&syn, 1)?.action, action::PASS);
    Ok(())
}

#[test]
fn two_agents_do_not_share_a_pin_directory() -> Result<()> {
    needs_root!();
    let pins = Pins::new()?;
    let first = open(&pins)?;
    assert!(matches!(Datapath::open(&options(&pins)), Err(OpenError::InUse { .. })));
    drop(first);
    let refused = Datapath::open(&Options { adopt: false, ..options(&pins) });
    assert!(matches!(refused, Err(OpenError::Pinned { .. })));
    Ok(())
}

#[test]
fn maps_of_another_layout_or_size_are_refused_and_left_alone() -> Result<()> {
    needs_root!();
    let pins = Pins::new()?;
    drop(open(&pins)?);
    let other = Datapath::open(&Options { table_sets: 2 * SETS, ..options(&pins) });
    assert!(matches!(other, Err(OpenError::OtherSize { found: SETS, .. })));

    let control = pins.pin_dir().join("maps").join(maps::CONTROL);
    let set_layout = |layout: u64| -> Result<()> {
        let map = aya::maps::Map::Array(aya::maps::MapData::from_pin(&control)?);
        let mut map = aya::maps::Array::<_, [u64; 5]>::try_from(map)?;
        let mut words = map.get(&0, 0)?;
        words[0] = layout;
        Ok(map.set(0, words, 0)?)
    };
    set_layout(99)?;
    let Err(error) = Datapath::open(&options(&pins)) else { panic!("a layout of the future is taken over") };
    let said = error.to_string();
    assert!(matches!(error, OpenError::OtherLayout { found: 99, .. }) && said.contains("throttle detach"), "{said}");
    set_layout(throttle_common::records::LAYOUT)?;
    open(&pins)?;
    Ok(())
}

#[test]
fn what_an_agent_left_unfinished_is_made_anew() -> Result<()> {
    needs_root!();
    let pins = Pins::new()?;
    drop(open(&pins)?);
    let maps = pins.pin_dir().join("maps");
    std::fs::rename(&maps, pins.pin_dir().join("maps-new"))?;
    drop(Datapath::open(&Options { adopt: false, ..options(&pins) })?);
    assert_eq!(names(&pins.pin_dir())?, ["links", "maps"]);
    Ok(())
}

#[test]
fn a_pin_directory_outside_the_bpf_file_system_is_refused_with_the_remedy() -> Result<()> {
    needs_root!();
    let pins = Pins::new()?;
    let ordinary = pins.directory().join("ordinary");
    let Err(error) = Datapath::open(&Options { pin_dir: ordinary.clone(), ..options(&pins) }) else {
        panic!("{} is taken", ordinary.display())
    };
    assert!(error.to_string().contains("mount -t bpf"), "{error}");
    assert!(!ordinary.exists());
    Ok(())
}
