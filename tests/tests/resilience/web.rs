//! A web server under real load, while the build before this one's layout gives way to this one, this one to another of
//! the same layout, and that one to this again.

use super::upgrades::throttled_by;
use anyhow::{Context, Result, ensure};
use aya::programs::XdpMode;
use std::{
    net::{IpAddr, SocketAddr, TcpStream},
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};
use throttle_common::records::LAYOUT;
use throttle_tests::{
    agent::{Agent, Site, binary},
    clients::{Requests, wrk_within},
    generator::Sender,
    kernel, machine, needs_root,
    nginx::Server,
    previous::{self, previous},
    rebuild::rebuild,
    say,
    wire::{FAR, FAR_V4, NEAR, NEAR_V4, Wire},
};

const RUN: [&str; 3] = ["--interface", FAR, "--mode=native"];
/// How long wrk runs at a time.
const SPAN: Duration = Duration::from_secs(5);

/// What wrk asks for is counted and never refused; of another service each source has five connections for a long time. The
/// layout before keeps no tenants apart, this one does.
const POLICY: &str = r#"
mode = "enforce"
[[tenant]]
name = "near"
sources = ["10.98.0.0/16"]
[[service]]
name = "web"
protocol = "tcp"
ports = [80]
[[service]]
name = "side"
protocol = "tcp"
ports = [81]
[[limit]]
name = "many"
service = "web"
unit = "connections"
rate = "1000000/s"
[[limit]]
name = "few"
service = "side"
unit = "connections"
rate = "5/hour"
action = "reject"
"#;
const FEW: u64 = 5;

pub(crate) fn far() -> IpAddr {
    FAR_V4.parse().expect("an address")
}

fn load(wire: &Wire) -> Result<Requests> {
    wrk_within(&wire.near, far(), SPAN, 10, Duration::from_secs(5))
}

/// The same behind a bare program that passes everything.
pub(crate) fn bare(wire: &Wire) -> Result<Requests> {
    let mut object = kernel::load(64)?;
    let pass = kernel::xdp(&mut object, "pass")?;
    wire.far.enter(|| pass.attach(FAR, XdpMode::Driver))?.context("attach a bare program")?;
    load(wire)
}

/// One run after the other, until all is done.
pub(crate) fn load_until(wire: &Wire, done: &AtomicBool) -> Result<Requests> {
    let mut all = Requests::default();
    while !done.load(Ordering::Relaxed) {
        let Requests { served, failed } = load(wire)?;
        all = Requests { served: all.served + served, failed: all.failed + failed };
    }
    Ok(all)
}

/// The near source asks for the other service so many times; nobody listens there, so that each is refused, by whomever.
fn ask_aside(wire: &Wire, times: u64) -> Result<()> {
    wire.near.enter(|| {
        for _ in 0..times {
            let met = TcpStream::connect_timeout(&SocketAddr::new(far(), 81), Duration::from_secs(3));
            ensure!(met.is_err(), "somebody listens on port 81");
        }
        Ok(())
    })?
}

/// What the two limits admitted and refused.
fn tallies(site: &Site<'_>) -> Result<[u64; 4]> {
    let [many, few] = ["many", "few"].map(|name| site.limit(name).map(|view| view.tallies));
    let (many, few) = (many?, few?);
    Ok([many.admitted, many.refused, few.admitted, few.refused].map(|tally| tally.packets))
}

/// Counters go on, and a source that had used up what it may stays refused.
fn goes_on(wire: &Wire, site: &Site<'_>, before: &mut [u64; 4]) -> Result<()> {
    ask_aside(wire, 2)?;
    let after = tallies(site)?;
    ensure!(after[0] > before[0] && after[1] == 0, "wrk's connections are counted on: {after:?} after {before:?}");
    ensure!(after[2] == FEW && after[3] == before[3] + 2, "{NEAR_V4} stays refused: {after:?} after {before:?}");
    *before = after;
    Ok(())
}

/// From the layout before to this build, back in vain, to another of this layout and back.
fn change_builds(
    wire: &Wire,
    site: &Site<'_>,
    [before, other]: [&Path; 2],
    agent: Agent,
    counted: &mut [u64; 4],
) -> Result<()> {
    goes_on(wire, site, counted)?;
    ensure!(agent.stop()?.success(), "the agent of the layout before ends when it is asked to");
    let mut agent = site.start(&RUN)?;
    ensure!(site.status()?.build.layout == LAYOUT, "this build runs");
    goes_on(wire, site, counted)?;
    agent.kill()?;
    let refused = site.refusal_of(before, &RUN)?;
    ensure!(refused.contains("throttle detach"), "the way back is refused, with the remedy: {refused}");
    for build in [other, binary()?] {
        agent = site.start_build(build, &RUN)?;
        goes_on(wire, site, counted)?;
        ensure!(agent.stop()?.success(), "the agent ends when it is asked to");
    }
    Ok(())
}

#[test]
fn no_request_fails_while_builds_and_layouts_change() -> Result<()> {
    needs_root!();
    let Some(before) = previous()? else { return Ok(()) };
    let _machine = machine::alone()?;
    let wire = Wire::new()?;
    let _near = Sender::on(&wire).with_context(|| format!("answers reach {NEAR}"))?;
    let _server = Server::on(&wire.far)?;
    let bare = bare(&wire)?;
    let site = Site::on(&wire.far)?;
    let other = site.file("throttle-other");
    rebuild(binary()?, &other)?;

    let agent = throttled_by(&site, &before, &RUN, POLICY)?;
    ask_aside(&wire, FEW + 2)?;
    let mut counted = tallies(&site)?;
    ensure!(counted[2..] == [FEW, 2], "its burst is used up: {counted:?}");
    let done = AtomicBool::new(false);
    let requests = thread::scope(|scope| -> Result<Requests> {
        let wrk = scope.spawn(|| load_until(&wire, &done));
        thread::sleep(Duration::from_secs(1));
        let changed = change_builds(&wire, &site, [&before, &other], agent, &mut counted);
        done.store(true, Ordering::Relaxed);
        let requests = wrk.join().expect("wrk's thread does not panic");
        changed.and(requests)
    })?;
    let _agent = site.start(&RUN)?;
    let counted = tallies(&site)?;
    say!(
        "wrk through layouts {} to {LAYOUT}, back (refused), to another build and back: {} requests, {} failed; bare \
         XDP_PASS: {}, {} failed; {} connections counted",
        previous::LAYOUT,
        requests.served,
        requests.failed,
        bare.served,
        bare.failed,
        counted[0]
    );
    ensure!(requests.failed <= bare.failed, "{requests:?}; {bare:?} with a bare program");
    ensure!(counted[0] >= requests.served, "{} connections were counted of {requests:?}", counted[0]);
    Ok(())
}
