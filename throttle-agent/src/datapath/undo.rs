//! What a start has pinned, taken back where the start fails.

use std::{collections::BTreeSet, path::PathBuf};

use anyhow::Result;

use super::{
    Datapath,
    connecting::unguard,
    pins::{detach_all, detach_interface},
    sockets::unwatch,
};

/// What was made since the pin directory was opened. It stays, unless it is told otherwise.
#[expect(clippy::struct_excessive_bools, reason = "each is a thing of its own that was made or not")]
pub(super) struct Undo {
    root: PathBuf,
    tentative: bool,
    /// All of it is: no earlier agent's maps were taken over.
    pub(super) maps: bool,
    /// The program that watches sockets.
    pub(super) sockets: bool,
    /// The programs that see connects.
    pub(super) connects: bool,
    /// Programs on interfaces that had none of ours.
    pub(super) links: BTreeSet<String>,
}

impl Undo {
    /// Nothing yet, in this pin directory.
    pub(super) fn nothing(root: PathBuf) -> Self {
        Self { root, tentative: false, maps: false, sockets: false, connects: false, links: BTreeSet::new() }
    }

    fn undo(&self) -> Result<()> {
        if self.maps {
            return detach_all(&self.root).map(drop);
        }
        for interface in &self.links {
            detach_interface(&self.root, interface)?;
        }
        if self.connects {
            unguard(&self.root)?;
        }
        if self.sockets { unwatch(&self.root) } else { Ok(()) }
    }
}

impl Drop for Undo {
    fn drop(&mut self) {
        if self.tentative
            && let Err(error) = self.undo()
        {
            tracing::error!("what was pinned stays, `throttle detach` removes it: {error:#}");
        }
    }
}

impl Datapath {
    /// From now on what this has pinned goes with it, until [`Datapath::keep`]: for a start that may fail. What it took
    /// over from an earlier agent stays.
    pub fn try_out(&mut self) {
        self.undo.tentative = true;
    }

    /// What this has pinned stays, whatever becomes of it.
    pub fn keep(&mut self) {
        self.undo.tentative = false;
    }
}
