//! Interfaces that get another name while they are throttled.
//!
//! A link belongs to an interface, whatever that is called; its pin bears the name that the interface has. Where the
//! two come apart, as after `ip link set eth0 name wan0`, the pin follows.

use std::{
    collections::BTreeMap,
    fs, io,
    os::fd::{AsFd, OwnedFd},
    path::Path,
};

use anyhow::{Context, Result};

use super::{
    Datapath, Interface,
    bpf::{self, LinkInfo},
    interfaces,
    pins::{Pins, link_path, linked},
};

/// The number of the interface that each pinned link is on, by the name of its pin; 0 where it is gone from here.
pub(super) type Links = BTreeMap<String, u32>;

/// Whether a link is on an interface. The number alone does not tell: a link goes along to another network namespace,
/// where numbers begin anew.
pub(super) fn is_on(info: &LinkInfo, device: &Interface) -> bool {
    info.interface == device.index && device.programs().any(|program| program == info.program)
}

/// The pins that bear another name than their interface, with that name.
fn misnamed(links: &Links, present: &[Interface]) -> Vec<(String, String)> {
    let name = |index: u32| present.iter().find(|device| device.index == index).map(|device| device.name.clone());
    let named = links.iter().filter_map(|(pin, &index)| Some((pin.clone(), name(index)?)));
    named.filter(|(pin, name)| pin != name).collect()
}

/// The link that is pinned under a name, if there is one.
pub(super) fn open_link(root: &Path, name: &str) -> Result<Option<(OwnedFd, LinkInfo)>> {
    let path = link_path(root, name);
    let failed = || format!("cannot open the link {}", path.display());
    match bpf::open(&path) {
        Ok(link) => {
            let info = bpf::link_info(link.as_fd()).with_context(failed)?;
            Ok(Some((link, info)))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(failed),
    }
}

/// Every pinned link, and which of the interfaces that are present it is on.
pub(super) fn links(root: &Path, present: &[Interface]) -> Result<Links> {
    let mut links = Links::new();
    for name in linked(root).with_context(|| format!("cannot list the links in {}", root.display()))? {
        if let Some((_, info)) = open_link(root, &name)? {
            let on = present.iter().find(|device| is_on(&info, device));
            links.insert(name, on.map_or(0, |device| device.index));
        }
    }
    Ok(links)
}

/// The name under which the link of an interface is pinned, if there may be one: not its own where it was renamed while
/// no agent ran.
pub(super) fn pin_of(root: &Path, interface: &str) -> Result<Option<String>> {
    let present = interfaces().context("cannot list the interfaces")?;
    let links = links(root, &present)?;
    let device = present.iter().find(|device| device.name == interface);
    let on_it = device.and_then(|device| links.iter().find(|&(_, &on)| on == device.index));
    // One that is on nothing here may be on the interface of that name in another network namespace.
    let on_none = links.get_key_value(interface).filter(|&(_, &on)| on == 0 || device.is_none());
    Ok(on_it.or(on_none).map(|(pin, _)| pin.clone()))
}

impl Pins {
    /// Gives every pin the name of its interface, and says which were renamed, from what and to what.
    pub(super) fn follow_names(&self, present: &[Interface]) -> Result<Vec<(String, String)>> {
        // No interface can have this name, so interfaces that swap theirs do not get into each other's way. An agent
        // that dies halfway leaves a pin that the next one finds misnamed.
        let aside = |name: &str| self.link(&format!(":{name}"));
        let misnamed = misnamed(&links(self.root(), present)?, present);
        for (pin, name) in &misnamed {
            fs::rename(self.link(pin), aside(name)).with_context(|| format!("cannot rename the link of {pin}"))?;
        }
        for (pin, name) in &misnamed {
            // What still has the name is a link on an interface that is gone, which gives way.
            fs::rename(aside(name), self.link(name)).with_context(|| format!("cannot rename the link of {pin}"))?;
        }
        Ok(misnamed)
    }
}

impl Datapath {
    pub(super) fn follow_names(&mut self, present: &[Interface]) -> Result<()> {
        for (pin, name) in self.pins.follow_names(present)? {
            tracing::warn!(was = pin, interface = name, "the interface has another name now; it stays throttled");
            let first = self.renamed.remove(&pin).unwrap_or(pin);
            if first != name {
                self.renamed.insert(name, first);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(name: &str, index: u32) -> Interface {
        Interface { name: name.to_owned(), index, ..Interface::default() }
    }

    #[test]
    fn a_pin_follows_its_interface_and_no_other() {
        let links = [("eth0", 2), ("eth1", 3), ("gone", 0), ("lan", 4)].map(|(name, on)| (name.to_owned(), on)).into();
        let present = [device("wan0", 2), device("eth1", 3), device("gone", 5)];
        assert_eq!(misnamed(&links, &present), [("eth0".to_owned(), "wan0".to_owned())]);
    }

    #[test]
    fn a_link_is_on_the_interface_that_has_its_program() {
        let info = LinkInfo { interface: 2, program: 7, ..LinkInfo::default() };
        assert!(is_on(&info, &Interface { native: Some(7), ..device("a", 2) }));
        assert!(is_on(&info, &Interface { generic: Some(7), ..device("a", 2) }));
        assert!(!is_on(&info, &device("a", 2)), "another's of that number, in another network namespace");
        assert!(!is_on(&info, &Interface { native: Some(7), ..device("a", 3) }));
    }
}
