//! Where the kernel has no links on what leaves (before Linux 6.6): a filter of the queueing discipline `clsact`, which
//! `tc filter show dev eth0 egress` shows.
//!
//! It holds its program, outlives the agent and ends with the interface. Its name says by which pins it is enforced, and
//! whether it brought the discipline along: no other record is kept, so none can differ from what is there. It stands
//! behind the filters of others, at a place of its own.

use std::{fs, io, os::fd::BorrowedFd, path::Path};

use anyhow::{Context, Result, bail};

use super::{
    bpf, interfaces,
    netlink::{CREATE, EXCLUSIVE, ROUTE, attribute, attributes, dump, number, tell, text},
};

/// The place of the filter: the priority of the filters that are asked last, and its number among those.
const PRIORITY: u16 = 60_000;
const HANDLE: u32 = 1;

/// How the name of a filter of ours begins; behind it stand the pins.
const BESIDE_OTHERS: &str = "throttle:";
/// The same where the discipline was made for it.
const WITH_DISCIPLINE: &str = "throttle+clsact:";

/// `RTM_NEWQDISC` and its like of include/uapi/linux/rtnetlink.h.
mod message {
    pub(super) const NEW_DISCIPLINE: u16 = 36;
    pub(super) const DELETE_DISCIPLINE: u16 = 37;
    pub(super) const GET_DISCIPLINE: u16 = 38;
    pub(super) const NEW_FILTER: u16 = 44;
    pub(super) const DELETE_FILTER: u16 = 45;
    pub(super) const GET_FILTER: u16 = 46;
}

/// `TC_H_CLSACT` of include/uapi/linux/pkt_sched.h, and what is under it.
mod parent {
    pub(super) const CLSACT: u32 = 0xffff_fff1;
    pub(super) const INGRESS: u32 = 0xffff_fff2;
    pub(super) const EGRESS: u32 = 0xffff_fff3;
}

/// The number that the discipline has everywhere.
const DISCIPLINE: u32 = 0xffff_0000;
const CLSACT: &str = "clsact";
const BPF: &str = "bpf";

/// `TCA_KIND` and `TCA_OPTIONS` of include/uapi/linux/rtnetlink.h; of the latter, `TCA_BPF_*` of pkt_cls.h.
mod option {
    pub(super) const KIND: u16 = 1;
    pub(super) const OPTIONS: u16 = 2;
    pub(super) const PROGRAM: u16 = 6;
    pub(super) const NAME: u16 = 7;
    pub(super) const FLAGS: u16 = 8;
}

/// `TCA_BPF_FLAG_ACT_DIRECT`: what the program returns is what is done.
const DIRECT_ACTION: u32 = 1;

/// `struct tcmsg`.
const HEADER: usize = 20;

/// A filter, or a discipline.
#[derive(Debug, Default, PartialEq, Eq)]
struct Entry {
    interface: u32,
    handle: u32,
    parent: u32,
    priority: u16,
    kind: String,
    name: String,
}

impl Entry {
    /// What we would put on an interface.
    fn ours(interface: u32) -> Self {
        let (parent, kind) = (parent::EGRESS, BPF.to_owned());
        Self { interface, handle: HANDLE, parent, priority: PRIORITY, kind, name: String::new() }
    }

    fn discipline(interface: u32) -> Self {
        let (handle, parent, kind) = (DISCIPLINE, parent::CLSACT, CLSACT.to_owned());
        Self { interface, handle, parent, kind, ..Self::default() }
    }

    fn parse(message: &[u8]) -> Option<Self> {
        let header = message.get(..HEADER)?;
        let [interface, handle, parent, info] = [4, 8, 12, 16].map(|at| number(&header[at..]));
        let mut entry = Self { interface, handle, parent, priority: (info >> 16) as u16, ..Self::default() };
        for (kind, value) in attributes(&message[HEADER..]) {
            match kind {
                option::KIND => entry.kind = text(value),
                option::OPTIONS if entry.kind == BPF => {
                    let name = attributes(value).find(|&(kind, _)| kind == option::NAME);
                    entry.name = name.map(|(_, value)| text(value)).unwrap_or_default();
                }
                _ => {}
            }
        }
        Some(entry)
    }

    /// The message that names it, for what is to be done with it.
    fn message(&self) -> Vec<u8> {
        // A filter is for all protocols; a discipline knows none.
        let protocol = if self.priority == 0 { 0 } else { (libc::ETH_P_ALL as u16).to_be() };
        let info = u32::from(self.priority) << 16 | u32::from(protocol);
        let words = [0, self.interface, self.handle, self.parent, info];
        let kind = attribute(option::KIND, &[self.kind.as_bytes(), b"\0"].concat());
        words.into_iter().flat_map(u32::to_ne_bytes).chain(kind).collect()
    }

    /// The pins of the throttle that put it there, if one did.
    fn owner(&self) -> Option<&str> {
        self.name.strip_prefix(BESIDE_OTHERS).or_else(|| self.name.strip_prefix(WITH_DISCIPLINE))
    }
}

