//! A real nginx behind a limit on new connections, and real clients of it: curl, and wrk without keep-alive.

mod answers;
mod pages;
mod penalties;
mod sizes;

use anyhow::{Result, ensure};
use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::{Duration, Instant},
};
use throttle_tests::{
    agent::Site,
    clients::{Ending, fetch, wrk},
    frames::Frame,
    generator::Sender,
    kernel::Order,
    machine, needs_root,
    nginx::Server,
    say,
    wire::{FAR, FAR_V4, FAR_V6, NEAR, Wire},
};

fn policy(action: &str, rate: &str) -> String {
    format!(
        "mode = \"enforce\"\n[[service]]\nname = \"web\"\nprotocol = \"tcp\"\nports = [80]\n[[limit]]\nname = \"opens\"\n\
         service = \"web\"\nunit = \"connections\"\nrate = \"{rate}\"\naction = \"{action}\"\n\
         [answers]\nrate = \"1000000/s\"\n"
    )
}

/// Two sources of a family each: two addresses, and two /64s.
fn sources() -> [(IpAddr, [IpAddr; 2]); 2] {
    let v6 = |net| Ipv6Addr::new(0xfd98, 0, net, 0, 0, 0, 0, 2).into();
    [
        (far(FAR_V4), [Ipv4Addr::new(10, 98, 1, 1).into(), Ipv4Addr::new(10, 98, 1, 2).into()]),
        (far(FAR_V6), [v6(1), v6(2)]),
    ]
}

