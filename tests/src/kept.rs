//! Clients that keep their connections, more of them than the server bears: wrk on the near host, on the far one a real nginx
//! that passes each request on to [`crate::workers`], with a throttle before it or none.
//!
//! Whoever keeps a connection asks again as soon as it is answered, so overload is not a rate but how many ask at once: twice
//! as many as the server can answer within the objective.

use crate::{
    agent::Site,
    clients::wrk_keeping,
    nginx::{PASSED_ON, Server},
    simulator::scenario::{CAPACITY, OBJECTIVE},
    standing::health,
    wire::{FAR, FAR_V4, Wire},
    workers::Workers,
};
use anyhow::{Result, ensure};
use std::{path::Path, time::Duration};
use throttle_agent::health::{MILLISECOND, SECOND, whole};

/// Those who ask at first: so few that nobody waits.
const FEW: u32 = 4;
/// For how long.
const QUIET: Duration = Duration::from_secs(4);
/// How many ask then, of what the server can answer within the objective.
const TIMES: f64 = 2.0;

/// What stands before nginx.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guard {
    /// Nothing.
    Nothing,
    /// A window of open connections that follows the server's health; those above it are closed, the oldest first.
    Window,
    /// A rate of new connections that does, and the same closing.
    Rate,
}

/// All of them, the worst first.
pub const GUARDS: [Guard; 3] = [Guard::Nothing, Guard::Window, Guard::Rate];

impl Guard {
    /// What it is called.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Nothing => "no throttle",
            Self::Window => "throttle, the window",
            Self::Rate => "throttle, the rate",
        }
    }

    fn policy(self, tls: bool) -> Option<String> {
        let (control, rate) = match self {
            Self::Nothing => return None,
            Self::Window => ("latency", String::new()),
            Self::Rate => ("rate", limit("new", &format!("rate = \"{CAPACITY:.0}/s\"\nburst = 10"))),
        };
        let (objective, port) = (OBJECTIVE / MILLISECOND, PASSED_ON[usize::from(tls)]);
        let speaks = if tls { "tls" } else { "http" };
        Some(format!(
            "mode = \"enforce\"\n[[service]]\nname = \"web\"\nprotocol = \"tcp\"\nports = [{port}]\n[service.health]\n\
             mode = \"enforce\"\nobjective = \"{objective}ms\"\nspeaks = \"{speaks}\"\ncontrol = \"{control}\"\n\
             close-oldest = true\n{}{rate}",
            limit("open", "concurrent = 2000")
        ))
    }
}

fn limit(name: &str, what: &str) -> String {
    format!("[[limit]]\nname = \"{name}\"\nservice = \"web\"\nper = \"service\"\nunit = \"connections\"\n{what}\n")
}

/// What came of it.
#[derive(Clone, Copy, Debug)]
pub struct Served {
    /// Answers within the objective, of what the server can give: in the first seconds of overload, and after them.
    pub goodput: [f64; 2],
    /// The time within which 99 % of the answers came after those.
    pub p99: Duration,
    /// Connections that were closed for it.
    pub closed: u64,
}

/// Has so many clients ask for `first` and `then`. `binary` is one that calls [`crate::workers::work`].
pub fn run(guard: Guard, tls: bool, [first, then]: [Duration; 2], binary: &Path) -> Result<Served> {
    let wire = Wire::new()?;
    let site = Site::on(&wire.far)?;
    let _workers = Workers::on(&wire.far, binary)?;
    let server = Server::passing_on(&wire.far)?;
    let policy = guard.policy(tls);
    let _agent = match &policy {
        Some(policy) => {
            let agent = site.start(&["--interface", FAR, "--mode=native"])?;
            site.apply(policy)?;
            Some(agent)
        }
        None => None,
    };
    let ask = |span, connections| wrk_keeping(&wire.near, FAR_V4.parse()?, tls, span, connections);
    ask(QUIET, FEW)?;
    let many = TIMES * CAPACITY * OBJECTIVE as f64 / SECOND as f64;
    ask(first + then, whole(many) as u32)?;
    // What nginx has not written down yet.
    std::thread::sleep(Duration::from_millis(300));
    let closed = if policy.is_some() { health(&site, "web")?.closed } else { 0 };
    let times = server.times()?;
    let end = times.iter().map(|(at, ..)| *at).fold(0.0, f64::max);
    let within = |from: Duration, span: Duration| {
        let from = end - from.as_secs_f64();
        let asked = move |at: f64| at > from && at <= from + span.as_secs_f64();
        times.iter().filter(move |(at, _, status)| *status == 200 && asked(*at)).map(|(_, took, _)| *took)
    };
    let goodput = |from: Duration, span: Duration| {
        let good = within(from, span).filter(|took| took * SECOND as f64 <= OBJECTIVE as f64).count();
        good as f64 / span.as_secs_f64() / CAPACITY
    };
    let mut took: Vec<f64> = within(then, then).collect();
    took.sort_by(f64::total_cmp);
    ensure!(!took.is_empty(), "nothing was answered");
    let p99 = Duration::from_secs_f64(took[(took.len() - 1) * 99 / 100]);
    Ok(Served { goodput: [goodput(first + then, first), goodput(then, then)], p99, closed })
}
