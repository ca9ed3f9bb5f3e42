//! The directories of the old maps and the new ones, which change names: at every instant one of them can be taken up.

use std::{fs, io, path::PathBuf};

use anyhow::{Context, Result};

use crate::datapath::pins::{Draft, Pins, drafts, finished, remove_maps, superseded};

impl Pins {
    /// After an agent died between the two names that [`Draft::supersede`] gives.
    pub(in crate::datapath) fn mend_names(&self) -> io::Result<()> {
        let [finished, drafts, superseded] = [finished, drafts, superseded].map(|place| place(self.root()));
        if finished.is_dir() || !superseded.is_dir() {
            return Ok(());
        }
        fs::rename(if drafts.is_dir() { drafts } else { superseded }, finished)
    }

    /// The directory of the maps that were superseded, as long as something may have to be carried over from them.
    pub(in crate::datapath) fn old(&self) -> Option<PathBuf> {
        Some(superseded(self.root())).filter(|directory| directory.is_dir())
    }

    /// Removes the maps that were superseded: all at once, as maps that nobody finished are removed at the next start.
    /// Programs that still use them keep them alive.
    pub(super) fn forget_old(&self) -> io::Result<()> {
        let rubbish = drafts(self.root());
        fs::rename(superseded(self.root()), &rubbish)?;
        remove_maps(&rubbish).map(drop)
    }
}

impl Draft {
    /// Puts them in the place of others, which get another name that no maps have. On an error those have their own again.
    pub(super) fn supersede(self, pins: &Pins, between: impl FnOnce()) -> Result<()> {
        let [finished, superseded] = [finished, superseded].map(|place| place(pins.root()));
        fs::rename(&finished, &superseded).context("cannot set the old maps aside")?;
        between();
        self.finish(pins).or_else(|error| {
            fs::rename(&superseded, &finished).context("the old maps have lost their name; start again")?;
            Err(error)
        })
    }
}
