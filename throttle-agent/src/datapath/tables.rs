//! The mapped arrays: the two generations of policy, the switch between them, and the table of buckets.

use std::{
    collections::BTreeSet,
    os::fd::AsFd,
    sync::atomic::{AtomicU32, Ordering, fence},
};

use anyhow::{Context, Result};
use aya::{
    Ebpf,
    maps::{Map, MapData},
};
use throttle_common::{
    gcra::Ticks,
    lease,
    records::{
        Breaker, CANDIDATES, Control, HealthClock, Lease, Limit, MAX_CANDIDATES, MAX_LIMITS, MAX_SERVICES, MAX_TENANTS,
        NAME, PORT_WORDS, Page, Penalty, Policy, Service, Slot, SourceMaps, maps, name_bytes, name_str, port_place,
    },
    services::Directory,
    table::WAYS,
};

use super::mapped::MappedArray;
use crate::policy::{Clocks, Compiled, HeldLimit, Http, Tenants};

/// Everything that policy is written to, and the table.
pub(super) struct Tables {
    control: MappedArray<Control>,
    policies: MappedArray<Policy>,
    limits: MappedArray<Limit>,
    services: MappedArray<Service>,
    pages: MappedArray<Page>,
    penalties: MappedArray<Penalty>,
    pub(super) refusals: MappedArray<[Slot; WAYS]>,
    tenants: MappedArray<[u8; NAME]>,
    candidates: MappedArray<[u16; CANDIDATES]>,
    ports: MappedArray<u64>,
    pub(super) clocks: MappedArray<HealthClock>,
    pub(super) windows: MappedArray<u64>,
    pub(super) breakers: MappedArray<Breaker>,
    pub(super) buckets: MappedArray<[Slot; WAYS]>,
    pub(super) aggregates: MappedArray<Ticks>,
    pub(super) leases: MappedArray<Lease>,
}

/// A map of the loaded object, by a descriptor of our own: the object keeps its own, which programs that are loaded
/// later refer to.
pub(super) fn map(ebpf: &Ebpf, name: &str) -> Result<MapData> {
    match ebpf.map(name) {
        Some(
            Map::Array(map)
            | Map::PerCpuArray(map)
            | Map::HashMap(map)
            | Map::PerCpuHashMap(map)
            | Map::LpmTrie(map)
            | Map::RingBuf(map),
        ) => Ok(MapData::from_fd(map.fd().as_fd().try_clone_to_owned()?)?),
        _ => anyhow::bail!("the object has no map {name}"),
    }
}

impl Tables {
    pub(super) fn new(ebpf: &Ebpf) -> Result<Self> {
        Ok(Self {
            control: MappedArray::new(&map(ebpf, maps::CONTROL)?)?,
            policies: MappedArray::new(&map(ebpf, maps::POLICIES)?)?,
            limits: MappedArray::new(&map(ebpf, maps::LIMITS)?)?,
            services: MappedArray::new(&map(ebpf, maps::SERVICES)?)?,
            pages: MappedArray::new(&map(ebpf, maps::PAGES)?)?,
            penalties: MappedArray::new(&map(ebpf, maps::PENALTIES)?)?,
            refusals: MappedArray::new(&map(ebpf, maps::REFUSALS)?)?,
            tenants: MappedArray::new(&map(ebpf, maps::TENANTS)?)?,
            candidates: MappedArray::new(&map(ebpf, maps::CANDIDATE_LISTS)?)?,
            ports: MappedArray::new(&map(ebpf, maps::PORTS)?)?,
            clocks: MappedArray::new(&map(ebpf, maps::CLOCKS)?)?,
            windows: MappedArray::new(&map(ebpf, maps::WINDOWS)?)?,
            breakers: MappedArray::new(&map(ebpf, maps::BREAKERS)?)?,
            buckets: MappedArray::new(&map(ebpf, maps::BUCKETS)?)?,
            aggregates: MappedArray::new(&map(ebpf, maps::AGGREGATES)?)?,
            leases: MappedArray::new(&map(ebpf, maps::LEASES)?)?,
        })
    }

    pub(super) fn control(&self) -> Control {
        self.control.get(0)
    }

    /// Writes the head of fresh maps, before any program is attached.
    pub(super) fn set_control(&self, control: &Control) {
        self.control.set(0, control);
    }

