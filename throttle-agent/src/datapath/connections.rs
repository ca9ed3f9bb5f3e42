//! The connections that hold places under limits, held against the sockets that there are.
//!
//! The kernel programs count: a connection takes its places when its handshake completes, and gives them back when its
//! socket closes. What they cannot see is mended here, connection by connection: sockets that are older than the limit
//! or than the programs, ends that were missed, and places under limits that have changed. [`Drift`] says how many.
//!
//! Of what is counted by its packets no socket tells: it is forgotten when nothing was heard of it for too long.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::AsFd,
    sync::atomic::{AtomicU64, Ordering::SeqCst},
};

use anyhow::{Context, Result};
use aya::maps::MapData;
use ipnet::IpNet;
use throttle_common::{
    connections::{STANDING, taken},
    entrances::is_overdue,
    forwarded::seconds_since,
    gcra,
    packet::Family,
    records::{Address, Connection, Ends, Limit, NONE, Region, Service, SourceEntry, Whose},
    services,
};

use super::{
    Datapath, bpf,
    mapped::{bytes_of, record},
    sockdiag::Sockets,
};

/// A connection between two ends and the places that it holds.
pub type Held = (Ends, Connection);

/// How far the count was from the sockets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drift {
    /// Connections that held places without a socket.
    pub closed: u64,
    /// Sockets that did not hold a place that they should, or held one that they should not.
    pub open: u64,
    /// Forwarded connections that nothing was heard of for as long as their service allows: no drift, but an end.
    pub idle: u64,
}

impl Datapath {
    /// Every connection that holds places.
    pub fn connections(&self) -> Result<Vec<Held>> {
        read(&self.connections).context("read the connections that hold places")
    }

    /// How many places are taken under a limit on open connections.
    pub fn open_connections(&self, limit: &Limit) -> u64 {
        let of = |(_, Region { base, sets, .. }): (_, Region)| places(self.tables.buckets.run(base, sets), 2);
        limit.regions().map(of).sum::<u64>() + self.open_in_aggregates(limit)
    }

    /// How many of them are aggregates'.
    pub fn open_in_aggregates(&self, limit: &Limit) -> u64 {
        let of = |(_, Region { base, sets, .. }): (_, Region)| places(self.tables.aggregates.run(base, sets), 1);
        limit.regions().map(of).sum()
    }

    /// Mends what the count has missed, in the network namespace of the calling thread.
    pub fn reconcile_connections(&self) -> Result<Drift> {
        if self.policy().counts_connections == 0 {
            self.settle_places()?;
            return Ok(Drift::default());
        }
        let held: HashMap<Ends, Connection> = self.connections()?.into_iter().collect();
        let sockets = Sockets::list().context("list the sockets")?;
        let mut drift = Drift::default();
        for (ends, connection) in &held {
            match self.service_of(ends).filter(|service| counted_by_packets(connection, service)) {
                Some(service)
                    if seconds_since(connection.seen, self.now()) >= connection.patience(service.idle_after) =>
                {
                    drift.idle += u64::from(self.close(ends, connection)?);
                }
                Some(_) => {
                    drift.open += u64::from(self.mend_unobserved(ends, Some(Connection::FORWARDED), connection)?);
                }
                None if sockets.contains(ends) => {}
                None if self.has_ended(ends, connection, &sockets)? => {
                    drift.closed += u64::from(self.close(ends, connection)?);
                }
                // It enters, or has opened since.
                None => drift.open += u64::from(self.mend_unobserved(ends, None, connection)?),
            }
        }
        for ends in sockets.open() {
            let forwarded = || self.service_of(ends).is_some_and(|service| service.forwarded != 0);
            drift.open += u64::from(match held.get(ends) {
                Some(connection) if connection.state == Connection::FORWARDED && forwarded() => false,
                // Also one that was open before its service was counted by packets.
                Some(connection) => self.mend(ends, Some(Connection::OPEN), connection)?,
                None if forwarded() => false,
                None => sockets.listening.contains(&ends.destination_port) && self.adopt(ends, &sockets)?,
            });
        }
        self.unsettled.store(false, SeqCst);
        Ok(drift)
    }

    /// Has every connection that is written down hold what it should under the policy in force, whatever has become of its
    /// socket: then none holds a place that the next policy gives to another limit.
    pub(super) fn settle_places(&self) -> Result<()> {
        let counts = self.policy().counts_connections != 0;
        for (ends, connection) in self.connections()? {
            if counts {
                self.mend(&ends, None, &connection)?;
            } else {
                self.forget(&ends).context("forget a connection that no limit counts")?;
            }
        }
        self.unsettled.store(false, SeqCst);
        Ok(())
    }

