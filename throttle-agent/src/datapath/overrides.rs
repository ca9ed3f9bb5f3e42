//! What classes of sources have of limits, as the kernel has it: a hash by [`override_key`].
//!
//! Each generation of policy has its own. That of the spare one is written before the flip; only the difference, because
//! policies that follow each other mostly agree.

use std::{collections::BTreeMap, io, os::fd::AsFd};

use anyhow::{Context, Result};
use aya::{Ebpf, maps::MapData};
use throttle_common::{
    gcra::Ticks,
    records::{GENERATIONS, Limit, MAX_OVERRIDES, Terms, maps, override_key},
};

use super::{
    bpf,
    mapped::{bytes_of, record},
    source_map::in_batch,
    tables::map,
};
use crate::policy::Overridden;

/// Elements of one system call.
const BATCH: usize = 4096;

/// The map, and what is in it.
pub(super) struct Overrides {
    map: MapData,
    held: BTreeMap<u64, Terms>,
}

impl Overrides {
    /// Takes the map and reads what is in it.
    pub(super) fn new(ebpf: &Ebpf) -> Result<Self> {
        let mut overrides = Self { map: map(ebpf, maps::OVERRIDES)?, held: BTreeMap::new() };
        overrides.held = overrides.read().context("cannot read the overrides")?;
        Ok(overrides)
    }

    /// Makes those of a generation, which must be the spare one, what a policy says. On an error some may be written.
    pub(super) fn write(&mut self, generation: u32, overridden: &Overridden) -> Result<()> {
        anyhow::ensure!(overridden.len() <= MAX_OVERRIDES as usize, "more than {MAX_OVERRIDES} overrides");
        let wanted: BTreeMap<u64, Terms> = overridden
            .iter()
            .map(|(&(limit, class), terms)| (override_key(generation, limit, class), *terms))
            .collect();
        let gone: Vec<u64> = self.of(generation).map(|(key, _)| key).filter(|key| !wanted.contains_key(key)).collect();
        let new: Vec<(u64, Terms)> = wanted
            .iter()
            .map(|(&key, &terms)| (key, terms))
            .filter(|(key, it)| self.held.get(key) != Some(it))
            .collect();
        let written = self.remove(&gone).and_then(|()| self.put(&new));
        if let Err(error) = written {
            self.held = self.read().context("cannot read what is left of the overrides")?;
            return Err(error).context("cannot write the overrides");
        }
        for key in &gone {
            self.held.remove(key);
        }
        self.held.extend(wanted);
        Ok(())
    }

    /// What a class has of a limit.
    pub(super) fn get(&self, key: u64) -> Option<Terms> {
        self.held.get(&key).copied()
    }

    /// How deep a limit is for a class.
    pub(super) fn depth(&self, generation: u32, limit: &Limit, class: u16) -> Ticks {
        self.get(override_key(generation, limit.number, class)).map_or(limit.depth, |terms| terms.depth)
    }

    /// What those of a generation have of a limit instead of what all have.
    pub(super) fn of_limit(&self, generation: u32, limit: u16) -> impl Iterator<Item = (u16, Terms)> {
        let range = override_key(generation, limit, 0)..=override_key(generation, limit, u16::MAX);
        self.held.range(range).map(|(&key, &terms)| (key as u16, terms))
    }

    fn of(&self, generation: u32) -> impl Iterator<Item = (u64, Terms)> {
        debug_assert!(generation < GENERATIONS);
        let range = override_key(generation, 0, 0)..=override_key(generation, u16::MAX, u16::MAX);
        self.held.range(range).map(|(&key, &terms)| (key, terms))
    }

    fn read(&self) -> io::Result<BTreeMap<u64, Terms>> {
        bpf::map_lookup_all(self.map.fd().as_fd(), size_of::<u64>(), size_of::<Terms>())?
            .into_iter()
            .map(|(key, value)| Some((record(&key)?, record(&value)?)))
            .collect::<Option<_>>()
            .ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    fn put(&self, entries: &[(u64, Terms)]) -> io::Result<()> {
        let map = self.map.fd().as_fd();
        for batch in entries.chunks(BATCH) {
            let (keys, terms): (Vec<u64>, Vec<Terms>) = batch.iter().copied().unzip();
            if in_batch(bpf::map_update_batch(map, bytes_of(&keys), bytes_of(&terms), batch.len() as u32))? {
                continue;
            }
            for (key, terms) in batch {
                bpf::map_update(map, bytes_of(&[*key]), bytes_of(&[*terms]))?;
            }
        }
        Ok(())
    }

    fn remove(&self, keys: &[u64]) -> io::Result<()> {
        let map = self.map.fd().as_fd();
        for batch in keys.chunks(BATCH) {
            if in_batch(bpf::map_delete_batch(map, bytes_of(batch), batch.len() as u32))? {
                continue;
            }
            for key in batch {
                bpf::map_delete(map, bytes_of(&[*key]))?;
            }
        }
        Ok(())
    }
}
