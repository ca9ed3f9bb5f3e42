//! Whom limits refuse again and again: the stream of those who tripped a penalty, and how near a source is to it.

use std::{io, net::IpAddr, sync::Arc};

use anyhow::{Context, Result, ensure};
use aya::maps::{Map, MapData, RingBuf};
use throttle_common::{
    hash,
    packet::Family,
    penalties::{self, SETS, seek},
    records::{Address, Limit, Offence, Penalty, SourceEntry, maps},
};
use tokio::io::unix::AsyncFd;

use super::{
    Datapath,
    events::readable,
    mapped::{MappedSet, record},
    tables::map,
};

/// Offences that are given at once.
const AT_ONCE: usize = 4_096;

/// The stream of offences. Those that find the buffer full are counted in [`Datapath::penalty_tally`].
pub struct Offences {
    ring: AsyncFd<RingBuf<MapData>>,
    _reader: Arc<()>,
}

impl Offences {
    /// The next ones, at least one; may be dropped at any time without losing any.
    pub async fn next(&mut self) -> io::Result<Vec<Offence>> {
        loop {
            let mut ready = self.ring.readable_mut().await?;
            let mut found = Vec::new();
            while found.len() < AT_ONCE
                && let Some(bytes) = ready.get_inner_mut().next()
            {
                found.extend(record::<Offence>(&bytes));
            }
            if found.len() < AT_ONCE {
                ready.clear_ready();
            }
            if !found.is_empty() {
                return Ok(found);
            }
        }
    }
}

/// How near a source is to a penalty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Refusals that count.
    pub times: u32,
    /// Nanoseconds until they are forgotten.
    pub rest: u64,
}

impl Datapath {
    /// The stream of offences, which has one reader: this fails while another one lives. Needs a tokio runtime.
    pub fn offences(&mut self) -> Result<Offences> {
        ensure!(self.judge.upgrade().is_none(), "the offences are read already");
        let ring = RingBuf::try_from(Map::RingBuf(map(&self.ebpf, maps::OFFENCES)?))?;
        let ring = readable(ring).context("cannot wait for offences")?;
        let reader = Arc::new(());
        self.judge = Arc::downgrade(&reader);
        Ok(Offences { ring, _reader: reader })
    }

    /// The penalty of a limit in force, by its number; without any where [`Penalty::after`] is 0.
    pub fn penalty(&self, number: u16) -> Penalty {
        self.tables.penalty(number)
    }

    /// Whether no block and no limit touches any source of a prefix.
    pub fn allows(&self, prefix: ipnet::IpNet) -> bool {
        self.sources.covering(prefix).is_some_and(SourceEntry::allows)
    }

    /// How often a limit that has a penalty has refused a source.
    pub fn refused(&self, limit: &Limit, source: IpAddr, now: u64) -> Refused {
        let (family, address) = match source {
            IpAddr::V4(address) => (Family::V4, Address::v4(address.to_bits())),
            IpAddr::V6(address) => {
                let bits = address.to_bits();
                (Family::V6, Address { high: (bits >> 64) as u64, low: bits as u64 })
            }
        };
        let (penalty, secret) = (self.penalty(limit.number), self.tables.control().secret);
        let key = penalties::key(limit.region(family).key(address, family, secret), penalty.salt, secret);
        let set = MappedSet(self.tables.refusals.words(hash::place(key, SETS, secret)));
        let place = seek(&set, key, now);
        // Of none nothing is counted.
        let word = if place.own && penalty.after != 0 { place.seen } else { 0 };
        Refused { times: penalties::count(word, now), rest: penalties::rest(word, now) }
    }
}
