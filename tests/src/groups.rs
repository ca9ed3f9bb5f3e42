//! Control groups of processes: a cgroup2 of a test's own, where processes are put that an agent watches.

use crate::{machine, netns::Namespace, say};
use anyhow::{Context, Result};
use std::{
    fs,
    path::{Path, PathBuf},
    process::{self, Command},
    sync::atomic::{AtomicU32, Ordering},
};
use tempfile::TempDir;

/// A control group of our own, removed when it is dropped.
#[derive(Debug)]
pub struct Group {
    path: PathBuf,
    mount: TempDir,
}

impl Group {
    /// Makes one; `None`, said aloud, where there is no cgroup2. It lies in a mount of its own, which is also there inside of
    /// namespaces, where `/sys` is another one.
    pub fn new(role: &str) -> Result<Option<Self>> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let mount = tempfile::Builder::new().prefix("throttle-tests-group-").tempdir().context("make a directory")?;
        if let Err(why) = machine::run(Command::new("mount").args(["-t", "cgroup2", "cgroup2"]).arg(mount.path())) {
            say!("skipped what processes dial: no cgroup2 can be mounted: {why:#}");
            return Ok(None);
        }
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let group = Self { path: mount.path().join(format!("throttle-{}-{number}-{role}", process::id())), mount };
        fs::create_dir(&group.path).with_context(|| format!("make {}", group.path.display()))?;
        Ok(Some(group))
    }

    /// Its directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A command that will run in the group and on a host; the process is the program itself.
    pub fn command(&self, host: &Namespace, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("bash");
        command.args(["-c", "echo $$ > \"$0\" && exec \"$@\""]).arg(self.path.join("cgroup.procs"));
        command.args(["ip", "netns", "exec", host.name()]).arg(program);
        command
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let removed = fs::remove_dir(&self.path).context("remove the group");
        let gone = removed.and_then(|()| machine::run(Command::new("umount").arg("--lazy").arg(self.mount.path())));
        if let Err(error) = gone {
            say!("left behind: {}: {error:#}", self.path.display());
        }
    }
}
