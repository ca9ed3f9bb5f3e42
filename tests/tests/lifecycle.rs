//! What outlives what: programs, links and maps against agents that die, interfaces that go, and policies that change.

use std::{collections::BTreeMap, path::Path, process::Command, time::Instant};

use anyhow::{Context, Result};
use ipnet::IpNet;
use throttle_agent::{
    datapath::{
        Attachment, Change, Datapath, Mode, OpenError, Options, SourceDelta, Standing, XdpMode, detach_all, doctor,
    },
    policy,
};
use throttle_common::{
    records::{SourceEntry, SourceFlags, maps},
    words::{Outcome, Reason},
};
use throttle_tests::{
    frames::Frame,
    machine, needs_root,
    pins::Pins,
    program::{SECOND, START, action},
    say,
    wire::{FAR, FAR_V4, NEAR, Wire},
};

const SETS: u32 = 1 << 10;
const SOURCE: u32 = u32::from_be_bytes([10, 98, 0, 2]);

fn options(pins: &Pins) -> Options {
    Options { pin_dir: pins.pin_dir(), table_sets: SETS, debug: false, test_clock: true, adopt: true }
}

fn open(pins: &Pins) -> Result<Datapath> {
    let mut datapath = Datapath::open(&options(pins))?;
    datapath.set_clock(START)?;
    Ok(datapath)
}

/// Puts a policy in force: the lines of a document that enforces.
fn apply(datapath: &mut Datapath, revision: u64, text: &str) -> Result<()> {
    let document = policy::parse(&format!("mode = \"enforce\"\n{text}")).map_err(|wrong| anyhow::anyhow!("{wrong}"))?;
    let compiled =
        policy::compile(&document, revision, &datapath.layout()).map_err(|wrong| anyhow::anyhow!("{wrong}"))?;
    datapath.apply(&compiled)
}

fn limit(name: &str, rate: &str, burst: u32) -> String {
    format!(
        "[[limit]]\nname = \"{name}\"\nunit = \"packets\"\nrate = \"{rate}\"\nburst = {burst}\nsources = 300\n\
         overflow = \"refuse\"\n"
    )
}

fn frame(source: u32) -> Vec<u8> {
    Frame::v4(source).bytes()
}

/// How many of a source's frames pass, one after the other at one instant.
fn passing(datapath: &Datapath, source: u32, frames: usize) -> Result<usize> {
    let actions = (0..frames).map(|_| Ok(datapath.test_run(&frame(source), 1)?.action));
    Ok(actions.collect::<Result<Vec<_>>>()?.into_iter().filter(|&action| action == action::PASS).count())
}

fn names(directory: &Path) -> Result<Vec<String>> {
    let entries = std::fs::read_dir(directory).with_context(|| format!("list {}", directory.display()))?;
    let mut names =
        entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect::<Result<Vec<_>>>()?;
    names.sort_unstable();
    Ok(names)
}

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
    assert_eq!(datapath.limit_tally(0)?, Default::default(), "the count of the number's earlier limit");
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
    let larger = policy::Layout { sets: 1 << 20, limits: Vec::new() };
    let mut compiled = policy::compile(&document, 2, &larger).map_err(|wrong| anyhow::anyhow!("{wrong}"))?;
    compiled.limits[0].1.v6.base = SETS;
    assert!(datapath.apply(&compiled).is_err());
    assert_eq!((datapath.policy().revision, datapath.limits().len()), (1, 1));
    Ok(())
}

