//! The speed of a UDP service: from outside nothing of it can be measured, so that it follows what the service says of itself.

use super::RUN;
use anyhow::{Context as _, Result, ensure};
use std::{
    net::UdpSocket,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};
use throttle_agent::datapath::LEASE;
use throttle_tests::{
    agent::Site,
    backends::beat_once,
    needs_root, say,
    slow::at,
    standing::{health, until},
    wire::{FAR_V4, NEAR_V4, Wire},
};

const PORT: u16 = 80;
/// Datagrams that the limit admits each second, and those that come.
const ADMITTED: f64 = 2_000.0;
const OFFERED: u32 = 4_000;
/// The slowest that a clock runs.
const LEAST: f64 = 1.0 / 16.0;
/// How long is counted, and how far a count may be off: the sender sleeps between its datagrams.
const SPAN: Duration = Duration::from_secs(3);
const OFF_BY: f64 = 0.1;
const EVERY: Duration = Duration::from_millis(100);

/// A service that counts what reaches it and says how it is, and somebody who asks it for more than it may be asked for.
struct Asked {
    received: Arc<AtomicU64>,
    overloaded: Arc<AtomicBool>,
    ends: Arc<AtomicBool>,
}

impl Asked {
    fn on(wire: &Wire, site: &Site<'_>) -> Result<Self> {
        let all = Self { received: Arc::default(), overloaded: Arc::default(), ends: Arc::default() };
        let server = wire.far.enter(|| UdpSocket::bind((FAR_V4, PORT)))??;
        server.set_read_timeout(Some(EVERY))?;
        let client = wire.near.enter(|| UdpSocket::bind((NEAR_V4, 0)))??;
        client.connect(at(FAR_V4, PORT))?;
        let (received, ends) = (Arc::clone(&all.received), Arc::clone(&all.ends));
        thread::spawn(move || {
            while !ends.load(Relaxed) {
                received.fetch_add(u64::from(server.recv(&mut [0; 64]).is_ok()), Relaxed);
            }
        });
        let ends = Arc::clone(&all.ends);
        thread::spawn(move || {
            let (start, mut sent) = (Instant::now(), 0);
            while !ends.load(Relaxed) {
                let due = start.elapsed().as_millis() as u64 * u64::from(OFFERED) / 1_000;
                // Nobody counts what the network does not take.
                (sent..due).for_each(|_| drop(client.send(&[0; 32])));
                sent = due;
                thread::sleep(Duration::from_millis(1));
            }
        });
        let (overloaded, ends, socket) = (Arc::clone(&all.overloaded), Arc::clone(&all.ends), site.file("api.sock"));
        thread::spawn(move || {
            for sequence in 1.. {
                if ends.load(Relaxed) {
                    break;
                }
                let load = if overloaded.load(Relaxed) { 1.5 } else { 0.5 };
                beat_once(&socket, "web-1", 1, sequence, Some(load));
                thread::sleep(EVERY);
            }
        });
        Ok(all)
    }

    /// Datagrams that reach the service in a second.
    fn per_second(&self) -> f64 {
        let (before, start) = (self.received.load(Relaxed), Instant::now());
        thread::sleep(SPAN);
        (self.received.load(Relaxed) - before) as f64 / start.elapsed().as_secs_f64()
    }

    /// Fails where these are not so many times what policy admits.
    fn admits(&self, share: f64, when: &str) -> Result<()> {
        let found = self.per_second();
        say!("pacing: {found:.0} of {ADMITTED} datagrams a second {when}");
        ensure!((found / (ADMITTED * share) - 1.0).abs() < OFF_BY, "{found} datagrams a second {when}");
        Ok(())
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        self.ends.store(true, Relaxed);
    }
}

fn policy() -> String {
    format!(
        "mode = \"enforce\"\n[[service]]\nname = \"web\"\nprotocol = \"udp\"\nports = [{PORT}]\n[service.health]\nmode = \
         \"enforce\"\ncontrol = \"rate\"\n[[backend]]\nname = \"web-1\"\nservice = \"web\"\naddress = \"{FAR_V4}:{PORT}\"\n\
         probe = \"push\"\n[[limit]]\nname = \"datagrams\"\nservice = \"web\"\nunit = \"packets\"\nper = \"service\"\nrate = \
         \"{ADMITTED}/s\"\nburst = 20\n"
    )
}

#[test]
fn a_udp_service_is_asked_for_as_much_as_it_says_that_it_bears() -> Result<()> {
    needs_root!();
    let wire = Wire::new()?;
    let site = Site::on(&wire.far)?;
    let agent = site.start(&RUN)?;
    site.apply(&policy())?;
    let asked = Asked::on(&wire, &site)?;
    until(&site, "it follows heartbeats", |view| view.signal == "heartbeats" && view.speed_in_force >= 1.0)?;
    asked.admits(1.0, "while it is well")?;

    asked.overloaded.store(true, Relaxed);
    until(&site, "its clock slows down", |view| view.speed_in_force <= LEAST)?;
    asked.admits(LEAST, "while it is overloaded")?;

    asked.overloaded.store(false, Relaxed);
    let view = until(&site, "its clock runs faster again", |view| view.speed_in_force > LEAST * 1.05)?;
    ensure!(view.actuator == "rate" && view.window.is_none(), "{view:#?}");
    let after = health(&site, "web")?.speed_in_force;
    ensure!(after < 0.5, "it is fast again at once: {after}");

    // What health has taken lapses with an agent that says nothing any more.
    agent.kill().context("kill the agent")?;
    thread::sleep(LEASE + Duration::from_millis(500));
    asked.admits(1.0, "with the agent dead")
}
