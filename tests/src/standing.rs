//! How the health of a service stands, as an agent says it.

use crate::agent::Site;
use anyhow::{Context, Result, ensure};
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};
use throttle_agent::api::wire::{BackendHealthView, Envelope, HealthReport, ServiceHealthView, TransitionView};

/// How long anything may take that is awaited; far more than it does.
const PATIENCE: Duration = Duration::from_mins(1);

/// How the health of a service stands.
pub fn health(site: &Site<'_>, service: &str) -> Result<ServiceHealthView> {
    report(site, service)?.services.into_iter().next().with_context(|| format!("no health of {service}"))
}

/// The last changes of a service's health, the oldest first.
pub fn changes(site: &Site<'_>, service: &str) -> Result<Vec<TransitionView>> {
    let mut changes = report(site, service)?.transitions;
    changes.reverse();
    Ok(changes)
}

/// All changes of a service's health until a span has passed, those before it among them, the oldest first. However many
/// there are: an answer shows only the last.
pub fn changes_within(site: &Site<'_>, service: &str, span: Duration) -> Result<Vec<TransitionView>> {
    let (start, mut all) = (Instant::now(), BTreeMap::new());
    while start.elapsed() < span {
        std::thread::sleep(Duration::from_millis(500).min(span.saturating_sub(start.elapsed())));
        let report = report(site, service)?;
        all.extend(report.transitions.into_iter().map(|it| (it.number, it)));
        ensure!(all.len() as u64 == report.transitions_in_all, "more changes at once than an answer shows");
    }
    Ok(all.into_values().collect())
}

fn report(site: &Site<'_>, service: &str) -> Result<HealthReport> {
    let report: Envelope<HealthReport> = serde_json::from_value(site.json(&["health", service])?)?;
    Ok(report.body)
}

/// Returns once the service `web` stands as it should.
pub fn until(site: &Site<'_>, what: &str, is: impl Fn(&ServiceHealthView) -> bool) -> Result<ServiceHealthView> {
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

/// What is held of a backend.
pub fn held<'v>(view: &'v ServiceHealthView, backend: &str) -> Option<&'v BackendHealthView> {
    view.backends.iter().find(|it| it.backend == backend)
}

/// The level of a backend; nothing of one that is not known.
pub fn level<'v>(view: &'v ServiceHealthView, backend: &str) -> &'v str {
    held(view, backend).map_or("", |it| &it.level)
}

/// The state of a backend's breaker; nothing of one that has none.
pub fn breaker<'v>(view: &'v ServiceHealthView, backend: &str) -> &'v str {
    held(view, backend).and_then(|it| it.breaker.as_ref()).map_or("", |breaker| &breaker.state)
}
