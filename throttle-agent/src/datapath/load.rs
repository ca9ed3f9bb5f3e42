//! Loading the programs: with maps of their own, or with those that an earlier agent pinned.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, Weak, atomic::AtomicBool},
};

use anyhow::{Context, Result};
use aya::{
    Btf, Ebpf, EbpfLoader,
    maps::{Array, Map, MapData},
    programs::{ProgramError, ProgramFd, Xdp},
};
use throttle_common::{
    hash::Secret,
    lease,
    records::{Control, LAYOUT, maps},
    words::Per,
};

use super::{
    Datapath, OBJECT, PROGRAMS, answers,
    apply::Owed,
    grace::Grace,
    mend,
    migrate::{Earlier, Handover, layout_of},
    overrides::Overrides,
    pins::{LATER, PINNED, Pins},
    signals::uninterrupted,
    sockets::Told,
    sources::Sources,
    speeds::Speeds,
    tables::{Tables, map},
    tallies::Tallies,
    undo::Undo,
};
use crate::policy::{self, Compiled, Layout};

/// How to load.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where maps and links are pinned; in a BPF file system.
    pub pin_dir: PathBuf,
    /// Sets of the table of buckets: 72 bytes each, room for three sources (and a proven one).
    pub table_sets: u32,
    /// Whether the programs write debugging output, which costs time for every packet.
    pub debug: bool,
    /// Whether the programs read the clock from [`Datapath::set_clock`], as tests do.
    pub test_clock: bool,
    /// Whether to take over maps that are pinned already; without it they are an error.
    pub adopt: bool,
}

/// Why the datapath could not be opened. The kernel's state is as it was before, whichever it is.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process holds the pin directory.
    #[error("another agent uses {}; stop it, or choose another directory with --pin-dir", pin_dir.display())]
    InUse {
        /// The directory.
        pin_dir: PathBuf,
    },
    /// The pin directory is on an ordinary file system.
    #[error(
        "{} is not in a BPF file system; choose a directory under /sys/fs/bpf with --pin-dir, or mount one there: \
         mount -t bpf bpf DIRECTORY", pin_dir.display()
    )]
    NotBpffs {
        /// The directory.
        pin_dir: PathBuf,
    },
    /// There is no BPF file system, and none may be mounted.
    #[error("cannot mount the BPF file system: {source}; run this as root once: mount -t bpf bpf /sys/fs/bpf")]
    CannotMount {
        /// What the kernel said.
        source: io::Error,
    },
    /// Maps are pinned, and [`Options::adopt`] is off.
    #[error("maps are pinned in {} already; `throttle detach` removes them", pin_dir.display())]
    Pinned {
        /// The directory.
        pin_dir: PathBuf,
    },
    /// The pinned maps are of another version, from which nothing can be carried over.
    #[error(
        "the maps in {} have layout {found}, this build has {LAYOUT} and cannot carry them over; they go on enforcing. \
         To change over all the same, run `throttle detach` and then this again: buckets and counters start anew, policy \
         and blocks are kept in the store", pin_dir.display()
    )]
    OtherLayout {
        /// The directory.
        pin_dir: PathBuf,
        /// Their layout.
        found: u64,
    },
    /// A change of layout was interrupted that another build began.
    #[error(
        "{}. What is pinned in {} goes on enforcing. Start the build of layout {found} once, and then this one; or run \
         `throttle detach` and then this again: buckets and counters start anew, policy and blocks are kept in the store",
        Self::interrupted(*from, *found), pin_dir.display()
    )]
    Interrupted {
        /// The directory.
        pin_dir: PathBuf,
        /// The layout that is changed from.
        from: u64,
        /// The layout that is changed to.
        found: u64,
    },
    /// The pinned table has another size.
    #[error(
        "the table in {} has {found} sets, not {asked}; pass --table-sets {found} to keep it. To change it, run \
         `throttle detach` and then this again: buckets and counters start anew", pin_dir.display()
    )]
    OtherSize {
        /// The directory.
        pin_dir: PathBuf,
        /// Its sets.
        found: u32,
        /// [`Options::table_sets`].
        asked: u32,
    },
    /// Anything else.
    #[error(transparent)]
    Failed(#[from] anyhow::Error),
}

impl OpenError {
    /// What is wrong where a change of layout was interrupted that this build cannot end.
    pub(super) fn interrupted(from: u64, found: u64) -> String {
        format!(
            "a change of the maps from layout {from} to {found} was interrupted, and only a build of layout {found} can end \
             it (this one has {LAYOUT})"
        )
    }
}

/// Nothing is refused, everything is counted: what is in force until the first policy is applied.
pub(super) fn observing() -> Compiled {
    let nothing = Layout::default();
    policy::compile(&policy::Document::default(), 0, &nothing).expect("an empty document asks for nothing")
}

