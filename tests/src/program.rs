//! The kernel program on its own: a policy in, frames in, verdicts and counters out, with a clock that the test sets.
//!
//! It is the agent's own [`Datapath`] and the agent's own compiler that a [`Program`] is made of; only the agent is absent.

use crate::{
    pins::Pins,
    wire::{FAR, Wire},
};
use anyhow::{Context, Result, anyhow, ensure};
use aya::maps::{Array, Map, MapData};
use ipnet::IpNet;
use std::collections::BTreeMap;
use throttle_agent::{
    datapath::{Datapath, Mode, Options},
    policy::{
        self, Compiled, Document,
        sources::{self, Standing},
    },
};
use throttle_common::{
    gcra::Ticks,
    records::{self, Control, Lease, Limit, LimitTally, Slot, SourceEntry, Tally, maps},
    table::WAYS,
    words::{Outcome, Reason, Speaks},
};

/// The `XDP_*` actions (linux/bpf.h) that a verdict may come out as.
pub mod action {
    #![expect(missing_docs, reason = "the names are the kernel's")]
    pub const DROP: u32 = 1;
    pub const PASS: u32 = 2;
    pub const TX: u32 = 3;
}

/// Where a test's clock starts: a day and a bit after boot, so that no bucket owes anything that lies before.
pub const START: u64 = 100_000 * SECOND;
/// In the clock's nanoseconds.
pub const SECOND: u64 = 1_000_000_000;
/// Sets of the table, as the agent has them by default.
pub const DEFAULT_SETS: u32 = 1 << 20;
/// Longer than any bucket may owe.
const REST: u64 = 25 * 3_600 * SECOND;

/// Frames by why and what became of them.
pub type Tallies = BTreeMap<(Reason, Outcome), Tally>;

/// What became of one frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judged {
    /// What the program counted it as.
    pub reason: Reason,
    /// What the program says became of it.
    pub outcome: Outcome,
    /// What the driver was told.
    pub action: u32,
    /// The frame as the program left it: the answer, where it was rejected.
    pub frame: Vec<u8>,
}

/// A loaded program with its maps, under a policy.
pub struct Program {
    /// The agent's kernel edge.
    pub datapath: Datapath,
    /// The policy in force as it was written.
    pub document: Document,
    /// And as the kernel has it.
    pub compiled: Compiled,
    pins: Pins,
    now: u64,
}

impl Program {
    /// Loads it with a clock that stands at [`START`] until [`Program::wait`] moves it.
    pub fn timed(policy: &str) -> Result<Self> {
        Self::load(policy, true, DEFAULT_SETS)
    }

    /// Loads it with the real clock.
    pub fn live(policy: &str) -> Result<Self> {
        Self::load(policy, false, DEFAULT_SETS)
    }

    /// Loads it with the clock that is asked for and a table of so many sets.
    pub fn load(policy: &str, test_clock: bool, table_sets: u32) -> Result<Self> {
        let pins = Pins::new()?;
        let options = Options { pin_dir: pins.pin_dir(), table_sets, debug: false, test_clock, adopt: false };
        let datapath = Datapath::open(&options).context("load the kernel program")?;
        let (document, compiled) = compile("", 0, &datapath)?;
        let mut program = Self { datapath, document, compiled, pins, now: START };
        if test_clock {
            program.datapath.set_clock(program.now)?;
        }
        program.apply(policy)?;
        Ok(program)
    }

    /// Loads it with the real clock, and attaches it to the far end of a wire.
    pub fn on(wire: &Wire, policy: &str) -> Result<Self> {
        let mut program = wire.far.enter(|| Self::live(policy))??;
        program.attach(wire)?;
        Ok(program)
    }

    /// Attaches it to the far end of a wire.
    pub fn attach(&mut self, wire: &Wire) -> Result<()> {
        wire.far.enter(|| self.datapath.attach(FAR, Mode::Native))?.context("attach throttle")?;
        Ok(())
    }

