//! What single commands come to: in the kernel what an agent makes of the whole policy that never knew of them, and in the
//! store every policy on the way.

mod support;

use serde_json::{Value, json};
use std::{collections::BTreeMap, net::IpAddr};
use support::{Answer, Host, Running, privileged};
use throttle_agent::datapath::{self, Datapath};

const COMMANDS: u32 = 60;
/// Where the reproducible dice start.
const SEED: u64 = 0x6564_6974;

/// Dice: splitmix64 (Steele et al. 2014).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % sides
    }
}

/// A policy that is large enough for the store to keep only what changes of it.
fn first() -> Value {
    let blocks: Vec<_> = (0..6_000).map(|number| format!("10.{}.{}.1", number / 250, number % 250)).collect();
    json!({"mode": "enforce", "sources": {"block": blocks}})
}

/// One command, drawn; many are refused, which is as good.
fn command(agent: &Running, dice: &mut Dice, revision: u64) -> Answer {
    let (name, kind) = (dice.roll(5), dice.roll(4));
    let source = format!("192.0.2.{}/28", dice.roll(8) * 16);
    match dice.roll(14) {
        0..=3 => {
            let mut limit = json!({"name": format!("l{name}"), "unit": "packets", "rate": format!("{}/s", kind + 1)});
            limit["sources"] = json!(300);
            if kind == 1 {
                limit["service"] = json!(format!("s{}", dice.roll(5)));
            } else if kind == 2 {
                limit["override"] = json!([{"sources": [source], "rate": "77/s"}]);
            }
            agent.put(&format!("/v1/limits/l{name}"), &json!({"limit": limit}))
        }
        4 => agent.ask("DELETE", &format!("/v1/limits/l{name}"), None),
        5 => {
            let service = json!({"name": format!("s{name}"), "protocol": "tcp", "ports": [80 + dice.roll(6)]});
            agent.put(&format!("/v1/services/s{name}"), &json!({"service": service}))
        }
        6 => agent.ask("DELETE", &format!("/v1/services/s{name}"), None),
        7 => {
            let tenant = json!({"name": format!("t{name}"), "sources": [source]});
            agent.put(&format!("/v1/tenants/t{name}"), &json!({"tenant": tenant}))
        }
        8 => agent.ask("DELETE", &format!("/v1/tenants/t{name}"), None),
        9 => agent.post("/v1/allows", &json!({"prefixes": [source]})),
        10 => agent.post("/v1/blocks", &json!({"blocks": [{"prefix": source}]})),
        11 => {
            let address = format!("192.0.2.{}:80", dice.roll(4));
            let backend =
                json!({"name": format!("b{name}"), "service": format!("s{}", dice.roll(5)), "address": address});
            agent.put(&format!("/v1/backends/b{name}"), &json!({"backend": backend}))
        }
        12 => agent.ask("DELETE", &format!("/v1/backends/b{name}"), None),
        _ if kind == 0 => agent.post("/v1/policy/rollback", &json!({"revision": 1 + dice.roll(revision)})),
        _ => agent.put("/v1/mode", &json!({"mode": if kind == 1 { "observe" } else { "enforce" }})),
    }
}

/// All that can be read of what the kernel has in force.
fn in_force(host: &Host) -> Vec<String> {
    let options = host.options();
    host.within(move || {
        let (pin_dir, table_sets) = (options.pin_dir, options.table_sets);
        let options = datapath::Options { pin_dir, table_sets, debug: false, test_clock: false, adopt: true };
        let datapath = Datapath::open(&options).unwrap();
        let mut read = vec![format!("{:?}", datapath.policy()), format!("{:?}", datapath.services())];
        let layout = datapath.layout();
        read.extend(layout.limits.iter().map(|limit| format!("{limit:?}")));
        read.push(format!("{:?}", layout.tenants));
        let sources = (0..8).map(|part| IpAddr::from([192, 0, 2, part * 16 + 1])).chain([[10, 1, 1, 1].into()]);
        read.extend(sources.map(|source| format!("{source}: {:?}", datapath.said(source).unwrap())));
        read
    })
}

#[test]
fn what_commands_come_to_is_what_a_fresh_agent_makes_of_the_whole() {
    if !privileged() {
        return;
    }
    let host = Host::new();
    let agent = host.agent();
    agent.post("/v1/policy/apply", &json!({"document": first()})).ok();
    let (mut dice, mut documents) = (Dice(SEED), BTreeMap::new());
    let (mut done, mut refused) = (0, 0);
    for _ in 0..COMMANDS {
        let policy = agent.get("/v1/policy").ok();
        let revision = policy["revision"].as_u64().unwrap();
        documents.insert(revision, policy["document"].clone());
        let answer = command(&agent, &mut dice, revision);
        assert!(answer.status < 500, "{}", answer.body);
        if answer.status == 200 { done += 1 } else { refused += 1 }
    }
    println!("from {SEED:#x}: {done} commands were done, {refused} refused, {} revisions", documents.len());
    assert!(documents.len() > 15 && refused > 3);
    let last = agent.get("/v1/policy").ok();
    agent.stop();
    let commands = in_force(&host);

    let agent = host.agent();
    assert_eq!(agent.get("/v1/policy").ok(), last);
    for (revision, document) in &documents {
        assert_eq!(&agent.get(&format!("/v1/policy?revision={revision}")).ok()["document"], document);
    }
    agent.stop();
    assert_eq!(commands, in_force(&host));
}
