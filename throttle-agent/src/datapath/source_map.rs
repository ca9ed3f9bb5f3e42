//! One of the four maps of sources: what a prefix is as its key, and reading and writing it in batches.

use std::{io, os::fd::AsFd};

use anyhow::Result;
use aya::{Ebpf, maps::MapData};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use throttle_common::records::{SourceEntry, SourceMaps, maps};

use super::{
    bpf,
    mapped::{bytes_of, record},
    tables::map,
};

/// Elements of one system call.
const BATCH: usize = 4096;

/// What a map of sources has as its keys. Addresses are in network byte order; a prefix is its length in 32 bits of the
/// host's order, then the address, for IPv4 with four zero bytes that keep the value aligned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    AddressV4,
    AddressV6,
    PrefixV4,
    PrefixV6,
}

impl Kind {
    pub(super) const ALL: [Self; 4] = [Self::AddressV4, Self::AddressV6, Self::PrefixV4, Self::PrefixV6];

    /// The map that a prefix belongs to.
    pub(super) fn of(prefix: &IpNet) -> Self {
        match prefix {
            IpNet::V4(prefix) if prefix.prefix_len() == 32 => Self::AddressV4,
            IpNet::V4(_) => Self::PrefixV4,
            IpNet::V6(prefix) if prefix.prefix_len() == 128 => Self::AddressV6,
            IpNet::V6(_) => Self::PrefixV6,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::AddressV4 => maps::SOURCES_V4,
            Self::AddressV6 => maps::SOURCES_V6,
            Self::PrefixV4 => maps::PREFIXES_V4,
            Self::PrefixV6 => maps::PREFIXES_V6,
        }
    }

    /// The map's bit in [`throttle_common::records::Control::sources`].
    pub(super) fn bit(self) -> u32 {
        match self {
            Self::AddressV4 => SourceMaps::ADDRESSES_V4,
            Self::AddressV6 => SourceMaps::ADDRESSES_V6,
            Self::PrefixV4 => SourceMaps::PREFIXES_V4,
            Self::PrefixV6 => SourceMaps::PREFIXES_V6,
        }
    }

    fn key_size(self) -> usize {
        match self {
            Self::AddressV4 => 4,
            Self::AddressV6 => 16,
            Self::PrefixV4 => 4 + 8,
            Self::PrefixV6 => 4 + 16,
        }
    }

    fn write_key(self, prefix: &IpNet, to: &mut Vec<u8>) {
        if matches!(self, Self::PrefixV4 | Self::PrefixV6) {
            to.extend_from_slice(&u32::from(prefix.prefix_len()).to_ne_bytes());
        }
        match prefix {
            IpNet::V4(prefix) => to.extend_from_slice(&prefix.network().octets()),
            IpNet::V6(prefix) => to.extend_from_slice(&prefix.network().octets()),
        }
        to.resize(to.len().next_multiple_of(self.key_size()), 0);
    }

    fn read_key(self, key: &[u8]) -> Option<IpNet> {
        let length = |all| match self {
            Self::AddressV4 | Self::AddressV6 => Some((all, key)),
            _ => Some((u32::from_ne_bytes(key.get(..4)?.try_into().ok()?) as u8, key.get(4..)?)),
        };
        Some(match self {
            Self::AddressV4 | Self::PrefixV4 => {
                let (length, address) = length(32)?;
                let address: [u8; 4] = address.get(..4)?.try_into().ok()?;
                Ipv4Net::new(address.into(), length).ok()?.into()
            }
            Self::AddressV6 | Self::PrefixV6 => {
                let (length, address) = length(128)?;
                let address: [u8; 16] = address.get(..16)?.try_into().ok()?;
                Ipv6Net::new(address.into(), length).ok()?.into()
            }
        })
    }
}

/// One map.
pub(super) struct SourceMap {
    pub(super) kind: Kind,
    map: MapData,
    /// Entries that it has room for.
    pub(super) room: usize,
}

