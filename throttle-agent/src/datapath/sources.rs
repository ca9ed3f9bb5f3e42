//! Who is allowed, known and blocked, as the kernel has it: single addresses in hashes, prefixes in tries.
//!
//! The agent says what is to be ([`Datapath::set_sources`]); only the difference is written, in batches. An entry says
//! all that covers it, and the longest prefix wins, so the order of writing matters: what is new is added from the
//! longest prefix to the shortest, so that an exception is there before the rule, and what is gone is removed last and
//! the other way round.

use std::{cmp::Reverse, collections::BTreeMap, io};

use anyhow::{Context, Result, ensure};
use aya::Ebpf;
use ipnet::IpNet;
use throttle_common::records::{SourceEntry, SourceMaps};

use super::{
    Datapath,
    source_map::{Kind, SourceMap},
    tables::Tables,
};

/// How many entries a call wrote.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SourceDelta {
    /// Prefixes that had no entry.
    pub added: usize,
    /// Prefixes whose entry says something else now.
    pub changed: usize,
    /// Prefixes that have no entry any more.
    pub removed: usize,
}

/// What the kernel is to say of sources, by prefix.
pub type Entries = BTreeMap<IpNet, SourceEntry>;

/// The four maps, and what is in them.
pub(super) struct Sources {
    maps: [SourceMap; 4],
    held: Entries,
}

/// What has to be written to get from one set of entries to another.
#[derive(Default)]
struct Difference {
    /// Longest prefix first.
    put: Vec<(IpNet, SourceEntry)>,
    /// Shortest prefix first.
    remove: Vec<IpNet>,
    delta: SourceDelta,
}

fn difference(held: &Entries, wanted: &Entries) -> Difference {
    let mut difference = Difference::default();
    for (&prefix, &entry) in wanted {
        match held.get(&prefix) {
            Some(&old) if old == entry => continue,
            Some(_) => difference.delta.changed += 1,
            None => difference.delta.added += 1,
        }
        difference.put.push((prefix, entry));
    }
    difference.remove = held.keys().copied().filter(|prefix| !wanted.contains_key(prefix)).collect();
    difference.delta.removed = difference.remove.len();
    difference.put.sort_by_key(|(prefix, _)| Reverse(prefix.prefix_len()));
    difference.remove.sort_by_key(IpNet::prefix_len);
    difference
}

/// The entry of the longest prefix that covers another. Whatever covers that one lies before it, and covers all in between:
/// so each step back leaves no more of it than it has in common with what is found there.
fn covering(entries: &Entries, prefix: IpNet) -> Option<&SourceEntry> {
    let mut end = prefix;
    loop {
        let (found, entry) = entries.range(..=end).next_back()?;
        if found.contains(&prefix) {
            return Some(entry);
        }
        end = in_common(*found, prefix)?;
    }
}

/// The longest prefix that covers two; `None` where they are of different families.
fn in_common(one: IpNet, other: IpNet) -> Option<IpNet> {
    let alike = match (one, other) {
        (IpNet::V4(one), IpNet::V4(other)) => (one.addr().to_bits() ^ other.addr().to_bits()).leading_zeros(),
        (IpNet::V6(one), IpNet::V6(other)) => (one.addr().to_bits() ^ other.addr().to_bits()).leading_zeros(),
        _ => return None,
    };
    let length = (alike as u8).min(one.prefix_len()).min(other.prefix_len());
    IpNet::new(other.addr(), length).ok().map(|net| net.trunc())
}

/// How many of the prefixes each map gets, in the order of [`Kind::ALL`].
fn count<'a>(prefixes: impl Iterator<Item = &'a IpNet>) -> [usize; 4] {
    let mut counts = [0; 4];
    prefixes.for_each(|prefix| counts[Kind::of(prefix) as usize] += 1);
    counts
}

/// The bits of the maps that have entries.
fn bits(counts: [usize; 4]) -> u32 {
    Kind::ALL.into_iter().zip(counts).filter(|(_, count)| *count > 0).map(|(kind, _)| kind.bit()).sum()
}

impl Sources {
    /// Takes the maps and reads what is in them.
    pub(super) fn new(ebpf: &Ebpf) -> Result<Self> {
        let [a, b, c, d] = Kind::ALL;
        let maps =
            [SourceMap::new(ebpf, a)?, SourceMap::new(ebpf, b)?, SourceMap::new(ebpf, c)?, SourceMap::new(ebpf, d)?];
        let mut sources = Self { maps, held: Entries::new() };
        sources.held = sources.read().context("cannot read the allowed, known and blocked sources")?;
        Ok(sources)
    }

    /// What the maps hold.
    pub(super) fn held(&self) -> &Entries {
        &self.held
    }

    /// What is said of all of a prefix: by the longest that covers it.
    pub(super) fn covering(&self, prefix: IpNet) -> Option<&SourceEntry> {
        covering(&self.held, prefix)
    }

    /// What the map of a kind says of a prefix.
    pub(super) fn look_up(&self, kind: Kind, prefix: &IpNet) -> io::Result<Option<SourceEntry>> {
        self.maps[kind as usize].look_up(prefix)
    }

    /// Whether the maps have room for all of these.
    pub(super) fn fit(&self, wanted: &Entries) -> bool {
        self.maps.iter().zip(count(wanted.keys())).all(|(map, count)| count <= map.room)
    }

    /// Says which maps have entries; what packets have found before is stale.
    pub(super) fn announce(&self, tables: &Tables) {
        tables.set_sources(bits(count(self.held.keys())));
    }

    fn read(&self) -> io::Result<Entries> {
        let mut entries = Entries::new();
        for map in &self.maps {
            entries.extend(map.read()?);
        }
        Ok(entries)
    }

