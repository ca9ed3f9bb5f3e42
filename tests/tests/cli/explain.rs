//! What `explain` says of a source to people and to programs: of real packets on a real interface.

use super::{ends_with, send_from};
use anyhow::{Context, Result, ensure};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use throttle_common::packet::tcp;
use throttle_tests::{
    agent::Site,
    clients::send_raw,
    frames::Frame,
    needs_root,
    wire::{FAR, FAR_V4, NEAR, NEAR_V4, Wire},
};

const POLICY: &str = r#"
mode = "enforce"
[[service]]
name = "discard"
protocol = "udp"
ports = [9]
[[limit]]
name = "wide"
unit = "packets"
rate = "100000/s"
[[limit]]
name = "few"
service = "discard"
unit = "packets"
rate = "2/hour"
burst = 2
"#;

#[test]
fn explain_says_who_refuses_until_when_and_what_was_refused() -> Result<()> {
    needs_root!();
    let wire = Wire::silent()?;
    let site = Site::on(&wire.far)?;
    let _agent = site.start(&["--interface", FAR])?;
    site.apply(POLICY)?;
    let (loud, quiet) = (Ipv4Addr::new(198, 51, 100, 7), Ipv4Addr::new(198, 51, 100, 8));
    send_from(&wire, [loud, loud, loud])?;
    site.until("all are judged", |status| status.reasons.iter().map(|count| count.packets).sum::<u64>() == 3)?;

    let page = site.ask(&["explain", "198.51.100.7", "--port", "9", "--protocol", "udp"])?;
    let first = page.lines().next().context("nothing was said")?;
    ensure!(
        first.starts_with("198.51.100.7: the next UDP packet to discard (port 9) is refused by limit few, until ")
            && (first.contains(", in 29 min ") || first.ends_with(", in 30 min")),
        "{page}"
    );
    for part in ["room for 0 of 2", "wide", "admits it", "source-limit of few  198.51.100.7:40000"] {
        ensure!(page.contains(part), "no {part} in {page}");
    }
    // Without a port every service is asked about, and the worst comes first.
    let page = site.ask(&["explain", "198.51.100.7"])?;
    let lines: Vec<_> = page.lines().take(2).collect();
    ensure!(lines[0].contains("is refused by limit few") && lines[1].contains("to no service passes"), "{page}");

    let json = site.json(&["explain", "198.51.100.8", "--port", "9", "--protocol", "udp"])?;
    let walk = &json["walks"][0];
    ensure!(json["schema_version"] == 1 && walk["outcome"] == "pass" && walk["passes_in_seconds"] == 0.0, "{json}");
    ensure!(walk["limits"][1]["bucket"] == "new" && json["refusals"].as_array().is_some_and(Vec::is_empty), "{json}");
    // To ask costs nothing.
    ensure!(site.limit("few")?.tallies.admitted.packets == 2, "a question was charged");

    site.ask(&["block", "add", "198.51.100.0/24", "--for", "1h", "--reason", "scans ports"])?;
    let page = site.ask(&["explain", &quiet.to_string()])?;
    ensure!(page.contains("is refused by the block of 198.51.100.0/24, until "), "{page}");
    ensure!(page.contains("added by root: scans ports"), "{page}");
    site.ask(&["allow", "add", "198.51.100.8"])?;
    let page = site.ask(&["explain", &quiet.to_string()])?;
    ensure!(page.contains("passes: the source is allowed") && page.contains("allowed by 198.51.100.8: "), "{page}");

    // What was refused is told as long as it is remembered, also of a limit that says nothing any more.
    site.ask(&["limit", "delete", "few"])?;
    let page = site.ask(&["explain", "198.51.100.7"])?;
    let of_few = page.lines().filter(|line| line.contains("source-limit of few"));
    ensure!(of_few.clone().count() == 1 && of_few.clone().all(|line| line.ends_with("(this limit is gone)")), "{page}");
    let json = site.json(&["explain", "198.51.100.7"])?;
    ensure!(json["refusals"][0]["limit"] == "few" && json["refusals"][0]["limit_is_gone"] == true, "{json}");

    let said = ends_with(&site, 2, &["explain", "198.51.100.8", "--to", "2001:db8::1"])?;
    ensure!(said.contains("not of the family"), "{said}");
    ends_with(&site, 2, &["explain", "198.51.100.300"])?;
    Ok(())
}

const CONNECTIONS: &str = r#"
mode = "enforce"
[[service]]
name = "web"
protocol = "tcp"
ports = [8080]
[[limit]]
name = "open"
service = "web"
unit = "connections"
concurrent = 1
"#;

