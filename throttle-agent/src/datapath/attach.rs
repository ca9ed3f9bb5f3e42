//! Putting the programs on interfaces, and taking them off.
//!
//! An attachment is a link that is pinned under the interface's name: it outlives the agent, follows the interface to
//! another name, and ends with it.
//! A program of ours that is there already is replaced through its link, without a packet in between that neither sees.
//! A program of somebody else is named and left alone.

use std::{
    fmt, io,
    os::fd::{AsFd, BorrowedFd},
    str::FromStr,
};

use anyhow::{Context, Result, anyhow, bail};
use serde::{Deserialize, Serialize};

use super::{
    Datapath, Egress, Interface, PROGRAMS,
    bpf::{self, LinkInfo},
    egress, ethtool,
    foreign::foreign,
    interfaces,
    load::load_program,
    pins::{detach_interface, remove_link},
    rename::{is_on, links, open_link},
    stacked::{Overlap, overlap},
};

/// Where in the receive path a program is to sit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// In the driver where it can, else in the network stack, which is said loudly.
    #[default]
    Auto,
    /// In the driver: before the kernel allocates anything for the packet.
    Native,
    /// In the network stack: works on every interface, and costs about as much as a firewall rule.
    Generic,
}

impl FromStr for Mode {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "auto" => Ok(Self::Auto),
            "native" => Ok(Self::Native),
            "generic" => Ok(Self::Generic),
            _ => bail!("no such XDP mode: {text}; one of auto, native, generic"),
        }
    }
}

/// Where a program sits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum XdpMode {
    /// In the driver.
    Native,
    /// In the network stack, after the packet buffer was allocated.
    Generic,
}

impl From<XdpMode> for Mode {
    fn from(mode: XdpMode) -> Self {
        match mode {
            XdpMode::Native => Self::Native,
            XdpMode::Generic => Self::Generic,
        }
    }
}

impl fmt::Display for XdpMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Native => "native",
            Self::Generic => "generic",
        })
    }
}

/// What is between us and an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// A program of ours judges its packets.
    Attached(XdpMode),
    /// There is no such interface now.
    Absent,
    /// It is there, and a program could not be attached; or something detached it.
    Refused(String),
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Attached(mode) => write!(f, "attached, {mode}"),
            Self::Absent => f.write_str("absent"),
            Self::Refused(reason) => write!(f, "refused: {reason}"),
        }
    }
}

/// An interface that is ours to throttle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// Its name.
    pub interface: String,
    /// What it was called when it was attached to, where that is not its name now.
    pub was: Option<String>,
    /// What was asked for; `None` where an earlier agent attached it and this one was not asked to.
    pub asked: Option<Mode>,
    /// What became of it.
    pub standing: Standing,
    /// By what the packets that leave by it are seen, if they are.
    pub egress: Option<Egress>,
    /// Its number, 0 while it is absent.
    pub index: u32,
    /// Its MTU, 0 while it is absent.
    pub mtu: u32,
    /// Its driver; empty where it does not say.
    pub driver: String,
}

impl Datapath {
    /// Attaches to an interface, or replaces our own earlier program there: without a gap where it stays in its mode,
    /// within milliseconds where the mode changes. On an error nothing has changed, or the error says so.
    pub fn attach(&mut self, interface: &str, mode: Mode) -> Result<Attachment> {
        let all = interfaces().context("cannot list the interfaces")?;
        let device = all.iter().find(|device| device.name == interface).ok_or_else(|| {
            let names: Vec<_> = all.iter().map(|device| device.name.as_str()).collect();
            anyhow!("there is no interface {interface}; there are: {}", names.join(", "))
        })?;
        self.follow_names(&all)?;
        self.keep_apart(device, &all)?;
        self.know_station(device)?;
        let fresh = !self.pins.link(interface).exists();
        let standing = self.attach_to(device, mode)?;
        if fresh {
            self.undo.links.insert(interface.to_owned());
        }
        self.see_leaving(device);
        self.asked.insert(interface.to_owned(), mode);
        self.refused.remove(interface);
        let egress = egress::seen(self.pins.root(), device.index).unwrap_or_default();
        Ok(Attachment { egress, ..attachment(interface, Some(mode), Some(device), Standing::Attached(standing)) })
    }

