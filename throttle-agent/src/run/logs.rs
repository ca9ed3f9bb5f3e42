//! Where the agent's own words go: stderr, as text for a person and as JSON for a collector.

use std::io::IsTerminal as _;

use anyhow::{Context as _, anyhow};
use tracing_subscriber::{EnvFilter, fmt, layer::SubscriberExt as _, util::SubscriberInitExt as _};

/// What chitchat says of every word that it gets twice or late is of no use but to who looks for its faults.
const QUIET: &str = "chitchat=error";

/// Writes to stderr what is at least `info`, or what `THROTTLE_LOG` asks for (e.g. `throttle_agent=debug`).
pub fn start() -> anyhow::Result<()> {
    let asks = std::env::var("THROTTLE_LOG").is_ok_and(|asked| asked.contains("chitchat"));
    let filter = EnvFilter::builder()
        .with_env_var("THROTTLE_LOG")
        .with_default_directive(tracing::Level::INFO.into())
        .from_env()
        .map_err(|error| anyhow!("THROTTLE_LOG: {error}; write e.g. THROTTLE_LOG=throttle_agent=debug"))?;
    let filter = if asks { filter } else { filter.add_directive(QUIET.parse().context("quieten chitchat")?) };
    let terminal = std::io::stderr().is_terminal() && std::env::var_os("JOURNAL_STREAM").is_none();
    let subscriber = tracing_subscriber::registry().with(filter);
    let layer = fmt::layer().with_writer(std::io::stderr).with_target(false);
    // In tests a subscriber may be there already: it keeps its place.
    let _ = if terminal {
        subscriber.with(layer).try_init()
    } else {
        subscriber.with(layer.json().flatten_event(true)).try_init()
    };
    Ok(())
}
