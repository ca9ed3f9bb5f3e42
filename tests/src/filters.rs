//! The queueing disciplines and filters of an interface, as tc(8) shows them.

use anyhow::{Context, Result};
use serde_json::Value;

use crate::{machine, netns::Namespace};

/// Whether an interface has a discipline of this kind.
pub fn has_discipline(host: &Namespace, interface: &str, kind: &str) -> Result<bool> {
    let all = list(host, &["qdisc", "show", "dev", interface])?;
    Ok(all.iter().any(|discipline| discipline["kind"] == kind))
}

/// The filters in a direction, `ingress` or `egress`, without what is only the head of a list.
pub fn filters(host: &Namespace, interface: &str, direction: &str) -> Result<Vec<Value>> {
    let all = list(host, &["filter", "show", "dev", interface, direction])?;
    Ok(all.into_iter().filter(|filter| filter["options"]["handle"].is_string()).collect())
}

fn list(host: &Namespace, what: &[&str]) -> Result<Vec<Value>> {
    let said = machine::run(host.command("tc").arg("-json").args(what))?;
    serde_json::from_str(&said).with_context(|| format!("`tc` prints JSON, not {said}"))
}