fn far(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// A wire whose near end has all the addresses that clients speak from, and takes the frames that the far driver sends
/// back by itself: a veth pair delivers those only to an end with an XDP program.
fn wire() -> Result<(Wire, Sender)> {
    let wire = Wire::new()?;
    for address in sources().iter().flat_map(|(_, sources)| sources) {
        let length = if address.is_ipv4() { 16 } else { 32 };
        wire.near.ip(&["address", "add", &format!("{address}/{length}"), "dev", NEAR])?;
    }
    let near = Sender::on(&wire)?;
    Ok((wire, near))
}

#[test]
fn curl_is_served_until_its_source_has_used_its_connections_up() -> Result<()> {
    needs_root!();
    let (wire, _near) = wire()?;
    let _server = Server::on(&wire.far)?;
    let site = Site::on(&wire.far)?;
    let _agent = site.start(&["--interface", FAR, "--mode=native"])?;
    for (action, ending) in [("drop", Ending::Silence), ("reject", Ending::Refused)] {
        // Another limit each time: nothing is remembered.
        site.apply(&policy(action, "5/min").replace("opens", action))?;
        for (server, sources) in sources() {
            for source in sources {
                for connection in 0..5 {
                    let met = fetch(&wire.near, source, server, Duration::from_secs(10))?;
                    ensure!(met == Ending::Served, "connection {connection} of {source} met {met:?} under {action}");
                }
            }
            // Long enough for an answer on this wire, too short for a SYN to be sent again.
            let met = fetch(&wire.near, sources[0], server, Duration::from_millis(900))?;
            ensure!(met == ending, "the sixth connection of {} met {met:?} under {action}", sources[0]);
        }
        let tallies = site.limit(action)?.tallies;
        ensure!(tallies.admitted.packets == 20 && tallies.refused.packets == 2, "{action}: {tallies:?}");
    }
    Ok(())
}

#[test]
fn a_connection_that_was_let_in_is_never_cut() -> Result<()> {
    needs_root!();
    let (wire, _near) = wire()?;
    let _server = Server::on(&wire.far)?;
    let site = Site::on(&wire.far)?;
    let _agent = site.start(&["--interface", FAR])?;
    site.apply(&policy("reject", "1/min"))?;
    let answers = wire.near.enter(|| -> Result<usize> {
        use std::io::{Read as _, Write as _};
        let mut stream = std::net::TcpStream::connect((far(FAR_V4), 80))?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        let mut answers = 0;
        for _ in 0..200 {
            stream.write_all(b"GET / HTTP/1.1\r\nHost: far\r\n\r\n")?;
            let mut page = Vec::new();
            while !page.ends_with(b"hello\n") {
                let mut part = [0; 1024];
                let length = stream.read(&mut part)?;
                ensure!(length > 0, "the connection was closed after {answers} requests");
                page.extend(&part[..length]);
            }
            answers += 1;
        }
        Ok(answers)
    })??;
    ensure!(answers == 200);
    ensure!(site.limit("opens")?.tallies.admitted.packets == 1, "there was one connection");
    Ok(())
}

#[test]
fn wrk_gets_what_the_limit_promises() -> Result<()> {
    const RATE: u64 = 100;
    needs_root!();
    let _machine = machine::alone()?;
    let span = Duration::from_secs(3);
    let (wire, _near) = wire()?;
    let _server = Server::on(&wire.far)?;
    let site = Site::on(&wire.far)?;
    let _agent = site.start(&["--interface", FAR, "--mode=native"])?;
    for server in [far(FAR_V4), far(FAR_V6)] {
        site.apply("mode = \"enforce\"")?;
        let free = wrk(&wire.near, server, span, 10)?;
        for action in ["drop", "reject"] {
            let name = format!("{action}-{}", if server.is_ipv4() { "v4" } else { "v6" });
            site.apply(&policy(action, &format!("{RATE}/s")).replace("opens", &name))?;
            let start = Instant::now();
            let served = wrk(&wire.near, server, span, 10)?;
            let entitled = RATE + RATE * start.elapsed().as_millis() as u64 / 1_000 + 1;
            let tallies = site.limit(&name)?.tallies;
            say!(
                "wrk to {server}, {action}: {served} requests served of {entitled} at {RATE}/s, {} SYNs refused; {free} \
                 without a limit",
                tallies.refused.packets
            );
            ensure!(free > 2 * entitled, "without a limit wrk opens only {free} connections: too few to tell");
            ensure!(tallies.admitted.packets <= entitled && served <= entitled, "{served} served, {tallies:?}");
            // A client whose SYN is dropped waits a second; one that is told tries again at once.
            let least = if action == "reject" { RATE + RATE * span.as_secs() * 9 / 10 } else { RATE };
            ensure!(served >= least, "only {served} requests were served");
            ensure!(tallies.refused.packets > 0, "nothing was refused");
        }
    }
    Ok(())
}

#[test]
fn metrics_do_not_grow_with_sources() -> Result<()> {
    const SOURCES: u64 = 10_000;
    needs_root!();
    let wire = Wire::silent()?;
    let near = Sender::on(&wire)?;
    let site = Site::on(&wire.far)?;
    let _agent = site.start(&["--interface", FAR, "--mode=native"])?;
    site.apply("mode = \"enforce\"\n[[limit]]\nname = \"few\"\nunit = \"packets\"\nrate = \"1/hour\"\n")?;
    let before = series(&site)?;
    let order = Order { flood: 0x0a00_0000, random: 0x3fff, flood_interval: 5_000, ..Order::SILENT };
    let flood = near.start(&wire.near, 0, &Frame::v4([10, 0, 0, 1]).bytes(), order)?;
    // A source is admitted once an hour: so many admitted are so many sources.
    let status = site.until("the sources have come", |status| status.limits[0].tallies.admitted.packets > SOURCES)?;
    flood.stop()?;
    ensure!(status.limits[0].tallies.refused.packets > 0 && !status.reasons.is_empty(), "none came twice: {status:?}");
    let after = series(&site)?;
    ensure!(before == after, "there are new series: {:?}", after.symmetric_difference(&before).collect::<Vec<_>>());
    ensure!(!after.iter().any(|series| series.contains("10.0.")), "a label holds an address");
    let names = after.iter().filter_map(|series| series.split_once('{')).flat_map(|(_, labels)| labels.split("\","));
    let names: BTreeSet<_> = names.filter_map(|label| label.split('=').next()).collect();
    let bounded = [
        "answer",
        "family",
        "interface",
        "layout",
        "limit",
        "mode",
        "object",
        "outcome",
        "reason",
        "result",
        "version",
    ];
    ensure!(names.iter().copied().eq(bounded), "other labels than these: {names:?}");
    say!(
        "{} sources: {} series in the metrics before and after",
        status.limits[0].tallies.admitted.packets,
        after.len()
    );
    Ok(())
}

/// What the metrics tell figures of: names with their labels.
fn series(site: &Site<'_>) -> Result<BTreeSet<String>> {
    let (status, page) = site.request("GET", "/metrics", "")?;
    ensure!(status == 200, "the metrics are answered with {status}");
    let figures = page.lines().filter(|line| !line.starts_with('#'));
    Ok(figures.filter_map(|line| line.rsplit_once(' ')).map(|(series, _)| series.to_owned()).collect())
}
