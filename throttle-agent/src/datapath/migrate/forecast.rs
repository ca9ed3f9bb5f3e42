//! What `throttle run` of this build would do with what is pinned, and what would be lost: asked beforehand, beside the
//! build that is in force, and without changing anything.

use std::{
    io,
    os::fd::{AsFd as _, AsRawFd as _},
    path::Path,
};

use anyhow::{Context, Result};
use aya::maps::MapData;
use memmap2::MmapOptions;
use serde::Serialize;
use throttle_common::records::{Event, LAYOUT, maps};

use super::{Earlier, layout_of, layouts::open};
use crate::datapath::{
    OpenError, XdpMode,
    attach::mode_of,
    bpf, connecting, egress, interfaces,
    pins::{drafts, finished, linked, superseded},
    rename::{is_on, open_link},
    sockets::are_watched,
    trial::{Trial, complaint},
};

/// What would happen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "plan", rename_all = "kebab-case")]
pub enum Plan {
    /// Nothing is pinned: maps are made anew.
    Fresh,
    /// The maps are of this build's layout, and stay.
    Adopt,
    /// The maps are of an earlier layout, and change over.
    Migrate {
        /// That layout.
        from: u64,
    },
    /// An agent began to change over from an earlier layout and did not end it: it is ended.
    Finish {
        /// That layout.
        from: u64,
    },
    /// The agent would not start, or not put the policy in force; what is in force would stay.
    Refuse {
        /// Why.
        reason: String,
        /// What to do about it.
        remedy: String,
    },
}

/// What becomes of one thing that the kernel remembers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Fate {
    /// What it is.
    pub what: &'static str,
    /// Whether all of it is kept.
    pub kept: bool,
    /// How much there is, and what exactly becomes of it.
    pub text: String,
}

/// What becomes of the program on one interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Replacement {
    /// Its name, as the link's pin has it.
    pub interface: String,
    /// Where the program sits; `None` where the interface is not in this network namespace.
    pub mode: Option<XdpMode>,
    /// The kernel's hash of the program, hexadecimal; `None` where only root may see it.
    pub program_tag: Option<String>,
    /// Whether it is replaced through its link, with no packet in between that neither program sees.
    pub in_place: bool,
}

/// All that is known beforehand.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Forecast {
    /// What would happen.
    #[serde(flatten)]
    pub plan: Plan,
    /// The layout of the pinned maps.
    pub pinned_layout: Option<u64>,
    /// Sets of the pinned table, which `--table-sets` must name.
    pub table_sets: Option<u32>,
    /// The layout of this build.
    pub layout: u64,
    /// The kernel's hash of this build's program, hexadecimal, as it would be loaded here.
    pub program_tag: Option<String>,
    /// The interfaces that are throttled.
    pub interfaces: Vec<Replacement>,
    /// Whether a program watches the sockets now.
    pub sockets_watched: bool,
    /// Why this build could not watch them.
    pub sockets_unwatchable: Option<String>,
    /// Whether a program sees packets leave by one of the interfaces now.
    pub leaving_seen: bool,
    /// Why this build could not see them.
    pub leaving_unseeable: Option<String>,
    /// Whether programs see what processes of a control group dial now.
    pub connects_seen: bool,
    /// Why this build could not see it.
    pub connects_unseeable: Option<String>,
    /// What becomes of what the kernel remembers.
    pub fates: Vec<Fate>,
}

/// Looks at what is pinned, and has the kernel check this build's programs with maps of their own.
pub fn forecast(pin_dir: &Path) -> Result<Forecast> {
    let tried = try_out();
    let (plan, pinned_layout, mut fates) = plan(pin_dir)?;
    let (plan, tried) = match tried {
        Ok(tried) => (plan, Some(tried)),
        Err(error) => {
            fates.clear();
            let remedy = "`throttle doctor` says what is missing; this needs root, or CAP_BPF, CAP_NET_ADMIN and \
                          CAP_PERFMON";
            let reason = format!("the kernel does not take this build's programs: {error:#}");
            (Plan::Refuse { reason, remedy: remedy.to_owned() }, None)
        }
    };
    let program_tag = tried.as_ref().map(|tried| format!("{:016x}", tried.tag));
    let [sockets_unwatchable, leaving_unseeable, connects_unseeable] =
        tried.map_or([None, None, None], |it| [it.sockets, it.leaving, it.connects]);
    let maps = finished(pin_dir);
    let table_sets = is_there(&maps)?.then(|| open(&maps, maps::BUCKETS)).transpose()?;
    Ok(Forecast {
        plan,
        pinned_layout,
        table_sets: table_sets.map(|table| Ok::<_, anyhow::Error>(table.info()?.max_entries())).transpose()?,
        layout: LAYOUT,
        program_tag,
        interfaces: replacements(pin_dir)?,
        sockets_watched: are_watched(pin_dir),
        sockets_unwatchable,
        leaving_seen: is_leaving_seen(pin_dir)?,
        leaving_unseeable,
        connects_seen: connecting::are_seen(pin_dir),
        connects_unseeable,
        fates,
    })
}

