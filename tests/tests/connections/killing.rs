//! Agents that are killed while they mend the count: what they have begun is done, or is not.

use super::{address, host::sockets, listen, policy};
use anyhow::{Result, ensure};
use aya::maps::{HashMap, MapData};
use std::{
    net::{SocketAddr, TcpStream},
    thread,
};
use throttle_agent::datapath::{Datapath, Options};
use throttle_common::records::{Connection, Ends, maps, name_str};
use throttle_tests::{
    agent::{Agent, Site},
    generator::Sender,
    machine, needs_root, policies, say,
    wire::{FAR, FAR_V4, Wire},
};

/// Connections that are held anew by each policy.
const OPEN: usize = 400;
/// How many agents are killed.
const KILLS: usize = 12;
/// As many connections are watched for the first that is.
const WATCHED: usize = 8;
const TABLE_SETS: u32 = 1 << 14;
const RUN: [&str; 4] = ["--interface", FAR, "--mode=native", "--table-sets=16384"];

#[test]
fn no_agent_that_is_killed_leaves_a_place_that_nobody_holds() -> Result<()> {
    needs_root!();
    let _machine = machine::alone()?;
    let wire = Wire::new()?;
    let _answers = Sender::on(&wire)?;
    let site = Site::on(&wire.far)?;
    let listener = wire.far.enter(|| listen(FAR_V4))??;
    rustix::net::listen(&listener, 1000)?;
    let port = listener.local_addr()?.port();
    let to = SocketAddr::new(address(FAR_V4), port);
    // The source is one of nine tenants', and then of one: its bucket moves within the table of its limit.
    let limit = policy(port, &["concurrent = 2000\nsources = 20000"]);
    let tenant = |number: u32| policies::tenant(number, &format!("\"10.{}.0.0/16\"", 90 + number));
    let policies = [9, 1].map(|last| limit.clone() + &(1..=last).map(tenant).collect::<String>());
    let mut agent = site.start(&RUN)?;
    site.apply(&policies[0])?;
    let connect = |_| Ok(wire.near.enter(|| TcpStream::connect(to))??);
    let clients = (0..OPEN).map(connect).collect::<Result<Vec<_>>>()?;
    let accepted = (0..OPEN).map(|_| Ok(listener.accept()?.0)).collect::<Result<Vec<_>>>()?;
    ensure!(sockets(&wire.far, port, None)? == OPEN as u64, "all are open");
    let mut midway = 0;
    for number in 0..KILLS {
        let anew = kill_while_it_mends(&site, agent, &policies[(number + 1) % 2])?;
        midway += usize::from((1..OPEN).contains(&anew));
        all_are_counted(&site, &wire)?;
        agent = site.start(&RUN)?;
        site.apply(&policies[(number + 1) % 2])?;
    }
    say!("{KILLS} agents were killed, {midway} of them when they had held some of {OPEN} connections anew");
    ensure!(midway > 0, "none was killed at work");
    drop((clients, accepted));
    ensure!(agent.stop()?.success());
    Ok(())
}

/// Kills an agent that puts a policy in force as soon as it holds a connection anew; gives how many it has.
fn kill_while_it_mends(site: &Site<'_>, agent: Agent, policy: &str) -> Result<usize> {
    let written = Written::of(site)?;
    let before = written.all()?;
    let watched: Vec<_> = before.iter().step_by(OPEN / WATCHED).collect();
    let body = serde_json::json!({ "toml": policy }).to_string();
    thread::scope(|scope| {
        // Its answer does not come.
        let applying = scope.spawn(|| _ = site.request("POST", "/v1/policy/apply", &body));
        while !applying.is_finished() && written.are(&watched) {}
        agent.kill()
    })?;
    Ok(before.iter().filter(|it| !written.are(&[it])).count())
}

/// What is written down of connections.
struct Written(HashMap<MapData, Ends, Connection>);

impl Written {
    fn of(site: &Site<'_>) -> Result<Self> {
        let pinned = MapData::from_pin(site.pin_dir().join("maps").join(maps::CONNECTIONS))?;
        Ok(Self(aya::maps::Map::HashMap(pinned).try_into()?))
    }

    fn all(&self) -> Result<Vec<(Ends, Connection)>> {
        Ok(self.0.iter().collect::<Result<_, _>>()?)
    }

    /// Whether these are as they were.
    fn are(&self, connections: &[&(Ends, Connection)]) -> bool {
        connections.iter().all(|(ends, before)| self.0.get(ends, 0).is_ok_and(|now| now.holds == before.holds))
    }
}

/// As the next agent finds it, and goes on: every connection holds its place, and nobody else does.
fn all_are_counted(site: &Site<'_>, wire: &Wire) -> Result<()> {
    let options =
        Options { pin_dir: site.pin_dir(), table_sets: TABLE_SETS, debug: false, test_clock: false, adopt: true };
    wire.far.enter(|| {
        let datapath = Datapath::open(&options)?;
        let drift = datapath.reconcile_connections()?;
        for limit in datapath.limits() {
            let (name, open) = (name_str(&limit.record.name).to_owned(), datapath.open_connections(&limit.record));
            ensure!(open == OPEN as u64, "{open} are counted under {name}, {OPEN} are open; {drift:?}");
        }
        let again = datapath.reconcile_connections()?;
        ensure!(again == throttle_agent::datapath::Drift::default(), "{again:?} is left after {drift:?}");
        Ok(())
    })?
}
