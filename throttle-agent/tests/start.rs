//! How an agent starts: what it refuses, what it says of a policy that it cannot put in force, and what it leaves behind.

mod support;

use serde_json::{Value, json};
use support::{Host, Running, privileged};
use throttle_agent::datapath::detach_all;

/// A policy that enforces one limit.
fn limited(name: &str, sources: u32) -> Value {
    let limit = json!({"name": name, "unit": "packets", "rate": "1/hour", "sources": sources});
    json!({"mode": "enforce", "limit": [limit]})
}

fn apply(agent: &Running, document: &Value) {
    agent.post("/v1/policy/apply", &json!({"document": document})).ok();
}

fn detach(host: &Host) {
    let pins = host.options().pin_dir;
    host.within(move || detach_all(&pins)).unwrap();
}

/// What lies in the pin directory, whose name counts as none.
fn pinned(host: &Host) -> Vec<String> {
    fn walk(directory: &std::path::Path, found: &mut Vec<String>) {
        for entry in std::fs::read_dir(directory).into_iter().flatten() {
            let path = entry.unwrap().path();
            walk(&path, found);
            found.push(path.display().to_string());
        }
    }
    let root = host.options().pin_dir;
    host.within(move || {
        let mut found = Vec::new();
        walk(&root, &mut found);
        found.sort();
        found
    })
}

#[test]
fn a_stored_policy_that_no_longer_fits_is_said_and_can_be_repaired() {
    if !privileged() {
        return;
    }
    let host = Host::new();
    let mut options = host.options();
    let agent = host.agent();
    apply(&agent, &limited("few", 3000));
    agent.stop();
    detach(&host);
    options.table_sets = 16;
    let agent = host.agent_with(options);
    let status = agent.get("/v1/status").ok();
    assert!(status["problems"][0].as_str().unwrap().contains("revision 1 is not in force"), "{status}");
    agent.ask("DELETE", "/v1/limits/few", None).ok();
    let status = agent.get("/v1/status").ok();
    assert_eq!((&status["revision"], status["problems"].as_array().unwrap().len()), (&json!(2), 1), "{status}");
}

#[test]
fn a_policy_that_is_not_in_force_is_nowhere_said_to_be() {
    if !privileged() {
        return;
    }
    let host = Host::new();
    let mut options = host.options();
    let agent = host.agent();
    let document = limited("few", 3000);
    apply(&agent, &document);
    agent.stop();
    detach(&host);
    options.table_sets = 16;
    let agent = host.agent_with(options);
    let status = agent.get("/v1/status").ok();
    assert_eq!((&status["mode"], &status["revision"]), (&json!("observe"), &json!(0)), "{status}");
    let figures = agent.get("/metrics").body;
    for figure in ["throttle_enforcing 0", "throttle_policy_revision 0"] {
        assert!(figures.lines().any(|line| line == figure), "{figure}: {figures}");
    }
    // What would change is what is in force, and asking for the same again does not pass for having it.
    let diff = agent.post("/v1/policy/diff", &json!({"document": document})).ok();
    assert_ne!(diff["changes"], json!([]));
    agent.post("/v1/policy/apply", &json!({"document": document})).problem(422, "policy-refused");
    agent.put("/v1/mode", &json!({"mode": "enforce"})).problem(422, "policy-refused");
    let history = agent.get("/v1/policy/history").ok();
    assert_eq!((&history["current"], history["revisions"].as_array().unwrap().len()), (&json!(0), 1), "{history}");
    let blocked = agent.post("/v1/blocks", &json!({"blocks": [{"prefix": "192.0.2.7/32"}]})).ok();
    assert_eq!((&blocked["mode"], &blocked["revision"]), (&json!("observe"), &json!(0)));

    apply(&agent, &limited("fewer", 12));
    let status = agent.get("/v1/status").ok();
    assert_eq!((&status["mode"], &status["revision"]), (&json!("enforce"), &json!(2)), "{status}");
    assert_eq!(agent.post("/v1/policy/apply", &json!({"document": limited("fewer", 12)})).ok()["changes"], json!([]));
}

#[test]
fn a_policy_that_cuts_the_session_off_is_refused_unless_asked_for() {
    if !privileged() {
        return;
    }
    let host = Host::new();
    let agent = host.agent();
    apply(&agent, &json!({"shapes": {"arp": "drop"}}));
    let enforce = |write: Value| agent.put("/v1/mode", &json!({"mode": "enforce", "write": write}));
    let problem = enforce(json!({"session": "192.0.2.7"})).problem(422, "policy-refused");
    let fault = &problem["diagnostics"][0];
    assert_eq!(fault["path"], "shapes.arp", "{problem}");
    assert!(fault["remedy"].as_str().unwrap().contains("--lock-me-out"), "{problem}");
    let status = agent.get("/v1/status").ok();
    assert_eq!((&status["mode"], &status["session_allows"]), (&json!("observe"), &json!([])), "{status}");

    let written = enforce(json!({"session": "192.0.2.7", "lock_out": true})).ok();
    assert!(written["warnings"].to_string().contains("out of reach of your session"), "{written}");
    // Who is in all the same may go on: nothing more is taken.
    agent.post("/v1/allows", &json!({"prefixes": ["192.0.2.7/32"], "write": {"session": "192.0.2.7"}})).ok();
}