    /// Puts another policy in force, with its sources.
    pub fn apply(&mut self, policy: &str) -> Result<()> {
        (self.document, self.compiled) = compile(policy, self.compiled.policy.revision + 1, &self.datapath)?;
        let entries = sources::resolve(sources::stated(&self.document, &self.compiled.tenants));
        self.datapath.switch(&self.compiled, &entries)
    }

    /// Has each CPU take so many units ahead of every bucket that sources share and whose clock flows, 0 for none: also of
    /// those that are charged so seldom, or hold so little, that no policy does.
    pub fn lease(&mut self, units: u32) -> Result<()> {
        let limits = self.compiled.limits.iter_mut().map(|(_, limit)| limit);
        for limit in limits.filter(|it| it.is_shared() && it.window == 0 && !it.is_concurrency()) {
            limit.batch = u64::from(units) * limit.price.cost(1);
        }
        let entries = sources::resolve(sources::stated(&self.document, &self.compiled.tenants));
        self.datapath.switch(&self.compiled, &entries)
    }

    /// Puts the policy in force once more, changed where the kernel has it.
    pub fn change(&mut self, change: impl FnOnce(&mut Compiled)) -> Result<()> {
        change(&mut self.compiled);
        let entries = sources::resolve(sources::stated(&self.document, &self.compiled.tenants));
        self.datapath.switch(&self.compiled, &entries)
    }

    /// Gives its first service the breaker that goes with its clock, and gives the number of that.
    pub fn break_first(&mut self) -> Result<u16> {
        let mut number = 0;
        self.change(|compiled| {
            number = compiled.services[0].clock;
            compiled.services[0].breaker = number;
            compiled.policy.has_breakers = 1;
        })?;
        Ok(number)
    }

    /// Has the time to first byte of its first service measured, and gives the number of its clock.
    pub fn measure_first(&mut self, speaks: Speaks) -> Result<u16> {
        self.change(|compiled| {
            compiled.services[0].measures = speaks as u8;
            compiled.policy.measures = 1;
        })?;
        Ok(self.compiled.services[0].clock)
    }

    /// Replaces what is said of sources.
    pub fn set_sources(&mut self, statements: impl IntoIterator<Item = (IpNet, Standing)>) -> Result<()> {
        let entries: BTreeMap<IpNet, SourceEntry> = sources::resolve(statements.into_iter());
        self.datapath.set_sources(&entries).map(drop)
    }

    /// The clock that the program reads.
    pub fn now(&self) -> u64 {
        self.now
    }

    /// Moves the clock on.
    pub fn wait(&mut self, nanos: u64) -> Result<()> {
        self.now += nanos;
        self.datapath.set_clock(self.now)
    }

    /// Moves the clock on until every bucket is full.
    pub fn rest(&mut self) -> Result<()> {
        self.wait(REST)
    }

    /// Runs the program on a frame; only what the driver is told.
    pub fn act(&self, frame: &[u8]) -> Result<u32> {
        Ok(self.datapath.test_run(frame, 1)?.action)
    }

    /// Runs the program on a frame, and sees how it was counted: once, and with its whole length.
    pub fn judge(&self, frame: &[u8]) -> Result<Judged> {
        let before = self.tallies()?;
        let run = self.datapath.test_run(frame, 1)?;
        let mut counted = difference(&self.tallies()?, &before);
        let Some(((reason, outcome), tally)) = counted.pop_first() else { anyhow::bail!("the frame was not counted") };
        ensure!(counted.is_empty(), "the frame was counted twice: {reason:?} and {counted:?}");
        let once = Tally { packets: 1, bytes: frame.len() as u64 };
        ensure!(tally == once, "a frame of {} bytes was counted as {tally:?}", frame.len());
        Ok(Judged { reason, outcome, action: run.action, frame: run.frame })
    }

