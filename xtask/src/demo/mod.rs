//! `cargo xtask demo`: real clients against a real server, before and after a limit, in half a minute.
//!
//! Three sources run wrk without keep-alive (two over IPv4, one over IPv6), a fourth sends datagrams. The agent
//! is told its limits by its own command line. At the end three witnesses must agree: the clients' kernels
//! (what was sent), the throttle's counters (what was judged) and the server (what arrived).

mod figures;
mod load;

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::playground::{self, Playground};
use crate::process;
use figures::{Account, Counters, Limit};

const BEFORE: Duration = Duration::from_secs(5);
const AFTER: Duration = Duration::from_secs(15);

/// New connections of each source. The burst outlasts the second after which a client repeats a lost SYN.
const CONNECTIONS: Limit = Limit { name: "per-source", per_second: 50, burst: 100 };
/// Datagrams of each source.
const DATAGRAMS: Limit = Limit { name: "datagrams", per_second: 1_000, burst: 200 };

/// Runs the demo; an error if the figures do not agree.
pub(crate) fn run() -> Result<()> {
    playground::prepare("demo", &["wrk"])?;
    let playground = process::step("make namespaces for nginx and four clients", || Playground::new(4, 1))?;
    let agent = process::step("start the agent", || playground.start_agent())?;

    println!();
    throttle(&playground, "mode enforce")?;
    throttle(&playground, "service set web --protocol tcp --port 80")?;
    throttle(&playground, &format!("service set sink --protocol udp --port {}", load::DATAGRAM_PORT))?;
    println!("\nNo limit yet, wrk and the datagrams for {}:\n", process::seconds(BEFORE));
    let (web, datagrams) = load::round(&playground, BEFORE)?;
    print(&web, None, &datagrams, None);

    // Later fragments carry no ports: only a limit of the host counts them, and this one is wider than any round.
    throttle(&playground, "limit set all --rate 1000000/s --unit packets")?;
    throttle(&playground, &limit_set(&CONNECTIONS, "--service web --unit connections"))?;
    throttle(&playground, &limit_set(&DATAGRAMS, "--service sink --unit packets"))?;
    println!("\nThe same with these limits for {}:\n", process::seconds(AFTER));
    let (web, datagrams) = load::round(&playground, AFTER)?;
    print(&web, Some(&CONNECTIONS), &datagrams, Some(&DATAGRAMS));

    let limits = limits_of(&playground)?;
    drop(agent);
    judge(&web, &datagrams, &limits)
}

fn limit_set(limit: &Limit, rest: &str) -> String {
    let Limit { name, per_second, burst } = limit;
    format!("limit set {name} --rate {per_second}/s --burst {burst} {rest}")
}

/// Shows a command of the agent and runs it.
fn throttle(playground: &Playground, words: &str) -> Result<()> {
    println!("$ throttle {words}");
    process::run(playground.throttle(words).stdout(Stdio::null()))
}

fn print(web: &[Account], connections: Option<&Limit>, datagrams: &Account, packets: Option<&Limit>) {
    let rows: Vec<_> = web.iter().map(|account| (account, connections)).collect();
    println!("new connections\n{}", figures::table(&rows));
    println!("datagrams\n{}", figures::table(&[(datagrams, packets)]));
}

fn limits_of(playground: &Playground) -> Result<Value> {
    let limits = process::output(&mut playground.throttle("limit list --json"))?;
    serde_json::from_str(&limits).with_context(|| format!("read the agent's limits: {limits}"))
}

/// Says of every claim whether it holds, and fails if one does not.
fn judge(web: &[Account], datagrams: &Account, limits: &Value) -> Result<()> {
    let sources: Vec<&Account> = web.iter().collect();
    let mut claims = Vec::new();
    for (limit, sources) in [(&CONNECTIONS, sources.as_slice()), (&DATAGRAMS, &[datagrams])] {
        for source in sources {
            let claim = format!("{} got its rate x time + burst of {}", source.source, limit.name);
            claims.push((claim, source.agrees(limit, AFTER)));
        }
        let counted = counters(limits, limit.name)?;
        let Counters { admitted, refused } = counted;
        let claim =
            format!("{}: the kernel admitted {admitted} and refused {refused}, which is all that was sent", limit.name);
        claims.push((claim, counted.agree(limit, sources)));
    }
    let mut disagree = 0;
    for (claim, result) in claims {
        match result {
            Ok(()) => println!("agrees     {claim}"),
            Err(error) => {
                disagree += 1;
                println!("DISAGREES  {claim}: {error}");
            }
        }
    }
    if disagree > 0 {
        bail!("demo: {disagree} figures do not agree");
    }
    println!("\nThe figures agree. `cargo xtask run` makes a playground to try it by hand.");
    Ok(())
}

/// What the kernel counted for this limit.
fn counters(limits: &Value, name: &str) -> Result<Counters> {
    let limits = limits["limits"].as_array().context("the agent lists no limits")?;
    let limit = limits.iter().find(|view| view["limit"]["name"] == name);
    let tallies = &limit.with_context(|| format!("the agent lists no limit {name}"))?["tallies"];
    let read = |tally: &str| {
        let packets = &tallies[tally]["packets"];
        packets.as_u64().with_context(|| format!("the agent has no count of what {name} {tally}"))
    };
    Ok(Counters { admitted: read("admitted")?, refused: read("refused")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_those_of_the_named_limit() {
        let tallies = |admitted: u64, refused: u64| serde_json::json!({ "admitted": { "packets": admitted }, "refused": { "packets": refused } });
        let limits = serde_json::json!({ "limits": [
            { "limit": { "name": "one" }, "tallies": tallies(1, 2) },
            { "limit": { "name": "two" }, "tallies": tallies(3, 4) },
        ] });
        assert_eq!(counters(&limits, "two").unwrap(), Counters { admitted: 3, refused: 4 });
        let error = counters(&limits, "three").unwrap_err().to_string();
        assert!(error.contains("no limit three"), "{error}");
    }
}
