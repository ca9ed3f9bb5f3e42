//! The API over its real socket, on a real kernel, in namespaces of its own.

mod support;

use serde_json::{Value, json};
use support::{Host, Running, privileged, raw, wait_for};

fn limit(name: &str, rate: &str) -> Value {
    json!({"name": name, "unit": "packets", "rate": rate, "sources": 3000})
}

fn set(agent: &Running, name: &str, rate: &str) -> Value {
    agent.put(&format!("/v1/limits/{name}"), &json!({"limit": limit(name, rate)})).ok()
}

#[test]
fn a_fresh_agent_observes_and_says_how_it_stands() {
    if !privileged() {
        return;
    }
    let host = Host::new();
    let agent = host.agent();
    let status = agent.get("/v1/status").ok();
    assert_eq!(status["schema_version"], 1);
    assert_eq!((&status["mode"], &status["revision"]), (&json!("observe"), &json!(0)));
    assert_eq!(status["attachments"][0]["interface"], "lo");
    assert_eq!(
        (&status["attachments"][0]["attached"], &status["attachments"][0]["mode"]),
        (&json!(true), &json!("generic"))
    );
    assert!(status["problems"][0].as_str().unwrap().contains("generic mode"), "{status}");
    assert_eq!(status["table"]["sets"], 1 << 14);
    assert_eq!(agent.get("/healthz").status, 200);
    assert_eq!(agent.get("/readyz").problem(503, "unavailable")["title"], "The agent cannot answer now");
    assert_eq!(agent.get("/v1/policy").ok()["revision"], 0);
}

#[test]
fn limits_and_services_come_and_go_as_revisions() {
    if !privileged() {
        return;
    }
    let host = Host::new();
    let agent = host.agent();
    let written = set(&agent, "a", "1000/s");
    assert_eq!(written["revision"], 1);
    assert!(written["changes"][0].as_str().unwrap().starts_with("+ limit \"a\""), "{written}");
    assert_eq!(set(&agent, "a", "1000/s")["changes"], json!([]), "nothing changes when nothing differs");

    let service = json!({"service": {"name": "web", "protocol": "tcp", "ports": [80, "8000-8080"]}});
    agent.put("/v1/services/web", &service).ok();
    let mut scoped = limit("b", "50/min");
    scoped["service"] = json!("web");
    agent.put("/v1/limits/b", &json!({"limit": scoped, "write": {"message": "for the web"}})).ok();
    agent.ask("DELETE", "/v1/services/web", None).problem(409, "conflict");

    let limits = agent.get("/v1/limits").ok();
    assert_eq!(limits["limits"][1]["limit"]["name"], "b");
    let region = &limits["limits"][1]["regions"][1];
    assert_eq!((&region["family"], &region["prefix"]), (&json!("ipv6"), &json!(64)));
    assert!((region["forecast"]["busy_seconds"].as_f64().unwrap() - 1.2).abs() < 1e-6, "{region}");

    agent.ask("DELETE", "/v1/limits/b?message=enough", None).ok();
    agent.ask("DELETE", "/v1/limits/b", None).problem(404, "not-found");
    agent.ask("DELETE", "/v1/services/web", None).ok();
    let history = agent.get("/v1/policy/history").ok();
    let messages: Vec<_> = history["revisions"].as_array().unwrap().iter().map(|it| it["message"].clone()).collect();
    assert_eq!(messages, ["service delete web", "enough", "for the web", "service set web", "limit set a"]);
    assert_eq!(history["revisions"][0]["author"], "root");

    let back = agent.post("/v1/policy/rollback", &json!({"revision": 3})).ok();
    assert_eq!(back["revision"], 6);
    assert_eq!(agent.get("/v1/limits").ok()["limits"].as_array().unwrap().len(), 2);
}

