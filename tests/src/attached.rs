//! The program that an agent has attached, found by the pin of its link: no agent is asked.

use crate::{frames::Frame, kernel};
use anyhow::{Context, Result};
use aya::{
    Ebpf,
    maps::ProgramArray,
    programs::{
        ProgramInfo, TestRun as _, TestRunOptions, Xdp,
        links::{FdLink, PinnedLink},
        loaded_programs,
    },
};
use std::{fs, path::Path};

/// What the kernel says of the program whose link is pinned in this directory of an agent's.
pub fn info(pin_dir: &Path) -> Result<ProgramInfo> {
    let links = pin_dir.join("links");
    let first = fs::read_dir(&links).with_context(|| format!("list {}", links.display()))?.next();
    let link = FdLink::from(PinnedLink::from_pin(first.context("no link is pinned")??.path())?);
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
        let mut object = kernel::load(64)?;
        kernel::xdp(&mut object, "enter")?;
        let measured = object.map_mut("MEASURED").context("no map MEASURED")?;
        ProgramArray::try_from(measured)?.set(0, &info(pin_dir)?.fd()?, 0)?;
        Ok(Self(object))
    }

    /// What the driver would be told of a frame now: an [`action`](crate::program::action). It counts as any other.
    pub fn act(&self, frame: &Frame) -> Result<u32> {
        let bytes = frame.bytes();
        let options = TestRunOptions { data_in: Some(&bytes), repeat: 1, ..TestRunOptions::default() };
        let enter: &Xdp = self.0.program("enter").context("no program enter")?.try_into()?;
        Ok(enter.test_run(options)?.return_value)
    }
}