#[test]
fn explain_and_top_show_the_connections_that_a_source_has_open() -> Result<()> {
    needs_root!();
    let wire = Wire::new()?;
    let site = Site::on(&wire.far)?;
    let _agent = site.start(&["--interface", FAR])?;
    site.apply(CONNECTIONS)?;
    let listener = wire.far.enter(|| TcpListener::bind((FAR_V4, 8080)))??;
    let client = wire.near.enter(|| TcpStream::connect((FAR_V4, 8080)))??;
    let (served, _) = listener.accept()?;
    let ask = || site.ask(&["explain", NEAR_V4, "--port", "8080"]);
    let page = ask()?;
    ensure!(page.contains(&format!("connections of {NEAR_V4}: 1 of 1 open")), "{page}");
    ensure!(page.contains(&format!("from {} to port 8080, counted for ", client.local_addr()?)), "{page}");
    let first = page.lines().next().context("nothing was said")?;
    ensure!(first.ends_with("is refused by limit open, until one of its connections closes"), "{page}");
    ensure!(page.contains("completed a TCP handshake within the hour"), "{page}");
    let page = site.ask(&["top", "--batch", "--iterations", "1"])?;
    let talker = page.lines().skip_while(|line| !line.starts_with("SOURCE")).nth(1).context("no talker")?;
    ensure!(talker.starts_with(&format!("{NEAR_V4}  open   open connections  100 %")), "{page}");
    let top = site.json(&["top", "--iterations", "1"])?;
    ensure!(top["talkers"][0]["source"] == NEAR_V4 && top["talkers"][0]["open"] == 1, "{top}");
    drop((client, served));
    let start = std::time::Instant::now();
    while !ask()?.contains(&format!("connections of {NEAR_V4}: 0 of 1 open")) {
        ensure!(start.elapsed().as_secs() < 60, "it is still open: {}", ask()?);
    }
    // Of one who is not there, and answers nothing.
    let absent = "10.98.77.1";
    for port in 1024.. {
        let syn = Frame::from(absent).to(FAR_V4).tcp(port, 8080, tcp::SYN).bytes();
        wire.near.enter(|| send_raw(NEAR, [&syn[..]]))??;
        let page = site.ask(&["explain", absent, "--port", "8080"])?;
        let walk = page.lines().find(|line| line.contains("0 of 1 open")).context("no walk")?;
        if walk.contains(" under way") {
            break;
        }
        ensure!(start.elapsed().as_secs() < 60, "no handshake is under way: {page}");
    }
    Ok(())
}

const BREAKER: &str = r#"
mode = "enforce"
[[service]]
name = "web"
protocol = "tcp"
ports = [8080]
[service.health]
control = "fixed"
[[limit]]
name = "new"
service = "web"
unit = "connections"
rate = "50/s"
"#;

#[test]
fn explain_names_the_breaker_that_refuses_and_no_limit_seems_to_refuse_on_a_host_that_observes() -> Result<()> {
    needs_root!();
    let wire = Wire::silent()?;
    let site = Site::on(&wire.far)?;
    let _agent = site.start(&["--interface", FAR])?;
    site.apply(BREAKER)?;
    site.ask(&["breaker", "open", "web"])?;
    let ask = ["explain", "198.51.100.7", "--port", "8080"];
    let page = site.ask(&ask)?;
    let first = page.lines().next().context("nothing was said")?;
    ensure!(first.contains("is refused by the breaker of web, which root holds open"), "{page}");
    ensure!(first.ends_with("until `throttle breaker auto web`"), "{page}");
    ensure!(page.contains("  breaker             web: held open by root\n"), "{page}");
    let json = site.json(&ask)?;
    let breaker = &json["walks"][0]["breakers"][0];
    ensure!(breaker["service"] == "web" && breaker["state"] == "held-open" && breaker["refuses"] == true, "{json}");
    ensure!(breaker["held_by"] == "root" && breaker["tries_at"].is_null(), "{json}");
    site.ask(&["breaker", "auto", "web"])?;
    let start = std::time::Instant::now();
    while site.json(&ask)?["walks"][0]["outcome"] != "pass" {
        ensure!(start.elapsed().as_secs() < 60, "it is still refused: {}", site.ask(&ask)?);
    }

    ensure!(site.ask(&["limit", "list"])?.contains("  drop    enforce  "), "{}", site.ask(&["limit", "list"])?);
    site.ask(&["mode", "observe"])?;
    let list = site.ask(&["limit", "list"])?;
    ensure!(list.contains("  drop    observe (host)  "), "{list}");
    let json = site.json(&["limit", "list"])?;
    let view = &json["limits"][0];
    ensure!(view["limit"]["mode"] == "enforce" && view["host_observes"] == true, "{json}");
    Ok(())
}

const BACKENDS: &str = r#"
mode = "enforce"
[[service]]
name = "web"
protocol = "tcp"
ports = [80, 8080]
[service.health]
mode = "enforce"
control = "fixed"
[[backend]]
name = "web-1"
service = "web"
address = "192.0.2.10:80"
probe = "push"
[[backend]]
name = "web-2"
service = "web"
address = "192.0.2.11:8080"
probe = "push"
"#;

