//! Interfaces that get another name, and those that are refused for a while.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use throttle_agent::datapath::{Attachment, Change, Datapath, Mode, Standing, XdpMode, detach_interface};
use throttle_tests::{
    kernel, needs_root,
    pins::Pins,
    wire::{FAR, Wire},
};

use super::{names, open};

const NATIVE: Standing = Standing::Attached(XdpMode::Native);

fn rename(wire: &Wire, from: &str, to: &str) -> Result<()> {
    wire.far.ip(&["link", "set", from, "down"])?;
    wire.far.ip(&["link", "set", from, "name", to])?;
    wire.far.ip(&["link", "set", to, "up"])?;
    Ok(())
}

fn program(wire: &Wire, interface: &str) -> Result<String> {
    wire.far.ip(&["-json", "link", "show", "dev", interface])
}

/// Name, earlier name, whether it was asked for, and how it stands.
type Seen = (String, Option<String>, bool, Standing);

fn seen(datapath: &Datapath, wire: &Wire) -> Result<Vec<Seen>> {
    let attachments = wire.far.enter(|| datapath.attachments())??.into_iter();
    Ok(attachments
        .map(|Attachment { interface, was, asked, standing, .. }| (interface, was, asked.is_some(), standing))
        .collect())
}

#[test]
fn an_interface_that_is_renamed_stays_throttled_and_its_old_name_is_waited_for() -> Result<()> {
    needs_root!();
    let (pins, wire) = (Pins::new()?, Wire::new()?);
    let mut datapath = open(&pins)?;
    wire.far.enter(|| datapath.attach(FAR, Mode::Native))??;
    let before = wire.far.ip(&["-json", "link", "show", "dev", FAR])?;
    rename(&wire, FAR, "wan0")?;
    let changes = wire.far.enter(|| datapath.reattach(Instant::now()))??;
    ensure!(changes.is_empty(), "nothing was attached or forgotten: {changes:?}");
    let id = |text: &str| text.split("\"prog\"").nth(1).map(str::to_owned);
    assert_eq!(id(&program(&wire, "wan0")?), id(&before), "the same program is on it");
    assert_eq!(
        seen(&datapath, &wire)?,
        [(FAR.to_owned(), None, true, Standing::Absent), ("wan0".to_owned(), Some(FAR.to_owned()), false, NATIVE)]
    );
    assert_eq!(names(&pins.pin_dir().join("links"))?, ["wan0"]);

    // Another interface with the old name is the one that was asked for; both are throttled.
    wire.far.ip(&["link", "add", FAR, "type", "veth", "peer", "name", "peer"])?;
    let changes = wire.far.enter(|| datapath.reattach(Instant::now()))??;
    ensure!(matches!(&changes[..], [Change::Attached(new)] if new.interface == FAR), "{changes:?}");
    let standings: Vec<_> = seen(&datapath, &wire)?.into_iter().map(|(.., standing)| standing).collect();
    assert_eq!(standings, [NATIVE, NATIVE]);

    // They swap their names, and their pins with them.
    rename(&wire, FAR, "spare")?;
    rename(&wire, "wan0", FAR)?;
    rename(&wire, "spare", "wan0")?;
    let changes = wire.far.enter(|| datapath.reattach(Instant::now()))??;
    ensure!(changes.is_empty(), "{changes:?}");
    assert_eq!(id(&program(&wire, FAR)?), id(&before));
    assert_eq!(names(&pins.pin_dir().join("links"))?, [FAR, "wan0"]);
    Ok(())
}

#[test]
fn an_interface_that_was_renamed_while_no_agent_ran_is_taken_over() -> Result<()> {
    needs_root!();
    let (pins, wire) = (Pins::new()?, Wire::new()?);
    let mut datapath = open(&pins)?;
    wire.far.enter(|| datapath.attach(FAR, Mode::Native))??;
    drop(datapath);
    rename(&wire, FAR, "wan0")?;
    let mut datapath = open(&pins)?;
    wire.far.enter(|| datapath.attach("wan0", Mode::Auto))??;
    assert_eq!(seen(&datapath, &wire)?, [("wan0".to_owned(), Some(FAR.to_owned()), true, NATIVE)]);
    drop(datapath);
    rename(&wire, "wan0", "lan0")?;
    let root = pins.pin_dir();
    ensure!(wire.far.enter(|| detach_interface(&root, "lan0"))??, "it is found by its present name");
    ensure!(!program(&wire, "lan0")?.contains("\"prog\""), "no program is left");
    Ok(())
}

#[test]
fn an_interface_that_is_refused_is_tried_again_after_a_while_or_when_it_changes() -> Result<()> {
    needs_root!();
    let (pins, wire) = (Pins::new()?, Wire::new()?);
    let mut foreign = kernel::load(64)?;
    let pass = kernel::xdp(&mut foreign, "pass")?;
    let link = wire.far.enter(|| pass.attach(FAR, aya::programs::XdpMode::Driver))??;
    let mut datapath = open(&pins)?;
    datapath.expect(FAR, Mode::Native);
    let start = Instant::now();
    let reattach = |datapath: &mut Datapath, after| wire.far.enter(|| datapath.reattach(start + after))?;
    let changes = reattach(&mut datapath, Duration::ZERO)?;
    ensure!(matches!(&changes[..], [Change::Refused { .. }]), "{changes:?}");
    ensure!(!datapath.retry_due(start + Duration::from_millis(900)), "not at once");
    ensure!(datapath.retry_due(start + Duration::from_secs(1)), "after a second");
    let changes = reattach(&mut datapath, Duration::from_secs(1))?;
    ensure!(changes.is_empty(), "the same refusal is not told twice: {changes:?}");
    ensure!(!datapath.retry_due(start + Duration::from_millis(2_900)), "after the second refusal two seconds");

    pass.detach(link)?;
    // A process that another test is just starting may hold the link for a moment longer.
    let mut changes = Vec::new();
    for _ in 0..100 {
        changes = reattach(&mut datapath, Duration::from_millis(1_100))?;
        if !changes.is_empty() {
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    ensure!(matches!(&changes[..], [Change::Attached(_)]), "it has changed: {changes:?}");
    ensure!(!datapath.retry_due(start + Duration::from_mins(9)), "nothing is left to try");
    Ok(())
}
