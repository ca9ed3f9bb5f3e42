//! Interfaces that are throttled, taken by others, gone and back.

use std::{net::Ipv4Addr, time::Instant};

use anyhow::Result;
use throttle_agent::datapath::{
    Attachment, Change, Datapath, Detached, Mode, Options, Standing, Watch, XdpMode, detach_all, doctor,
};
use throttle_tests::{
    frames::Frame,
    generator::Sender,
    kernel::{self, Order},
    machine, needs_root,
    pins::Pins,
    say,
    wire::{FAR, FAR_V4, NEAR, Wire},
};

use super::{SOURCE, apply, limit, names, open, options, seen, until};

/// Interfaces on top of the far end.
const TOP: &str = "on-top";
const BRIDGE: &str = "bridged";

fn standing(datapath: &Datapath, wire: &Wire) -> Result<Vec<Attachment>> {
    wire.far.enter(|| datapath.attachments())?
}

/// Sends a packet over the wire.
fn knock(wire: &Wire) -> Result<()> {
    wire.near.enter(|| {
        let socket = std::net::UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.send_to(b"knock", (FAR_V4, 9))?;
        anyhow::Ok(())
    })?
}

#[test]
fn a_program_is_attached_replaced_and_detached() -> Result<()> {
    needs_root!();
    let (pins, wire) = (Pins::new()?, Wire::new()?);
    let mut datapath = Datapath::open(&Options { test_clock: false, ..options(&pins) })?;
    let attachment = wire.far.enter(|| datapath.attach(FAR, Mode::Native))??;
    assert_eq!(attachment.standing, Standing::Attached(XdpMode::Native));
    assert_eq!((attachment.driver.as_str(), attachment.mtu), ("veth", 1500));
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
fn no_packet_goes_unjudged_while_agents_and_policies_change() -> Result<()> {
    needs_root!();
    let _machine = machine::alone()?;
    let (pins, wire) = (Pins::new()?, Wire::silent()?);
    let options = Options { test_clock: false, ..options(&pins) };
    let mut datapath = Datapath::open(&options)?;
    wire.far.enter(|| datapath.attach(FAR, Mode::Native))??;
    let order = Order {
        random: u32::MAX.into(),
        flood_interval: 0,
        honest: SOURCE.into(),
        honest_interval: 1_000_000,
        ..Order::SILENT
    };
    let flood = Sender::on(&wire)?.start(&wire.near, 0, &Frame::v4(SOURCE).length(60).bytes(), order)?;
    for revision in 0..3 {
        drop(datapath);
        datapath = Datapath::open(&options)?;
        wire.far.enter(|| datapath.attach(FAR, Mode::Native))??;
        apply(&mut datapath, 2 * revision, &limit("a", "1000/s", 10))?;
        apply(&mut datapath, 2 * revision + 1, "")?;
    }
    let sent = flood.stop()?;
    let sent = sent.honest + sent.flood;
    let lost = wire.lost()?;
    let arrived = sent - lost;
    // The last frames of the flood are still on the wire when it stops.
    let judged = until(|| Some(seen(&datapath)).filter(|judged| !matches!(judged, Ok(judged) if *judged < arrived)))??;
    assert_eq!(judged, arrived);
    say!("{arrived} packets, three agents and six policies: every packet was judged ({lost} did not arrive)");
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
    let changes = wire.far.enter(|| datapath.reattach(Instant::now()))??;
    assert!(matches!(&changes[..], [Change::Gone(name)] if name == FAR), "{changes:?}");

    let _inside = runtime.enter();
    let mut watch = wire.far.enter(|| {
        let _inside = runtime.enter();
        Watch::new()
    })??;
    wire.connect()?;
    runtime.block_on(watch.changed())?;
    let changes = wire.far.enter(|| datapath.reattach(Instant::now()))??;
    assert!(matches!(&changes[..], [Change::Attached(back)] if back.interface == FAR), "{changes:?}");
    assert!(wire.far.enter(|| datapath.reattach(Instant::now()))??.is_empty());
    Ok(())
}

#[test]
fn a_foreign_program_is_named_and_left_alone_with_a_remedy_that_works() -> Result<()> {
    needs_root!();
    let (pins, wire) = (Pins::new()?, Wire::new()?);
    let mut foreign = kernel::load(64)?;
    let pass = kernel::xdp(&mut foreign, "pass")?;
    let beside = pins.pin_dir().with_file_name("pass");
    pass.pin(&beside)?;
    let link = wire.far.enter(|| pass.attach(FAR, aya::programs::XdpMode::Driver))??;
    let mut datapath = open(&pins)?;
    let refusal = |datapath: &mut Datapath| -> Result<String> {
        let Err(error) = wire.far.enter(|| datapath.attach(FAR, Mode::Auto))? else { panic!("it was replaced") };
        Ok(format!("{error:#}"))
    };
    let said = refusal(&mut datapath)?;
    assert!(said.contains("`pass`") && said.contains("bpftool link detach id "), "a link holds it: {said}");
    let findings = wire.far.enter(|| doctor::examine(&[FAR.to_owned()], &pins.pin_dir()))?;
    assert!(findings.iter().any(|finding| finding.subject == FAR && finding.text.contains("`pass`")), "{findings:#?}");

    pass.detach(link)?;
    wire.far.ip(&["link", "set", "dev", FAR, "xdp", "pinned", &beside.display().to_string()])?;
    let said = refusal(&mut datapath)?;
    let remedy = format!("ip link set dev {FAR} xdp off");
    assert!(said.contains("`pass`") && said.contains(&remedy), "the interface holds it: {said}");
    wire.far.ip(&remedy.split(' ').skip(1).collect::<Vec<_>>())?;
    wire.far.enter(|| datapath.attach(FAR, Mode::Auto))??;
    Ok(())
}

#[test]
fn another_instance_in_the_way_is_named_with_its_pin_directory() -> Result<()> {
    needs_root!();
    let (pins, wire) = (Pins::new()?, Wire::new()?);
    let mut first = open(&pins)?;
    wire.far.enter(|| first.attach(FAR, Mode::Auto))??;
    let pin_dir = pins.pin_dir().with_file_name("second");
    let mut second = Datapath::open(&Options { pin_dir: pin_dir.clone(), ..options(&pins) })?;
    let Err(error) = wire.far.enter(|| second.attach(FAR, Mode::Auto))? else { panic!("it was replaced") };
    let remedy = format!("throttle detach --pin-dir {}", pins.pin_dir().display());
    assert!(format!("{error:#}").contains(&remedy), "{error:#}");
    drop(first);
    detach_all(&pins.pin_dir())?;
    wire.far.enter(|| second.attach(FAR, Mode::Auto))??;
    Ok(())
}

#[test]
fn an_interface_on_top_of_a_throttled_one_is_refused_and_so_is_one_below() -> Result<()> {
    needs_root!();
    let (pins, wire) = (Pins::new()?, Wire::new()?);
    if let Err(error) = wire.far.ip(&["link", "add", "link", FAR, "name", TOP, "type", "macvlan"]) {
        say!("skipped an_interface_on_top_of_a_throttled_one_is_refused_and_so_is_one_below: no macvlan ({error:#})");
        return Ok(());
    }
    let mut datapath = open(&pins)?;
    for [first, second] in [[FAR, TOP], [TOP, FAR]] {
        wire.far.enter(|| datapath.attach(first, Mode::Generic))??;
        let Err(error) = wire.far.enter(|| datapath.attach(second, Mode::Generic))? else {
            panic!("both are throttled")
        };
        let said = format!("{error:#}");
        let remedy = "`throttle detach --interface";
        assert!([FAR, TOP, remedy].iter().all(|part| said.contains(part)), "{said}");
        assert_eq!(standing(&datapath, &wire)?.len(), 1, "nothing has changed");
        wire.far.enter(|| datapath.detach(first))??;
    }
    Ok(())
}

#[test]
fn throttled_interfaces_that_come_on_top_of_each_other_stay_so_and_it_is_said() -> Result<()> {
    needs_root!();
    let (pins, wire) = (Pins::new()?, Wire::new()?);
    if let Err(error) = wire.far.ip(&["link", "add", BRIDGE, "type", "bridge"]) {
        say!(
            "skipped throttled_interfaces_that_come_on_top_of_each_other_stay_so_and_it_is_said: no bridge ({error:#})"
        );
        return Ok(());
    }
    let mut datapath = open(&pins)?;
    for interface in [FAR, BRIDGE] {
        wire.far.enter(|| datapath.attach(interface, Mode::Generic))??;
    }
    let warns = || -> Result<bool> {
        let findings = wire.far.enter(|| doctor::examine(&[FAR.to_owned()], &pins.pin_dir()))?;
        let of_it =
            |finding: &doctor::Finding| finding.text.contains(BRIDGE) && finding.level == doctor::Level::Warning;
        Ok(findings.iter().any(of_it))
    };
    assert!(!warns()?);
    wire.far.ip(&["link", "set", FAR, "master", BRIDGE])?;
    assert!(warns()?);
    wire.far.enter(|| datapath.attach(FAR, Mode::Generic))??;
    assert_eq!(standing(&datapath, &wire)?.iter().filter(|it| it.attached()).count(), 2);
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
    wire.far.ip(&["link", "set", FAR, "down"])?;
    wire.far.ip(&["link", "set", FAR, "name", "eth0.100"])?;
    let changes = wire.far.enter(|| datapath.reattach(Instant::now()))??;
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
    let maps = names(&pins.pin_dir().join("maps"))?.len();
    let detached = detach_all(&pins.pin_dir())?;
    assert_eq!((detached.interfaces, detached.maps), (vec![FAR.to_owned()], maps));
    assert!(!wire.far.ip(&["-details", "link", "show", FAR])?.contains("prog/xdp"));
    assert_eq!(names(&pins.pin_dir())?, ["somebody-elses"]);
    std::fs::remove_dir(foreign)?;
    assert_eq!(detach_all(&pins.pin_dir())?, Detached::default());
    assert!(!pins.pin_dir().exists());
    assert_eq!(detach_all(&pins.pin_dir())?, Detached::default(), "there is nothing left to do");
    Ok(())
}