/// Sets of the table that half of this machine's memory has room for, at 72 bytes each.
pub fn bearable_sets() -> u64 {
    let machine = rustix::system::sysinfo();
    u64::from(machine.mem_unit) * machine.totalram / 2 / 72
}

impl Datapath {
    /// Loads the programs; with the maps that are pinned, or with new ones that are then pinned. Attaches nothing.
    pub fn open(options: &Options) -> Result<Self, OpenError> {
        let pins = Pins::open(&options.pin_dir)?;
        raise_memory_limit();
        match pins.maps() {
            Some(_) if !options.adopt => Err(OpenError::Pinned { pin_dir: options.pin_dir.clone() }),
            Some(directory) => match check_pinned(&pins, &directory, options)? {
                None => {
                    let mut datapath = Self::load(pins, &directory, options)?;
                    datapath.recover()?;
                    datapath.go_on_changing_over();
                    Ok(datapath)
                }
                Some(earlier) => Ok(Self::change_over(pins, earlier, options)?),
            },
            None => {
                let draft = pins.draft()?;
                let mut datapath = Self::load(pins, draft.directory(), options)?;
                datapath.begin(draw_secret()?, options.table_sets, observing());
                draft.finish(&datapath.pins)?;
                datapath.undo.maps = true;
                Ok(datapath)
            }
        }
    }

    /// Loads the programs with new maps beside those of an earlier layout; see [`super::migrate`].
    fn change_over(pins: Pins, earlier: Earlier, options: &Options) -> Result<Self> {
        tracing::info!("the maps have layout {}, and are changed over to {LAYOUT}", earlier.layout);
        let draft = pins.draft()?;
        let mut datapath = Self::load(pins, draft.directory(), options)?;
        let limits = earlier.limits.iter().map(|held| (held.number, held.record)).collect();
        let (services, tenants) = (earlier.services.clone(), Arc::new(earlier.tenants.clone()));
        datapath.begin(earlier.secret, earlier.sets, Compiled { limits, tenants, services, ..observing() });
        let of_tenants = earlier.limits.iter().map(|held| held.record).filter(|limit| limit.per == Per::Tenant as u8);
        of_tenants.flat_map(|limit| limit.regions()).for_each(|(_, region)| datapath.name_slots(region));
        earlier.clocks.iter().for_each(|(number, clock)| datapath.tables.clocks.set((*number).into(), clock));
        if options.test_clock {
            datapath.set_clock(earlier.test_clock)?;
        }
        datapath.handover = Some(Handover { draft: Some(draft), earlier });
        Ok(datapath)
    }

    fn load(pins: Pins, directory: &Path, options: &Options) -> Result<Self> {
        let btf = Btf::from_sys_fs().ok();
        let (debug, test_clock) = (u8::from(options.debug), u8::from(options.test_clock));
        let told = Told::read();
        let cpus = aya::util::nr_cpus().map_err(|(file, error)| anyhow::anyhow!("read {file}: {error}"))?;
        let mut loader = EbpfLoader::new();
        loader
            .btf(btf.as_ref())
            .map_max_entries(maps::BUCKETS, options.table_sets)
            .map_max_entries(maps::AGGREGATES, options.table_sets)
            .map_max_entries(maps::LEASES, lease::SLOTS * cpus as u32)
            .override_global("DEBUG", &debug, true)
            .override_global("TEST_CLOCK_ON", &test_clock, true);
        told.tell(&mut loader);
        for map in PINNED.into_iter().chain(LATER) {
            loader.map_pin_path(map, directory.join(map));
        }
        // By programs that it loads here aya finds out, once, what the kernel can: one that a signal ends finds nothing.
        let mut ebpf = uninterrupted(|| loader.load(OBJECT), |_| false).context("cannot block signals")?.context(
            "cannot load the kernel programs' maps; `throttle doctor` says what is missing (CAP_BPF, memory)",
        )?;
        for program in [PROGRAMS[0], mend::PROGRAM] {
            load_program(&mut ebpf, program)
                .context("the kernel refuses the program; `throttle doctor` says what it lacks")?;
        }
        let test_clock = match map(&ebpf, maps::TEST_CLOCK) {
            Ok(map) if options.test_clock => Some(Array::try_from(Map::Array(map))?),
            _ => None,
        };
        let tables = Tables::new(&ebpf)?;
        Ok(Self {
            undo: Undo::nothing(pins.root().to_owned()),
            pins,
            tenants: [0, 1].map(|generation| Arc::new(tables.tenants(generation))),
            tables,
            tallies: Tallies::new(&ebpf)?,
            sources: Sources::new(&ebpf)?,
            speeds: Speeds::default(),
            overrides: Overrides::new(&ebpf)?,
            grace: Grace::new().context("cannot make the map that waiting for packets needs")?,
            connections: map(&ebpf, maps::CONNECTIONS)?,
            stations: map(&ebpf, maps::STATIONS)?,
            backends: map(&ebpf, maps::BACKENDS)?,
            answers: answers::Measured::new(&ebpf)?,
            events: map(&ebpf, maps::EVENTS)?,
            owed: Owed::default(),
            unsettled: AtomicBool::new(true),
            mending: Mutex::default(),
            handover: None,
            unwatched: None,
            unseen: BTreeMap::default(),
            asked: BTreeMap::default(),
            refused: BTreeMap::default(),
            renamed: BTreeMap::default(),
            reader: Weak::new(),
            judge: Weak::new(),
            debug: options.debug,
            test_clock,
            ebpf,
        })
    }

