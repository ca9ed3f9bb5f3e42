//! What the other tests rely on: that every frame of the generator arrives, and arrives as its sender meant it.

use anyhow::Result;
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
    let honest = u32::from_be_bytes([198, 51, 100, 7]);
    let counter = Counter::on(&wire, honest)?;
    let sender = Sender::on(&wire)?;
    let order = Order { random: u32::MAX, flood_interval: 0, honest, honest_interval: 1_000_000, ..Order::SILENT };
    let start = Instant::now();
    let floods = (0..machine::cpus().min(2))
        .map(|cpu| sender.start(&wire.near, cpu, &Frame::v4(honest).length(60).bytes(), order))
        .collect::<Result<Vec<_>>>()?;
    while counter.received()?.honest < 500 {
        std::thread::sleep(Duration::from_millis(10));
    }
    let mut sent = [0; 2];
    for flood in floods {
        let part = flood.stop()?;
        sent = [sent[0] + part.honest, sent[1] + part.flood];
    }
    let received = counter.received()?;
    say!("generator: {:.2} million frames a second to the stack", sent[1] as f64 / start.elapsed().as_secs_f64() / 1e6);
    assert_eq!([received.honest, received.other], sent);
    Ok(())
}
