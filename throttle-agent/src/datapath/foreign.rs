//! Whose program is in the way on an interface, and how to be rid of it.

use std::{
    fs,
    path::{Path, PathBuf},
};

use aya::programs::loaded_links;

use super::{Interface, PROGRAMS, bpf, pins::MOUNT_POINT, rename::open_link};

/// Who else sits on an interface, and what to do about it. `pin_dir` is ours.
pub(super) fn foreign(device: &Interface, id: u32, pin_dir: &Path) -> String {
    let name = bpf::program_name(id);
    let shown = match &name {
        Ok(name) => format!("XDP program {id} (`{name}`)"),
        Err(_) => format!("XDP program {id} (its name is for root to see: bpftool prog show id {id})"),
    };
    let interface = &device.name;
    let what = format!("{shown}, which is not this throttle's, is attached to {interface}, which has room for one");
    if let Some(other) = neighbour(device, id, pin_dir) {
        let other = other.display();
        return format!(
            "{what}: it is that of another throttle instance; stop that one and run `throttle detach --pin-dir {other}`, \
             or run this one with --pin-dir {other}"
        );
    }
    let link = holder(id);
    let ours_by_name = name.is_ok_and(|name| PROGRAMS.contains(&name.as_str()));
    match link {
        // What a link holds, `ip link` cannot take off.
        Holder::Link(link) if ours_by_name => format!(
            "{what}: by its name it is that of another throttle instance; stop that one and run `throttle detach` with \
             its --pin-dir, run this one with its --pin-dir, or remove it: bpftool link detach id {link}"
        ),
        Holder::Link(link) => {
            format!("{what}; stop what attached it, or remove it: bpftool link detach id {link}")
        }
        Holder::Interface => {
            format!("{what}; stop what attached it, or remove it: ip link set dev {interface} xdp off")
        }
        Holder::Unknown => format!(
            "{what}; stop what attached it, or remove it as root: ip link set dev {interface} xdp off, or where the \
             kernel refuses that, `bpftool link detach id N` with the N that `bpftool link show` has for program {id}"
        ),
    }
}

/// What keeps a program attached.
enum Holder {
    Link(u32),
    Interface,
    /// Only root may list links.
    Unknown,
}

fn holder(program: u32) -> Holder {
    for link in loaded_links() {
        match link {
            Ok(link) if link.program_id() == program => return Holder::Link(link.id()),
            // One that ended while they were listed.
            Ok(_) => {}
            Err(_) => return Holder::Unknown,
        }
    }
    Holder::Interface
}

/// The pin directory of another instance whose program it is, where that lies beside ours or where it does by default.
fn neighbour(device: &Interface, program: u32, pin_dir: &Path) -> Option<PathBuf> {
    let places = [pin_dir.parent().unwrap_or(pin_dir), Path::new(MOUNT_POINT)];
    let roots = places.into_iter().filter_map(|place| fs::read_dir(place).ok()).flatten().flatten();
    roots.map(|entry| entry.path()).find(|root| {
        let link = open_link(root, &device.name).ok().flatten();
        root != pin_dir && link.is_some_and(|(_, info)| info.kind == bpf::XDP_LINK && info.program == program)
    })
}
