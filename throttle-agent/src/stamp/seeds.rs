//! Whom to ask for the others: seeds of the command line, and those of a file, as addresses or names with a port.

use std::{collections::BTreeSet, net::SocketAddr, path::PathBuf, time::Duration};

use tokio::{net::lookup_host, time::timeout};

/// Bytes of a file of seeds, at most.
const LONGEST: u64 = 64 << 10;
/// Seeds that are used.
const MOST_SEEDS: usize = 64;
/// How long a name may take to resolve.
const PATIENCE: Duration = Duration::from_secs(2);

/// Where seeds stand.
#[derive(Clone, Debug, Default)]
pub struct Seeds {
    /// `HOST:PORT` each.
    pub named: Vec<String>,
    /// A file with one on each line, read anew each time.
    pub file: Option<PathBuf>,
}

impl Seeds {
    /// Where they are now, and what is wrong with those that cannot be used.
    pub(super) async fn find(&self) -> (BTreeSet<SocketAddr>, Vec<String>) {
        let (mut found, mut faults) = (BTreeSet::new(), Vec::new());
        let mut named = self.named.clone();
        if let Some(file) = &self.file {
            match tokio::fs::metadata(file).await {
                Ok(held) if held.len() > LONGEST => {
                    faults.push(format!("{} is longer than 64 KiB", file.display()));
                }
                Ok(held) if !held.is_file() => faults.push(format!("{} is no file", file.display())),
                Ok(_) => match tokio::fs::read_to_string(file).await {
                    Ok(text) => named.extend(listed(&text)),
                    Err(error) => faults.push(format!("{} cannot be read: {error}", file.display())),
                },
                Err(error) => faults.push(format!("{} cannot be read: {error}", file.display())),
            }
        }
        if named.len() > MOST_SEEDS {
            faults.push(format!("there are {} seeds, and {MOST_SEEDS} are used", named.len()));
        }
        for seed in named.into_iter().take(MOST_SEEDS) {
            match timeout(PATIENCE, lookup_host(&*seed)).await {
                Ok(Ok(addresses)) => found.extend(addresses),
                Ok(Err(error)) => faults.push(format!("{seed} is not found: {error}")),
                Err(_) => faults.push(format!("{seed} is not found within {} s", PATIENCE.as_secs())),
            }
        }
        (found, faults)
    }
}

/// The seeds of a file's text: one on each line, but for empty ones and those that begin with `#`.
fn listed(text: &str) -> impl Iterator<Item = String> {
    text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')).map(str::to_owned)
}

/// A seed of the command line: a host and its port.
pub fn seed(text: &str) -> Result<String, String> {
    let port = text.rsplit_once(':').filter(|(host, _)| !host.is_empty()).and_then(|(_, port)| port.parse().ok());
    match port {
        Some(1..=u16::MAX) => Ok(text.to_owned()),
        _ => Err("write a host and the port of its gossip, as in 10.0.0.1:7946".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn seeds_come_of_the_command_line_and_of_a_file_that_may_change() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("seeds");
        let seeds = Seeds { named: vec!["127.0.0.1:1".to_owned()], file: Some(file.clone()) };
        let (found, faults) = seeds.find().await;
        assert_eq!((found.len(), faults.len()), (1, 1), "{faults:?}");
        std::fs::write(&file, "# the others\n\n127.0.0.2:2\n[::1]:3\nnonsense\n").unwrap();
        let (found, faults) = seeds.find().await;
        assert_eq!(found.len(), 3);
        assert!(matches!(&faults[..], [fault] if fault.starts_with("nonsense is not found")), "{faults:?}");
    }

    #[test]
    fn a_seed_has_a_port() {
        assert!(seed("10.0.0.1:7946").is_ok() && seed("[fd00::1]:7946").is_ok() && seed("web-1.internal:7946").is_ok());
        assert!(["", "10.0.0.1", ":7946", "a:0", "a:b", "a:65536"].iter().all(|text| seed(text).is_err()));
    }
}
