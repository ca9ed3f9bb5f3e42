//! What the other tests and the figures rely on: that every frame of the generator arrives, and arrives as its sender
//! meant it.

use anyhow::{Result, ensure};
use aya::programs::XdpMode;
use std::time::{Duration, Instant};
use throttle_tests::{
    frames::{Checked, Frame, shapes},
    generator::{Counter, Sender},
    kernel::{self, Order},
    machine, needs_root, say,
    wire::{FAR, Wire},
};

#[test]
fn frames_are_what_they_say() {
    for frame in shapes() {
        let parsed = throttle_common::packet::parse_bytes(&frame);
        let parsed = parsed.unwrap_or_else(|shape| panic!("{shape:?}: {frame:02x?}"));
        if parsed.part == throttle_common::packet::Part::Whole {
            Checked::of(&frame).unwrap_or_else(|wrong| panic!("{frame:02x?}: {wrong}"));
        }
    }
}

#[test]
fn every_frame_of_a_flood_arrives_from_whom_it_names() -> Result<()> {
    needs_root!();
    let _machine = machine::alone()?;
    let wire = Wire::silent()?;
    // The far end's queue moves to the driver's fast path with a program.
    let mut far_end = kernel::load(64)?;
    let pass = kernel::xdp(&mut far_end, "pass")?;
    wire.far.enter(|| pass.attach(FAR, XdpMode::Driver))??;
    // In each family eight honest sources that take turns.
    let v4 = (Frame::v4([198, 51, 100, 8]), 0xc633_6400, 0x0e, u32::MAX.into());
    let v6 = (Frame::v6([0x2001, 0xdb8, 7, 0, 0, 0, 0, 1]), 0x2001_0db8_0007_0000, 0x00e0, u64::MAX);
    for (frame, honest, turns, random) in [v4, v6] {
        let order = Order { random, flood_interval: 0, honest, turns, honest_interval: 1_000_000, ..Order::SILENT };
        flood(&wire, &frame.length(64), order)?;
    }
    Ok(())
}

fn flood(wire: &Wire, frame: &Frame, order: Order) -> Result<()> {
    let counter = Counter::on(wire, order)?;
    let sender = Sender::on(wire)?;
    let lost_before = wire.lost()?;
    let start = Instant::now();
    let floods = (0..machine::cpus().min(2))
        .map(|cpu| sender.start(&wire.near, cpu, &frame.bytes(), order))
        .collect::<Result<Vec<_>>>()?;
    while counter.received()?.honest < 500 {
        let received = counter.received()?;
        ensure!(start.elapsed() < Duration::from_secs(20), "of the honest sources' frames too few come: {received:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
    let mut sent = [0; 2];
    for flood in floods {
        let part = flood.stop()?;
        sent = [sent[0] + part.honest, sent[1] + part.flood];
    }
    let received = counter.received()?;
    say!("generator: {:.2} million frames a second to the stack", sent[1] as f64 / start.elapsed().as_secs_f64() / 1e6);
    let missing = [sent[0].checked_sub(received.honest), sent[1].checked_sub(received.other)];
    let [Some(honest), Some(other)] = missing else { anyhow::bail!("{received:?} of {sent:?}: more than were sent") };
    assert_eq!(honest + other, wire.lost()? - lost_before, "{received:?} of {sent:?}");
    Ok(())
}
