//! A web server under real load, while the last build with other kernel programs gives way to this one and this one to that
//! again, and connections that last all the while.

use super::{
    upgrades::throttled_by,
    web::{bare, far, load_until},
};
use anyhow::{Context, Result, ensure};
use std::{
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};
use throttle_agent::api::wire::Status;
use throttle_common::records::LAYOUT;
use throttle_tests::{
    agent::{Agent, Site, binary},
    generator::Sender,
    machine, needs_root,
    nginx::Server,
    previous::{other_programs, previous},
    say,
    wire::{FAR, NEAR, Wire},
};

const RUN: [&str; 3] = ["--interface", FAR, "--mode=native"];

/// What wrk asks for is counted, with what is open of it, and never refused; of another service each source may have five
/// connections.
const POLICY: &str = r#"
mode = "enforce"
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
name = "open"
service = "web"
unit = "connections"
concurrent = 1000
per = "service"
[[limit]]
name = "held"
service = "side"
unit = "connections"
concurrent = 5
action = "reject"
"#;
const HELD: u64 = 5;
/// More ends than there are of hundreds of thousands that no program is told of, where the kernel does not tell of all.
const UNTOLD: u64 = 20;

/// By what the kernel tells a build's main program from others.
fn tag_of(build: &Path) -> Result<u64> {
    let wire = Wire::new()?;
    let site = Site::on(&wire.far)?;
    let _agent = site.start_build(build, &RUN)?;
    site.program_tag()
}

/// The server of the other service, with as many connections as a source may have.
fn lasting(wire: &Wire) -> Result<(TcpListener, Vec<TcpStream>)> {
    let server = wire.far.enter(|| TcpListener::bind(SocketAddr::new(far(), 81)))??;
    let connections = (0..HELD).map(|_| connect(wire)).collect::<Result<_>>().context("while there is room")?;
    Ok((server, connections))
}

/// All that last are counted, by this agent as by those before, and one more is refused.
fn are_held(wire: &Wire, site: &Site<'_>) -> Result<Status> {
    let status = until_open(site, "held", HELD)?;
    ensure!(connect(wire).is_err(), "one more connects than may be open");
    Ok(status)
}

fn until_open(site: &Site<'_>, limit: &str, wanted: u64) -> Result<Status> {
    site.until(&format!("{wanted} connections are counted by {limit}"), |status| {
        status.limits.iter().any(|view| view.limit.name == limit && view.open == Some(wanted))
    })
}

/// The same, and nothing had to be mended but ends that the kernel told nobody of: see [`Wire::receive_in_threads`].
fn are_counted(wire: &Wire, site: &Site<'_>) -> Result<()> {
    let status = are_held(wire, site)?;
    let of = status.connections.context("it counts connections")?;
    let mended = [of.mended_open, of.uncounted];
    ensure!(mended == [0; 2] && of.mended_closed <= UNTOLD, "{mended:?} were mended, or not counted: {of:?}");
    Ok(())
}

fn connect(wire: &Wire) -> Result<TcpStream> {
    let to = SocketAddr::new(far(), 81);
    Ok(wire.near.enter(|| TcpStream::connect_timeout(&to, Duration::from_secs(3)))??)
}

/// From the build before to this one, back, and to this one again.
fn change_builds(wire: &Wire, site: &Site<'_>, before: &Path, mut agent: Agent) -> Result<()> {
    let mut admitted = site.limit("many")?.tallies.admitted.packets;
    for build in [binary()?, before, binary()?] {
        ensure!(agent.stop()?.success(), "the agent ends when it is asked to");
        agent = site.start_build(build, &RUN)?;
        are_counted(wire, site)?;
        let now = site.limit("many")?.tallies;
        ensure!(now.admitted.packets > admitted && now.refused.packets == 0, "{now:?} after {admitted} were admitted");
        admitted = now.admitted.packets;
    }
    Ok(())
}

#[test]
fn no_request_fails_and_no_connection_is_forgotten_while_the_build_before_gives_way_and_comes_back() -> Result<()> {
    needs_root!();
    let tag = tag_of(binary()?)?;
    let Some((commit, before)) = other_programs(|build| Ok(tag_of(build)? != tag))? else { return Ok(()) };
    let _machine = machine::alone()?;
    let wire = Wire::new()?;
    let _near = Sender::on(&wire).with_context(|| format!("answers reach {NEAR}"))?;
    let _server = Server::on(&wire.far)?;
    let bare = bare(&wire)?;
    let site = Site::on(&wire.far)?;
    let agent = throttled_by(&site, &before, &RUN, POLICY)?;
    let layout = site.status()?.build.layout;
    if layout != LAYOUT {
        let test = thread::current().name().unwrap_or("a test").to_owned();
        say!("skipped {test}: {commit} has layout {layout}, from which the change of layouts has a test of its own");
        return Ok(());
    }
    ensure!(site.program_tag()? != tag, "its programs are this build's");
    let lasting = lasting(&wire)?;
    are_counted(&wire, &site)?;
    let done = AtomicBool::new(false);
    let requests = thread::scope(|scope| -> Result<_> {
        let wrk = scope.spawn(|| load_until(&wire, &done));
        thread::sleep(Duration::from_secs(1));
        let changed = change_builds(&wire, &site, &before, agent);
        done.store(true, Ordering::Relaxed);
        let requests = wrk.join().expect("wrk's thread does not panic");
        changed.and(requests)
    })?;
    let _agent = site.start(&RUN)?;
    let counted = until_open(&site, "open", 0)?.connections.context("it counts connections")?;
    ensure!(site.program_tag()? == tag, "this build's programs are not in force");
    say!(
        "wrk from {commit}, whose programs are others, to this build, back and here again: {} requests, {} failed; bare XDP_PASS: {}, \
         {} failed; {HELD} connections counted throughout, {} ends mended",
        requests.served,
        requests.failed,
        bare.served,
        bare.failed,
        counted.mended_closed
    );
    ensure!(requests.failed <= bare.failed, "{requests:?}; {bare:?} with a bare program");
    drop(lasting);
    Ok(())
}

#[test]
fn connections_that_last_are_counted_on_by_a_build_of_another_layout() -> Result<()> {
    needs_root!();
    let Some(before) = previous()? else { return Ok(()) };
    let wire = Wire::new()?;
    let _near = Sender::on(&wire).with_context(|| format!("answers reach {NEAR}"))?;
    let site = Site::on(&wire.far)?;
    let agent = throttled_by(&site, &before, &RUN, POLICY)?;
    let (server, connections) = lasting(&wire)?;
    are_held(&wire, &site)?;
    agent.kill()?;
    ensure!(connect(&wire).is_err(), "the programs of the build before go on without it");
    // Those that its programs counted are found again by their sockets, however they came.
    let _agent = site.start(&RUN)?;
    let status = are_held(&wire, &site)?;
    ensure!(status.build.layout == LAYOUT, "this build runs: {:?}", status.build);
    let of = status.connections.context("it counts connections")?;
    ensure!([of.mended_closed, of.uncounted] == [0; 2], "{of:?}");
    drop((server, connections));
    until_open(&site, "held", 0).map(drop)
}
