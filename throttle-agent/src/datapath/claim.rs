//! Whose a pin directory is: which process uses it, and what it outlives.

use std::{
    fs,
    os::fd::{AsFd, OwnedFd},
    path::Path,
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use rustix::{
    fs::{FlockOperation, Mode, OFlags},
    io::Errno,
};

/// What becomes of pins that only this mount namespace sees, and the remedy.
pub const PRIVATE_PINS: &str = "its pins lie in a BPF file system that only its own mount namespace sees (as under `ip \
     netns exec`), and go with it; choose a --pin-dir in one that the host has mounted, e.g. by `mount -t bpf bpf DIR`";

/// How long an agent that was killed may keep its locks: until the kernel has put it away.
pub const LINGER: Duration = Duration::from_secs(3);
/// How often a lock is asked for.
const LOOK: Duration = Duration::from_millis(20);

/// A pin directory that no agent uses, for as long as this lives.
#[derive(Debug)]
pub struct Claim {
    _lock: Option<OwnedFd>,
}

/// Keeps agents away from a pin directory. `None` where an agent uses it still after that time.
pub fn claim(root: &Path, patience: Duration) -> Result<Option<Claim>> {
    if !root.try_exists().with_context(|| format!("cannot read {}", root.display()))? {
        return Ok(Some(Claim { _lock: None }));
    }
    Ok(lock_directory(root, patience)?.map(|lock| Claim { _lock: Some(lock) }))
}

/// Locks a directory, unless somebody else has it locked still after that time.
pub(super) fn lock_directory(root: &Path, patience: Duration) -> Result<Option<OwnedFd>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = rustix::fs::open(root, flags, Mode::empty()).with_context(|| {
        format!("cannot open the pin directory {}; run this as root or as the agent's user", root.display())
    })?;
    let locked = lock(&directory, patience).with_context(|| format!("cannot lock {}", root.display()))?;
    Ok(locked.then_some(directory))
}

/// Locks an open file, which the kernel undoes however the process ends. `false` where somebody else has it locked still
/// after that time.
pub fn lock(file: &impl AsFd, patience: Duration) -> rustix::io::Result<bool> {
    let start = Instant::now();
    loop {
        match rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) if start.elapsed() < patience => sleep(LOOK),
            Err(Errno::WOULDBLOCK) => return Ok(false),
            result => return result.map(|()| true),
        }
    }
}

/// Whether the host has the directory's file system mounted too. Only then do pins outlive this process: with the last
/// process of a mount namespace go its mounts, with a file system's last mount go its pins, and with them what is
/// pinned. Where the host's mounts may not be read, as in a sandbox, it is taken to be so.
pub(super) fn outlives_this_process(root: &Path) -> bool {
    let device = rustix::fs::stat(root).map(|status| status.st_dev);
    match (device, fs::read_to_string("/proc/1/mountinfo")) {
        (Ok(device), Ok(mounts)) => is_mounted(rustix::fs::major(device), rustix::fs::minor(device), &mounts),
        _ => true,
    }
}

/// Whether a list of mounts (proc_pid_mountinfo(5)) has one of this device.
fn is_mounted(major: u32, minor: u32, mounts: &str) -> bool {
    let device = format!("{major}:{minor}");
    mounts.lines().any(|line| line.split(' ').nth(2) == Some(&device))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_found_in_the_third_field() {
        let mounts =
            "22 1 0:21 / /proc rw - proc proc rw\n30 23 0:27 / /sys/fs/bpf rw shared:9 - bpf bpf rw,mode=700\n";
        assert!(is_mounted(0, 27, mounts));
        assert!(!is_mounted(0, 2, mounts) && !is_mounted(0, 30, mounts));
    }

    #[test]
    fn a_claim_waits_for_an_agent_that_ends_and_not_for_one_that_stays() {
        let dir = tempfile::tempdir().unwrap();
        let agent = lock_directory(dir.path(), Duration::ZERO).unwrap().unwrap();
        assert!(claim(dir.path(), Duration::from_millis(50)).unwrap().is_none());
        std::thread::scope(|scope| {
            let claimed = scope.spawn(|| claim(dir.path(), Duration::from_secs(20)).unwrap());
            drop(agent);
            assert!(claimed.join().unwrap().is_some());
        });
        assert!(claim(&dir.path().join("absent"), Duration::ZERO).unwrap().is_some());
    }
}
