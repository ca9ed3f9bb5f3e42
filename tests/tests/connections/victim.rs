//! A source in whose name others ask for connections.

use super::{address, host::Host};
use anyhow::{Result, ensure};
use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};
use throttle_common::packet::tcp;
use throttle_tests::{
    clients::{connect_from, send_raw},
    frames::Frame,
    machine, needs_root, say,
    wire::{FAR_V4, NEAR},
};

#[test]
fn syns_in_a_victims_name_do_not_keep_the_victim_out() -> Result<()> {
    needs_root!();
    let _machine = machine::alone()?;
    let mut host = Host::new()?;
    let listener = host.listen_deep(FAR_V4)?;
    let port = listener.local_addr()?.port();
    host.limit(port, &["concurrent = 20\naction = \"reject\"\nsources = 300"])?;
    let to = SocketAddr::new(address(FAR_V4), port);
    let victim = "10.98.0.9";
    host.wire.near.ip(&["address", "add", &format!("{victim}/16"), "dev", NEAR])?;
    let syns: Vec<Vec<u8>> =
        (1024..9_000).map(|from| Frame::from(victim).to(FAR_V4).tcp(from, port, tcp::SYN).bytes()).collect();
    let (spoofed, start) = (std::sync::atomic::AtomicU64::new(0), Instant::now());
    let length = Duration::from_secs(8);
    let (mut tries, mut out, mut last) = (0, 0, Duration::ZERO);
    let near = host.wire.near.entry()?;
    listener.set_nonblocking(true)?;
    std::thread::scope(|scope| -> Result<()> {
        // Who is served is closed at once.
        scope.spawn(|| {
            while start.elapsed() < length {
                if listener.accept().is_err() {
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
        });
        let flood = scope.spawn(|| {
            near.enter()?;
            while start.elapsed() < length {
                send_raw(NEAR, syns.iter().map(Vec::as_slice))?;
                spoofed.fetch_add(syns.len() as u64, std::sync::atomic::Ordering::Relaxed);
            }
            anyhow::Ok(())
        });
        let victims = host.wire.near.entry()?;
        let caller = scope.spawn(move || -> Result<(u64, u64, Duration)> {
            victims.enter()?;
            while start.elapsed() < length {
                tries += 1;
                if connect_from(address(victim), to).is_err() {
                    (out, last) = (out + 1, start.elapsed());
                }
                std::thread::sleep(Duration::from_millis(20));
            }
            Ok((tries, out, last))
        });
        (tries, out, last) = caller.join().expect("the victim does not panic")?;
        flood.join().expect("the flood does not panic")
    })?;
    say!(
        "{} SYNs in a victim's name: {out} of its own {tries} connections were refused, the last after {:.1} s",
        spoofed.into_inner(),
        last.as_secs_f64()
    );
    // Until its host has reset the first of them, or for a moment.
    ensure!(tries > 20 && out * 20 < tries, "of {tries} connections {out} were refused");
    Ok(())
}
