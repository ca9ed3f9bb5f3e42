//! What an interface has that matters to XDP.

use std::{io, os::fd::AsFd, path::Path};

use super::{
    super::{
        Interface, bpf, egress, ethtool,
        foreign::foreign,
        netlink::{GENERIC, ask, attribute, attributes, number},
        pins::link_path,
        rename::links,
        stacked::overlap,
    },
    Finding, Level,
};

/// What fits a page beside the headroom and what the kernel appends, on most drivers.
const ONE_BUFFER: u32 = 3498;

/// Bits of `enum netdev_xdp_act` (include/uapi/linux/netdev.h).
const BASIC: u32 = 1;
const SEVERAL_BUFFERS: u32 = 1 << 5;

/// Offloads in the way, by the names that the kernel gives them: whether they hinder, what they do, the switch.
const OFFLOADS: [(&str, Level, &str, &str); 2] = [
    ("rx-lro", Level::Warning, "merges packets in hardware (LRO): most drivers refuse native XDP with it", "lro"),
    (
        "rx-gro-hw",
        Level::Warning,
        "merges packets in hardware (GRO-HW): some drivers refuse native XDP with it",
        "rx-gro-hw",
    ),
];

pub(super) fn examine(device: &Interface, all: &[Interface], pin_dir: &Path) -> Vec<Finding> {
    let name = &device.name;
    let mut findings = vec![native(device)];
    findings.extend(programs(device, pin_dir));
    if !device.up {
        let remedy = format!("ip link set {name} up; a program may be attached before");
        findings.push(Finding::new(name, Level::Note, "is down", remedy));
    }
    findings.extend(leaving(device, pin_dir));
    findings.extend(relatives(device, all));
    findings.extend(judged_twice(device, all, pin_dir));
    findings.extend(offloads(device, all));
    findings
}

/// Whether a program may sit in the driver: what it says of itself, without trying.
fn native(device: &Interface) -> Finding {
    let Interface { name, mtu, index, .. } = device;
    let driver = ethtool::driver(name).or_else(|| device.kind.clone()).unwrap_or_else(|| "unknown driver".to_owned());
    let is = format!("{driver}, MTU {mtu}");
    match xdp_features(*index) {
        Ok(features) if features & BASIC == 0 => Finding::new(
            name,
            Level::Warning,
            format!("{is}: no XDP in the driver, only --mode generic, which costs about as much as a firewall rule"),
            "throttle on an interface whose driver has XDP, or accept the cost",
        ),
        Ok(features) if *mtu > ONE_BUFFER && features & SEVERAL_BUFFERS == 0 => Finding::new(
            name,
            Level::Warning,
            format!("{is}: its driver has XDP, but not for frames of several buffers"),
            format!("ip link set {name} mtu {ONE_BUFFER}, or pass --mode generic"),
        ),
        Ok(_) => Finding::ok(name, format!("{is}: XDP in the driver")),
        Err(error) => Finding::new(
            name,
            Level::Note,
            format!("{is}: whether its driver has XDP is not known before it is tried ({error})"),
            "the agent tries, and says which mode is in force; kernels from 6.3 on tell",
        ),
    }
}

/// Asks the generic netlink family `netdev` (Documentation/netlink/specs/netdev.yaml).
fn xdp_features(index: u32) -> io::Result<u32> {
    /// `GENL_ID_CTRL`, `CTRL_CMD_GETFAMILY` and its attributes.
    const CONTROLLER: u16 = 16;
    const GET_FAMILY: u8 = 3;
    const FAMILY_ID: u16 = 1;
    const FAMILY_NAME: u16 = 2;
    /// `NETDEV_CMD_DEV_GET` and its attributes.
    const GET_DEVICE: u8 = 1;
    const INDEX: u16 = 1;
    const XDP_FEATURES: u16 = 3;
    let find = |answer: &[u8], wanted: u16| {
        attributes(answer.get(4..)?).find(|&(kind, _)| kind == wanted).map(|(_, value)| value.to_vec())
    };
    let request = [vec![GET_FAMILY, 1, 0, 0], attribute(FAMILY_NAME, b"netdev\0")].concat();
    let family = find(&ask(GENERIC, CONTROLLER, &request)?, FAMILY_ID).ok_or(io::ErrorKind::Unsupported)?;
    let family = u16::from_ne_bytes(family.get(..2).and_then(|id| id.try_into().ok()).unwrap_or_default());
    let request = [vec![GET_DEVICE, 1, 0, 0], attribute(INDEX, &index.to_ne_bytes())].concat();
    let features = find(&ask(GENERIC, family, &request)?, XDP_FEATURES).ok_or(io::ErrorKind::Unsupported)?;
    Ok(number(&features))
}