#[test]
fn tenants_come_and_go_and_explain_says_whose_a_source_is() {
    if !privileged() {
        return;
    }
    let host = Host::new();
    let agent = host.agent();
    let tenant = |name: &str, source: &str| json!({"tenant": {"name": name, "sources": [source]}});
    agent.put("/v1/tenants/acme", &tenant("acme", "198.51.100.0/24")).ok();
    let mut shared = limit("tenants", "50/min");
    shared.as_object_mut().unwrap().remove("sources");
    shared["per"] = json!("tenant");
    agent.put("/v1/limits/tenants", &json!({"limit": shared})).ok();
    agent.put("/v1/tenants/globex", &tenant("globex", "198.51.100.0/24")).problem(422, "policy-refused");
    agent.put("/v1/tenants/globex", &tenant("globex", "198.51.100.128/25")).ok();
    for (address, name) in [("198.51.100.7", "acme"), ("198.51.100.200", "globex")] {
        let told = agent.get(&format!("/v1/explain?address={address}")).ok();
        assert_eq!(told["standing"]["tenant"]["name"], name, "{told}");
        assert_eq!(told["walks"][0]["limits"][0]["shared_by"], format!("tenant {name}"), "{told}");
    }
    let written = agent.ask("DELETE", "/v1/tenants/globex", None).ok();
    assert!(written["changes"][0].as_str().unwrap().starts_with("- tenant \"globex\""), "{written}");
    assert_eq!(agent.get("/v1/tenants").ok()["tenants"], json!([tenant("acme", "198.51.100.0/24")["tenant"]]));
    let told = agent.get("/v1/explain?address=198.51.100.200").ok();
    assert_eq!(told["standing"]["tenant"]["name"], "acme", "{told}");
}

#[test]
fn every_refusal_is_a_problem_and_changes_nothing() {
    if !privileged() {
        return;
    }
    let host = Host::new();
    let agent = host.agent();
    set(&agent, "a", "1000/s");
    agent.get("/v1/nothing").problem(404, "not-found");
    agent.ask("PATCH", "/v1/limits", None).problem(405, "method-not-allowed");
    agent.put("/v1/limits/b", &json!({"limit": limit("a", "1/s")})).problem(400, "malformed");
    let misspelt = agent.put("/v1/mode", &json!({"mode": "enforce", "wirte": {}})).problem(400, "malformed");
    assert!(misspelt["detail"].as_str().unwrap().contains("wirte"), "{misspelt}");
    agent.post("/v1/policy/apply", &json!({})).problem(400, "malformed");
    agent
        .raw("PUT /v1/mode HTTP/1.1\r\nhost: t\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{}")
        .problem(415, "not-json");
    let large = "x".repeat(2 << 20);
    agent.put("/v1/mode", &json!({"mode": large})).problem(413, "too-large");
    agent.get("/v1/events?reason=nonsense").problem(400, "malformed");
    let unknown = agent.get("/v1/events?limit=b").problem(400, "malformed");
    assert_eq!(unknown["detail"], "no event is of a limit `b`; did you mean `a`?");
    let novel = json!({"mode": "enforce", "write": {"message": "x".repeat(501)}});
    agent.put("/v1/mode", &novel).problem(400, "malformed");
    agent.ask("DELETE", "/v1/limits/a?message=two%0Alines", None).problem(400, "malformed");
    agent.get("/v1/policy?revision=77").problem(404, "not-found");

    let toml = "[[limit]]\nname = \"x\"\nunit = \"packets\"\nrate = \"fast\"\ncolour = 1\n";
    let refused = agent.post("/v1/policy/apply", &json!({"toml": toml})).problem(422, "policy-refused");
    let lines: Vec<_> = refused["diagnostics"].as_array().unwrap().iter().map(|it| it["line"].clone()).collect();
    assert_eq!(lines, [4, 5], "{refused}");
    for route in ["apply", "check"] {
        agent.post(&format!("/v1/policy/{route}"), &json!({"toml": "\n"})).problem(422, "policy-refused");
    }
    let mut huge = limit("huge", "1/s");
    huge["sources"] = json!(100_000_000);
    agent.put("/v1/limits/huge", &json!({"limit": huge})).problem(422, "policy-refused");
    assert_eq!(agent.get("/v1/status").ok()["revision"], 1);
    assert!(
        agent.get("/metrics").body.contains("throttle_api_refused_requests_total 16"),
        "{}",
        agent.get("/metrics").body
    );
}

