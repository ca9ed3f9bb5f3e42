//! The names of our objects in the BPF file system: what keeps enforcing while no agent runs.
//!
//! ```text
//! <pin-dir>/maps/<MAP>          the maps, by their names
//! <pin-dir>/maps-new/           the same while they are being made; renamed when they are complete
//! <pin-dir>/maps-old/           those of an earlier layout, until nothing has to be carried over from them any more
//! <pin-dir>/links/<interface>   the attachments
//! <pin-dir>/egress/<interface>  the attachments of the program that sees packets leave, where they are links
//! <pin-dir>/sockets             the programs that watch sockets
//! <pin-dir>/sockets_again
//! <pin-dir>/connect4            the attachments of the programs that see what processes dial
//! <pin-dir>/connect6
//! ```
//!
//! The directory is locked by the agent that uses it. What else lies in the file system is not touched.

use std::{
    fs, io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::fs::DirBuilderExt,
    },
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use rustix::mount::MountFlags;
use throttle_common::records::maps;

use super::{
    OpenError, bpf,
    claim::{LINGER, lock_directory, outlives_this_process},
    connecting::unguard,
    egress::{unsee, unsee_all},
    rename::{open_link, pin_of},
    sockets::unwatch,
};

/// Where the BPF file system is mounted by convention.
pub(super) const MOUNT_POINT: &str = "/sys/fs/bpf";
/// `BPF_FS_MAGIC` of include/uapi/linux/magic.h.
const MAGIC: i64 = 0xcafe_4a11;

/// The maps that outlive the agent, but for [`LATER`].
pub(super) const PINNED: [&str; 32] = [
    maps::CONTROL,
    maps::POLICIES,
    maps::LIMITS,
    maps::SERVICES,
    maps::TENANTS,
    maps::OVERRIDES,
    maps::CANDIDATE_LISTS,
    maps::PORTS,
    maps::CLOCKS,
    maps::WINDOWS,
    maps::BREAKERS,
    maps::BACKENDS,
    maps::EXCHANGES,
    maps::ANSWERS,
    maps::BUCKETS,
    maps::AGGREGATES,
    maps::LEASES,
    maps::PROVEN,
    maps::CONNECTIONS,
    maps::HANDSHAKES,
    maps::SYN_ACKS,
    maps::SOURCES_V4,
    maps::SOURCES_V6,
    maps::PREFIXES_V4,
    maps::PREFIXES_V6,
    maps::REASON_TALLIES,
    maps::LIMIT_TALLIES,
    maps::LOSSES,
    maps::EVENT_BUCKETS,
    maps::ANSWER_BUCKET,
    maps::EVENTS,
    maps::TEST_CLOCK,
];

/// Those that an earlier build of this layout has not pinned: they are made then, and read as if they had always been there.
pub(super) const LATER: [&str; 7] = [
    maps::PAGES,
    maps::PAGE_TALLIES,
    maps::PENALTIES,
    maps::REFUSALS,
    maps::OFFENCES,
    maps::OFFENCE_BUCKETS,
    maps::PENALTY_TALLIES,
];

/// A pin directory that is ours until this is dropped.
pub(super) struct Pins {
    root: PathBuf,
    lasting: bool,
    _lock: OwnedFd,
}

impl Pins {
    /// Makes the directory where it is absent, mounting the BPF file system first if need be, and locks it.
    pub(super) fn open(root: &Path) -> Result<Self, OpenError> {
        mount_where_absent(root)?;
        create(root).with_context(|| {
            let shown = root.display();
            format!("cannot make the pin directory {shown}; as root: install -d -o USER -m 700 {shown}")
        })?;
        let Some(lock) = lock_directory(root, LINGER)? else {
            return Err(OpenError::InUse { pin_dir: root.to_owned() });
        };
        let lasting = outlives_this_process(root);
        let pins = Self { root: root.to_owned(), lasting, _lock: lock };
        create(&links(root)).context("cannot make the directory of links")?;
        pins.mend_names().context("cannot name the maps that an earlier agent left")?;
        // What an agent left that died while it made its maps: nothing is attached to them yet.
        remove_maps(&drafts(root)).context("cannot remove unfinished maps")?;
        Ok(pins)
    }

    /// The directory.
    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// The directory of the maps, if they have been made.
    pub(super) fn maps(&self) -> Option<PathBuf> {
        Some(finished(&self.root)).filter(|directory| directory.is_dir())
    }

    /// An empty directory for maps that are yet to be filled.
    pub(super) fn draft(&self) -> Result<Draft> {
        let directory = drafts(&self.root);
        create(&directory).context("cannot make the directory of maps")?;
        Ok(Draft { directory })
    }

    /// Where the link of an interface is pinned.
    pub(super) fn link(&self, interface: &str) -> PathBuf {
        link_path(&self.root, interface)
    }

    /// Whether what is pinned stays when this process and its children have ended.
    pub(super) fn lasting(&self) -> bool {
        self.lasting
    }

    /// Whether somebody removed the pins under us: `throttle detach --force` does.
    pub(super) fn removed(&self) -> bool {
        !links(&self.root).is_dir()
    }
}

/// Maps in the making, removed unless they are finished.
pub(super) struct Draft {
    directory: PathBuf,
}

impl Draft {
    /// Where to pin them.
    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Puts them in their place, all at once.
    pub(super) fn finish(self, pins: &Pins) -> Result<()> {
        fs::rename(&self.directory, finished(&pins.root)).context("cannot name the maps")
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        // Where they were finished, there is nothing left to remove.
        if let Err(error) = remove_maps(&self.directory) {
            tracing::warn!("cannot remove unfinished maps in {}: {error}", self.directory.display());
        }
    }
}

