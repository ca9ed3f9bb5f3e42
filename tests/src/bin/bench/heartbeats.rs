//! What the agent takes of a CPU, and of memory, for backends that it asks five times a second, and for as many that push as
//! often; beside it what the server takes that answers for them all, a real nginx.

use super::{
    agent::share,
    report::{Effort, Section},
};
use anyhow::{Context, Result, ensure};
use std::{
    fmt::Write as _,
    fs, thread,
    time::{Duration, Instant},
};
use throttle_tests::{
    agent::Site,
    backends::Pushers,
    clients::HTTP,
    nginx::Server,
    wire::{FAR, Wire},
};

/// How many backends, and how many of them answer for one service.
const BACKENDS: usize = 1_000;
const OF_A_SERVICE: usize = 100;
const INTERVAL: Duration = Duration::from_millis(200);
const PUSH: &str = "push";
const SPAN: Duration = Duration::from_secs(20);
/// How long all of them may take until they have answered.
const PATIENCE: Duration = Duration::from_mins(1);

/// Measures, and gives the table.
pub(super) fn measure(effort: Effort) -> Result<Section> {
    let (span, backends) = (effort.span(SPAN), if effort.short { BACKENDS / 10 } else { BACKENDS });
    let wire = Wire::new()?;
    let server = Server::on(&wire.far)?;
    let mut text = format!(
        "Backends that are asked every 200 ms, or push as often, over {} s. All that are asked are one nginx of one process at as \
         many addresses of the loopback, so that its part is the least that answering takes; those that push do so over the \
         API's Unix socket, twenty of them over each connection, which is kept.\n\n| probe | backends | agent, of one CPU | \
         nginx, of one CPU | agent's memory, MiB | KiB a backend |\n|---|---:|---:|---:|---:|---:|\n",
        span.as_secs()
    );
    for probe in ["tcp", "http:/", "push"] {
        let site = Site::on(&wire.far)?;
        let agent = site.start(&["--interface", FAR])?;
        let mut before = None;
        for backends in [0, backends] {
            site.apply(&policy(probe, backends))?;
            let names: Vec<_> = (0..backends).map(name).filter(|_| probe == PUSH).collect();
            let pushers = Pushers::start(&site.file("api.sock"), &names, INTERVAL);
            settle(&site, backends)?;
            let used = share(&[agent.process()], span)?;
            let answering = share(&server.processes()?, span)? * 100.0;
            let answering = if probe == PUSH { "-".to_owned() } else { format!("{answering:.1} %") };
            let memory = resident(agent.process())?;
            ensure!(pushers.refused() == 0, "{} beats were not taken", pushers.refused());
            drop(pushers);
            let each = before.map(|before: f64| (memory - before) / backends as f64);
            before = Some(memory);
            let each = each.map_or_else(String::new, |each| format!("{each:.1}"));
            writeln!(
                text,
                "| {probe} | {backends} | {:.1} % | {answering} | {:.1} | {each} |",
                used * 100.0,
                memory / 1024.0
            )?;
        }
        agent.stop()?;
    }
    Ok(text.into())
}

fn name(number: usize) -> String {
    format!("web-{}-{number}", number / OF_A_SERVICE)
}

fn policy(probe: &str, backends: usize) -> String {
    let service = |number: usize| {
        let port = 10_000 + number;
        format!(
            "[[service]]\nname = \"web-{number}\"\nprotocol = \"tcp\"\nports = [{port}]\n\
             [service.health]\ncontrol = \"fixed\"\n"
        )
    };
    let backend = |number: usize| {
        let (service, [high, low]) = (number / OF_A_SERVICE, (number as u16 + 1).to_be_bytes());
        format!(
            "[[backend]]\nname = \"{}\"\nservice = \"web-{service}\"\n\
             address = \"127.1.{high}.{low}:{HTTP}\"\nprobe = \"{probe}\"\n",
            name(number)
        )
    };
    let services: String = (0..backends.div_ceil(OF_A_SERVICE)).map(service).collect();
    let backends: String = (0..backends).map(backend).collect();
    format!("mode = \"enforce\"\n{services}{backends}")
}

/// Waits until every backend has answered, or beaten.
fn settle(site: &Site<'_>, backends: usize) -> Result<()> {
    let start = Instant::now();
    loop {
        let (status, body) = site.request("GET", "/v1/heartbeats", "")?;
        ensure!(status == 200, "{body}");
        let shown: serde_json::Value = serde_json::from_str(&body)?;
        let all = shown["heartbeats"].as_array().context("heartbeats")?;
        let well =
            all.iter().filter(|one| ["answered", "beats"].iter().any(|count| one[count].as_u64().unwrap_or(0) > 0));
        let well = well.count();
        if well == backends && all.len() == backends {
            return Ok(());
        }
        ensure!(start.elapsed() < PATIENCE, "{well} of {} have answered: {}", all.len(), all[0]);
        thread::sleep(Duration::from_millis(200));
    }
}

/// KiB of a process that lie in memory (proc_pid_status(5)).
fn resident(process: u32) -> Result<f64> {
    let path = format!("/proc/{process}/status");
    let status = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    let line =
        status.lines().find_map(|line| line.strip_prefix("VmRSS:")).with_context(|| format!("no VmRSS in {path}"))?;
    Ok(line.trim().trim_end_matches("kB").trim().parse()?)
}