    /// Makes an interface ours without attaching now: [`Datapath::reattach`] does, once it is there.
    pub fn expect(&mut self, interface: &str, mode: Mode) {
        self.asked.insert(interface.to_owned(), mode);
    }

    /// Takes our program off an interface. Without one there it only forgets that it was asked for.
    pub fn detach(&mut self, interface: &str) -> Result<()> {
        detach_interface(self.pins.root(), interface)?;
        self.asked.remove(interface);
        self.refused.remove(interface);
        self.renamed.remove(interface);
        self.forget_leaving(interface)
    }

    /// Every interface that is ours, by name.
    pub fn attachments(&self) -> Result<Vec<Attachment>> {
        let all = interfaces().context("cannot list the interfaces")?;
        let links = links(self.pins.root(), &all)?;
        let mut names: Vec<&String> = links.keys().chain(self.asked.keys()).collect();
        names.sort_unstable();
        names.dedup();
        let attachments = names.into_iter().map(|name| {
            let linked = all.iter().find(|device| links.get(name) == Some(&device.index));
            let device = linked.or_else(|| all.iter().find(|device| device.name == *name));
            let standing = match (linked, device) {
                (Some(device), _) => match open_link(self.pins.root(), name)? {
                    Some((_, info)) => Standing::Attached(mode_of(device, &info)),
                    None => Standing::Absent,
                },
                (None, None) => Standing::Absent,
                (None, Some(_)) => {
                    let reason = self.refused.get(name).map_or("not attached", |refused| refused.reason.as_str());
                    Standing::Refused(reason.to_owned())
                }
            };
            let was = self.renamed.get(name).cloned();
            let egress = match linked {
                Some(device) => egress::seen(self.pins.root(), device.index)?,
                None => None,
            };
            Ok(Attachment { was, egress, ..attachment(name, self.asked.get(name).copied(), device, standing) })
        });
        attachments.collect()
    }

    /// Refuses to throttle an interface beside one on top of it, or below it. Where both are throttled already, as one is put
    /// into a bridge later, they stay so, and it is said.
    fn keep_apart(&self, device: &Interface, all: &[Interface]) -> Result<()> {
        let links = links(self.pins.root(), all)?;
        let Some(Overlap { text, remedy }) = overlap(device, all, &links) else { return Ok(()) };
        let interface = &device.name;
        if links.get(interface) != Some(&device.index) {
            bail!("cannot attach to {interface}: {text}; {remedy}");
        }
        tracing::warn!(interface, "{text}; {remedy}");
        Ok(())
    }

    fn attach_to(&mut self, device: &Interface, mode: Mode) -> Result<XdpMode> {
        let name = &device.name;
        let ours = match open_link(self.pins.root(), name)? {
            Some((link, info)) if is_on(&info, device) => Some((link, info)),
            Some((link, _)) => {
                // Of an interface that is gone; one that has another name now has its link under that.
                remove_link(link.as_fd(), &self.pins.link(name))
                    .with_context(|| format!("cannot remove the stale link of {name}"))?;
                None
            }
            None => None,
        };
        let own_program = ours.as_ref().map(|(_, info)| info.program);
        if let Some(id) = device.programs().find(|&id| Some(id) != own_program) {
            bail!("{}", foreign(device, id, self.pins.root()));
        }
        let Some((link, info)) = ours else { return self.attach_anew(device, mode) };
        let in_force = mode_of(device, &info);
        if mode == Mode::Auto || mode == Mode::from(in_force) {
            self.first_that_works(|program| bpf::link_update(link.as_fd(), program))
                .map_err(|error| explain(device, in_force, &error))?;
            return Ok(in_force);
        }
        remove_link(link.as_fd(), &self.pins.link(name))
            .with_context(|| format!("cannot detach from {name} to change its mode"))?;
        self.attach_anew(device, mode).or_else(|error| {
            self.attach_in(device, in_force)
                .with_context(|| format!("{name} is not throttled any more, because {in_force} mode fails too"))?;
            Err(error)
        })
    }

