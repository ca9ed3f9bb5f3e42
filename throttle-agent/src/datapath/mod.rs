//! The kernel edge: what the agent asks of the kernel programs and their maps.
//!
//! [`Datapath::open`] loads the programs, or takes over the maps that an earlier agent pinned; [`Datapath::attach`] puts
//! them on interfaces; [`Datapath::switch`] makes a compiled policy and its sources those in force,
//! [`Datapath::set_sources`] says anew who is allowed, known and blocked. The rest only reads: counters, occupancy, one
//! bucket, what policy is in force, and the stream of [`Events`]. [`detach_all`] undoes everything, with or without an
//! agent, and [`doctor`] says what stands in the way.
//!
//! Everything here acts in the network namespace of the calling thread. What is done stays done when the agent dies.

mod answers;
mod apply;
mod attach;
mod between;
mod bpf;
mod breakers;
mod btf;
mod claim;
mod closing;
mod clsact;
mod connecting;
mod connections;
mod debts;
pub mod doctor;
mod egress;
mod ethtool;
mod events;
pub mod explain;
mod foreign;
mod grace;
mod interfaces;
mod leases;
mod load;
mod mapped;
mod mend;
mod migrate;
mod moving;
mod netlink;
mod occupancy;
mod overrides;
mod penalties;
mod pins;
mod reconcile;
mod regions;
mod rename;
mod reprice;
mod signals;
mod sockdiag;
mod sockets;
mod source_map;
mod sources;
mod speeds;
mod stacked;
mod stations;
mod switch;
mod tables;
mod talkers;
mod tallies;
mod trial;
mod undo;
mod watch;
mod windows;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, Weak, atomic::AtomicBool},
};

use aya::{
    Ebpf,
    maps::MapData,
    programs::{ProgramFd, Xdp},
};
use throttle_common::records::GENERATIONS;

pub use self::{
    answers::Answers,
    attach::{Attachment, Mode, Standing, XdpMode},
    claim::{Claim, LINGER, PRIVATE_PINS, claim, lock},
    connections::{Drift, Held, opener},
    egress::Egress,
    events::Events,
    interfaces::{Interface, interfaces},
    load::{OpenError, Options, bearable_sets},
    migrate::{Step as TakeOverStep, TakenOver, forecast},
    occupancy::{Bucket, Compartment, Occupancy, Use},
    penalties::{Offences, Refused as RefusedSource},
    pins::{Detached, detach_all, detach_interface},
    reconcile::{Change, Step, reconcile},
    sockdiag::{Handshake, Listener, handshakes, listeners},
    sources::{Entries, SourceDelta},
    speeds::{ClockState, LEASE},
    talkers::{Source, Talker, Talkers},
    watch::Watch,
    windows::WindowState,
};
use self::{
    apply::Owed, grace::Grace, migrate::Handover, pins::Pins, reconcile::Refused, sources::Sources, speeds::Speeds,
    tables::Tables, tallies::Tallies, undo::Undo,
};
use crate::policy::Tenants;

/// The kernel programs, as an ELF object for bpfel-unknown-none.
pub static OBJECT: &[u8] = aya::include_bytes_aligned!(env!("THROTTLE_OBJECT"));

/// The program for frames that lie in one buffer, and the one for frames that may lie in several. The second is loaded
/// when an interface needs it: the verifier takes a third of a second for each.
const PROGRAMS: [&str; 2] = ["throttle", "throttle_frags"];