/// The programs on it: ours by its pinned link, or somebody's.
fn programs(device: &Interface, pin_dir: &Path) -> Vec<Finding> {
    let link = bpf::open(&link_path(pin_dir, &device.name)).and_then(|link| bpf::link_info(link.as_fd()));
    let ours = link.ok().filter(|link| link.interface == device.index).map(|link| link.program);
    let finding = |id| {
        if Some(id) != ours {
            let remedy = "stop what attached it, or see its own documentation; then run this again";
            return Finding::new(&device.name, Level::Fault, foreign(device, id, pin_dir), remedy);
        }
        if device.generic == Some(id) {
            let text = "throttled in generic mode, which costs far more per packet";
            let remedy = "where the driver has XDP, attach again with --mode native to learn why it was refused";
            return Finding::new(&device.name, Level::Warning, text, remedy);
        }
        Finding::ok(&device.name, "throttled in native mode")
    };
    device.programs().map(finding).collect()
}

/// Whether our program sees what leaves by it.
fn leaving(device: &Interface, pin_dir: &Path) -> Option<Finding> {
    let egress = egress::seen(pin_dir, device.index).ok()??;
    let text = format!("sees what leaves ({egress}): `forwarded` services are counted by their packets");
    Some(Finding::ok(&device.name, text))
}

/// Which other interface might be the better place.
fn relatives(device: &Interface, all: &[Interface]) -> Option<Finding> {
    let name = &device.name;
    let named = |index: Option<u32>| index.and_then(|index| all.iter().find(|other| other.index == index));
    let (text, remedy) = match (device.kind.as_deref(), named(device.lower), named(device.master)) {
        (Some("vlan"), Some(lower), _) => (
            format!("a VLAN on {}: programs sit in its stack, not in a driver", lower.name),
            format!(
                "throttle {} instead, not beside it, unless sockets are bound to {name}: VLAN tags are read",
                lower.name
            ),
        ),
        (Some("bond"), ..) => (
            "a bond: native where every member's driver has XDP, and not in every bonding mode".to_owned(),
            "where it is refused, pass --mode generic".to_owned(),
        ),
        (Some("veth"), ..) => (
            "a veth: the answers of `reject` reach its other end only where that has an XDP program too".to_owned(),
            "attach one that passes everything to the other end, or write action = \"drop\"".to_owned(),
        ),
        (_, _, Some(master)) if master.kind.as_deref() == Some("bond") => (
            format!("a member of {}: packets of the other members pass by", master.name),
            format!("throttle {} instead, which covers all members", master.name),
        ),
        _ => return None,
    };
    Some(Finding::new(name, Level::Note, text, remedy))
}

/// Whether another throttled interface is on top of it, or below.
fn judged_twice(device: &Interface, all: &[Interface], pin_dir: &Path) -> Option<Finding> {
    // Without a pin directory nothing is throttled.
    let links = links(pin_dir, all).ok()?;
    let found = overlap(device, all, &links).filter(|_| links.get(&device.name) == Some(&device.index))?;
    Some(Finding::new(&device.name, Level::Warning, found.text, found.remedy))
}

fn offloads(device: &Interface, all: &[Interface]) -> Vec<Finding> {
    let name = &device.name;
    // Virtual interfaces move packets as they are.
    let Ok(active) = ethtool::features(name) else { return Vec::new() };
    let on = |feature: &str| active.iter().any(|other| other == feature);
    let mut findings: Vec<_> = OFFLOADS
        .into_iter()
        .filter(|(feature, ..)| on(feature))
        .map(|(_, level, text, switch)| Finding::new(name, level, text, format!("ethtool -K {name} {switch} off")))
        .collect();
    let tagged = all.iter().any(|other| other.kind.as_deref() == Some("vlan") && other.lower == Some(device.index));
    if on("rx-vlan-hw-parse") && tagged {
        findings.push(Finding::new(
            name,
            Level::Note,
            "takes VLAN tags off before programs see the packet: it is limited by its addresses all the same",
            format!("to have tags seen (events, double tags): ethtool -K {name} rxvlan off"),
        ));
    }
    findings
}
