//! A proxy on the agent's host, with three upstreams on other hosts, one of which dies.

use super::{Fleet, name};
use anyhow::{Result, ensure};
use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};
use throttle_common::breakers::{TRIAL_EXPIRES, TRIALS};
use throttle_tests::{
    agent::Site,
    clients::HTTP,
    groups::Group,
    needs_root,
    netns::Namespace,
    nginx::Server,
    say,
    slow::at,
    standing::{breaker, until},
    upstreams::Upstream,
    wire::FAR_V4,
};

/// How long a client waits for its answer; far more than it takes.
const PATIENCE: Duration = Duration::from_secs(20);
/// Requests that are made to see who gets them: each upstream has its share many times over.
const MANY: usize = 60;
/// How long the dead one is looked at with the agent dead.
const ALONE: Duration = Duration::from_secs(12);

/// Asks the proxy once for its page.
fn ask(proxy: SocketAddr) -> Result<bool> {
    let mut stream = TcpStream::connect_timeout(&proxy, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET / HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer.starts_with("HTTP/1.1 200"))
}

/// Asks it so many times, a moment apart: how many requests fail.
fn failures(clients: &Namespace, requests: usize) -> Result<usize> {
    clients.enter(|| {
        let fails = |_: &usize| {
            std::thread::sleep(Duration::from_millis(10));
            !ask(at(FAR_V4, HTTP)).unwrap_or(false)
        };
        (0..requests).filter(fails).count()
    })
}

#[test]
fn sends_a_dead_upstream_nothing_but_trials_and_serves_on() -> Result<()> {
    needs_root!();
    let Some(group) = Group::new("proxy")? else { return Ok(()) };
    let fleet = Fleet::new(3)?;
    let (site, from) = (Site::on(&fleet.wire.far)?, FAR_V4.parse()?);
    let mut backends = fleet.backends()?;
    let group_path = throttle_tests::agent::path(group.path());
    let watched = ["--cgroup", &group_path];
    let agent = fleet.agent(&site, &watched)?;
    fleet.follow(&site)?;
    let addresses: Vec<_> = fleet.upstreams.iter().map(Upstream::address).collect();
    let _proxy = Server::proxy_on(&fleet.wire.far, &group, FAR_V4, &addresses)?;
    let asked = fleet.upstreams[2].lose(0, from, 1)?;
    let serves = |what: &str, requests| -> Result<()> {
        let failed = failures(&fleet.wire.near, requests)?;
        ensure!(failed == 0, "{what}: {failed} of {requests} requests failed");
        Ok(())
    };
    serves("while all are well", MANY)?;
    let shares: Vec<_> = backends.iter().map(|it| it.accepted_from(from).len()).collect();
    ensure!(shares.iter().all(|share| *share > 0), "{shares:?} of {MANY} requests");

    drop(backends.pop());
    let start = Instant::now();
    serves("when one has just died", 10)?;
    until(&site, "the dead one is kept away", |view| breaker(view, &name(2)) == "open")?;
    let (known, before) = (start.elapsed(), asked.so_far()?.asks);
    serves("while it is known to be dead", MANY)?;
    let alive = asked.so_far()?.asks - before;
    ensure!(alive == 0, "it was asked {alive} times, and probes would have shown that it is back");

    agent.kill()?;
    let (alone, before, mut requests) = (Instant::now(), asked.so_far()?.asks, 0);
    while alone.elapsed() < ALONE {
        serves("with the agent dead", 10)?;
        requests += 10;
    }
    let (tried, rounds) = (asked.so_far()?.asks - before, alone.elapsed().as_nanos() / u128::from(TRIAL_EXPIRES) + 1);
    say!(
        "proxy: upstream kept away within {known:?}: asked {alive} times by {MANY} requests; with the agent dead {tried} \
         times by {requests}, in {rounds} rounds at most"
    );
    ensure!(tried > 0, "the kernel does not try it by itself");
    ensure!(u128::from(tried) <= rounds * u128::from(TRIALS), "{tried} times in {rounds} rounds of {TRIALS} trials");

    let back = fleet.backend(2)?;
    let _agent = fleet.agent(&site, &watched)?;
    until(&site, "it is let in", |view| breaker(view, &name(2)) == "closed")?;
    serves("when it is back", MANY)?;
    let share = back.accepted_from(from).len();
    ensure!(share > 0, "it gets nothing though it is back");
    Ok(())
}