/// The loaded programs and their maps. One process at a time holds those of a pin directory.
pub struct Datapath {
    /// First, so that it is done under the lock that goes with the pins.
    undo: Undo,
    /// A change of layout that is under way; likewise.
    handover: Option<Handover>,
    pins: Pins,
    ebpf: Ebpf,
    tables: Tables,
    tallies: Tallies,
    sources: Sources,
    speeds: Speeds,
    overrides: overrides::Overrides,
    /// The tenants of each generation, as the kernel has them.
    tenants: [Arc<Tenants>; GENERATIONS as usize],
    grace: Grace,
    /// What every interface that is ours was asked for, present or not.
    asked: BTreeMap<String, Mode>,
    /// Why those of them that could be attached to were not, and when to try again.
    refused: BTreeMap<String, Refused>,
    /// What interfaces were called when they were attached to, by what they are called now.
    renamed: BTreeMap<String, String>,
    /// What the last change of policy has left to be done.
    owed: Owed,
    /// Whether connections may hold places that policy has given away since they were counted.
    unsettled: AtomicBool,
    /// Held while a connection is mended.
    mending: Mutex<()>,
    /// Why nobody watches the sockets, where somebody should.
    unwatched: Option<String>,
    /// Interfaces by which packets leave unseen, with the reason.
    unseen: BTreeMap<String, String>,
    connections: MapData,
    stations: MapData,
    backends: MapData,
    answers: answers::Measured,
    events: MapData,
    /// Whoever reads the events.
    reader: Weak<()>,
    /// Whoever reads the offences.
    judge: Weak<()>,
    /// Whether the programs write debugging output.
    debug: bool,
    /// Only where a test sets the clock.
    test_clock: Option<aya::maps::Array<MapData, u64>>,
}

/// What `BPF_PROG_TEST_RUN` makes of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TestRun {
    /// The XDP action of the last run.
    pub action: u32,
    /// Nanoseconds of one run, on average.
    pub nanos: u32,
    /// The frame as the last run left it.
    pub frame: Vec<u8>,
}

impl Datapath {
    /// The kernel's hash of the loaded program: two builds that behave alike share it.
    pub fn program_tag(&self) -> anyhow::Result<u64> {
        Ok(self.program()?.info()?.tag())
    }

    /// Whether the programs go on without this process. Where not, [`PRIVATE_PINS`] says why.
    pub fn outlives_agent(&self) -> bool {
        self.pins.lasting()
    }

    /// Nanoseconds of the clock that the programs read: CLOCK_MONOTONIC, or what a test set.
    pub fn now(&self) -> u64 {
        if let Some(clock) = &self.test_clock {
            return clock.get(&0, 0).unwrap_or_default();
        }
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        now.tv_sec.cast_unsigned() * 1_000_000_000 + now.tv_nsec.cast_unsigned()
    }

    /// Sets the clock that the programs read, where [`Options::test_clock`] asked for one.
    pub fn set_clock(&mut self, nanos: u64) -> anyhow::Result<()> {
        let clock = self.test_clock.as_mut().ok_or_else(|| anyhow::anyhow!("the programs read the real clock"))?;
        Ok(clock.set(0, nanos, 0)?)
    }

    /// Judges a frame `repeat` times as if it had come in, without an interface.
    pub fn test_run(&self, frame: &[u8], repeat: u32) -> anyhow::Result<TestRun> {
        use aya::programs::{TestRun as _, TestRunOptions};
        let mut out = vec![0; frame.len() + 256];
        let options =
            TestRunOptions { data_in: Some(frame), data_out: Some(&mut out), repeat, ..TestRunOptions::default() };
        let result = self.program()?.test_run(options)?;
        let length = result.data_size_out as usize;
        out.truncate(length);
        Ok(TestRun { action: result.return_value, nanos: result.duration.as_nanos() as u32, frame: out })
    }

    /// The loaded program, for who runs it by other means: a benchmark that tail-calls it.
    pub fn program_fd(&self) -> anyhow::Result<&ProgramFd> {
        Ok(self.program()?.fd()?)
    }

    fn program(&self) -> anyhow::Result<&Xdp> {
        let program = self.ebpf.program(PROGRAMS[0]).ok_or_else(|| anyhow::anyhow!("the object has no program"))?;
        Ok(program.try_into()?)
    }
}
