//! What is usual, over the end of an agent: the time to first byte of each service, without which the next agent would take an
//! overload that it is started in for the norm.
//!
//! A small file beside the store, written now and then: losing it costs nothing but that.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{Control, Nanos};
use crate::health::SECOND;

/// How often it is written, where it has changed.
const PERIOD: Nanos = 10 * SECOND;

/// The file, and what is in it.
#[derive(Debug)]
pub(super) struct Usual {
    path: PathBuf,
    held: Held,
    next: Nanos,
}

/// Nanoseconds by service. They are of this boot: after another a host may be another.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Held {
    boot: String,
    #[serde(default)]
    first_byte_nanos: BTreeMap<String, Nanos>,
}

impl Usual {
    /// What the last agent wrote within this boot; nothing where the file is not to be read.
    pub(super) fn open(state_dir: &Path, boot: &str) -> Self {
        let path = state_dir.join("usual.json");
        let read = fs::read(&path).ok().and_then(|text| serde_json::from_slice::<Held>(&text).ok());
        let held = read.filter(|held| held.boot == boot);
        let held = held.unwrap_or_else(|| Held { boot: boot.to_owned(), ..Held::default() });
        Self { path, held, next: 0 }
    }

    /// That of a service.
    pub(super) fn of(&self, service: &str) -> Option<Nanos> {
        self.held.first_byte_nanos.get(service).copied()
    }

    fn keep(&mut self, first_byte_nanos: BTreeMap<String, Nanos>) -> std::io::Result<()> {
        if self.held.first_byte_nanos == first_byte_nanos {
            return Ok(());
        }
        self.held.first_byte_nanos = first_byte_nanos;
        let beside = self.path.with_extension("new");
        fs::write(&beside, serde_json::to_vec(&self.held)?)?;
        fs::rename(beside, &self.path)
    }
}

impl Control {
    /// Writes what is usual now, where it is time.
    pub(super) fn keep_usual(&mut self, now: Nanos) {
        let health = &mut self.health;
        if now < health.usual.next {
            return;
        }
        health.usual.next = now + PERIOD;
        let known = health.services.iter().filter_map(|(name, it)| Some((name.to_string(), it.health.usual()?)));
        let known = known.collect();
        if let Err(error) = health.usual.keep(known) {
            // The next agent learns it anew.
            tracing::debug!("what is usual is not written down: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_agent_of_the_same_boot_finds_it() {
        let directory = tempfile::tempdir().unwrap();
        let open = |boot| Usual::open(directory.path(), boot);
        assert_eq!(open("a").of("web"), None);
        open("a").keep([("web".to_owned(), 8_000_000)].into()).unwrap();
        assert_eq!((open("a").of("web"), open("b").of("web")), (Some(8_000_000), None));
        fs::write(directory.path().join("usual.json"), "{").unwrap();
        assert_eq!(open("a").of("web"), None, "a torn file is none");
    }
}