    /// All frames so far.
    pub fn tallies(&self) -> Result<Tallies> {
        let counted = self.datapath.reason_tallies()?;
        Ok(counted.into_iter().map(|(reason, outcome, tally)| ((reason, outcome), tally)).collect())
    }

    /// What a limit did so far.
    pub fn limit(&self, name: &str) -> Result<LimitTally> {
        self.datapath.limit_tally(self.limit_record(name)?.0)
    }

    /// A limit as the kernel has it, with its number.
    pub fn limit_record(&self, name: &str) -> Result<(u16, Limit)> {
        let named = self.compiled.limits.iter().find(|(_, limit)| records::name_str(&limit.name) == name);
        named.copied().with_context(|| format!("no limit {name} in the policy"))
    }

    /// The first sets of the table of buckets, and their aggregates.
    pub fn table(&self, sets: u32) -> Result<(Vec<BucketSet>, Vec<Ticks>)> {
        let buckets = self.map::<SetBytes>(maps::BUCKETS)?;
        let aggregates = self.map::<Ticks>(maps::AGGREGATES)?;
        let buckets = (0..sets).map(|set| Ok(buckets.get(&set, 0)?.0));
        let aggregates = (0..sets).map(|set| Ok(aggregates.get(&set, 0)?));
        Ok((buckets.collect::<Result<_>>()?, aggregates.collect::<Result<_>>()?))
    }

    /// What the CPUs have taken ahead, the first one's leases first.
    pub fn leases(&self) -> Result<Vec<Lease>> {
        let leases = self.map::<Lease>(maps::LEASES)?;
        (0..leases.len()).map(|place| Ok(leases.get(&place, 0)?)).collect()
    }

    /// One set of the table.
    pub fn set_of(&self, place: u32) -> Result<BucketSet> {
        Ok(self.map::<SetBytes>(maps::BUCKETS)?.get(&place, 0)?.0)
    }

    /// Writes one slot of the table, as packets would have left it.
    pub fn put(&self, place: u32, way: usize, slot: Slot) -> Result<()> {
        let mut buckets = self.map::<SetBytes>(maps::BUCKETS)?;
        let mut set = buckets.get(&place, 0)?;
        set.0[way] = slot;
        Ok(buckets.set(place, set, 0)?)
    }

    /// What every packet reads first.
    pub fn control(&self) -> Result<Control> {
        Ok(self.map::<Control>(maps::CONTROL)?.get(&0, 0)?)
    }

    /// One of the pinned arrays.
    pub fn map<T: aya::Pod>(&self, name: &str) -> Result<Array<MapData, T>> {
        Ok(Map::Array(self.map_data(name)?).try_into()?)
    }

    /// One of the pinned maps.
    pub fn map_data(&self, name: &str) -> Result<MapData> {
        let path = self.pins.pin_dir().join("maps").join(name);
        MapData::from_pin(&path).with_context(|| format!("open {}", path.display()))
    }
}

/// The slots of one set of the table.
pub type BucketSet = [Slot; WAYS];

#[derive(Clone, Copy)]
#[repr(transparent)]
struct SetBytes(BucketSet);

// SAFETY: slots are plain numbers, without padding between them.
unsafe impl aya::Pod for SetBytes {}

fn compile(policy: &str, revision: u64, datapath: &Datapath) -> Result<(Document, Compiled)> {
    let document = policy::parse(policy).map_err(|wrong| anyhow!("{wrong}\n{policy}"))?;
    let compiled = policy::compile(&document, revision, &datapath.layout());
    Ok((document, compiled.map_err(|wrong| anyhow!("{wrong}"))?))
}

/// What was counted between two readings.
pub fn difference(after: &Tallies, before: &Tallies) -> Tallies {
    let mut counted = after.clone();
    for (key, earlier) in before {
        if let Some(tally) = counted.get_mut(key) {
            tally.packets -= earlier.packets;
            tally.bytes -= earlier.bytes;
        }
    }
    counted.retain(|_, tally| tally.packets > 0);
    counted
}
