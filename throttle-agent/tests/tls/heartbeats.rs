//! Heartbeats over TLS: whose are taken, and whom nobody keeps out.

use std::{
    collections::VecDeque,
    fs,
    io::{self, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

use serde_json::{Value, json};
use throttle_agent::{agent::Heartbeats, tls::FileFault};

use crate::{
    authority::{Authority, replace},
    client::{Client, PORT, Stream, beat, connect},
    support::{Host, Running, privileged, skip, wait_for},
};

/// Backends that beat by themselves.
const POLICY: &str = "\
[[service]]\nname = \"web\"\nprotocol = \"tcp\"\nports = [80]\nhealth = { control = \"fixed\" }\n\
[[backend]]\nname = \"web-1\"\nservice = \"web\"\naddress = \"127.0.0.1:80\"\nprobe = \"push\"\n\
[[backend]]\nname = \"web-2\"\nservice = \"web\"\naddress = \"127.0.0.2:80\"\nprobe = \"push\"\n\
[[backend]]\nname = \"a.shop.internal\"\nservice = \"web\"\naddress = \"127.0.0.3:80\"\nprobe = \"push\"\n\
[[backend]]\nname = \"4\"\nservice = \"web\"\naddress = \"127.0.0.4:80\"\nprobe = \"push\"\n";

/// An agent that takes heartbeats of clients that an authority signed for.
fn agent(host: &Host, authority: &Authority) -> Running {
    let mut options = host.options();
    options.heartbeats = Some(Heartbeats { address: PORT.parse().unwrap(), identity: authority.identity() });
    with_backends(host.agent_with(options))
}

/// The agent, when it has backends.
fn with_backends(agent: Running) -> Running {
    agent.post("/v1/policy/apply", &json!({"toml": POLICY})).ok();
    wait_for("the backends", || shown(&agent).len() == 4);
    agent
}

fn shown(agent: &Running) -> Vec<Value> {
    agent.get("/v1/heartbeats").ok()["heartbeats"].as_array().unwrap().clone()
}

/// How many beats an agent has taken of a backend.
fn beats(agent: &Running, backend: &str) -> u64 {
    let view = shown(agent).into_iter().find(|view| view["backend"] == backend).unwrap();
    view["beats"].as_u64().unwrap()
}

fn figure(agent: &Running, name: &str) -> u64 {
    let figures = agent.get("/metrics").body;
    let value = figures.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
    value.unwrap_or_else(|| panic!("no {name} in {figures}"))
}

#[test]
fn a_beat_is_taken_for_the_backend_that_the_certificate_names_and_for_no_other() {
    if !privileged() {
        return;
    }
    let Some(authority) = Authority::new("throttle.internal web-1 *.shop.internal") else { return };
    let host = Host::new();
    let agent = agent(&host, &authority);
    let client = Client::new(&authority, Some((&authority, "web-1")));
    let taken = client.beat(&host, "web-1", 7).unwrap().ok();
    assert_eq!((&taken["service"], &taken["fresh"]), (&json!("web"), &json!(true)));
    client.beat(&host, "web-1", 6).unwrap().problem(409, "conflict");
    let view = &shown(&agent).into_iter().find(|view| view["backend"] == "web-1").unwrap();
    assert_eq!((&view["beats"], &view["pushed"]["sequence"]), (&json!(1), &json!(7)));

    let problem = client.beat(&host, "web-2", 1).unwrap().problem(403, "forbidden");
    assert!(problem["detail"].as_str().unwrap().contains("subjectAltName DNS:web-2"), "{problem}");
    let problem = client.beat(&host, "4", 1).unwrap().problem(403, "forbidden");
    assert!(problem["detail"].as_str().unwrap().contains("no DNS name"), "{problem}");
    // Whether there is such a backend is not for this one to learn.
    client.beat(&host, "nobody", 1).unwrap().problem(403, "forbidden");
    assert_eq!((beats(&agent, "web-2"), beats(&agent, "4")), (0, 0));

    let client = Client::new(&authority, Some((&authority, "*.shop.internal")));
    client.beat(&host, "a.shop.internal", 1).unwrap().ok();
    client.beat(&host, "web-1", 8).unwrap().problem(403, "forbidden");
    assert_eq!((beats(&agent, "a.shop.internal"), beats(&agent, "web-1")), (1, 1));
}

#[test]
fn nothing_but_a_heartbeat_is_served_over_tls() {
    if !privileged() {
        return;
    }
    let Some(authority) = Authority::new("throttle.internal web-1") else { return };
    let host = Host::new();
    let agent = agent(&host, &authority);
    let client = Client::new(&authority, Some((&authority, "web-1")));
    for path in ["/v1/status", "/v1/health", "/metrics", "/healthz", "/v1/openapi.json", "/v1/policy"] {
        client.ask(&host, "GET", path, "").unwrap().problem(404, "not-found");
    }
    client.ask(&host, "POST", "/v1/policy/apply", "{}").unwrap().problem(404, "not-found");
    client.ask(&host, "GET", "/v1/heartbeats", "").unwrap().problem(405, "method-not-allowed");
    let mut long = beat("web-1", 1);
    long["metadata"] = json!({"k": "v".repeat(20_000)});
    client.ask(&host, "POST", "/v1/heartbeats", &long.to_string()).unwrap().problem(413, "too-large");
    assert_eq!(beats(&agent, "web-1"), 0);
}

#[test]
fn who_shows_no_certificate_of_the_authority_is_not_heard() {
    if !privileged() {
        return;
    }
    let Some(authority) = Authority::new("throttle.internal web-1") else { return };
    let Some(other) = Authority::new("throttle.internal web-1") else { return };
    let host = Host::new();
    let agent = agent(&host, &authority);
    let refused = || figure(&agent, "throttle_api_refused_handshakes_total");
    assert_eq!(refused(), 0);
    for shown in [None, Some((&other, "web-1"))] {
        let answer = Client::new(&authority, shown).beat(&host, "web-1", 1);
        assert!(answer.is_err(), "{answer:?}");
    }
    let mut plain = connect(&host).unwrap();
    plain.write_all(b"POST /v1/heartbeats HTTP/1.1\r\nhost: throttle.internal\r\ncontent-length: 0\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    let _ = plain.read_to_end(&mut answer);
    assert!(!answer.starts_with(b"HTTP"), "plain HTTP was answered");
    wait_for("the count", || refused() == 3);
    assert_eq!(beats(&agent, "web-1"), 0);
    // Nor does a client that trusts another authority speak to the agent.
    assert!(Client::new(&other, Some((&authority, "web-1"))).beat(&host, "web-1", 1).is_err());
    Client::new(&authority, Some((&authority, "web-1"))).beat(&host, "web-1", 1).unwrap().ok();
}

#[test]
fn clients_that_say_nothing_keep_nobody_out() {
    if !privileged() {
        return;
    }
    let Some(authority) = Authority::new("throttle.internal web-1") else { return };
    let host = Host::new();
    // Who speaks to an address of the host has that address.
    host.run("ip addr add 10.9.0.9/32 dev lo");
    let mut options = host.options();
    let address = SocketAddr::from((Ipv4Addr::UNSPECIFIED, PORT.parse::<SocketAddr>().unwrap().port()));
    options.heartbeats = Some(Heartbeats { address, identity: authority.identity() });
    let agent = with_backends(host.agent_with(options));
    let (opened, over) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicBool::new(false)));
    let counts = (Arc::clone(&opened), Arc::clone(&over));
    let flood = host.within(move || thread::spawn(move || fall_silent(address.port(), &counts.0, &counts.1)));
    wait_for("a flood", || opened.load(Relaxed) > 300);
    let client = Client::new(&authority, Some((&authority, "web-1")));
    for sequence in 1..=20 {
        client.beat(&host, "web-1", sequence).unwrap().ok();
    }
    over.store(true, Relaxed);
    flood.join().unwrap();
    assert_eq!(beats(&agent, "web-1"), 20);
    assert!(figure(&agent, "throttle_api_refused_handshakes_total") > 100, "those that were there longest went");
}

/// Opens one connection after the other, keeps the latest 400, and says nothing on any.
fn fall_silent(port: u16, opened: &AtomicU32, over: &AtomicBool) {
    let mut silent = VecDeque::new();
    while !over.load(Relaxed) {
        if let Ok(stream) = TcpStream::connect((Ipv4Addr::new(10, 9, 0, 9), port)) {
            silent.push_back(stream);
            opened.fetch_add(1, Relaxed);
        }
        if silent.len() > 400 {
            silent.pop_front();
        }
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn certificates_are_renewed_under_way_and_wrong_ones_are_told() {
    if !privileged() {
        return;
    }
    let Some(authority) = Authority::new("throttle.internal web-1") else { return };
    let Some(next) = Authority::new("throttle.internal web-1") else { return };
    let host = Host::new();
    let agent = agent(&host, &authority);
    let client = Client::new(&authority, Some((&authority, "web-1")));
    let problems = || agent.get("/v1/status").ok()["problems"].to_string();
    fs::write(authority.identity().key, "no key").unwrap();
    wait_for("the fault", || problems().contains("throttle.internal.key: it holds no private key"));
    assert!(problems().contains("what was read before stays in use"), "{}", problems());
    client.beat(&host, "web-1", 1).unwrap().ok();

    let (mut kept, mut sequence) = (client.connect(&host).unwrap(), 1);
    let mut again = || {
        sequence += 1;
        beat_again(&mut kept, sequence)
    };
    again().unwrap();
    again().unwrap();
    replace(&authority.identity(), &next.identity());
    wait_for("the end of the connection that was open", || again().is_err());
    wait_for("all to be well", || !problems().contains("certificates of heartbeats"));
    let answer = client.beat(&host, "web-1", 1_000_000);
    assert!(answer.is_err(), "the authority before is trusted no more: {answer:?}");
    Client::new(&next, Some((&next, "web-1"))).beat(&host, "web-1", 1_000_000).unwrap().ok();
}

/// Beats on a connection that is kept, and waits for the answer.
fn beat_again(stream: &mut Stream, sequence: u64) -> io::Result<()> {
    let body = beat("web-1", sequence).to_string();
    let head = "POST /v1/heartbeats HTTP/1.1\r\nhost: throttle.internal\r\ncontent-type: application/json\r\n";
    write!(stream, "{head}content-length: {}\r\n\r\n{body}", body.len())?;
    match stream.read(&mut [0; 4096])? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(()),
    }
}

#[test]
fn curl_beats_as_the_page_says() {
    if !privileged() {
        return;
    }
    if Command::new("curl").arg("--version").output().is_err() {
        skip::skipped("needs curl");
        return;
    }
    let Some(authority) = Authority::new("throttle.internal web-1") else { return };
    let host = Host::new();
    let agent = agent(&host, &authority);
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--fail-with-body", "--max-time", "20", "--noproxy", "*", "--cacert"])
        .arg(authority.file("authority.crt"))
        .arg("--cert")
        .arg(authority.file("web-1.crt"))
        .arg("--key")
        .arg(authority.file("web-1.key"))
        .args(["--connect-to", &format!("throttle.internal:9852:{PORT}")])
        .args(["https://throttle.internal:9852/v1/heartbeats", "--json", &beat("web-1", 1).to_string()]);
    let output = host.within(move || curl.output().unwrap());
    assert!(output.status.success(), "{output:?}");
    assert_eq!(beats(&agent, "web-1"), 1);
}

#[test]
fn a_wrong_file_or_a_port_that_cannot_be_had_ends_the_start_and_leaves_nothing_behind() {
    if !privileged() {
        return;
    }
    let Some(authority) = Authority::new("throttle.internal web-1") else { return };
    let host = Host::new();
    let mut options = host.options();
    let mut identity = authority.identity();
    identity.key = authority.file("web-1.key");
    options.heartbeats = Some(Heartbeats { address: PORT.parse().unwrap(), identity });
    let Err(refusal) = host.start(options.clone()) else { panic!("the key is another's") };
    assert_eq!(refusal.downcast::<FileFault>().unwrap().file, authority.file("web-1.key"));
    assert!(connect(&host).is_err(), "nobody listens");

    let address = "192.0.2.1:9852".parse().unwrap();
    options.heartbeats = Some(Heartbeats { address, identity: authority.identity() });
    let Err(refusal) = host.start(options.clone()) else { panic!("it is no address of this host") };
    assert!(format!("{refusal:#}").contains("choose an address of this host"), "{refusal:#}");
    assert!(!options.state_dir.exists() && !options.pin_dir.exists() && !options.socket.exists());
}