    /// Fills new maps, before anything is attached. No packet meets the limits and services that are held already: they keep
    /// their numbers, regions and clocks for the first policy, as tenants do theirs.
    fn begin(&mut self, secret: Secret, sets: u32, held: Compiled) {
        let control = Control { layout: LAYOUT, secret, generation: 1, sets, ..Control::default() };
        self.tables.set_control(&control);
        self.tables.write_spare(&held, &self.tenants[0]);
        self.tenants[0] = held.tenants;
        self.tables.flip();
        *self.unsettled.get_mut() = false;
    }
}

/// Has the kernel check and take a program, which it holds until it is attached somewhere.
pub(super) fn load_program(ebpf: &mut Ebpf, name: &str) -> Result<ProgramFd> {
    let program = ebpf.program_mut(name).with_context(|| format!("the object has no program {name}"))?;
    let program: &mut Xdp = program.try_into()?;
    if program.fd().is_err() {
        match uninterrupted(|| program.load(), was_interrupted).context("cannot block signals")? {
            Err(ProgramError::LoadError { io_error, verifier_log }) => {
                let log = verifier_log.to_string();
                let last: Vec<_> = log.lines().rev().take(12).collect();
                let last: Vec<_> = last.into_iter().rev().collect();
                return Err(anyhow::Error::new(io_error).context(format!("the verifier says:\n{}", last.join("\n"))));
            }
            result => result?,
        }
    }
    Ok(program.fd()?.try_clone()?)
}

fn was_interrupted(result: &Result<(), ProgramError>) -> bool {
    matches!(result, Err(ProgramError::LoadError { io_error, .. }) if io_error.raw_os_error() == Some(libc::EAGAIN))
}

/// Refuses maps that this build would misread. Gives those of an earlier layout that it knows.
fn check_pinned(pins: &Pins, directory: &Path, options: &Options) -> Result<Option<Earlier>, OpenError> {
    let pin_dir = options.pin_dir.clone();
    let lost =
        |name: &str| format!("cannot read {}; `throttle detach` removes what is left", directory.join(name).display());
    let found = layout_of(directory).with_context(|| lost(maps::CONTROL))?;
    if found != LAYOUT {
        // Programs that count into those may still be on interfaces.
        if let Some(old) = pins.old() {
            let from = layout_of(&old).with_context(|| format!("cannot read {}", old.display()))?;
            return Err(OpenError::Interrupted { pin_dir, from, found });
        }
        let Some(earlier) = Earlier::open(directory)? else { return Err(OpenError::OtherLayout { pin_dir, found }) };
        if earlier.sets != options.table_sets {
            return Err(OpenError::OtherSize { pin_dir, found: earlier.sets, asked: options.table_sets });
        }
        return Ok(Some(earlier));
    }
    let open = |name: &str| MapData::from_pin(directory.join(name)).with_context(|| lost(name));
    let later = LATER.into_iter().filter(|map| directory.join(map).exists());
    for map in PINNED.into_iter().chain(later) {
        open(map)?;
    }
    let found = open(maps::BUCKETS)?.info().context("cannot ask for the table's size")?.max_entries();
    if found != options.table_sets {
        return Err(OpenError::OtherSize { pin_dir, found, asked: options.table_sets });
    }
    Ok(None)
}

fn draw_secret() -> Result<Secret> {
    let mut bytes = [0; 16];
    let drawn = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty()).context("no randomness")?;
    anyhow::ensure!(drawn == bytes.len(), "no randomness");
    let [high, low] = [&bytes[..8], &bytes[8..]].map(|half| u64::from_ne_bytes(half.try_into().expect("eight bytes")));
    Ok([high, low])
}

/// Before Linux 5.11 maps were locked memory, and the usual limit too small for the table.
fn raise_memory_limit() {
    let unlimited = rustix::process::Rlimit { current: None, maximum: None };
    if let Err(error) = rustix::process::setrlimit(rustix::process::Resource::Memlock, unlimited) {
        tracing::debug!("the limit of locked memory stays as it is: {error}");
    }
}
