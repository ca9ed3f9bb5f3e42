//! Limits that follow the health of a real server, with a real agent on a host of its own: a window that sinks and comes
//! back, what is in force with the agent dead, breakers, and what others are told.

mod breaking;
mod kept;
mod window;

use anyhow::{Context, Result, ensure};
use std::time::{Duration, Instant};
use throttle_agent::api::wire::{Envelope, HealthReport, ServiceHealthView};
use throttle_tests::{agent::Site, wire::FAR};

const RUN: [&str; 3] = ["--interface", FAR, "--mode=native"];
/// How long anything may take that is awaited; far more than it does.
const PATIENCE: Duration = Duration::from_mins(1);

/// A service that follows its health as is said, with so many connections at most.
fn policy(health: &str, rest: &str) -> String {
    format!(
        "mode = \"enforce\"\n[[service]]\nname = \"web\"\nprotocol = \"tcp\"\nports = [80, 81]\n[service.health]\n\
         {health}\n[[limit]]\nname = \"open\"\nservice = \"web\"\nunit = \"connections\"\nper = \"service\"\nconcurrent = \
         100\naction = \"reject\"\n{rest}"
    )
}

/// How the health of a service stands.
fn health(site: &Site<'_>, service: &str) -> Result<ServiceHealthView> {
    let report: Envelope<HealthReport> = serde_json::from_value(site.json(&["health", service])?)?;
    report.body.services.into_iter().next().with_context(|| format!("no health of {service}"))
}

/// Returns once it stands as it should.
fn until(site: &Site<'_>, what: &str, is: impl Fn(&ServiceHealthView) -> bool) -> Result<ServiceHealthView> {
    let start = Instant::now();
    loop {
        let view = health(site, "web")?;
        if is(&view) {
            return Ok(view);
        }
        ensure!(start.elapsed() < PATIENCE, "{what}: not after {PATIENCE:?}: {view:#?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}
