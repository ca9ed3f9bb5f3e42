//! A source in whose name others ask for connections.

use super::{address, eventually, host::Host};
use anyhow::{Result, ensure};
use std::{
    io::Read as _,
    net::{Ipv4Addr, SocketAddr},
    ops::Range,
    str::FromStr as _,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    time::{Duration, Instant},
};
use throttle_common::{handshakes, packet::tcp};
use throttle_tests::{
    clients::connect_from,
    frames::Frame,
    kernel::Order,
    machine, needs_root, say,
    wire::{FAR_V4, NEAR},
};

/// How long others ask, at least, and how long before the victim does: two moments of [`handshakes`], within which its
/// connections may be refused.
const LENGTH: Duration = Duration::from_secs(8);
const BEFORE: Duration = Duration::from_nanos(2 << handshakes::MOMENT_BITS);
/// How often the victim asks, at least; a flood leaves a machine with few processors little time for it.
const TRIES: u64 = 25;
/// How often others ask for each time that the victim does, at least; an emulated machine manages few.
const FLOOD: u64 = 50;

/// The ports that others ask from, below those that a host takes by itself, and the bits by which they differ.
const SPOOFED: Range<u16> = 0x2000..0x4000;
const DIFFERING: u64 = 0x1fff;

#[test]
fn syns_in_a_victims_name_do_not_keep_the_victim_out() -> Result<()> {
    needs_root!();
    let _machine = machine::alone()?;
    // A host resets what it has not asked for; one behind a filter is silent, and fills the queue of those that wait: then
    // the kernel sends cookies.
    for silent in [false, true] {
        victim_is_served(silent)?;
    }
    Ok(())
}

fn victim_is_served(silent: bool) -> Result<()> {
    let mut host = Host::new()?;
    let listener = host.listen_deep(FAR_V4)?;
    let port = listener.local_addr()?.port();
    host.limit(port, &["concurrent = 20\naction = \"reject\"\nsources = 300"])?;
    let to = SocketAddr::new(address(FAR_V4), port);
    let victim = "10.98.0.9";
    host.wire.near.ip(&["address", "add", &format!("{victim}/16"), "dev", NEAR])?;
    if silent {
        let ports = format!("{}-{}", SPOOFED.start, SPOOFED.end - 1);
        let chain = format!("chain input {{ type filter hook input priority 0; tcp dport {ports} drop; }}");
        if !host.wire.near.filter(&format!("table ip silence {{\n{chain}\n}}"))? {
            return Ok(());
        }
    }
    listener.set_nonblocking(true)?;
    let syn = Frame::from(victim).to(FAR_V4).tcp(SPOOFED.start, port, tcp::SYN).bytes();
    let order = Order {
        flood: u32::from(Ipv4Addr::from_str(victim)?).into(),
        flood_interval: 0,
        from_ports: DIFFERING,
        ..Order::SILENT
    };
    let flood = host.flood(&syn, order)?;
    eventually(&true, || Ok(host.tally(0)?.admitted.packets + host.tally(0)?.refused.packets > 0))?;
    let start = Instant::now();
    let over = AtomicBool::new(false);
    let (tries, out) = std::thread::scope(|scope| -> Result<(u64, u64)> {
        // Who is served is closed at once.
        scope.spawn(|| {
            while !over.load(Relaxed) {
                if listener.accept().is_err() {
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
        });
        let victims = host.wire.near.entry()?;
        let caller = scope.spawn(move || -> Result<(u64, u64)> {
            victims.enter()?;
            std::thread::sleep(BEFORE.saturating_sub(start.elapsed()));
            let (mut tries, mut out) = (0, 0);
            while start.elapsed() < LENGTH || tries < TRIES {
                tries += 1;
                // Who is served waits until it is closed: a server that the flood leaves no time would have more and more open.
                match connect_from(address(victim), to) {
                    Ok(mut served) => {
                        served.set_read_timeout(Some(LENGTH))?;
                        _ = served.read(&mut [0]);
                    }
                    Err(error) => {
                        say!("after {:?}: {error}", start.elapsed());
                        out += 1;
                    }
                }
                std::thread::sleep(Duration::from_millis(20));
            }
            Ok((tries, out))
        });
        let asked = caller.join();
        over.store(true, Relaxed);
        asked.expect("the victim does not panic")
    })?;
    let spoofed = flood.stop()?.flood;
    say!(
        "{spoofed} SYNs in the name of a victim{}: {out} of its own {tries} connections were refused",
        if silent { " that is silent" } else { "" }
    );
    ensure!(spoofed > FLOOD * tries, "{spoofed} SYNs beside {tries} connections are no flood");
    ensure!(out == 0, "of {tries} connections {out} were refused");
    Ok(())
}
