//! The folder of a playground: sockets, logs, the agent's state, and a bpffs for its pins.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{self as this, Command};

use anyhow::{Context as _, Result};

use super::namespace::is_left_behind;
use crate::process;

/// Only root writes here, so nobody else can lay something in the way.
const PLACE: &str = "/run";

/// A folder with a bpffs of its own inside, unmounted and removed on drop.
pub(crate) struct Scratch {
    pub(crate) folder: PathBuf,
}

impl Scratch {
    pub(super) fn new() -> Result<Self> {
        let folder = Path::new(PLACE).join(format!("throttle-play-{}", this::id()));
        fs::create_dir(&folder).with_context(|| format!("make the folder {}", folder.display()))?;
        let scratch = Self { folder };
        fs::create_dir(scratch.pins())?;
        process::run(Command::new("mount").args(["-t", "bpf", "bpf"]).arg(scratch.pins()))
            .context("mount a bpffs for the playground's pins")?;
        Ok(scratch)
    }

    /// Where the agent may pin.
    pub(crate) fn pins(&self) -> PathBuf {
        self.folder.join("bpf")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        remove(&self.folder);
    }
}

/// Removes the folders of runs that are no more.
pub(super) fn sweep() -> Result<()> {
    for entry in fs::read_dir(PLACE)? {
        let entry = entry?;
        let name = entry.file_name();
        if is_left_behind(&name.to_string_lossy(), |pid| Path::new("/proc").join(pid).exists()) {
            remove(&entry.path());
        }
    }
    Ok(())
}

fn remove(folder: &Path) {
    // A folder whose bpffs was never mounted is removed all the same, so the outcome of this does not matter.
    let _ = Command::new("umount").arg("--quiet").arg(folder.join("bpf")).status();
    if let Err(error) = fs::remove_dir_all(folder) {
        let folder = folder.display();
        eprintln!("{folder} could not be removed ({error}): run `umount {folder}/bpf; rm -r {folder}`");
    }
}
