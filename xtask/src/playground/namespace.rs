//! Network namespaces, named after the process that made them.

use std::ffi::OsStr;
use std::fs;
use std::net::IpAddr;
use std::os::fd::AsFd as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{self as this, Command};
use std::thread;

use anyhow::{Context as _, Result};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::Addresses;
use crate::process;

const PREFIX: &str = "throttle-play-";
/// Where `ip netns` keeps the names.
const NAMES: &str = "/run/netns";

/// A network namespace with its loopback up, deleted with everything in it on drop.
pub(crate) struct Namespace {
    pub(crate) name: String,
}

impl Namespace {
    /// Makes `throttle-play-ROLE-PID`.
    pub(super) fn new(role: &str) -> Result<Self> {
        let name = format!("{PREFIX}{role}-{}", this::id());
        process::output(Command::new("ip").args(["netns", "add", &name]))
            .with_context(|| format!("make the network namespace {name}"))?;
        let namespace = Self { name };
        namespace.ip("link set lo up")?;
        Ok(namespace)
    }

    /// Gives an interface these addresses and turns it on.
    pub(super) fn add_addresses(&self, interface: &str, (v4, v6): Addresses) -> Result<()> {
        self.ip(&format!("address add {v4}/32 dev {interface}"))?;
        self.ip(&format!("address add {v6}/128 dev {interface} nodad"))?;
        self.ip(&format!("link set {interface} up"))
    }

    /// Leads what goes to these addresses through an interface, from the source addresses if some are given.
    pub(super) fn add_routes(&self, interface: &str, (v4, v6): Addresses, from: Option<Addresses>) -> Result<()> {
        let source = |address: Option<IpAddr>| address.map(|from| format!("src {from}")).unwrap_or_default();
        let (from_v4, from_v6) = (from.map(|(v4, _)| v4.into()), from.map(|(_, v6)| v6.into()));
        self.ip(&format!("route add {v4}/32 dev {interface} {}", source(from_v4)))?;
        self.ip(&format!("route add {v6}/128 dev {interface} {}", source(from_v6)))
    }

    /// Runs `ip` on this namespace.
    fn ip(&self, words: &str) -> Result<()> {
        let mut ip = Command::new("ip");
        ip.args(["-n", &self.name]);
        process::output(ip.args(words.split_whitespace())).map(drop)
    }

    /// A program in this namespace: it ends with the thread that starts it, and a Ctrl-C at the terminal
    /// reaches it only through us.
    pub(crate) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "TERM", "ip", "netns", "exec", &self.name]);
        command.arg(program).process_group(0);
        command
    }

    /// Calls `act` on a thread of its own in this namespace; sockets that it opens stay here for good.
    pub(crate) fn enter<T: Send>(&self, act: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let namespace = fs::File::open(Path::new(NAMES).join(&self.name))?;
        thread::scope(|scope| {
            let inside = scope.spawn(|| {
                move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
                    .with_context(|| format!("enter the network namespace {}", self.name))?;
                act()
            });
            inside.join().expect("what is done inside a namespace does not panic")
        })
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        delete(&self.name);
    }
}

/// Deletes the namespaces of runs that are no more.
pub(super) fn sweep() -> Result<()> {
    let Ok(names) = fs::read_dir(NAMES) else {
        return Ok(());
    };
    for name in names {
        let name = name?.file_name().to_string_lossy().into_owned();
        if is_left_behind(&name, |pid| Path::new("/proc").join(pid).exists()) {
            delete(&name);
        }
    }
    Ok(())
}

/// Whether this is the name of something that a run made which is no more.
pub(super) fn is_left_behind(name: &str, lives: impl Fn(&str) -> bool) -> bool {
    name.strip_prefix(PREFIX)
        .and_then(|rest| rest.rsplit('-').next())
        .is_some_and(|pid| pid.parse::<u32>().is_ok() && !lives(pid))
}

fn delete(name: &str) {
    // Not through `process::run`: a signal that asks for an end must not keep us from tidying up.
    match Command::new("ip").args(["netns", "delete", name]).status() {
        Ok(status) if status.success() => {}
        _ => eprintln!("{name} could not be deleted: run `ip netns delete {name}`"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_dead_run_made_is_left_behind() {
        let lives = |pid: &str| pid == "77";
        assert!(is_left_behind("throttle-play-server-78", lives));
        assert!(is_left_behind("throttle-play-78", lives));
        assert!(!is_left_behind("throttle-play-server-77", lives));
        assert!(!is_left_behind("throttle-play-server-mine", lives));
        assert!(!is_left_behind("another-78", lives));
    }
}