    /// The generation in force: 0 or 1.
    pub(super) fn in_force(&self) -> u32 {
        self.epoch() & 1
    }

    /// How many policies have been in force: see [`lease::Holding`].
    pub(super) fn epoch(&self) -> u32 {
        self.control_word(std::mem::offset_of!(Control, generation)).load(Ordering::Relaxed)
    }

    /// The CPUs that have places for leases.
    pub(super) fn cpus(&self) -> u32 {
        self.leases.len() / lease::SLOTS
    }

    /// The policy in force.
    pub(super) fn policy(&self) -> Policy {
        self.policies.get(self.in_force())
    }

    /// The limits in force, by number.
    pub(super) fn limits(&self) -> Vec<HeldLimit> {
        let base = self.in_force() * MAX_LIMITS;
        (0..MAX_LIMITS)
            .map(|number| HeldLimit { number: number as u16, record: self.limits.get(base + number) })
            .filter(|held| held.record.name[0] != 0)
            .collect()
    }

    /// One limit in force.
    pub(super) fn limit(&self, number: u16) -> Limit {
        self.limits.get(self.in_force() * MAX_LIMITS + u32::from(number) % MAX_LIMITS)
    }

    /// The penalty of a limit in force.
    pub(super) fn penalty(&self, number: u16) -> Penalty {
        self.penalties.get(self.in_force() * MAX_LIMITS + u32::from(number) % MAX_LIMITS)
    }

    /// Where the services in force stand.
    pub(super) fn directory(&self) -> InForce<'_> {
        InForce { tables: self, generation: self.in_force() }
    }

    /// The services in force, by number.
    pub(super) fn services(&self) -> Vec<(u16, Service)> {
        let base = self.in_force() * MAX_SERVICES;
        (1..MAX_SERVICES)
            .map(|number| (number as u16, self.services.get(base + number)))
            .filter(|(_, service)| service.name[0] != 0)
            .collect()
    }

    /// The health clocks of the services in force, by name.
    pub(super) fn clocks_of_services(&self) -> Clocks {
        self.services().iter().map(|(_, service)| (name_str(&service.name).to_owned(), service.clock)).collect()
    }

    /// The clocks of the services in force.
    pub(super) fn clocks_held(&self) -> BTreeSet<u16> {
        let base = self.in_force() * MAX_SERVICES;
        let services = (1..MAX_SERVICES).map(|number| self.services.get(base + number));
        services.filter(|service| service.name[0] != 0).map(|service| service.clock).collect()
    }

    /// The tenants of a generation, by name.
    pub(super) fn tenants(&self, generation: u32) -> Tenants {
        let base = generation * MAX_TENANTS;
        (1..MAX_TENANTS)
            .map(|number| (self.tenants.get(base + number), number as u16))
            .filter(|(name, _)| name[0] != 0)
            .map(|(name, number)| (name_str(&name).to_owned(), number))
            .collect()
    }

    /// The name of a tenant in force.
    pub(super) fn tenant(&self, number: u16) -> String {
        name_str(&self.tenants.get(self.in_force() * MAX_TENANTS + u32::from(number) % MAX_TENANTS)).to_owned()
    }

    /// Writes a policy into the generation that is not in force. No packet may be under that one any more. `tenants` are
    /// those that it has already.
    pub(super) fn write_spare(&self, policy: &Compiled, tenants: &Tenants) {
        let spare = 1 - self.in_force();
        self.policies.set(spare, &policy.policy);
        fill(&self.limits, spare * MAX_LIMITS, MAX_LIMITS, policy.limits.iter().map(|(n, r)| (u32::from(*n), *r)));
        let penalties = policy.penalties.iter().map(|(number, penalty)| (u32::from(*number), *penalty));
        fill(&self.penalties, spare * MAX_LIMITS, MAX_LIMITS, penalties);
        fill(&self.services, spare * MAX_SERVICES, MAX_SERVICES, (1..).zip(policy.services.iter().copied()));
        let own = (1..).zip(&policy.pages).filter_map(|(number, page)| Some((number, (*page)?)));
        // Where there is none, so is none that every frame has room for.
        let any = Http::default().page().filter(|_| policy.pages.iter().any(Option::is_some));
        fill(&self.pages, spare * MAX_SERVICES, MAX_SERVICES, any.map(|page| (0, page)).into_iter().chain(own));
        if !std::ptr::eq(tenants, &raw const *policy.tenants) {
            let tenants = policy.tenants.iter().map(|(name, &number)| (u32::from(number), name_bytes(name)));
            fill(&self.tenants, spare * MAX_TENANTS, MAX_TENANTS, tenants);
        }
        fill(&self.candidates, spare * MAX_CANDIDATES, MAX_CANDIDATES, (1..).zip(policy.candidates.iter().copied()));
        let mut words = vec![0u64; PORT_WORDS as usize];
        for &(slot, list) in &policy.ports {
            let (word, bit) = port_place(slot);
            words[word as usize] |= u64::from(list) << bit;
        }
        // Few ports differ from one policy to the next: what stays the same keeps its cache lines.
        for (to, from) in self.ports.run(spare * PORT_WORDS, PORT_WORDS).iter().zip(words) {
            if to.load(Ordering::Relaxed) != from {
                to.store(from, Ordering::Relaxed);
            }
        }
    }

    /// Puts the other generation in force, with one store: no packet sees half a policy.
    pub(super) fn flip(&self) {
        let next = self.epoch().wrapping_add(1);
        self.control_word(std::mem::offset_of!(Control, generation)).store(next, Ordering::Release);
    }

    /// Says which source maps have entries, whether any are being written, and that entries have changed.
    pub(super) fn set_sources(&self, bits: u32) {
        let word = self.control_word(std::mem::offset_of!(Control, sources));
        word.store(SourceMaps::next(word.load(Ordering::Relaxed), bits), Ordering::Release);
        // What is written after this is seen after it.
        fence(Ordering::SeqCst);
    }

    /// Says whether what leaves is seen.
    pub(super) fn set_sees_leaving(&self, sees: bool) {
        self.control_word(std::mem::offset_of!(Control, sees_leaving)).store(sees.into(), Ordering::Release);
    }

    fn control_word(&self, offset: usize) -> &AtomicU32 {
        let words = self.control.words(0);
        assert!(offset + 4 <= size_of_val(words), "the offset is one of the record's own");
        // SAFETY: within the element by the line above, aligned because the record is `#[repr(C)]` and starts a word.
        unsafe { AtomicU32::from_ptr(words.as_ptr().cast::<u32>().byte_add(offset).cast_mut()) }
    }
}