#[test]
fn a_writer_who_has_not_seen_the_last_revision_is_refused() {
    if !privileged() {
        return;
    }
    let host = Host::new();
    let agent = host.agent();
    set(&agent, "a", "1000/s");
    let seen = agent.get("/v1/policy");
    assert!(seen.head.contains("etag: \"1\""), "{}", seen.head);
    let apply = |revision: u64| {
        let body = json!({"document": {"mode": "observe"}}).to_string();
        agent.raw(&format!(
            "POST /v1/policy/apply HTTP/1.1\r\nhost: t\r\nconnection: close\r\nif-match: \"{revision}\"\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        ))
    };
    apply(7).problem(412, "other-revision");
    assert_eq!(apply(1).ok()["revision"], 2);
}

#[test]
fn a_change_is_told_its_own_warnings_and_not_those_of_others() {
    if !privileged() {
        return;
    }
    let host = Host::new();
    let agent = host.agent();
    agent.put("/v1/services/web", &json!({"service": {"name": "web", "protocol": "tcp", "ports": [80]}})).ok();
    let mut scoped = limit("b", "50/s");
    scoped["service"] = json!("web");
    let warned = agent.put("/v1/limits/b", &json!({"limit": scoped})).ok();
    assert!(warned["warnings"][0].as_str().unwrap().contains("fragments"), "{warned}");
    scoped["rate"] = json!("60/s");
    assert_eq!(agent.put("/v1/limits/b", &json!({"limit": scoped})).ok()["warnings"], json!([]));
    assert_eq!(set(&agent, "a", "1000/s")["warnings"], json!([]));
    assert_eq!(agent.put("/v1/mode", &json!({"mode": "enforce"})).ok()["mode"], "enforce");
}

#[test]
fn tenants_that_share_a_compartment_by_their_numbers_are_told_of() {
    if !privileged() {
        return;
    }
    let host = Host::new();
    let agent = host.agent();
    let mut divided = limit("a", "1000/s");
    // With room for compartments of two tenants.
    divided["sources"] = json!(768);
    agent.put("/v1/limits/a", &json!({"limit": divided})).ok();
    for (name, source) in [("one", "198.51.100.1"), ("two", "198.51.100.2"), ("three", "198.51.100.3")] {
        agent.put(&format!("/v1/tenants/{name}"), &json!({"tenant": {"name": name, "sources": [source]}})).ok();
    }
    let says = |answer: &Value| answer["warnings"].to_string().contains("the tenants one, three share compartments");
    assert!(!says(&agent.get("/v1/status").ok()), "there is room for two of three");
    let written = agent.ask("DELETE", "/v1/tenants/two", None).ok();
    assert!(says(&written), "{written}");
    assert!(says(&agent.get("/v1/status").ok()));
    assert!(!says(&set(&agent, "b", "1000/s")), "once is enough");
    let metrics = agent.get("/metrics").body;
    for (name, value) in [("compartments", 2), ("sharing_tenants", 2)] {
        let line = format!("throttle_region_{name}{{limit=\"a\",family=\"ipv6\"}} {value}");
        assert!(metrics.contains(&line), "{line} is not in {metrics}");
    }
}

#[test]
fn check_and_diff_only_look() {
    if !privileged() {
        return;
    }
    let host = Host::new();
    let agent = host.agent();
    set(&agent, "a", "1000/s");
    let document = json!({"limit": [limit("a", "500/s"), limit("b", "10/s")]});
    let report = agent.post("/v1/policy/check", &json!({"document": document})).ok();
    assert_eq!(report["limits"][1]["name"], "b");
    assert!(report["limits"][1]["regions"][0]["forecast"]["flood_per_second"].as_f64().unwrap() > 1.0);
    let diff = agent.post("/v1/policy/diff", &json!({"document": document})).ok();
    let rate = json!({"kind": "limit", "name": "a", "field": "rate", "from": "1000/s", "to": "500/s"});
    let whole = json!({"unit": "packets", "rate": "10/s", "sources": 3000});
    let added = json!({"kind": "limit", "name": "b", "field": null, "from": null, "to": whole});
    assert_eq!(diff["changes"], json!([rate, added]));
    assert_eq!(agent.get("/v1/policy").ok()["revision"], 1);
}

#[test]
fn what_nobody_confirms_goes_back_by_itself() {
    if !privileged() {
        return;
    }
    let host = Host::new();
    let agent = host.agent();
    set(&agent, "a", "1000/s");
    let write = |seconds: u64| json!({"document": {}, "write": {"confirm_within_seconds": seconds}});
    let written = agent.post("/v1/policy/apply", &write(1)).ok();
    assert_eq!((&written["pending"]["revision"], &written["pending"]["back_to"]), (&json!(2), &json!(1)));
    agent.ask("DELETE", "/v1/limits/a", None).problem(404, "not-found");
    agent.put("/v1/limits/c", &json!({"limit": limit("c", "1/s")})).problem(409, "conflict");
    wait_for("going back", || agent.get("/v1/status").ok()["revision"] == 3);
    assert_eq!(agent.get("/v1/limits").ok()["limits"][0]["limit"]["name"], "a");

    // One that is confirmed stays, and a second confirmation has nothing to confirm.
    agent.post("/v1/policy/apply", &write(60)).ok();
    agent.post("/v1/policy/confirm", &json!({})).ok();
    agent.post("/v1/policy/confirm", &json!({})).problem(409, "conflict");
    assert_eq!(agent.get("/v1/status").ok()["pending"], Value::Null);

    // One whose time passes while no agent runs goes back at the next start; rolling back needs no waiting.
    agent.put("/v1/limits/d", &json!({"limit": limit("d", "1/s"), "write": {"confirm_within_seconds": 60}})).ok();
    agent.post("/v1/policy/rollback", &json!({})).ok();
    assert_eq!(agent.get("/v1/limits").ok()["limits"], json!([]));
    agent.put("/v1/limits/d", &json!({"limit": limit("d", "1/s"), "write": {"confirm_within_seconds": 1}})).ok();
    agent.stop();
    std::thread::sleep(std::time::Duration::from_secs(1));
    let agent = host.agent();
    assert_eq!(agent.get("/v1/limits").ok()["limits"], json!([]));
}

#[test]
fn openapi_names_every_route_and_metrics_start_at_zero() {
    if !privileged() {
        return;
    }
    let host = Host::new();
    let agent = host.agent();
    set(&agent, "a", "1000/s");
    let document = agent.get("/v1/openapi.json").json();
    let paths = document["paths"].as_object().unwrap();
    let (router, _) = include_str!("../src/api/mod.rs").split_once("pub fn metrics_router").unwrap();
    assert_eq!(paths.len(), router.matches(".route(").count(), "described and served");
    let text = document.to_string();
    for name in text.split("#/components/schemas/").skip(1).map(|rest| rest.split('"').next().unwrap()) {
        assert!(document["components"]["schemas"].get(name).is_some(), "{name} is not described");
    }
    for (path, item) in paths {
        for method in item
            .as_object()
            .unwrap()
            .keys()
            .filter(|method| ["get", "put", "post", "delete"].contains(&method.as_str()))
        {
            if path == "/v1/events" {
                continue;
            }
            let answer = agent.ask(&method.to_uppercase(), &path.replace("{name}", "nobody"), None);
            assert_ne!(answer.status, 405, "{method} {path}");
            assert!(!answer.body.contains("is no path"), "{method} {path}");
        }
    }
    let metrics = agent.get("/metrics").body;
    for line in [
        "throttle_packets_total{reason=\"source-limit\",outcome=\"drop\"} 0",
        "throttle_limit_packets_total{limit=\"a\",result=\"refused\"} 0",
        "throttle_attached{interface=\"lo\",mode=\"generic\"} 1",
        "throttle_region_slots{limit=\"a\",family=\"ipv4\"} 4",
        "throttle_enforcing 0",
        "# EOF",
    ] {
        assert!(metrics.contains(line), "{line} is not in {metrics}");
    }
}

#[test]
fn too_many_connections_are_told_so_and_idle_ones_end() {
    if !privileged() {
        return;
    }
    let host = Host::new();
    let agent = host.agent();
    let idle: Vec<_> = (0..64).map(|_| std::os::unix::net::UnixStream::connect(&agent.socket).unwrap()).collect();
    wait_for("the refusal", || raw(&agent.socket, "GET /healthz HTTP/1.1\r\nhost: t\r\n\r\n").status == 503);
    // None of them sends a request, so all are closed and their places are free again.
    wait_for("the end of idle connections", || {
        raw(&agent.socket, "GET /healthz HTTP/1.1\r\nhost: t\r\nconnection: close\r\n\r\n").status == 200
    });
    drop(idle);
}