/// Whether a directory is there; one that may not be read is an error, not absent.
fn is_there(directory: &Path) -> Result<bool> {
    match directory.symlink_metadata() {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error)
            .with_context(|| format!("cannot read {}; run this as root or as the agent's user", directory.display())),
    }
}

fn plan(pin_dir: &Path) -> Result<(Plan, Option<u64>, Vec<Fate>)> {
    let (maps, new, old) = (finished(pin_dir), drafts(pin_dir), superseded(pin_dir));
    // As the next start mends the names: see `Pins::mend_names`.
    let (maps, old) = match (is_there(&maps)?, is_there(&old)?) {
        (true, true) => (maps, Some(old)),
        (false, true) if is_there(&new)? => (new, Some(old)),
        (false, true) => (old, None),
        (true, false) => (maps, None),
        (false, false) => return Ok((Plan::Fresh, None, Vec::new())),
    };
    let found = layout_of(&maps)?;
    if let Some(old) = old {
        let from = layout_of(&old)?;
        return Ok(if found == LAYOUT {
            (Plan::Finish { from }, Some(found), changed_over(&old)?)
        } else {
            (refusal(OpenError::interrupted(from, found)), Some(found), gone())
        });
    }
    if found == LAYOUT {
        return Ok((Plan::Adopt, Some(found), adopted()));
    }
    match Earlier::open(&maps) {
        Ok(Some(_)) => Ok((Plan::Migrate { from: found }, Some(found), changed_over(&maps)?)),
        Ok(None) => {
            let which = if found > LAYOUT { "newer than any" } else { "none" };
            Ok((refusal(format!("the maps have layout {found}, {which} that this build knows")), Some(found), gone()))
        }
        Err(error) => {
            Ok((refusal(format!("the maps of layout {found} cannot be read: {error:#}")), Some(found), gone()))
        }
    }
}

fn refusal(reason: String) -> Plan {
    let remedy = "start the build that made them; or run `throttle detach` and then this build, which loses what is \
                  marked as lost here";
    Plan::Refuse { reason, remedy: remedy.to_owned() }
}

fn fate(what: &'static str, kept: bool, text: impl Into<String>) -> Fate {
    Fate { what, kept, text: text.into() }
}

const STORE: &str = "they are in the store, and are put in force from there";

/// What becomes of connections where all are counted anew, from the sockets that there are.
fn counted_anew() -> [Fate; 4] {
    [
        fate("connections", true, "those that are open stay open, and are counted from the sockets that there are"),
        fate("forwarded connections", false, "those that are open go on, and are counted when they are next answered"),
        fate("connections without a listener", false, "those whose listener has closed go on, and are counted no more"),
        fate("fast opens", false, "those whose handshake is not complete are counted when it is"),
    ]
}

fn adopted() -> Vec<Fate> {
    let stays = "the maps stay, and the new program goes on with them";
    vec![
        fate("buckets", true, stays),
        fate("counters", true, stays),
        fate("proven sources", true, stays),
        fate("connections", true, stays),
        fate("events", true, "those that nobody has read yet stay where they are"),
        fate("policy and blocks", true, STORE),
    ]
}

fn gone() -> Vec<Fate> {
    let detach = "`throttle detach` removes them";
    let mut fates = vec![
        fate("buckets", false, format!("{detach}: every source begins with its whole burst")),
        fate("counters", false, detach),
        fate("proven sources", false, format!("{detach}: each is proven again by its next handshake")),
    ];
    fates.extend(counted_anew());
    fates.extend([fate("events", false, detach), fate("policy and blocks", true, STORE)]);
    fates
}

