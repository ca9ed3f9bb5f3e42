//! The way back to an earlier policy: past what lies in its way, and without locking anybody out.

mod support;

use serde_json::{Value, json};
use support::{Host, privileged, wait_for};

/// Whether a write warns the session that it came from.
fn warns(written: &Value) -> bool {
    let warnings = written["warnings"].as_array().unwrap();
    warnings.iter().any(|warning| warning.as_str().unwrap().contains("covers your session"))
}

#[test]
fn a_policy_goes_back_though_what_followed_it_lies_in_its_way() {
    if !privileged() {
        return;
    }
    let host = Host::new();
    let mut options = host.options();
    options.table_sets = 22;
    let agent = host.agent_with(options);
    let limit = |name: &str, sets: u32| json!({"name": name, "unit": "packets", "rate": "1/s", "sources": 3 * sets});
    let apply = |limits: &[Value], write: &Value| {
        agent.post("/v1/policy/apply", &json!({"document": {"limit": limits}, "write": write})).ok()
    };
    let names = || {
        let limits = agent.get("/v1/limits").ok()["limits"].as_array().unwrap().clone();
        limits.iter().map(|view| view["limit"]["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    // Each has as many sets for IPv4 as for IPv6; the last gets the room of the second, between the two others.
    apply(&[limit("x", 4), limit("q", 1), limit("y", 6)], &json!({}));
    apply(&[limit("y", 6), limit("x", 4)], &json!({}));
    apply(&[limit("z", 1)], &json!({"confirm_within_seconds": 60}));
    agent.post("/v1/policy/rollback", &json!({})).ok();
    assert_eq!(names(), ["y", "x"]);
    let status = agent.get("/v1/status").ok();
    assert_eq!((&status["pending"], &status["revision"]), (&Value::Null, &json!(4)), "{status}");

    apply(&[limit("z", 1)], &json!({"confirm_within_seconds": 1}));
    wait_for("the way back", || names() == ["y", "x"]);
    assert_eq!(agent.get("/v1/status").ok()["ends_with_agent"], true, "this host's pins are in a namespace of its own");
}

#[test]
fn whoever_goes_back_into_a_policy_that_hits_them_stays_in() {
    if !privileged() {
        return;
    }
    let host = Host::new();
    let agent = host.agent();
    let enforced = json!({"mode": "enforce", "sources": {"block": ["127.0.0.2"]}});
    agent.post("/v1/policy/apply", &json!({"document": enforced})).ok();
    agent.post("/v1/policy/apply", &json!({"document": {"mode": "enforce"}})).ok();
    let write = json!({"session": "127.0.0.2"});
    for window in [Value::Null, json!(60)] {
        let written = agent.post("/v1/policy/rollback", &json!({"revision": 1, "write": write})).ok();
        assert!(warns(&written), "{written}");
        assert_eq!(written["session_allow"]["prefix"], "127.0.0.2/32");
        // The second time round it is the policy that waits which goes back.
        let next = json!({"document": {"mode": "enforce"}, "write": {"confirm_within_seconds": window}});
        agent.post("/v1/policy/apply", &next).ok();
    }
    let out = json!({"write": {"session": "127.0.0.2", "lock_out": true}});
    let written = agent.post("/v1/policy/rollback", &out).ok();
    assert!(warns(&written) && written["session_allow"].is_null(), "{written}");
    assert_eq!(agent.get("/v1/status").ok()["session_allows"], json!([]));
}

/// Each step says what is done and which limit is in force then, `-` for none.
#[test]
fn a_step_back_leads_to_what_was_in_force_before_and_never_to_what_was_taken_back() {
    if !privileged() {
        return;
    }
    let sequences = [
        "apply a; apply b; wait c -> c; back -> b; back -> a; back -> -",
        "apply a; apply b; pass c -> b; back -> a; back -> -",
        "apply a; wait b; confirm -> b; back -> a; back -> -",
        "apply a; apply b; apply c; back -> b; back -> a; apply d; back -> a; back -> -",
        "apply a; apply b; back -> a; pass c -> a; back -> -",
        "apply a; apply b; back -> a; apply c; pass d -> c; back -> a; back -> -",
        // A revision that somebody names is a step forward, whichever it is.
        "apply a; apply b; apply c; to 1 -> a; back -> c; back -> b",
        "apply a; apply b; back -> a; to 2 -> b; back -> a; back -> -",
        // What says the same is no step.
        "apply a; apply b; wait b; confirm -> b; back -> a",
    ];
    for sequence in sequences {
        let host = Host::new();
        let agent = host.agent();
        let in_force = || {
            let limits = agent.get("/v1/limits").ok()["limits"].as_array().unwrap().clone();
            limits.first().map_or("-".to_owned(), |view| view["limit"]["name"].as_str().unwrap().to_owned())
        };
        let apply = |name: &str, window: Value| {
            let limit = json!({"name": name, "unit": "packets", "rate": "1/s", "sources": 30});
            let write = json!({"confirm_within_seconds": window});
            agent.post("/v1/policy/apply", &json!({"document": {"limit": [limit]}, "write": write})).ok();
        };
        for step in sequence.split("; ") {
            let (act, then) = step.split_once(" -> ").map_or((step, None), |(act, then)| (act, Some(then)));
            match act.split_once(' ') {
                Some(("apply", name)) => apply(name, Value::Null),
                Some(("wait", name)) => apply(name, json!(60)),
                Some(("pass", name)) => {
                    apply(name, json!(1));
                    wait_for("the way back", || agent.get("/v1/status").ok()["pending"].is_null());
                }
                Some(("to", number)) => {
                    let revision = number.parse::<u64>().unwrap();
                    _ = agent.post("/v1/policy/rollback", &json!({"revision": revision})).ok();
                }
                _ if act == "confirm" => _ = agent.post("/v1/policy/confirm", &json!({})).ok(),
                _ => _ = agent.post("/v1/policy/rollback", &json!({})).ok(),
            }
            assert!(then.is_none_or(|name| in_force() == name), "{} after `{step}` of `{sequence}`", in_force());
        }
        if sequence.ends_with('-') {
            agent.post("/v1/policy/rollback", &json!({})).problem(409, "conflict");
        }
    }
}
