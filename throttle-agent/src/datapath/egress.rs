//! Seeing packets leave: a classifier at the end of every throttled interface's way out, beside the program at its way in.
//!
//! It counts nothing by itself: where a service is counted by its packets, it tells what the service answers. It is
//! there by a link (tcx), and where the kernel has none (before Linux 6.6) by a filter ([`super::clsact`]). Where neither
//! can be had, or the kernel refuses the program, no service is counted so, and nothing else is lost.

use std::{
    fmt, fs, io,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use aya::{Ebpf, programs::SchedClassifier};

use super::{
    Datapath, Interface,
    bpf::{self, LinkInfo},
    clsact,
    pins::{create, egress, file_name, remove_if_empty, remove_link},
};

/// The program.
const PROGRAM: &str = "leaving";

/// By what it is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Egress {
    /// A link.
    Tcx,
    /// A filter.
    Clsact,
}

impl fmt::Display for Egress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcx => "tcx",
            Self::Clsact => "clsact",
        })
    }
}

impl Datapath {
    /// Begins to see what leaves by an interface, or has this build go on where an earlier one did, in its place.
    pub(super) fn see_leaving(&mut self, device: &Interface) {
        let seen = self.begin_to_see(device);
        match seen {
            Ok(()) => self.unseen.remove(&device.name),
            Err(error) => self.unseen.insert(device.name.clone(), format!("{error:#}")),
        };
        self.tables.set_sees_leaving(self.unseen.is_empty());
    }

    /// Interfaces by which packets leave unseen, so that connections through them are not counted by their packets, with
    /// the reason.
    pub fn unseen(&self) -> impl Iterator<Item = (&str, &str)> {
        self.unseen.iter().map(|(interface, reason)| (interface.as_str(), reason.as_str()))
    }

    /// Sees again what leaves by an interface where somebody ended that.
    pub(super) fn see_leaving_again(&mut self, device: &Interface) -> Result<()> {
        if !self.unseen.contains_key(&device.name) && seen(self.pins.root(), device.index)?.is_none() {
            tracing::warn!("somebody detached the program that sees packets leave by {}; it is back", device.name);
            self.see_leaving(device);
        }
        Ok(())
    }

    /// Forgets what saw packets leave by an interface that is gone.
    pub(super) fn forget_leaving(&mut self, interface: &str) -> Result<()> {
        self.unseen.remove(interface);
        self.tables.set_sees_leaving(self.unseen.is_empty());
        remove(&egress(self.pins.root()).join(file_name(interface)))
    }

    fn begin_to_see(&mut self, device: &Interface) -> Result<()> {
        let program = load(&mut self.ebpf)?;
        let (program, root) = (program.fd()?.as_fd(), self.pins.root());
        if let Err(why) = bpf::has_egress_links(device.index) {
            clsact::see(program, device.index, root).with_context(|| {
                format!("the kernel has no links on what leaves, as Linux 6.6 has ({why}), and a filter cannot be had")
            })?;
            return unlink(root, device.index);
        }
        link(program, device, root)?;
        clsact::unsee(device.index, root)
    }
}

/// Attaches it by a link, or replaces the program of the link that is there.
fn link(program: BorrowedFd<'_>, device: &Interface, root: &Path) -> Result<()> {
    let directory = egress(root);
    let path = directory.join(file_name(&device.name));
    let mut ours = on(root, device.index)?;
    if let Some((pin, link)) = ours.pop() {
        bpf::link_update(link.as_fd(), program).context("cannot replace the program that sees packets leave")?;
        return if pin == path { Ok(()) } else { fs::rename(pin, path).context("cannot rename its link") };
    }
    // Of an interface that is gone.
    remove(&path)?;
    create(&directory).context("cannot make the directory of links on what leaves")?;
    let link = bpf::link_create_egress(program, device.index).context("cannot attach to what leaves")?;
    bpf::pin(link.as_fd(), &path).context("cannot pin the link of the program that sees packets leave")
}

/// Has the kernel check and take the program.
pub(super) fn load(ebpf: &mut Ebpf) -> Result<&mut SchedClassifier> {
    let program = ebpf.program_mut(PROGRAM).with_context(|| format!("the object has no program {PROGRAM}"))?;
    let program: &mut SchedClassifier = program.try_into()?;
    if program.fd().is_err() {
        program.load().context("the kernel refuses the program that sees packets leave")?;
    }
    Ok(program)
}

/// By what it is on an interface, if it is.
pub(super) fn seen(root: &Path, interface: u32) -> Result<Option<Egress>> {
    if !on(root, interface)?.is_empty() {
        return Ok(Some(Egress::Tcx));
    }
    Ok(clsact::sees(interface, root)?.then_some(Egress::Clsact))
}

/// Ends it on one interface, whether or not an agent runs.
pub(super) fn unsee(root: &Path, interface: u32) -> Result<()> {
    clsact::unsee(interface, root)?;
    unlink(root, interface)
}

/// Ends its links on one interface.
fn unlink(root: &Path, interface: u32) -> Result<()> {
    for (pin, link) in on(root, interface)? {
        remove_link(link.as_fd(), &pin).context("cannot detach from what leaves")?;
    }
    Ok(())
}

/// Ends it everywhere.
pub(super) fn unsee_all(root: &Path) -> Result<()> {
    clsact::unsee_all(root)?;
    for (pin, link, _) in pinned(root)? {
        remove_link(link.as_fd(), &pin).context("cannot detach from what leaves")?;
    }
    remove_if_empty(&egress(root)).context("cannot remove the directory of links on what leaves")
}

/// The links on an interface.
fn on(root: &Path, interface: u32) -> Result<Vec<(PathBuf, OwnedFd)>> {
    let mine = pinned(root)?.into_iter().filter(|(.., info)| info.interface == interface);
    Ok(mine.map(|(pin, link, _)| (pin, link)).collect())
}

/// Every link of the program.
fn pinned(root: &Path) -> Result<Vec<(PathBuf, OwnedFd, LinkInfo)>> {
    let directory = egress(root);
    let failed = || format!("cannot read {}", directory.display());
    let entries = match fs::read_dir(&directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.with_context(failed)?,
    };
    let mut links = Vec::new();
    for entry in entries {
        let path = entry.with_context(failed)?.path();
        let link = bpf::open(&path).with_context(failed)?;
        let info = bpf::link_info(link.as_fd()).with_context(failed)?;
        if info.kind == bpf::TCX_LINK {
            links.push((path, link, info));
        }
    }
    Ok(links)
}

fn remove(pin: &Path) -> Result<()> {
    match fs::remove_file(pin) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error).context("cannot remove a stale link"),
        _ => Ok(()),
    }
}