    /// Counts a connection that was listed and is not written down, unless it has closed since: many do while a long list
    /// is read.
    fn adopt(&self, ends: &Ends, sockets: &Sockets) -> Result<bool> {
        let is_open = || sockets.is_open(ends).context("ask for a socket");
        if self.limits_of(ends).is_empty() || !is_open()? || !self.adopt_now(ends)? {
            return Ok(false);
        }
        // Where it closed before it was written down, nobody else gives its places back.
        match self.connection(ends)? {
            Some(written) if !is_open()? => self.close(ends, &written).map(|_| false),
            _ => Ok(true),
        }
    }

    /// Whether a connection that was not among the sockets is none.
    fn has_ended(&self, ends: &Ends, connection: &Connection, sockets: &Sockets) -> Result<bool> {
        let enters = matches!(connection.state, Connection::ENTERING | Connection::FAST);
        let young = enters && !is_overdue(connection.began(), self.now());
        Ok(!young && !sockets.is_open(ends).context("ask for a socket")?)
    }

    fn forget(&self, ends: &Ends) -> io::Result<()> {
        match bpf::map_delete(self.connections.fd().as_fd(), bytes_of(&[*ends])) {
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
            result => result,
        }
    }

    /// What is written down between two ends.
    pub(super) fn connection(&self, ends: &Ends) -> Result<Option<Connection>> {
        let mut value = [0; size_of::<Connection>()];
        match bpf::map_lookup(self.connections.fd().as_fd(), bytes_of(&[*ends]), &mut value) {
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
            found => found.map(|()| record(&value)).context("look a connection up"),
        }
    }

    /// Mends one in its state. What a limit only observes to be too many has no place yet, and was not missed.
    fn mend_unobserved(&self, ends: &Ends, state: Option<u32>, seen: &Connection) -> Result<bool> {
        Ok(self.mend(ends, state, seen)? && !self.is_observed(ends))
    }

    /// Whether a limit that counts a connection only observes.
    fn is_observed(&self, ends: &Ends) -> bool {
        self.policy().observe != 0 || self.limits_of(ends).iter().any(|(_, limit)| limit.observe != 0)
    }

    /// The service that a connection is to, as the programs find it.
    pub(super) fn service_of(&self, ends: &Ends) -> Option<Service> {
        self.directed(ends).map(|(_, service)| service)
    }

    /// The number of that service.
    pub(super) fn number_of(&self, ends: &Ends) -> Option<u16> {
        self.directed(ends).map(|(number, _)| number)
    }

    fn directed(&self, ends: &Ends) -> Option<(u16, Service)> {
        services::find(&self.tables.directory(), &ends.packet())
    }

    /// Whom a connection comes from.
    pub(super) fn whose(&self, ends: &Ends) -> Whose {
        let tenant = self.entry_of(ends).map_or(NONE, |entry| entry.tenant(self.tables.in_force()));
        Whose { source: ends.source, family: ends.family(), tenant }
    }

    /// What policy says of the source.
    pub(super) fn entry_of(&self, ends: &Ends) -> Option<&SourceEntry> {
        self.entry_covering(IpNet::from(opener(ends)))
    }

    /// What policy says of all of a prefix.
    pub(super) fn entry_covering(&self, prefix: IpNet) -> Option<&SourceEntry> {
        self.sources.covering(prefix)
    }
}

/// How many places buckets have given out, each the last of so many words.
fn places(words: &[AtomicU64], step: usize) -> u64 {
    let buckets = words.iter().skip(step - 1).step_by(step).map(|word| word.load(SeqCst));
    buckets.filter(|tat| tat & 1 == 0).map(|tat| taken(gcra::debt(tat, STANDING))).sum()
}

/// Who opened a connection.
pub fn opener(ends: &Ends) -> IpAddr {
    address(ends.source, ends.family())
}

/// The address of this host that it was opened to.
pub(super) fn own(ends: &Ends) -> IpAddr {
    address(ends.destination, ends.family())
}

fn address(Address { high, low }: Address, family: Family) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::from_bits(low as u32).into(),
        Family::V6 => Ipv6Addr::from_bits(u128::from(high) << 64 | u128::from(low)).into(),
    }
}

/// Whether its packets say when a connection ends. Where policy has changed since it began, its socket does, or nothing.
fn counted_by_packets(connection: &Connection, service: &Service) -> bool {
    connection.state == Connection::FORWARDED && service.forwarded != 0
}

fn read(map: &MapData) -> io::Result<Vec<Held>> {
    bpf::map_lookup_all(map.fd().as_fd(), size_of::<Ends>(), size_of::<Connection>())?
        .into_iter()
        .map(|(key, value)| Some((record(&key)?, record(&value)?)))
        .collect::<Option<_>>()
        .ok_or_else(|| io::ErrorKind::InvalidData.into())
}