#[test]
fn explain_tells_of_a_backend_that_is_kept_away_whether_or_not_it_is_named() -> Result<()> {
    needs_root!();
    let wire = Wire::silent()?;
    let site = Site::on(&wire.far)?;
    let _agent = site.start(&["--interface", FAR])?;
    site.apply(BACKENDS)?;
    let page = site.ask(&["explain", "198.51.100.7", "--port", "80"])?;
    ensure!(page.starts_with("198.51.100.7: the next TCP connection to web (port 80) passes"), "{page}");
    site.ask(&["breaker", "open", "web/web-1"])?;
    let first = "198.51.100.7: the next TCP connection to web at 192.0.2.10 (port 80) is refused by the breaker of \
                 web/web-1 (192.0.2.10:80), which root holds open";
    let second = "198.51.100.7: the next TCP connection to web (port 80) passes";
    for ask in [&["explain", "198.51.100.7", "--port", "80"][..], &["explain", "198.51.100.7"]] {
        let page = site.ask(ask)?;
        let lines: Vec<_> = page.lines().take(2).collect();
        ensure!(lines[0].starts_with(first) && lines[1].starts_with(second), "{page}");
        ensure!(!page.contains("192.0.2.11"), "its breaker is closed: {page}");
    }
    // So says the kernel of the very packet.
    let syn = |to: &str| Frame::from("198.51.100.7").to(to).tcp(40_000, 80, tcp::SYN).bytes();
    wire.near.enter(|| send_raw(NEAR, [&syn("192.0.2.10")[..], &syn("192.0.2.12")]))??;
    let refused = |reason: &str| reason == "breaker-open";
    site.until("both are judged", |status| status.reasons.iter().map(|count| count.packets).sum::<u64>() == 2)?;
    ensure!(site.judged(|reason, _| refused(reason))? == 1, "{:?}", site.status()?.reasons);

    for (ask, refused) in [
        (&["--to", "192.0.2.10"][..], true),
        (&["--to", "192.0.2.12"], false),
        (&["--port", "8080"], false),
        (&["--established"], false),
        (&["--protocol", "udp"], false),
    ] {
        let page = site.ask(&[&["explain", "198.51.100.7"], ask].concat())?;
        ensure!(page.contains("is refused") == refused, "{ask:?}: {page}");
    }
    // As the API takes an address, too.
    let json = site.request("GET", "/v1/explain?address=198.51.100.7&to=::ffff:192.0.2.10&port=80", "")?.1;
    let json: serde_json::Value = serde_json::from_str(&json)?;
    ensure!(json["walks"][0]["reason"] == "breaker-open" && json["walks"][0]["packet"]["to"] == "192.0.2.10", "{json}");
    site.ask(&["breaker", "open", "web/web-2"])?;
    let json = site.json(&["explain", "198.51.100.7"])?;
    let refused = json["walks"].as_array().context("no walks")?.iter().filter(|walk| walk["reason"] == "breaker-open");
    ensure!(refused.count() == 2, "both backends: {json}");
    all_say_what_health_decides(&site)
}

/// What moves, by which signal, how fast, the breaker and the worst backend: wherever somebody looks.
fn all_say_what_health_decides(site: &Site<'_>) -> Result<()> {
    let explained = site.json(&["explain", "198.51.100.7", "--port", "80"])?["walks"][0]["health"].take();
    let shown = site.json(&["top", "--iterations", "1"])?["health"][0].take();
    for line in [explained, shown] {
        ensure!(line["service"] == "web" && line["signal"].is_string() && line["actuator"] == "none", "{line}");
        ensure!(line["speed"] == 1.0 && line["breaker"] == "closed" && line["backends"] == 2, "{line}");
        ensure!(line["worst"]["suspicion"].is_number() && line["worst"]["breaker"] == "held-open", "{line}");
    }
    let pages = [
        site.ask(&["explain", "198.51.100.7", "--port", "80"])?,
        site.ask(&["top", "--batch", "--iterations", "1"])?,
        String::from_utf8(site.run(&["status"])?.stdout)?,
    ];
    for page in pages {
        ensure!(page.contains("suspicion ") && page.contains(", breaker held open"), "{page}");
    }
    Ok(())
}

const NESTED: &str = r#"
mode = "enforce"
[[service]]
name = "wide"
protocol = "tcp"
ports = [80]
destination = "10.0.0.0/8"
[[service]]
name = "narrow"
protocol = "tcp"
ports = [80]
destination = "10.0.0.0/16"
[[limit]]
name = "of-wide"
service = "wide"
unit = "packets"
rate = "1/hour"
"#;

#[test]
fn explain_tells_of_every_service_of_a_port_where_one_lies_within_another() -> Result<()> {
    needs_root!();
    let wire = Wire::silent()?;
    let site = Site::on(&wire.far)?;
    let _agent = site.start(&["--interface", FAR])?;
    site.apply(NESTED)?;
    for ask in [&["explain", "198.51.100.7"][..], &["explain", "198.51.100.7", "--port", "80"]] {
        let json = site.json(ask)?;
        let walks = json["walks"].as_array().context("no walks")?;
        let told: Vec<_> = walks.iter().map(|walk| (walk["service"].as_str(), walk["packet"]["to"].as_str())).collect();
        ensure!(told == [(Some("wide"), Some("10.1.0.0")), (Some("narrow"), Some("10.0.0.0")), (None, None)], "{json}");
        ensure!(walks[0]["limits"][0]["limit"] == "of-wide" && json["walks_left_out"] == 0, "{json}");
    }
    Ok(())
}
