//! A BPF file system of our own: what a test pins is gone when it ends, and no test sees another's.

use crate::machine;
use anyhow::{Context, Result};
use std::{
    path::{Path, PathBuf},
    process::Command,
};
use tempfile::TempDir;

/// A directory with a BPF file system mounted in it, and room for other files beside it.
#[derive(Debug)]
pub struct Pins {
    directory: TempDir,
}

impl Pins {
    /// Mounts one.
    pub fn new() -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("throttle-tests-").tempdir().context("make a directory")?;
        let pins = Self { directory };
        std::fs::create_dir(pins.mount_point()).context("make a mount point")?;
        machine::run(Command::new("mount").args(["-t", "bpf", "bpf"]).arg(pins.mount_point()))?;
        Ok(pins)
    }

    /// Where objects are pinned.
    pub fn pin_dir(&self) -> PathBuf {
        self.mount_point().join("throttle")
    }

    /// An ordinary directory that lives as long.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    fn mount_point(&self) -> PathBuf {
        self.directory.path().join("bpf")
    }
}

impl Drop for Pins {
    fn drop(&mut self) {
        if let Err(error) = machine::run(Command::new("umount").arg("--lazy").arg(self.mount_point())) {
            machine::print(&format!("left behind: {error:#}"));
        }
    }
}