/// Has a program see what leaves by an interface; in the place of the one that does, without a packet in between that
/// neither sees.
pub(super) fn see(program: BorrowedFd<'_>, interface: u32, root: &Path) -> Result<()> {
    let before = at_our_place(interface)?;
    if let Some(Entry { kind, name, .. }) = before.as_ref().filter(|filter| filter.owner().is_none()) {
        bail!("a filter of somebody else, {kind} `{name}`, has our place: tc filter show egress pref {PRIORITY}");
    }
    let made = match discipline(interface)?.as_deref() {
        Some(CLSACT) => before.is_some_and(|filter| filter.name.starts_with(WITH_DISCIPLINE)),
        Some(kind) => bail!("a queueing discipline `{kind}` has the place of clsact: tc qdisc show"),
        None => {
            tell(ROUTE, message::NEW_DISCIPLINE, CREATE | EXCLUSIVE, &Entry::discipline(interface).message())
                .context("the kernel makes no clsact (CONFIG_NET_SCH_INGRESS)")?;
            true
        }
    };
    let name = format!("{}{}\0", if made { WITH_DISCIPLINE } else { BESIDE_OTHERS }, owner(root));
    let options = [
        attribute(option::PROGRAM, &bpf::number(program).to_ne_bytes()),
        attribute(option::NAME, name.as_bytes()),
        attribute(option::FLAGS, &DIRECT_ACTION.to_ne_bytes()),
    ];
    let filter = [Entry::ours(interface).message(), attribute(option::OPTIONS, &options.concat())].concat();
    tell(ROUTE, message::NEW_FILTER, CREATE, &filter)
        .context("the kernel takes no filter (CONFIG_NET_CLS_BPF)")
        .or_else(|error| {
            if made {
                remove_discipline(interface)?;
            }
            Err(error)
        })
}

/// Whether a program that these pins enforce sees what leaves by an interface.
pub(super) fn sees(interface: u32, root: &Path) -> Result<bool> {
    Ok(at_our_place(interface)?.is_some_and(|filter| filter.owner() == Some(&owner(root))))
}

/// Ends that, and takes the discipline away too where it came with the filter and nobody else uses it.
pub(super) fn unsee(interface: u32, root: &Path) -> Result<()> {
    let Some(filter) = at_our_place(interface)?.filter(|filter| filter.owner() == Some(&owner(root))) else {
        return Ok(());
    };
    let removed = tell(ROUTE, message::DELETE_FILTER, 0, &Entry::ours(interface).message());
    unless_gone(removed).context("cannot remove the filter that sees packets leave")?;
    if filter.name.starts_with(WITH_DISCIPLINE) { remove_discipline(interface) } else { Ok(()) }
}

/// Ends it on every interface of this network namespace.
pub(super) fn unsee_all(root: &Path) -> Result<()> {
    let all = interfaces().context("cannot list the interfaces")?;
    all.iter().try_for_each(|device| unsee(device.index, root))
}

/// Takes the discipline away where it has no filter.
fn remove_discipline(interface: u32) -> Result<()> {
    let used = |parent| filters(interface, parent).map(|filters| !filters.is_empty());
    if used(parent::INGRESS)? || used(parent::EGRESS)? {
        return Ok(());
    }
    let removed = tell(ROUTE, message::DELETE_DISCIPLINE, 0, &Entry::discipline(interface).message());
    unless_gone(removed).context("cannot remove the clsact that was made for it")
}

/// What an interface that went in the meantime took along need not be removed.
fn unless_gone(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENODEV)) => Ok(()),
        result => result,
    }
}

/// What stands where our filter would.
fn at_our_place(interface: u32) -> Result<Option<Entry>> {
    let place = (PRIORITY, HANDLE);
    let mut filters = filters(interface, parent::EGRESS)?.into_iter();
    Ok(filters.find(|filter| (filter.priority, filter.handle) == place))
}

fn filters(interface: u32, parent: u32) -> Result<Vec<Entry>> {
    let all = Entry { interface, parent, ..Entry::default() };
    list(message::GET_FILTER, &all.message()[..HEADER]).context("cannot list the filters")
}

/// What is in the place of clsact, by its name.
fn discipline(interface: u32) -> Result<Option<String>> {
    let all = list(message::GET_DISCIPLINE, &[0; HEADER]).context("cannot list the queueing disciplines")?;
    let there = all.into_iter().find(|entry| entry.interface == interface && entry.parent == parent::CLSACT);
    Ok(there.map(|entry| entry.kind))
}

/// A kernel without any of the kind has none.
fn list(kind: u16, body: &[u8]) -> io::Result<Vec<Entry>> {
    match dump(ROUTE, kind, body) {
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => Ok(Vec::new()),
        answers => Ok(answers?.iter().filter_map(|message| Entry::parse(message)).collect()),
    }
}

/// How pins are named: the same for whoever looks.
fn owner(root: &Path) -> String {
    fs::canonicalize(root).unwrap_or_else(|_| root.to_owned()).display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_is_read_as_it_is_written() {
        let name = attribute(option::NAME, b"throttle+clsact:/sys/fs/bpf/throttle\0");
        let message = [Entry::ours(7).message(), attribute(option::OPTIONS, &name)].concat();
        let read = Entry::parse(&message).unwrap();
        assert_eq!(read.owner(), Some("/sys/fs/bpf/throttle"));
        assert_eq!(Entry { name: String::new(), ..read }, Entry::ours(7));
    }

    #[test]
    fn a_name_that_is_like_ours_is_not_ours() {
        let named = |name: &str| Entry { name: name.to_owned(), ..Entry::ours(7) };
        for name in ["", "throttle", "throttle-leaving:[42]", "bpf_lxc.o:[to-netdev]"] {
            assert_eq!(named(name).owner(), None, "{name}");
        }
    }
}