fn entry(prefix: &str, blocked_until: u64, flags: u32) -> (IpNet, SourceEntry) {
    (prefix.parse().expect("a prefix"), SourceEntry { blocked_until, flags, padding: 0 })
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
            (prefix.into(), SourceEntry { blocked_until: START + u64::from(number), flags: 0, padding: 0 })
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

fn standing(datapath: &Datapath, wire: &Wire) -> Result<Vec<Attachment>> {
    wire.far.enter(|| datapath.attachments())?
}

/// Sends a packet over the wire.
fn knock(wire: &Wire) -> Result<()> {
    wire.near.enter(|| {
        let socket = std::net::UdpSocket::bind((std::net::Ipv4Addr::UNSPECIFIED, 0))?;
        socket.send_to(b"knock", (FAR_V4, 9))?;
        anyhow::Ok(())
    })?
}

/// What `look` sees once it sees something.
fn until<T>(look: impl Fn() -> Option<T>) -> Result<T> {
    let start = Instant::now();
    loop {
        if let Some(seen) = look() {
            return Ok(seen);
        }
        anyhow::ensure!(start.elapsed().as_secs() < 5, "nothing to be seen for 5 s");
        std::thread::yield_now();
    }
}

#[test]
fn a_program_is_attached_replaced_and_detached() -> Result<()> {
    needs_root!();
    let (pins, wire) = (Pins::new()?, Wire::new()?);
    let mut datapath = Datapath::open(&Options { test_clock: false, ..options(&pins) })?;
    let attachment = wire.far.enter(|| datapath.attach(FAR, Mode::Native))??;
    assert_eq!(attachment.standing, Standing::Attached(XdpMode::Native));
    assert_eq!((attachment.driver.as_str(), attachment.mtu), ("veth", 1500));
    let seen = |datapath: &Datapath| -> Result<u64> {
        Ok(datapath.reason_tallies()?.iter().map(|(_, _, tally)| tally.packets).sum())
    };
    knock(&wire)?;
    let before = until(|| Some(seen(&datapath)).filter(|seen| !matches!(seen, Ok(0))))??;
    // The agent dies; its program stays.
    drop(datapath);
    knock(&wire)?;
    let mut datapath = Datapath::open(&Options { test_clock: false, ..options(&pins) })?;
    until(|| Some(seen(&datapath)).filter(|seen| !matches!(seen, Ok(now) if *now <= before)))??;
    assert_eq!(standing(&datapath, &wire)?[0].asked, None);
    let program = |wire: &Wire| wire.far.ip(&["-details", "link", "show", FAR]);
    let old = program(&wire)?;
    let attachment = wire.far.enter(|| datapath.attach(FAR, Mode::Auto))??;
    assert_eq!(attachment.standing, Standing::Attached(XdpMode::Native));
    assert_ne!(program(&wire)?, old, "the new program has a number of its own");
    let attachment = wire.far.enter(|| datapath.attach(FAR, Mode::Generic))??;
    assert_eq!(attachment.standing, Standing::Attached(XdpMode::Generic));
    assert_eq!(standing(&datapath, &wire)?[0].standing, Standing::Attached(XdpMode::Generic));
    wire.far.enter(|| datapath.detach(FAR))??;
    assert!(!program(&wire)?.contains("prog/xdp"));
    assert_eq!(standing(&datapath, &wire)?, []);
    Ok(())
}

#[test]
fn an_interface_that_comes_back_is_attached_again() -> Result<()> {
    needs_root!();
    let (pins, wire) = (Pins::new()?, Wire::new()?);
    let mut datapath = open(&pins)?;
    wire.far.enter(|| datapath.attach(FAR, Mode::Auto))??;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    wire.disconnect()?;
    assert_eq!(standing(&datapath, &wire)?[0].standing, Standing::Absent);
    let changes = wire.far.enter(|| datapath.reattach())??;
    assert!(matches!(&changes[..], [Change::Gone(name)] if name == FAR), "{changes:?}");

    let _inside = runtime.enter();
    let mut watch = wire.far.enter(|| {
        let _inside = runtime.enter();
        throttle_agent::datapath::Watch::new()
    })??;
    wire.connect()?;
    runtime.block_on(watch.changed())?;
    let changes = wire.far.enter(|| datapath.reattach())??;
    assert!(matches!(&changes[..], [Change::Attached(back)] if back.interface == FAR), "{changes:?}");
    assert!(wire.far.enter(|| datapath.reattach())??.is_empty());
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

#[test]
fn a_foreign_program_is_named_and_left_alone() -> Result<()> {
    needs_root!();
    let (pins, wire) = (Pins::new()?, Wire::new()?);
    let mut foreign = throttle_tests::kernel::load(64)?;
    let pass = throttle_tests::kernel::xdp(&mut foreign, "pass")?;
    wire.far.enter(|| pass.attach(FAR, aya::programs::XdpMode::Driver))??;
    let mut datapath = open(&pins)?;
    let Err(error) = wire.far.enter(|| datapath.attach(FAR, Mode::Auto))? else { panic!("it was replaced") };
    let said = format!("{error:#}");
    assert!(said.contains("`pass`") && said.contains("xdp off"), "{said}");
    let findings = wire.far.enter(|| doctor::examine(&[FAR.to_owned()], &pins.pin_dir()))?;
    assert!(findings.iter().any(|finding| finding.subject == FAR && finding.text.contains("`pass`")), "{findings:#?}");
    Ok(())
}

#[test]
fn a_large_mtu_gets_the_program_for_several_buffers() -> Result<()> {
    needs_root!();
    let (pins, wire) = (Pins::new()?, Wire::new()?);
    wire.near.ip(&["link", "set", NEAR, "mtu", "9000"])?;
    wire.far.ip(&["link", "set", FAR, "mtu", "9000"])?;
    let mut datapath = open(&pins)?;
    let attachment = wire.far.enter(|| datapath.attach(FAR, Mode::Native))??;
    assert_eq!((attachment.standing, attachment.mtu), (Standing::Attached(XdpMode::Native), 9000));
    Ok(())
}

#[test]
fn an_interface_that_is_not_there_is_waited_for() -> Result<()> {
    needs_root!();
    let (pins, wire) = (Pins::new()?, Wire::new()?);
    let mut datapath = open(&pins)?;
    let Err(error) = wire.far.enter(|| datapath.attach("eth0.100", Mode::Auto))? else { panic!("it is not there") };
    assert!(error.to_string().contains(FAR), "the message lists what is there: {error}");
    datapath.expect("eth0.100", Mode::Native);
    assert_eq!(standing(&datapath, &wire)?[0].standing, Standing::Absent);
    machine::run(Command::new("ip").args(["-netns", wire.far.name(), "link", "set", FAR, "down", "name", "eth0.100"]))?;
    let changes = wire.far.enter(|| datapath.reattach())??;
    assert!(matches!(&changes[..], [Change::Attached(_)]), "{changes:?}");
    assert_eq!(names(&pins.pin_dir().join("links"))?, ["eth0%2e100"]);
    Ok(())
}

#[test]
fn detaching_undoes_everything_and_nothing_else() -> Result<()> {
    needs_root!();
    let (pins, wire) = (Pins::new()?, Wire::new()?);
    let mut datapath = open(&pins)?;
    wire.far.enter(|| datapath.attach(FAR, Mode::Native))??;
    drop(datapath);
    let foreign = pins.pin_dir().join("somebody-elses");
    std::fs::create_dir(&foreign)?;
    let detached = detach_all(&pins.pin_dir())?;
    assert_eq!((detached.interfaces, detached.maps), (vec![FAR.to_owned()], 19));
    assert!(!wire.far.ip(&["-details", "link", "show", FAR])?.contains("prog/xdp"));
    assert_eq!(names(&pins.pin_dir())?, ["somebody-elses"]);
    std::fs::remove_dir(foreign)?;
    assert_eq!(detach_all(&pins.pin_dir())?, Default::default());
    assert!(!pins.pin_dir().exists());
    assert_eq!(detach_all(&pins.pin_dir())?, Default::default(), "there is nothing left to do");
    Ok(())
}