/// The services of one generation.
pub(super) struct InForce<'a> {
    tables: &'a Tables,
    generation: u32,
}

impl Directory for InForce<'_> {
    type List = [u16; CANDIDATES];
    type Entry = Service;

    fn ports(&self, word: u32) -> Option<u64> {
        (word < PORT_WORDS).then(|| self.tables.ports.get(self.generation * PORT_WORDS + word))
    }

    fn list(&self, number: u16) -> Option<[u16; CANDIDATES]> {
        let number = u32::from(number);
        (number < MAX_CANDIDATES).then(|| self.tables.candidates.get(self.generation * MAX_CANDIDATES + number))
    }

    fn service(&self, number: u16) -> Option<Service> {
        let number = u32::from(number);
        (number < MAX_SERVICES).then(|| self.tables.services.get(self.generation * MAX_SERVICES + number))
    }
}

/// Writes the elements named, and zero over what else is there.
fn fill<T: aya::Pod>(array: &MappedArray<T>, base: u32, count: u32, elements: impl Iterator<Item = (u32, T)>) {
    for word in array.run(base, count) {
        if word.load(Ordering::Relaxed) != 0 {
            word.store(0, Ordering::Relaxed);
        }
    }
    for (number, element) in elements {
        array.set(base + number, &element);
    }
}

/// Zeroes a part of the table. No packet may be judged by it.
pub(super) fn clear(tables: &Tables, first: u32, count: u32) -> Result<()> {
    let end = first.checked_add(count).filter(|&end| end <= tables.buckets.len());
    end.with_context(|| format!("sets {first} and {count} more are not in the table"))?;
    for word in tables.buckets.run(first, count).iter().chain(tables.aggregates.run(first, count)) {
        // Only what was used is written: pages that nobody touched stay untouched.
        if word.load(Ordering::Relaxed) != 0 {
            word.store(0, Ordering::Relaxed);
        }
    }
    Ok(())
}