pub(super) fn finished(root: &Path) -> PathBuf {
    root.join("maps")
}

pub(super) fn drafts(root: &Path) -> PathBuf {
    root.join("maps-new")
}

pub(super) fn superseded(root: &Path) -> PathBuf {
    root.join("maps-old")
}

fn links(root: &Path) -> PathBuf {
    root.join("links")
}

/// The directory of the links of the program that sees packets leave.
pub(super) fn egress(root: &Path) -> PathBuf {
    root.join("egress")
}

pub(super) fn create(directory: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)
}

/// The path of the pin with an interface's name.
pub(super) fn link_path(root: &Path, interface: &str) -> PathBuf {
    links(root).join(file_name(interface))
}

/// The BPF file system allows no full stop in a name, but VLAN interfaces have one: `eth0.100` is `eth0%2e100` here.
pub(super) fn file_name(interface: &str) -> String {
    interface.replace('%', "%25").replace('.', "%2e")
}

fn interface_name(file: &str) -> String {
    file.replace("%2e", ".").replace("%25", "%")
}

pub(super) fn linked(root: &Path) -> io::Result<Vec<String>> {
    let files = what_is_in(&links(root))?;
    let mut names: Vec<_> =
        files.iter().filter_map(|file| Some(interface_name(&file.file_name()?.to_string_lossy()))).collect();
    names.sort_unstable();
    Ok(names)
}

/// Removes the maps of a directory, whatever layout they have.
pub(super) fn remove_maps(directory: &Path) -> io::Result<usize> {
    let held = what_is_in(directory)?;
    held.iter().try_for_each(fs::remove_file)?;
    remove_if_empty(directory)?;
    Ok(held.len())
}

pub(super) fn remove_if_empty(directory: &Path) -> io::Result<()> {
    match fs::remove_dir(directory) {
        Err(error) if !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::DirectoryNotEmpty) => Err(error),
        _ => Ok(()),
    }
}

/// Whether the path, or what exists of it, lies in a BPF file system.
pub(super) fn on_bpffs(path: &Path) -> bool {
    path.ancestors().find_map(|ancestor| rustix::fs::statfs(ancestor).ok()).is_some_and(|status| status.f_type == MAGIC)
}

fn mount_where_absent(root: &Path) -> Result<(), OpenError> {
    if on_bpffs(root) {
        return Ok(());
    }
    if !root.starts_with(MOUNT_POINT) {
        return Err(OpenError::NotBpffs { pin_dir: root.to_owned() });
    }
    rustix::mount::mount("bpf", MOUNT_POINT, "bpf", MountFlags::empty(), Some(c"mode=0700"))
        .map_err(|error| OpenError::CannotMount { source: error.into() })?;
    tracing::info!("mounted the BPF file system at {MOUNT_POINT}, where there was none");
    Ok(())
}

/// What [`detach_all`] took away.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Detached {
    /// The interfaces that were throttled.
    pub interfaces: Vec<String>,
    /// How many maps were removed: with them go buckets, counters and blocks.
    pub maps: usize,
    /// What lies in the directory still, because it is none of ours.
    pub left: Vec<PathBuf>,
}

/// Takes every program off its interface and removes all maps, whether or not an agent runs. A running agent goes on
/// with maps that judge nothing; stop it first, or ask it to detach.
pub fn detach_all(root: &Path) -> Result<Detached> {
    let mut detached = Detached::default();
    let denied = || format!("cannot read {}; run this as root or as the agent's user", root.display());
    // A running agent attaches again at once, until it has no directory to pin in.
    loop {
        let mut again = false;
        for interface in linked(root).with_context(denied)? {
            if detach_pin(root, &interface)? {
                again = true;
                detached.interfaces.push(interface);
            }
        }
        remove_if_empty(&links(root))?;
        if !again || !links(root).is_dir() {
            break;
        }
    }
    detached.interfaces.sort_unstable();
    detached.interfaces.dedup();
    unsee_all(root)?;
    unwatch(root)?;
    unguard(root)?;
    detached.maps =
        [finished, drafts, superseded].iter().map(|place| remove_maps(&place(root))).sum::<io::Result<_>>()?;
    match remove_if_empty(root) {
        // Made for us by somebody who keeps it.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
        result => result.with_context(|| format!("cannot remove {}", root.display()))?,
    }
    detached.left = what_is_in(root).with_context(denied)?;
    Ok(detached)
}

/// What a directory has, in order; nothing where it is not there.
fn what_is_in(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut found = entries.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
    found.sort_unstable();
    Ok(found)
}

/// Takes the program off one interface, whether or not an agent runs; the maps stay. `false` where none is pinned for it.
pub fn detach_interface(root: &Path, interface: &str) -> Result<bool> {
    pin_of(root, interface)?.map_or(Ok(false), |pin| detach_pin(root, &pin))
}

fn detach_pin(root: &Path, pin: &str) -> Result<bool> {
    let Some((link, info)) = open_link(root, pin)? else { return Ok(false) };
    let ours = info.kind == bpf::XDP_LINK;
    if ours {
        let path = link_path(root, pin);
        unsee(root, info.interface)?;
        remove_link(link.as_fd(), &path).with_context(|| format!("cannot detach from {pin}"))?;
    }
    Ok(ours)
}

/// Ends a link, whoever else holds it, and removes its pin.
pub(super) fn remove_link(link: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    bpf::link_detach(link)?;
    fs::remove_file(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_interface_has_a_file_name_of_its_own() {
        let names = ["eth0", "eth0.100", "eth0%2e100", "a%b.c", "%", "."];
        for name in names {
            assert!(!file_name(name).contains('.'));
            assert_eq!(interface_name(&file_name(name)), name);
        }
    }
}
