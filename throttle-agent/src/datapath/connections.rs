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
    connections::{PLACE, STANDING, taken},
    entrances::is_overdue,
    forwarded::seconds_since,
    gcra::{self, MAX_DEPTH},
    packet::{Family, Packet, protocol},
    records::{
        Address, CONNECTION_LIMITS, Connection, Ends, Hold, Home, Limit, NONE, Region, Service, SourceEntry, Whose,
    },
    services,
    table::{Commit, Look, Request, Set, WAYS, check, commit},
    words::Overflow,
};

use super::{
    Datapath,
    bpf::{self, Existence},
    mapped::{MappedSet, bytes_of, record},
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
        let held: HashMap<Ends, Connection> = self.connections()?.into_iter().collect();
        if self.policy().counts_connections == 0 {
            held.keys().try_for_each(|ends| self.forget(ends)).context("forget connections that no limit counts")?;
            return Ok(Drift::default());
        }
        let sockets = Sockets::list().context("list the sockets")?;
        let mut drift = Drift::default();
        for (ends, connection) in &held {
            match self.service_of(ends).filter(|service| counted_by_packets(connection, service)) {
                Some(service)
                    if seconds_since(connection.seen, self.now()) >= connection.patience(service.idle_after) =>
                {
                    drift.idle += u64::from(self.close(ends, connection)?);
                }
                // What a limit only observes to be too many has no place yet, and was not missed.
                Some(_) => {
                    drift.open += u64::from(self.mend(ends, Connection::FORWARDED)? && !self.is_observed(ends));
                }
                None if !sockets.contains(ends) && self.has_ended(ends, connection, &sockets)? => {
                    drift.closed += u64::from(self.close(ends, connection)?);
                }
                None => {}
            }
        }
        for ends in sockets.open() {
            drift.open += u64::from(match held.get(ends) {
                // One that was open before its service was counted by packets stays what it is.
                Some(connection) if connection.state != Connection::FORWARDED => self.mend(ends, Connection::OPEN)?,
                _ if self.service_of(ends).is_some_and(|service| service.forwarded != 0) => false,
                Some(_) => self.mend(ends, Connection::OPEN)?,
                None => sockets.listening.contains(&ends.destination_port) && self.adopt(ends, &sockets)?,
            });
        }
        Ok(drift)
    }

    /// Counts a connection that was listed and is not written down, unless it has closed since: many do while a long list
    /// is read.
    fn adopt(&self, ends: &Ends, sockets: &Sockets) -> Result<bool> {
        let is_open = || sockets.is_open(ends).context("ask for a socket");
        if self.limits_of(ends).is_empty() || !is_open()? || !self.hold_what_is_due(ends, Connection::OPEN, None)? {
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
        let young = enters && !is_overdue(connection.since, self.now());
        Ok(!young && !sockets.is_open(ends).context("ask for a socket")?)
    }

    fn forget(&self, ends: &Ends) -> io::Result<()> {
        match bpf::map_delete(self.connections.fd().as_fd(), bytes_of(&[*ends])) {
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
            result => result,
        }
    }

    /// Gives the places of a connection back, unless it has become another one or somebody else does.
    fn close(&self, ends: &Ends, seen: &Connection) -> Result<bool> {
        let same = |now: &Connection| (now.since, now.seen, now.state) == (seen.since, seen.seen, seen.state);
        let now = self.connection(ends)?.filter(same);
        let Some(now) = now else { return Ok(false) };
        match bpf::map_delete(self.connections.fd().as_fd(), bytes_of(&[*ends])) {
            Ok(()) => self.give_all_back(&now.holds),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(false),
            Err(error) => return Err(error).context("forget a connection"),
        }
        Ok(true)
    }

    /// What is written down between two ends.
    fn connection(&self, ends: &Ends) -> Result<Option<Connection>> {
        let mut value = [0; size_of::<Connection>()];
        match bpf::map_lookup(self.connections.fd().as_fd(), bytes_of(&[*ends]), &mut value) {
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
            found => found.map(|()| record(&value)).context("look a connection up"),
        }
    }

    /// Has a connection, as it was `found` written down, hold the places that it should, and no others, in the state that is
    /// its own: that of a socket, or of one that is counted by its packets. `true` where it did not.
    fn hold_what_is_due(&self, ends: &Ends, state: u32, found: Option<Connection>) -> Result<bool> {
        let (limits, whose) = (self.limits_of(ends), self.whose(ends));
        let held = found.map_or([Hold::NONE; CONNECTION_LIMITS], |connection| connection.holds);
        let secret = self.tables.control().secret;
        let is_at_home = |hold: &Hold, limit: &Limit| {
            limit.home(&whose.whose, secret).is_some_and(|Home { key, set }| {
                let place = if hold.in_aggregate() { limit.aggregate(&whose.whose, secret) } else { set };
                (key, place) == (hold.key, hold.place)
            })
        };
        let due = |hold: &&Hold| limits.iter().any(|(number, limit)| hold.limit == *number && is_at_home(hold, limit));
        let stay: Vec<Hold> = held.iter().filter(|hold| hold.is_some()).filter(due).copied().collect();
        let (stay, taken) = self.places(&limits, &whose, &stay);
        let gone: Vec<_> = held.iter().filter(|hold| hold.is_some() && !stay.contains(hold)).collect();
        let drifted = !gone.is_empty() || !taken.is_empty();
        let changes = found.is_some_and(|connection| connection.state != state);
        if !drifted && !changes {
            return Ok(false);
        }
        let mut holds = [Hold::NONE; CONNECTION_LIMITS];
        for (place, hold) in holds.iter_mut().zip(stay.iter().chain(&taken)) {
            *place = *hold;
        }
        let anew = Connection { since: self.now(), state, holds, ..Connection::NEW };
        let next = found.map_or(anew, |found| Connection { state, holds, ..found });
        let existence = if found.is_some() { Existence::Needed } else { Existence::Forbidden };
        match bpf::map_update_if(self.connections.fd().as_fd(), bytes_of(&[*ends]), bytes_of(&[next]), existence) {
            Ok(()) => {
                self.give_all_back(gone);
                Ok(drifted)
            }
            Err(error) => {
                self.give_all_back(&taken);
                // It has closed, or was opened and counted, meanwhile; or there is no room for more, as the programs say too.
                let expected = matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EEXIST | libc::E2BIG));
                if expected { Ok(false) } else { Err(error).context("write a connection down") }
            }
        }
    }

    /// Of the places that a connection holds those that stay, and those that are taken beside: a place under every limit, but
    /// under none that stands behind a guarantee of which it has one. One that has all its places by itself goes on without
    /// the guarantee's.
    fn places(&self, limits: &[(u16, Limit)], whose: &Owner, held: &[Hold]) -> (Vec<Hold>, Vec<Hold>) {
        let of = |number: u16| held.iter().find(|hold| hold.limit == number).copied();
        let guaranteed = limits.iter().any(|(number, limit)| limit.is_guarantee() && of(*number).is_some());
        let complete = limits.iter().all(|(number, limit)| limit.is_guarantee() || of(*number).is_some());
        let (mut stay, mut taken) = (Vec::new(), Vec::new());
        for (number, limit) in limits {
            let (before, asks) = (stay.len() + taken.len(), !limit.is_guarantee() || !(guaranteed || complete));
            match of(*number) {
                Some(kept) => stay.push(kept),
                None if asks => taken.extend(self.take(whose, *number, limit)),
                None => {}
            }
            if limit.is_guarantee() && stay.len() + taken.len() > before {
                break;
            }
        }
        (stay, taken)
    }

    /// The same for a connection that is written down; one that is so no more has closed since it was read.
    fn mend(&self, ends: &Ends, state: u32) -> Result<bool> {
        self.connection(ends)?.map_or(Ok(false), |found| self.hold_what_is_due(ends, state, Some(found)))
    }

    /// The limits on open connections that count a connection, as the programs find them.
    fn limits_of(&self, ends: &Ends) -> Vec<(u16, Limit)> {
        if self.entry_of(ends).is_some_and(SourceEntry::allows) {
            return Vec::new();
        }
        let (whose, secret) = (self.whose(ends), self.tables.control().secret);
        let scope = self.service_of(ends).map_or_else(|| self.policy().scope, |service| service.scope);
        let concurrent = scope.limits.into_iter().skip(scope.count.into()).take(scope.concurrent.into());
        let limits = concurrent.map(|number| (number, self.tables.limit(number)));
        limits.filter(|(_, limit)| limit.home(&whose.whose, secret).is_some()).collect()
    }

    /// Whether one of those only observes.
    fn is_observed(&self, ends: &Ends) -> bool {
        self.policy().observe != 0 || self.limits_of(ends).iter().any(|(_, limit)| limit.observe != 0)
    }

    /// The service that a connection is to, as the programs find it.
    fn service_of(&self, ends: &Ends) -> Option<Service> {
        self.directed(ends).map(|(_, service)| service)
    }

    /// The number of that service.
    pub(super) fn number_of(&self, ends: &Ends) -> Option<u16> {
        self.directed(ends).map(|(number, _)| number)
    }

    fn directed(&self, ends: &Ends) -> Option<(u16, Service)> {
        let packet = Packet {
            family: family(ends),
            source: ends.source,
            destination: ends.destination,
            protocol: protocol::TCP,
            source_port: ends.source_port,
            destination_port: ends.destination_port,
            ..Packet::default()
        };
        services::find(&self.tables.directory(), &packet)
    }

    /// Whom a connection comes from.
    fn whose(&self, ends: &Ends) -> Owner {
        let (entry, generation) = (self.entry_of(ends), self.tables.in_force());
        let tenant = entry.map_or(NONE, |entry| entry.tenant(generation));
        let class = entry.map_or(NONE, |entry| entry.class(generation));
        Owner { whose: Whose { source: ends.source, family: family(ends), tenant }, class }
    }

    /// What policy says of the source.
    fn entry_of(&self, ends: &Ends) -> Option<&SourceEntry> {
        self.entry_covering(IpNet::from(opener(ends)))
    }

    /// What policy says of all of a prefix.
    pub(super) fn entry_covering(&self, prefix: IpNet) -> Option<&SourceEntry> {
        self.sources.covering(prefix)
    }

    /// Takes a place, however many are taken, or of a guarantee one that is free; `None` where the table has no room for the
    /// source.
    fn take(&self, Owner { whose, class }: &Owner, number: u16, limit: &Limit) -> Option<Hold> {
        let secret = self.tables.control().secret;
        let reserved = self.overrides.depth(self.tables.in_force(), limit, *class);
        let depth = if limit.is_guarantee() { reserved } else { MAX_DEPTH };
        let Home { key, set: place } = limit.home(whose, secret)?;
        let request = Request { key, now: STANDING, cost: PLACE, depth, ways: WAYS };
        let set = self.set(place);
        let hold = Hold { key, place, way: Hold::AGGREGATE, limit: number };
        match commit(&set, &request, check(&set, &request)) {
            Commit::Charged(way) => Some(Hold { way: way as u16, ..hold }),
            Commit::Full if limit.overflow == Overflow::Aggregate as u8 => {
                let place = limit.aggregate(whose, secret);
                take_from(&self.tables.aggregates.words(place)[0]);
                Some(Hold { place, ..hold })
            }
            Commit::Full | Commit::Exceeded | Commit::Contended(_) => None,
        }
    }

    fn give_all_back<'h>(&self, holds: impl IntoIterator<Item = &'h Hold>) {
        for hold in holds.into_iter().filter(|hold| hold.is_some()) {
            if hold.in_aggregate() {
                self.tables.aggregates.words(hold.place)[0].fetch_sub(PLACE, SeqCst);
            } else if self.set(hold.place).key(hold.way.into()) == hold.key {
                self.set(hold.place).refund(hold.way.into(), PLACE);
            }
        }
    }

    fn set(&self, place: u32) -> MappedSet<'_> {
        MappedSet(self.tables.buckets.words(place))
    }
}