impl SourceMap {
    pub(super) fn new(ebpf: &Ebpf, kind: Kind) -> Result<Self> {
        let map = map(ebpf, kind.name())?;
        let info = map.info()?;
        let fits =
            info.key_size() as usize == kind.key_size() && info.value_size() as usize == size_of::<SourceEntry>();
        anyhow::ensure!(fits, "map {}: its keys or values have another size than this build knows", kind.name());
        Ok(Self { kind, room: info.max_entries() as usize, map })
    }

    /// Every entry.
    pub(super) fn read(&self) -> io::Result<Vec<(IpNet, SourceEntry)>> {
        let map = self.map.fd().as_fd();
        let mut entries = Vec::new();
        let mut value = [0; size_of::<SourceEntry>()];
        let mut key = vec![0; self.kind.key_size()];
        let mut more = bpf::map_next_key(map, None, &mut key)?;
        while more {
            bpf::map_lookup(map, &key, &mut value)?;
            let prefix = self.kind.read_key(&key).ok_or(io::ErrorKind::InvalidData)?;
            let entry = record(&value).ok_or(io::ErrorKind::InvalidData)?;
            entries.push((prefix, entry));
            let before = key.clone();
            more = bpf::map_next_key(map, Some(&before), &mut key)?;
        }
        Ok(entries)
    }

    /// What the map says of a prefix: a map of addresses of that address, one of prefixes of the longest that covers it.
    pub(super) fn look_up(&self, prefix: &IpNet) -> io::Result<Option<SourceEntry>> {
        let (mut key, mut value) = (Vec::new(), [0; size_of::<SourceEntry>()]);
        self.kind.write_key(prefix, &mut key);
        match bpf::map_lookup(self.map.fd().as_fd(), &key, &mut value) {
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
            found => found.map(|()| record(&value)),
        }
    }

    /// Writes entries, all of this map's kind, in their order.
    pub(super) fn put(&self, entries: &[(IpNet, SourceEntry)]) -> io::Result<()> {
        let map = self.map.fd().as_fd();
        for batch in entries.chunks(BATCH) {
            let keys = self.keys(batch.iter().map(|(prefix, _)| prefix));
            let entries: Vec<SourceEntry> = batch.iter().map(|(_, entry)| *entry).collect();
            let values = bytes_of(&entries);
            if in_batch(bpf::map_update_batch(map, &keys, values, batch.len() as u32))? {
                continue;
            }
            let values = values.chunks_exact(size_of::<SourceEntry>());
            for (key, value) in keys.chunks_exact(self.kind.key_size()).zip(values) {
                bpf::map_update(map, key, value)?;
            }
        }
        Ok(())
    }

    /// Removes the entries of prefixes, all of this map's kind, in their order.
    pub(super) fn remove(&self, prefixes: &[IpNet]) -> io::Result<()> {
        let map = self.map.fd().as_fd();
        for batch in prefixes.chunks(BATCH) {
            let keys = self.keys(batch.iter());
            if in_batch(bpf::map_delete_batch(map, &keys, batch.len() as u32))? {
                continue;
            }
            for key in keys.chunks_exact(self.kind.key_size()) {
                bpf::map_delete(map, key)?;
            }
        }
        Ok(())
    }

    fn keys<'a>(&self, prefixes: impl Iterator<Item = &'a IpNet>) -> Vec<u8> {
        let mut keys = Vec::new();
        prefixes.for_each(|prefix| self.kind.write_key(prefix, &mut keys));
        keys
    }
}

/// Whether the kernel has batches for this type of map at all.
pub(super) fn in_batch(result: io::Result<()>) -> io::Result<bool> {
    match result {
        Err(error) if matches!(error.raw_os_error(), Some(bpf::ENOTSUPP | libc::EINVAL)) => Ok(false),
        result => result.map(|()| true),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_keys_that_it_writes() {
        for text in ["192.0.2.1/32", "192.0.2.0/24", "0.0.0.0/0", "2001:db8::1/128", "2001:db8::/32", "::/0"] {
            let prefix: IpNet = text.parse().unwrap();
            let kind = Kind::of(&prefix);
            let mut keys = vec![];
            kind.write_key(&prefix, &mut keys);
            kind.write_key(&prefix, &mut keys);
            assert_eq!(keys.len(), 2 * kind.key_size());
            assert_eq!(kind.read_key(&keys[kind.key_size()..]), Some(prefix));
        }
    }
}