    fn attach_anew(&mut self, device: &Interface, mode: Mode) -> Result<XdpMode> {
        let refused = if mode == Mode::Generic {
            None
        } else {
            match self.attach_in(device, XdpMode::Native) {
                Ok(()) => return Ok(XdpMode::Native),
                Err(error) if mode == Mode::Native => return Err(error),
                Err(error) => Some(error),
            }
        };
        self.attach_in(device, XdpMode::Generic)?;
        if let Some(error) = refused {
            let name = &device.name;
            tracing::warn!("{name} is throttled in generic mode, which costs far more per packet: {error:#}");
        }
        Ok(XdpMode::Generic)
    }

    fn attach_in(&mut self, device: &Interface, mode: XdpMode) -> Result<()> {
        // Asked first: an attachment that ends at once for want of a pin is a change that would make us try again.
        if self.pins.removed() {
            bail!("{} is gone, as after `throttle detach`; start the agent anew", self.pins.root().display());
        }
        let flag = if mode == XdpMode::Native { bpf::NATIVE } else { bpf::GENERIC };
        let link = self
            .first_that_works(|program| bpf::link_create(program, device.index, flag))
            .map_err(|error| explain(device, mode, &error))?;
        bpf::pin(link.as_fd(), &self.pins.link(&device.name))
            .with_context(|| format!("cannot pin the link of {}; it was detached again", device.name))
    }

    /// Tries the program for frames in one buffer, then the one for several, which a large MTU needs in native mode.
    pub(super) fn first_that_works<T>(&mut self, act: impl Fn(BorrowedFd<'_>) -> io::Result<T>) -> io::Result<T> {
        let mut program = |name| load_program(&mut self.ebpf, name).map_err(io::Error::other);
        let first = act(program(PROGRAMS[0])?.as_fd());
        match first {
            Err(error) if !matches!(error.raw_os_error(), Some(libc::EBUSY | libc::EPERM | libc::EOPNOTSUPP)) => {
                program(PROGRAMS[1]).and_then(|program| act(program.as_fd())).map_err(|second| {
                    // What the kernel said of the first one is what counts where it has no programs of the second kind.
                    tracing::debug!("the program for frames in several buffers: {second:#}");
                    error
                })
            }
            result => result,
        }
    }
}

fn attachment(name: &str, asked: Option<Mode>, device: Option<&Interface>, standing: Standing) -> Attachment {
    Attachment {
        interface: name.to_owned(),
        was: None,
        asked,
        standing,
        egress: None,
        index: device.map_or(0, |device| device.index),
        mtu: device.map_or(0, |device| device.mtu),
        driver: device.and_then(|device| ethtool::driver(&device.name)).unwrap_or_default(),
    }
}

pub(super) fn mode_of(device: &Interface, link: &LinkInfo) -> XdpMode {
    if device.generic == Some(link.program) { XdpMode::Generic } else { XdpMode::Native }
}

/// What the kernel meant.
fn explain(device: &Interface, mode: XdpMode, error: &io::Error) -> anyhow::Error {
    let name = &device.name;
    let driver = ethtool::driver(name).unwrap_or_else(|| "its driver".to_owned());
    let why = match error.raw_os_error() {
        Some(libc::EBUSY) => "another XDP program is there; `throttle doctor` names it".to_owned(),
        Some(libc::EPERM) => "CAP_NET_ADMIN is missing".to_owned(),
        Some(libc::EOPNOTSUPP) => format!("{driver} has no XDP; pass --mode generic"),
        _ if mode == XdpMode::Native => format!(
            "{driver} refuses it at MTU {} with its present offloads and queues ({error}); lower the MTU, turn LRO off \
             (ethtool -K {name} lro off), or pass --mode generic",
            device.mtu
        ),
        _ => format!("the kernel says: {error}"),
    };
    anyhow!("cannot attach to {name} in {mode} mode: {why}")
}