/// Takes a place in an aggregate's bucket, however many are taken. A bucket that has more back than it gave, as one may that
/// was cleared while connections held places in it, has given none.
fn take_from(bucket: &AtomicU64) {
    let next = |seen| Some(STANDING.wrapping_add(gcra::debt(seen, STANDING)).wrapping_add(PLACE));
    bucket.fetch_update(SeqCst, SeqCst, next).expect("there is always a next one");
}

/// How many places buckets have given out, each the last of so many words.
fn places(words: &[AtomicU64], step: usize) -> u64 {
    let buckets = words.iter().skip(step - 1).step_by(step).map(|word| word.load(SeqCst));
    buckets.filter(|tat| tat & 1 == 0).map(|tat| taken(gcra::debt(tat, STANDING))).sum()
}

/// Whom a connection comes from, and the class of that.
struct Owner {
    whose: Whose,
    class: u16,
}

/// Who opened a connection.
pub fn opener(ends: &Ends) -> IpAddr {
    address(ends.source, family(ends))
}

/// The address of this host that it was opened to.
pub(super) fn own(ends: &Ends) -> IpAddr {
    address(ends.destination, family(ends))
}

fn address(Address { high, low }: Address, family: Family) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::from_bits(low as u32).into(),
        Family::V6 => Ipv6Addr::from_bits(u128::from(high) << 64 | u128::from(low)).into(),
    }
}

fn family(ends: &Ends) -> Family {
    if ends.family == Family::V4 as u8 { Family::V4 } else { Family::V6 }
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