fn changed_over(directory: &Path) -> Result<Vec<Fate>> {
    let Some(earlier) = Earlier::open(directory)? else { return Ok(gone()) };
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let now = now.tv_sec.cast_unsigned() * 1_000_000_000 + now.tv_nsec.cast_unsigned();
    let (judged, busy, unread) = (earlier.judged()?, earlier.busy(now), unread(directory).unwrap_or(0));
    let buckets = format!("{busy} sources owe something; kept where a limit keeps its name, unit, prefixes and room");
    let events = match unread {
        0 => "all that there are have been read".to_owned(),
        unread => format!("{unread} that nobody has read, unless an agent reads them first"),
    };
    let mut fates = vec![
        fate("buckets", true, buckets),
        fate("counters", true, format!("{judged} frames judged so far")),
        fate("proven sources", true, "each for the rest of its hour"),
    ];
    fates.extend(counted_anew());
    fates.extend([
        fate("charges", false, "at most those of the hundredths of a second in which the programs are replaced"),
        fate("events", unread == 0, events),
        fate("budgets", false, "those of events and answers begin full: at most one burst more of each"),
        fate("policy and blocks", true, STORE),
    ]);
    Ok(fates)
}

/// Events in a ring buffer that nobody has taken.
fn unread(directory: &Path) -> Result<u64> {
    /// Each lies behind a header of eight bytes.
    const EACH: u64 = size_of::<Event>() as u64 + 8;
    let ring: MapData = open(directory, maps::EVENTS)?;
    // SAFETY: asks for a number, which every system has.
    let page = usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).context("the size of a page")?;
    let position = |page_number: usize| -> Result<u64> {
        let memory = MmapOptions::new()
            .offset((page_number * page) as u64)
            .len(page)
            .map_raw_read_only(ring.fd().as_fd().as_raw_fd())
            .context("map the events")?;
        let mut word = [0; 8];
        // SAFETY: the mapping is a page, which begins with the position; one that changes meanwhile is as good as any.
        unsafe { memory.as_ptr().copy_to_nonoverlapping(word.as_mut_ptr(), word.len()) };
        Ok(u64::from_ne_bytes(word))
    };
    // The reader's position lies in the first page, the writers' in the second.
    let (read, written) = (position(0)?, position(1)?);
    Ok(written.saturating_sub(read) / EACH)
}

/// Whether packets are seen to leave by one of the interfaces that are throttled.
fn is_leaving_seen(pin_dir: &Path) -> Result<bool> {
    let names = linked(pin_dir).with_context(|| format!("cannot list the links in {}", pin_dir.display()))?;
    let present = interfaces().context("cannot list the interfaces")?;
    let own = present.iter().filter(|device| names.contains(&device.name));
    let seen = own.map(|device| egress::seen(pin_dir, device.index)).collect::<Result<Vec<_>>>()?;
    Ok(seen.iter().any(Option::is_some))
}

fn replacements(pin_dir: &Path) -> Result<Vec<Replacement>> {
    let present = interfaces().context("cannot list the interfaces")?;
    let names = linked(pin_dir).with_context(|| format!("cannot list the links in {}", pin_dir.display()))?;
    let mut replacements = Vec::new();
    for interface in names {
        let Some((_link, info)) = open_link(pin_dir, &interface)? else { continue };
        let device = present.iter().find(|device| is_on(&info, device));
        replacements.push(Replacement {
            mode: device.map(|device| mode_of(device, &info)),
            program_tag: bpf::program_tag(info.program).ok().map(|tag| format!("{tag:016x}")),
            in_place: info.kind == bpf::XDP_LINK && info.interface != 0,
            interface,
        });
    }
    Ok(replacements)
}

/// What the kernel says of this build's programs.
struct Tried {
    tag: u64,
    sockets: Option<String>,
    leaving: Option<String>,
    connects: Option<String>,
}

/// Has it take them, and lets go of them again. Without those of interfaces there is nothing; without others less.
fn try_out() -> Result<Tried> {
    let mut trial = Trial::begin()?;
    let tag = trial.interfaces()?.info().context("ask for the program's hash")?.tag();
    let refused = |tried: Result<()>| tried.err().map(|error| complaint(&error));
    let (sockets, leaving) = (refused(trial.sockets()), refused(trial.leaving()));
    Ok(Tried { tag, sockets, leaving, connects: refused(trial.connects()) })
}