    fn set(&mut self, wanted: &Entries, tables: &Tables) -> Result<SourceDelta> {
        let counts = count(wanted.keys());
        for (map, count) in self.maps.iter().zip(counts) {
            let kind = map.kind;
            ensure!(count <= map.room, "{count} entries of the kind {kind:?}, of which there is room for {}", map.room);
        }
        let difference = difference(&self.held, wanted);
        if difference.delta == SourceDelta::default()
            && tables.control().sources & (SourceMaps::ALL | SourceMaps::WRITING) == bits(counts)
        {
            // Nor does anything that packets have found become stale.
            return Ok(difference.delta);
        }
        // Every map that has entries at any time of this is looked into meanwhile.
        tables.set_sources(bits(count(self.held.keys().chain(wanted.keys()))) | SourceMaps::WRITING);
        if let Err(error) = self.write(&difference) {
            let back = self.read().and_then(|now| self.write(&self::difference(&now, &self.held)));
            let left = self.read();
            if let Ok(left) = &left {
                self.held.clone_from(left);
            }
            self.announce(tables);
            left.context("cannot read what is left of the sources")?;
            let state = if back.is_ok() { "nothing has changed" } else { "some entries were written and stay" };
            return Err(anyhow::Error::new(error).context(format!("cannot write the sources' entries; {state}")));
        }
        tables.set_sources(bits(counts));
        self.held.clone_from(wanted);
        Ok(difference.delta)
    }

    fn write(&self, difference: &Difference) -> io::Result<()> {
        let new = difference.put.iter().map(|(prefix, _)| prefix).filter(|prefix| !self.held.contains_key(*prefix));
        let together = count(self.held.keys().chain(new));
        if self.maps.iter().zip(together).all(|(map, count)| count <= map.room) {
            self.put(&difference.put)?;
            self.remove(&difference.remove)
        } else {
            // Where old and new do not fit side by side, the old ones make room.
            self.remove(&difference.remove)?;
            self.put(&difference.put)
        }
    }

    /// Addresses go before prefixes, because their map is asked first.
    fn put(&self, entries: &[(IpNet, SourceEntry)]) -> io::Result<()> {
        self.maps.iter().try_for_each(|map| {
            let own: Vec<_> = entries.iter().copied().filter(|(prefix, _)| Kind::of(prefix) == map.kind).collect();
            map.put(&own)
        })
    }

    fn remove(&self, prefixes: &[IpNet]) -> io::Result<()> {
        self.maps.iter().rev().try_for_each(|map| {
            let own: Vec<_> = prefixes.iter().copied().filter(|prefix| Kind::of(prefix) == map.kind).collect();
            map.remove(&own)
        })
    }
}

impl Datapath {
    /// Makes the sources' entries what is wanted, and says what had to be written. Host bits of prefixes must be zero.
    /// No packet meets a state that neither the old nor the new entries would give it, unless they do not fit the maps
    /// side by side. On an error the old entries are put back.
    pub fn set_sources(&mut self, wanted: &Entries) -> Result<SourceDelta> {
        let delta = self.sources.set(wanted, &self.tables)?;
        // Whoever says what is to be takes over from what was to be.
        self.owed.sources = None;
        Ok(delta)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(list: &[(&str, u64)]) -> Entries {
        let entry = |&(prefix, blocked_until): &(&str, u64)| {
            (prefix.parse().unwrap(), SourceEntry { blocked_until, ..SourceEntry::default() })
        };
        list.iter().map(entry).collect()
    }

    #[test]
    fn writes_only_what_differs() {
        let held = entries(&[("10.0.0.0/8", 1), ("10.0.0.1/32", 1), ("2001:db8::/32", 1)]);
        let wanted = entries(&[("10.0.0.0/8", 1), ("10.0.0.1/32", 2), ("10.0.0.2/32", 1)]);
        let difference = difference(&held, &wanted);
        assert_eq!(difference.delta, SourceDelta { added: 1, changed: 1, removed: 1 });
        assert_eq!((difference.put.len(), difference.remove.len()), (2, 1));
    }

    proptest::proptest! {
        #[test]
        fn the_longest_prefix_that_covers_another_is_found(
            nets in proptest::collection::vec((0u32..64, 24u8..=32), 0..40),
            asked in (0u32..64, 24u8..=32),
            is_v6 in proptest::prelude::any::<bool>(),
        ) {
            let net = |(bits, length): (u32, u8)| -> IpNet {
                let address = std::net::Ipv4Addr::from_bits(bits << 2);
                IpNet::new(address.into(), length).unwrap().trunc()
            };
            let mut held: Entries = (1..).zip(nets).map(|(until, it)| {
                (net(it), SourceEntry { blocked_until: until, ..SourceEntry::default() })
            }).collect();
            held.insert("2001:db8::/32".parse().unwrap(), SourceEntry::default());
            let prefix = if is_v6 { "2001:db8::7/128".parse().unwrap() } else { net(asked) };
            let by_length = std::iter::successors(Some(prefix), IpNet::supernet).find_map(|net| held.get(&net));
            proptest::prop_assert_eq!(covering(&held, prefix), by_length);
        }
    }

    #[test]
    fn adds_exceptions_before_rules_and_removes_them_after() {
        let all = entries(&[("10.0.0.0/8", 1), ("10.1.0.0/16", 0), ("10.1.1.1/32", 1)]);
        let lengths: Vec<_> = difference(&Entries::new(), &all).put.iter().map(|(p, _)| p.prefix_len()).collect();
        assert_eq!(lengths, [32, 16, 8]);
        let lengths: Vec<_> = difference(&all, &Entries::new()).remove.iter().map(IpNet::prefix_len).collect();
        assert_eq!(lengths, [8, 16, 32]);
    }
}
