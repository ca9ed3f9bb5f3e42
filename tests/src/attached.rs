//! The program that an agent has attached, found by the pin of its link: no agent is asked.

use crate::{frames::Frame, kernel};
use anyhow::{Context, Result};
use aya::{
    Ebpf,
    maps::ProgramArray,
    programs::{
        ProgramFd, ProgramInfo, TestRun as _, TestRunOptions, Xdp,
        links::{FdLink, PinnedLink},
        loaded_programs,
    },
};
use std::{
    fs,
    os::fd::{AsFd as _, AsRawFd as _},
    path::Path,
};

/// What the kernel says of the program whose link is pinned in this directory of an agent's.
pub fn info(pin_dir: &Path) -> Result<ProgramInfo> {
    let links = pin_dir.join("links");
    let first = fs::read_dir(&links).with_context(|| format!("list {}", links.display()))?.next();
    behind(&first.context("no link is pinned")??.path())
}

/// How often the kernel has called neither of the two programs at the sockets, at most: each counts the calls that it was not
/// given because it ran on the same CPU already, and what one was not shown the other was, unless that counts it too.
pub fn missed_at_sockets(pin_dir: &Path) -> Result<u64> {
    let missed = |name| -> Result<u64> {
        let program = behind(&pin_dir.join(name))?.fd()?;
        let told = format!("/proc/self/fdinfo/{}", program.as_fd().as_raw_fd());
        let told = fs::read_to_string(&told).with_context(|| format!("read {told}"))?;
        let missed = told.lines().find_map(|line| line.strip_prefix("recursion_misses:"));
        missed.context("the kernel counts no calls that were missed")?.trim().parse().context("recursion_misses")
    };
    Ok(missed("sockets")?.min(missed("sockets_again")?))
}

/// What the kernel says of the program behind a pinned link.
fn behind(pin: &Path) -> Result<ProgramInfo> {
    let link = FdLink::from(PinnedLink::from_pin(pin).with_context(|| format!("open {}", pin.display()))?);
    let attached = link.info()?.program_id();
    let mut programs = loaded_programs().filter_map(Result::ok);
    programs.find(|program| program.id() == attached).context("nothing is attached")
}

/// The program itself, to be asked for its verdict beside the packets of its interface.
#[derive(Debug)]
pub struct Attached(Ebpf);

impl Attached {
    /// Opens it.
    pub fn open(pin_dir: &Path) -> Result<Self> {
        Self::of(&info(pin_dir)?.fd()?)
    }

    /// One that is attached nowhere.
    pub fn of(program: &ProgramFd) -> Result<Self> {
        let mut object = kernel::load(64)?;
        kernel::xdp(&mut object, "enter")?;
        let measured = object.map_mut("MEASURED").context("no map MEASURED")?;
        ProgramArray::try_from(measured)?.set(0, program, 0)?;
        Ok(Self(object))
    }

    /// What the driver would be told of a frame now: an [`action`](crate::program::action). It counts as any other.
    pub fn act(&self, frame: &Frame) -> Result<u32> {
        self.act_often(frame, 1)
    }

    /// The same of the last of so many.
    pub fn act_often(&self, frame: &Frame, times: u32) -> Result<u32> {
        let bytes = frame.bytes();
        let options = TestRunOptions { data_in: Some(&bytes), repeat: times, ..TestRunOptions::default() };
        let enter: &Xdp = self.0.program("enter").context("no program enter")?.try_into()?;
        Ok(enter.test_run(options)?.return_value)
    }
}
