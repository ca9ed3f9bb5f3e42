//! Counters of an earlier layout: read, and moved into those of this one.
//!
//! They are moved when nothing counts on them any more, one element after the other: what is taken over is added to the
//! new element and then no longer in the old one, so that whoever goes on after a crash moves the rest.

use std::os::fd::AsFd;

use anyhow::{Context, Result, ensure};
use aya::maps::MapData;
use throttle_common::records::{COUNTER_WORDS, Carried, Counters};

use crate::datapath::bpf;

/// A pinned map of counters, of whatever size.
pub(super) struct Tallies {
    map: MapData,
    /// Bytes of an element on one CPU.
    size: usize,
    entries: u32,
    cpus: usize,
}

/// The words of one element, summed over the CPUs.
type Words = [u64; COUNTER_WORDS];

impl Tallies {
    pub(super) fn new(map: MapData) -> Result<Self> {
        let info = map.info().context("ask for the size of a map of counters")?;
        let size = info.value_size() as usize;
        ensure!(size.is_multiple_of(8), "counters of {size} bytes, which are no words");
        let cpus = aya::util::nr_cpus().map_err(|(file, error)| anyhow::anyhow!("read {file}: {error}"))?;
        Ok(Self { size, entries: info.max_entries(), cpus, map })
    }

    /// How many elements there are.
    pub(super) fn entries(&self) -> u32 {
        self.entries
    }

    /// One element. Words that this build does not know are left out; those that it has beyond are 0.
    pub(super) fn sum(&self, index: u32) -> Result<Words> {
        let mut bytes = vec![0; self.size * self.cpus];
        bpf::map_lookup(self.map.fd().as_fd(), &index.to_ne_bytes(), &mut bytes).context("read a counter")?;
        let mut sum = Words::default();
        for own in bytes.chunks_exact(self.size) {
            for (sum, word) in sum.iter_mut().zip(own.chunks_exact(8)) {
                *sum = sum.wrapping_add(u64::from_ne_bytes(word.try_into().expect("eight bytes")));
            }
        }
        Ok(sum)
    }

    /// Adds one element to that of this build by `add`, and starts it from zero.
    pub(super) fn take(&self, of: Counters, index: u32, add: impl Fn(&Carried) -> Result<()>) -> Result<()> {
        let words = self.sum(index)?;
        if words == Words::default() {
            return Ok(());
        }
        add(&Carried { counters: of as u32, index, words })?;
        let zero = vec![0; self.size * self.cpus];
        bpf::map_update(self.map.fd().as_fd(), &index.to_ne_bytes(), &zero).context("start a counter from zero")
    }
}
