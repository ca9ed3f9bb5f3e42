//! Administrators' sessions that stay allowed for a while although policy would touch them.
//!
//! Kept in a file beside the store, so that an agent that is killed does not lock anybody out when it comes back.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    net::IpAddr,
    path::{Path, PathBuf},
};

use ipnet::IpNet;
use jiff::{SignedDuration, Timestamp};

use crate::{api::wire::SessionAllow, run::private::private_file};

/// For how long a session stays allowed: to notice, to think, and to repair.
const STAY: SignedDuration = SignedDuration::from_hours(1);
/// Sessions that may be allowed at once.
const MOST: usize = 64;

/// The sessions, and where they are kept.
#[derive(Debug)]
pub(super) struct Sessions {
    path: PathBuf,
    allows: Vec<SessionAllow>,
}

impl Sessions {
    /// Reads what an earlier agent kept. A file that cannot be read is said and left behind.
    pub(super) fn open(directory: &Path) -> Self {
        let path = directory.join("sessions.json");
        let allows = match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(io::Error::from),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Self { path, allows: Vec::new() },
            Err(error) => Err(error),
        };
        // Whoever could read it before: it names administrators and where they log in from.
        let allows = private_file(&path).and(allows).unwrap_or_else(|error| {
            tracing::warn!(path = %path.display(), %error, "the allowed sessions cannot be read; none is kept");
            Vec::new()
        });
        Self { path, allows }
    }

    /// The sessions that stay allowed.
    pub(super) fn allows(&self) -> &[SessionAllow] {
        &self.allows
    }

    /// Allows a session from now on; a session that is allowed already stays so for longer.
    pub(super) fn allow(&mut self, address: IpAddr, author: &str, now: Timestamp) -> io::Result<SessionAllow> {
        let prefix = IpNet::from(address.to_canonical());
        let allow = SessionAllow { prefix, until: now + STAY, author: author.to_owned() };
        let mut allows: Vec<_> = self.allows.iter().filter(|held| held.prefix != prefix).cloned().collect();
        allows.push(allow.clone());
        if allows.len() > MOST {
            allows.remove(0);
        }
        self.keep(allows)?;
        Ok(allow)
    }

    /// Allows a session no longer; says whether it was allowed.
    pub(super) fn forget(&mut self, address: IpAddr) -> io::Result<bool> {
        let prefix = IpNet::from(address.to_canonical());
        self.retain(|allow| allow.prefix != prefix)
    }

    /// Ends those whose time is over; says whether there were any.
    pub(super) fn expire(&mut self, now: Timestamp) -> io::Result<bool> {
        self.retain(|allow| allow.until > now)
    }

    /// Allows these sessions and no others.
    pub(super) fn replace(&mut self, allows: Vec<SessionAllow>) -> io::Result<()> {
        self.keep(allows)
    }

    fn retain(&mut self, keep: impl Fn(&SessionAllow) -> bool) -> io::Result<bool> {
        if self.allows.iter().all(&keep) {
            return Ok(false);
        }
        let allows = self.allows.iter().filter(|allow| keep(allow)).cloned().collect();
        self.keep(allows)?;
        Ok(true)
    }

    fn keep(&mut self, allows: Vec<SessionAllow>) -> io::Result<()> {
        let beside = self.path.with_added_extension("new");
        let mut file = private_file(&beside)?;
        file.set_len(0)?;
        file.write_all(&serde_json::to_vec(&allows)?)?;
        file.sync_all()?;
        fs::rename(&beside, &self.path)?;
        if let Some(directory) = self.path.parent() {
            File::open(directory)?.sync_all()?;
        }
        self.allows = allows;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_survive_the_agent_and_end_on_time() {
        let dir = tempfile::tempdir().unwrap();
        let now = Timestamp::UNIX_EPOCH;
        let address: IpAddr = "192.0.2.7".parse().unwrap();
        Sessions::open(dir.path()).allow(address, "root", now).unwrap();

        let mut sessions = Sessions::open(dir.path());
        assert_eq!(sessions.allows()[0].prefix, "192.0.2.7/32".parse().unwrap());
        assert!(!sessions.expire(now + SignedDuration::from_mins(59)).unwrap());
        assert!(sessions.expire(now + SignedDuration::from_mins(60)).unwrap());
        assert!(Sessions::open(dir.path()).allows().is_empty());
    }

    #[test]
    fn a_session_can_be_forced_off() {
        let dir = tempfile::tempdir().unwrap();
        let mut sessions = Sessions::open(dir.path());
        let address: IpAddr = "::ffff:192.0.2.7".parse().unwrap();
        sessions.allow(address, "root", Timestamp::UNIX_EPOCH).unwrap();
        assert!(sessions.forget("192.0.2.7".parse().unwrap()).unwrap());
        assert!(!sessions.forget(address).unwrap());
    }
}
