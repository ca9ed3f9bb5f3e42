//! Where the agent's own words go: stderr, as text for a person and as JSON for a collector.

use std::io::IsTerminal as _;

use anyhow::anyhow;
use tracing_subscriber::{EnvFilter, fmt, layer::SubscriberExt as _, util::SubscriberInitExt as _};

/// Writes to stderr what is at least `info`, or what `THROTTLE_LOG` asks for (e.g. `throttle_agent=debug`).
pub fn start() -> anyhow::Result<()> {
    let filter = EnvFilter::builder()
        .with_env_var("THROTTLE_LOG")
        .with_default_directive(tracing::Level::INFO.into())
        .from_env()
        .map_err(|error| anyhow!("THROTTLE_LOG: {error}; write e.g. THROTTLE_LOG=throttle_agent=debug"))?;
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
