//! An agent on a host: who is refused, who is told, what survives, and what comes back.

mod support;

use std::{
    net::UdpSocket,
    os::unix::fs::PermissionsExt as _,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use support::{Host, Running, privileged, raw, wait_for};

/// The host's own address in its loopback network, and that of a peer there.
const SERVER: &str = "127.0.0.1:9";
const CLIENT: &str = "127.0.0.2:0";

/// Sends packets from [`CLIENT`] to [`SERVER`].
fn send(host: &Host, count: usize) {
    host.within(move || {
        // Somebody listens, or the host would answer each with an ICMP packet of its own.
        let _server = UdpSocket::bind(SERVER).unwrap();
        let client = UdpSocket::bind(CLIENT).unwrap();
        for _ in 0..count {
            client.send_to(b"x", SERVER).unwrap();
        }
    });
}

/// Whether one of the warnings of a write says this.
fn warns(written: &Value, text: &str) -> bool {
    written["warnings"].as_array().unwrap().iter().any(|warning| warning.as_str().unwrap().contains(text))
}

fn enforce(agent: &Running, document: &Value) -> Value {
    let mut document = document.clone();
    document["mode"] = json!("enforce");
    agent.post("/v1/policy/apply", &json!({"document": document})).ok()
}

fn packets(agent: &Running, reason: &str, outcome: &str) -> u64 {
    let status = agent.get("/v1/status").ok();
    let reasons = status["reasons"].as_array().unwrap();
    let found = reasons.iter().find(|it| it["reason"] == reason && it["outcome"] == outcome);
    found.map_or(0, |it| it["packets"].as_u64().unwrap())
}

#[test]
fn a_block_refuses_is_reported_and_ends_on_time() {
    if !privileged() {
        return;
    }
    let host = Host::new();
    let agent = host.agent();
    enforce(&agent, &json!({}));
    let mut wanted = agent.events("?source=127.0.0.0/8,!127.0.0.3&reason=blocked");
    let blocks = json!({"blocks": [{"prefix": "127.0.0.2/32", "seconds": 2, "reason": "noise"}]});
    let written = agent.post("/v1/blocks", &blocks).ok();
    assert_eq!(written["changes"], json!(["+ block 127.0.0.2"]));
    let began = Instant::now();
    send(&host, 3);
    assert_eq!(packets(&agent, "blocked", "drop"), 3);
    let event = wanted.next().unwrap();
    let event = &event["event"];
    assert_eq!((&event["source"], &event["destination_port"]), (&json!("127.0.0.2"), &json!(9)), "{event}");
    assert_eq!(
        (&event["reason"], &event["outcome"], &event["interface"]),
        (&json!("blocked"), &json!("drop"), &json!("lo"))
    );
    let block = agent.get("/v1/blocks").ok()["blocks"][0].clone();
    assert_eq!((&block["reason"], &block["author"]), (&json!("noise"), &json!("root")));

    wait_for("the end of the block", || agent.get("/v1/blocks").ok()["blocks"] == json!([]));
    assert!(began.elapsed() >= Duration::from_millis(1900), "{:?}", began.elapsed());
    send(&host, 3);
    assert_eq!(packets(&agent, "blocked", "drop"), 3);
}

#[test]
fn a_hundred_thousand_blocks_come_and_go_in_one_request() {
    if !privileged() {
        return;
    }
    let host = Host::new();
    let agent = host.agent();
    enforce(&agent, &json!({"sources": {"block": ["198.51.100.0/24"]}}));
    let prefixes: Vec<String> =
        (0..100_000u32).map(|n| format!("10.{}.{}.{}/32", n >> 16, n >> 8 & 255, n & 255)).collect();
    let blocks: Vec<_> = prefixes.iter().map(|prefix| json!({"prefix": prefix, "seconds": 3600})).collect();
    let written = agent.post("/v1/blocks", &json!({"blocks": blocks})).ok();
    assert_eq!(written["changes"], json!(["+ block 100000 prefixes"]));
    assert_eq!(agent.get("/v1/status").ok()["blocks"], 100_000);
    let one_more = json!({"prefixes": ["10.0.0.0/32", "203.0.113.1/32"]});
    agent.post("/v1/blocks/delete", &one_more).problem(404, "not-found");
    let permanent =
        agent.post("/v1/blocks/delete", &json!({"prefixes": ["198.51.100.0/24"]})).problem(404, "not-found");
    assert!(permanent["detail"].as_str().unwrap().contains("in the policy"), "{permanent}");
    agent.post("/v1/blocks/delete", &json!({"prefixes": prefixes})).ok();
    assert_eq!(agent.get("/v1/status").ok()["blocks"], 0);

    let mut too_many = blocks;
    too_many.push(json!({"prefix": "11.0.0.1/32"}));
    agent.post("/v1/blocks", &json!({"blocks": too_many})).problem(413, "too-large");
    agent.post("/v1/blocks", &json!({"blocks": [{"prefix": "0.0.0.0/0"}]})).problem(400, "malformed");
    agent.post("/v1/blocks", &json!({"blocks": [{"prefix": "10.0.0.1/32", "seconds": 0}]})).problem(400, "malformed");
    assert_eq!(agent.get("/v1/status").ok()["blocks"], 0);
}

#[test]
fn whoever_locks_themselves_out_is_warned_and_stays_in() {
    if !privileged() {
        return;
    }
    let host = Host::new();
    let agent = host.agent();
    let write = json!({"session": "127.0.0.2"});
    let strict = json!({"name": "strict", "unit": "packets", "rate": "1/min", "sources": 3000});
    let harmless = agent.put("/v1/limits/strict", &json!({"limit": strict, "write": write})).ok();
    assert!(!warns(&harmless, "your session"), "observing hits nobody: {harmless}");
    let warned = agent.put("/v1/mode", &json!({"mode": "enforce", "write": write})).ok();
    assert!(warns(&warned, "would hit your session from 127.0.0.2"), "{warned}");
    assert_eq!(warned["session_allow"]["prefix"], "127.0.0.2/32");
    send(&host, 20);
    assert_eq!(packets(&agent, "allowed", "pass"), 20);

    // It outlives the agent, and a block hits the session as little.
    agent.stop();
    let agent = host.agent();
    let block = |write: &Value| json!({"blocks": [{"prefix": "127.0.0.0/24"}], "write": write});
    let warned = agent.post("/v1/blocks", &block(&write)).ok();
    assert!(warns(&warned, "the block of 127.0.0.0/24 covers"), "{warned}");
    send(&host, 20);
    assert_eq!(packets(&agent, "allowed", "pass"), 40);
    assert_eq!(agent.get("/v1/status").ok()["session_allows"][0]["author"], "root");

    // What is dangerous for everybody is forced, and the session is still not locked out by it.
    let forced = json!({"session": "127.0.0.2", "force": true});
    let everybody = json!({"blocks": [{"prefix": "0.0.0.0/0"}], "write": forced});
    assert_eq!(agent.post("/v1/blocks", &everybody).ok()["session_allow"]["prefix"], "127.0.0.2/32");
    agent.post("/v1/blocks/delete", &json!({"prefixes": ["0.0.0.0/0"]})).ok();
    let out = json!({"session": "127.0.0.2", "lock_out": true});
    assert_eq!(agent.post("/v1/blocks", &block(&out)).ok()["session_allow"], Value::Null);
    assert_eq!(agent.get("/v1/status").ok()["session_allows"], json!([]));
    send(&host, 5);
    assert_eq!(packets(&agent, "blocked", "drop"), 5);
}

#[test]
fn what_was_in_force_goes_on_without_the_agent_and_is_adopted() {
    if !privileged() {
        return;
    }
    let host = Host::new();
    let agent = host.agent();
    let limit = json!({"name": "few", "unit": "packets", "rate": "1/hour", "burst": 3, "sources": 3000});
    enforce(&agent, &json!({"limit": [limit]}));
    send(&host, 5);
    assert_eq!((packets(&agent, "admitted", "pass"), packets(&agent, "source-limit", "drop")), (3, 2));
    let mut events = agent.events("?limit=few");
    send(&host, 1);
    assert_eq!(events.next().unwrap()["event"]["limit"], "few");
    agent.stop();
    assert!(events.next().is_none(), "the stream ends with the agent");
    send(&host, 4);

    let agent = host.agent();
    assert_eq!((packets(&agent, "admitted", "pass"), packets(&agent, "source-limit", "drop")), (3, 7));
    let view = agent.get("/v1/limits").ok()["limits"][0].clone();
    assert_eq!(
        (&view["tallies"]["admitted"]["packets"], &view["tallies"]["refused"]["packets"]),
        (&json!(3), &json!(7))
    );
    assert_eq!(view["regions"][0]["busy"], 1);
    assert_eq!(agent.get("/v1/status").ok()["revision"], 1);
}

#[test]
fn a_second_agent_is_refused_and_says_why() {
    if !privileged() {
        return;
    }
    let host = Host::new();
    let agent = host.agent();
    let Err(refusal) = host.start(host.options()) else { panic!("two agents on one state directory") };
    assert!(refusal.to_string().contains("in use by another agent"), "{refusal:#}");
    let mut other = host.options();
    other.state_dir = host.dir.path().join("other");
    let Err(refusal) = host.start(other) else { panic!("two agents on one socket") };
    assert!(refusal.to_string().contains("api.sock is in use"), "{refusal:#}");
    assert_eq!(agent.get("/healthz").status, 200);
}

#[test]
fn an_interface_that_goes_and_comes_back_is_throttled_again() {
    if !privileged() {
        return;
    }
    let host = Host::new();
    let mut options = host.options();
    options.interfaces = vec!["veth0".to_owned()];
    let agent = host.agent_with(options);
    let attached = |agent: &Running| agent.get("/v1/status").ok()["attachments"][0]["attached"] == json!(true);
    assert!(!attached(&agent));
    agent.get("/readyz").problem(503, "unavailable");
    for _ in 0..2 {
        host.run("ip link add veth0 type veth peer name veth1");
        wait_for("the attachment", || attached(&agent));
        host.run("ip link del veth0");
        wait_for("the end of the attachment", || !attached(&agent));
    }
    assert!(agent.get("/v1/status").ok()["problems"][0].as_str().unwrap().contains("veth0"));
}

#[test]
fn a_stranger_is_refused_before_a_byte_is_read() {
    if !privileged() {
        return;
    }
    let host = Host::new();
    let agent = host.agent();
    let socket = agent.socket.clone();
    // Past the doors that would keep a stranger out already.
    for path in [host.dir.path(), socket.parent().unwrap()] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    std::fs::set_permissions(&socket, std::fs::Permissions::from_mode(0o666)).unwrap();
    let stranger = std::thread::spawn(move || {
        // SAFETY: by number, because the call then changes the user of this thread alone, which ends with it.
        assert_eq!(unsafe { libc::syscall(libc::SYS_setresuid, 65_534, 65_534, 65_534) }, 0);
        raw(&socket, "")
    });
    let problem = stranger.join().unwrap().problem(403, "forbidden");
    assert!(problem["detail"].as_str().unwrap().starts_with("user 65534"), "{problem}");
    assert!(agent.get("/metrics").body.contains("throttle_api_refused_peers_total 1"));
}