#[test]
fn the_same_number_of_another_store_is_not_taken_for_the_same_policy() {
    if !privileged() {
        return;
    }
    let host = Host::new();
    let mut options = host.options();
    options.table_sets = 16;
    let agent = host.agent_with(options.clone());
    apply(&agent, &limited("one", 12));
    agent.stop();
    detach(&host);
    let mut other = options.clone();
    other.state_dir = host.dir.path().join("other");
    let agent = host.agent_with(other);
    apply(&agent, &limited("another", 24));
    agent.stop();

    let agent = host.agent_with(options);
    let status = agent.get("/v1/status").ok();
    assert!(status["problems"][0].as_str().unwrap().contains("revision 1 is not in force"), "{status}");
    agent.post("/v1/policy/apply", &json!({"document": limited("one", 12)})).problem(422, "policy-refused");
}

#[test]
fn an_interface_that_cannot_be_had_ends_the_start_and_leaves_nothing_behind() {
    if !privileged() {
        return;
    }
    let host = Host::new();
    host.run("ip link add veth0 type veth peer name veth1");
    let mut options = host.options();
    options.interfaces = vec!["veth0".to_owned(), "lo".to_owned()];
    options.mode = throttle_agent::datapath::Mode::Native;
    let Err(refusal) = host.start(options.clone()) else { panic!("lo has no native mode") };
    assert!(format!("{refusal:#}").contains("--mode generic"), "{refusal:#}");
    assert_eq!(pinned(&host), [""; 0]);
    let mut well = options.clone();
    well.interfaces.pop();
    let agent = host.agent_with(well);
    assert_eq!(agent.get("/readyz").status, 200);
    agent.stop();

    // What an earlier agent made is not this one's to take away.
    let before = pinned(&host);
    assert!(host.start(options).is_err());
    assert_eq!(pinned(&host), before);
}

#[test]
fn a_policy_that_ends_the_start_leaves_nothing_pinned() {
    if !privileged() {
        return;
    }
    let host = Host::new();
    let path = host.dir.path().join("policy.toml");
    std::fs::write(&path, "[[limit]]\nname = \"a\"\nunit = \"packets\"\nrate = \"1/s\"\nsources = 50000000\n").unwrap();
    let mut options = host.options();
    options.policy = Some(path);
    let Err(refusal) = host.start(options) else { panic!("the table has no room for it") };
    assert!(format!("{refusal:#}").contains("--table-sets"), "{refusal:#}");
    assert_eq!(pinned(&host), [""; 0]);
}

#[test]
fn a_damaged_store_is_told_until_a_policy_is_applied() {
    if !privileged() {
        return;
    }
    let host = Host::new();
    let agent = host.agent();
    apply(&agent, &limited("few", 3000));
    agent.stop();
    detach(&host);
    let file = host.options().state_dir.join("store.redb");
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[512..].fill(0xa5);
    std::fs::write(&file, bytes).unwrap();
    let agent = host.agent();
    let told = || agent.get("/v1/status").ok()["problems"].to_string().contains("store.redb.bad-1");
    assert!(told(), "{}", agent.get("/v1/status").body);
    apply(&agent, &limited("few", 3000));
    assert!(!told());
}

#[test]
fn the_policy_given_at_the_start_is_for_an_empty_store_only() {
    if !privileged() {
        return;
    }
    let host = Host::new();
    let mut options = host.options();
    let path = host.dir.path().join("policy.toml");
    std::fs::write(&path, "[[limit]]\nname = \"a\"\nunit = \"packets\"\nrate = \"0\"\n").unwrap();
    options.policy = Some(path.clone());
    let Err(refusal) = host.start(options.clone()) else { panic!("the policy is wrong") };
    assert!(refusal.is::<throttle_agent::policy::Diagnostics>(), "{refusal:#}");

    std::fs::write(&path, "[sources]\nknown = [\"192.0.2.7\"]\n").unwrap();
    let agent = host.agent_with(options.clone());
    assert_eq!(agent.get("/v1/known").ok()["prefixes"], json!(["192.0.2.7/32"]));
    agent.post("/v1/known/delete", &json!({"prefixes": ["192.0.2.7/32"]})).ok();
    agent.post("/v1/allows", &json!({"prefixes": ["192.0.2.9/24"]})).ok();
    agent.stop();
    let agent = host.agent_with(options);
    assert_eq!(agent.get("/v1/known").ok()["prefixes"], json!([]));
    assert_eq!(agent.get("/v1/allows").ok()["prefixes"], json!(["192.0.2.0/24"]));
}

#[test]
fn figures_are_served_on_loopback_only() {
    if !privileged() {
        return;
    }
    let host = Host::new();
    let mut options = host.options();
    options.metrics = Some("0.0.0.0:9".parse().unwrap());
    let Err(refusal) = host.start(options) else { panic!("figures for everybody") };
    assert!(refusal.to_string().contains("write 127.0.0.1:9"), "{refusal:#}");
}
