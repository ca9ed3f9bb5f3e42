//! What the kernel program would make of a packet, and why: [`Datapath::explain`].
//!
//! It reads policy and buckets where the program reads them, copies what this packet would meet, and has the shared
//! decisions (`throttle_common::services`, `limits`, `table`, `gcra`) judge the copy: now, and at every instant at which
//! a bucket or a block changes the answer. Nothing is charged and no traffic is held up.

mod breakers;
mod connecting;
mod copy;

use std::{collections::BTreeMap, io, net::IpAddr, os::fd::AsFd};

use anyhow::{Context, Result};
use ipnet::IpNet;
use throttle_common::{
    gcra::Ticks,
    handshakes::UnderWay,
    health_window::HealthWindow,
    limits::Question,
    packet::{Family, Packet, protocol, tcp},
    proven::Line,
    records::{Address, Backend, Breaker, Limit, NONE, Service, SourceEntry, SourceMaps, maps, override_key},
    services::{self, Directory as _},
    words::{Outcome, Reason},
};

pub use self::breakers::Met;
use self::copy::Copy;
use super::{
    Datapath, bpf,
    mapped::{MappedArray, bytes_of},
    source_map::Kind,
    tables::map,
};

/// What the program would make of a packet.
#[derive(Clone, Debug)]
pub struct Explained {
    /// The service that the packet is for, by its number.
    pub service: Option<(u16, Service)>,
    /// The tenant whose source it comes from.
    pub tenant: Option<String>,
    /// The breakers that it meets where it opens a connection: that of its service first, then that of its backend.
    pub breakers: Vec<Met>,
    /// Whether the connections to its service are counted by packets that nobody sees leave: then no limit on open ones is
    /// asked.
    pub unseen: bool,
    /// The limits that it meets, in the order in which they are asked: those on open connections first.
    pub limits: Vec<Weighed>,
    /// What becomes of it.
    pub verdict: Foretold,
    /// From when on such a packet passes if nobody sends any before, on the clock that the program reads: the instant of
    /// the question where it does already, `None` where it never will.
    pub passes_at: Option<u64>,
}

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Foretold {
    /// Why.
    pub reason: Reason,
    /// What.
    pub outcome: Outcome,
    /// The limit that refuses it, or would, by its number.
    pub limit: Option<u16>,
}

/// What one limit would say.
#[derive(Clone, Copy, Debug)]
pub struct Weighed {
    /// Its number.
    pub number: u16,
    /// The limit, with the price and the depth that it has for the source.
    pub record: Limit,
    /// Whether these are an override's.
    pub overridden: bool,
    /// Whether it has a say in such a packet at all.
    pub asked: bool,
    /// Why it would refuse the packet, also where it only observes. Of a guarantee, why the packet is not within it.
    pub refusal: Option<Reason>,
    /// Whose bucket it looks at.
    pub bucket: Bucket,
    /// What that bucket owes; 0 where it is full. In a window that slides, what the window before weighs counts too.
    pub debt: Ticks,
    /// What of that is of packets that are still to come, because CPUs have taken it ahead.
    pub leased: Ticks,
    /// When it is full again if nothing is charged, on the clock that the program reads; where windows count, when they
    /// have ended. Now where it counts open connections, which close when they do.
    pub full_at: u64,
    /// The window that runs, where it counts in such.
    pub window: Option<Window>,
    /// What the packet costs; 0 where the limit is not asked.
    pub cost: Ticks,
    /// The source's handshakes that are on their way, where it counts open connections.
    pub under_way: Option<UnderWay>,
    /// From when on this limit lets such a packet pass, as in [`Explained::passes_at`].
    pub passes_at: Option<u64>,
}

/// A window, and what a bucket has of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// When it ends, on the clock that the program reads.
    pub ends_at: u64,
    /// What it has admitted.
    pub used: Ticks,
    /// What the one before admitted; 0 where windows do not slide.
    pub before: Ticks,
}

/// Whose bucket a limit looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bucket {
    /// The source's own.
    Own,
    /// The source has none yet and would get one: it owes nothing.
    New,
    /// There is no place for the source; it shares that of its aggregate.
    Shared,
    /// There is no place for the source, and the limit's overflow rule needs none.
    Absent,
}

/// What the maps say of a source, and which prefix says it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Said {
    /// Allowed, by this prefix.
    pub allowed: Option<IpNet>,
    /// Known, by this prefix.
    pub known: Option<IpNet>,
    /// Its tenant, and the prefix that makes it so.
    pub tenant: Option<(IpNet, String)>,
    /// Blocked by this prefix, until then: see [`SourceEntry::blocked_until`]. The block may have ended.
    pub blocked: Option<(IpNet, u64)>,
}

/// A packet to ask about. One of TCP opens a connection where `opens`, else it belongs to one.
pub fn packet(source: IpAddr, destination: Option<IpAddr>, protocol: u8, port: u16, opens: bool) -> Packet {
    let (source, family) = address(source);
    let (flags, ports) = match protocol {
        protocol::TCP if opens => (tcp::SYN, true),
        protocol::TCP => (tcp::ACK, true),
        // Echo requests (RFC 792, RFC 4443).
        protocol::ICMP => (8, false),
        protocol::ICMPV6 => (128, false),
        _ => (0, true),
    };
    Packet {
        family,
        source,
        destination: destination.map_or(Address::default(), |destination| address(destination).0),
        protocol,
        flags,
        destination_port: if ports { port } else { 0 },
        ..Packet::default()
    }
}

/// An address as the kernel has it.
pub(super) fn address(address: IpAddr) -> (Address, Family) {
    match address {
        IpAddr::V4(address) => (Address::v4(address.to_bits()), Family::V4),
        IpAddr::V6(address) => (Address::v6(address.to_bits()), Family::V6),
    }
}

impl Datapath {
    /// Says what the program would make of a packet of `length` bytes that came in at `now`, by what the maps hold.
    pub fn explain(&self, packet: &Packet, length: u32, now: u64) -> Result<Explained> {
        let policy = self.tables.policy();
        let entry = self.entry(packet).context("cannot look the source up")?.unwrap_or_default();
        let service = if policy.has_services == 0 { None } else { services::find(&self.tables.directory(), packet) };
        let scope = service.as_ref().map_or(policy.scope, |(_, service)| service.scope);
        let held = |numbers: &[u16]| -> Vec<(u16, Limit)> {
            numbers.iter().map(|&number| (number, self.tables.limit(number))).collect()
        };
        let (rates, rest) = scope.limits.split_at(usize::from(scope.count).min(scope.limits.len()));
        let (limits, concurrent) = (held(rates), held(&rest[..usize::from(scope.concurrent).min(rest.len())]));
        let generation = self.tables.in_force();
        let (tenant, class) = (entry.tenant(generation), entry.class(generation));
        let question = Question::about(packet, length, Some(&entry), generation, self.tables.control().secret);
        let terms = limits.iter().chain(&concurrent).filter_map(|(number, _)| {
            let key = override_key(generation, *number, class);
            Some((key, self.overrides.get(key)?))
        });
        // Where buckets have two words, the second lie as many places behind as the region has sets.
        let places = |of: fn(&Question, &Limit) -> Option<u32>| {
            let sets = |limit: &Limit| if limit.is_sliding() { limit.region(packet.family).sets } else { 0 };
            let both = move |limit: &Limit| of(&question, limit).map(|place| [place, place + sets(limit)]);
            limits.iter().chain(&concurrent).filter_map(move |(_, limit)| both(limit)).flatten()
        };
        let unseen = self.tables.control().sees_leaving == 0;
        let copy = Copy {
            unseen: unseen && service.as_ref().is_some_and(|(_, service)| service.forwarded != 0),
            sets: places(|question, limit| Some(question.home(limit)?.set))
                .map(|place| (place, self.tables.buckets.get(place)))
                .collect(),
            aggregates: places(Question::shared).map(|place| (place, self.tables.aggregates.get(place))).collect(),
            terms: terms.collect(),
            handshakes: self.handshakes(&question)?,
            asked: self.asked(&question, &concurrent)?,
            window: service.as_ref().map_or(HealthWindow::NONE, |(_, service)| self.window(service.clock)),
            connections: service.as_ref().map_or(0, |(_, service)| service.connections),
            breakers: self.breakers_met(service.as_ref().map(|(_, service)| service), packet)?,
            answers: self.bucket_of_answers().context("cannot read the bucket of answers")?,
            answerable: answerable(packet),
            clocks: limits.iter().chain(&concurrent).map(|(_, limit)| (limit.clock, self.timeline(limit))).collect(),
            policy,
            entry,
            question,
            limits,
            concurrent,
        };
        let tenant = (tenant != NONE).then(|| self.tables.tenant(tenant));
        let leased = |it: Weighed| Weighed { leased: self.leased(&it.record, question.tenant()), ..it };
        Ok(Explained {
            breakers: copy.walk_breakers(now),
            unseen: copy.unseen,
            limits: copy.walk(now).into_iter().map(leased).collect(),
            verdict: copy.judge(now),
            passes_at: copy.passes_at(now),
            service,
            tenant,
        })
    }

    /// What policy says of a source, by the maps, and which prefix says it: the shortest that says the same.
    pub fn said(&self, source: IpAddr) -> Result<Said> {
        let packet = packet(source, None, 0, 0, false);
        let entry = self.entry(&packet).context("cannot look the source up")?.unwrap_or_default();
        let generation = self.tables.in_force();
        let by = |is: &dyn Fn(&SourceEntry) -> bool| self.stated_by(source, is).context("cannot look the source up");
        Ok(Said {
            allowed: if entry.allows() { Some(by(&SourceEntry::allows)?) } else { None },
            known: if entry.knows() { Some(by(&SourceEntry::knows)?) } else { None },
            tenant: match entry.tenant(generation) {
                NONE => None,
                number => Some((by(&|entry| entry.tenant(generation) == number)?, self.tables.tenant(number))),
            },
            blocked: match entry.blocked_until {
                0 => None,
                until => Some((by(&|entry| entry.blocked_until == until)?, until)),
            },
        })
    }

    /// Whether the source completed a handshake within the time that such a thing is remembered.
    pub fn is_proven(&self, source: IpAddr, now: u64) -> Result<bool> {
        let question = Question::about(&packet(source, None, 0, 0, false), 0, None, 0, self.tables.control().secret);
        Ok(question.claim().holds(&self.handshakes(&question)?, now))
    }

    /// Ports of each service, by number: the first of each range that it shares with the same others. ICMP has none, and
    /// shows 0.
    pub fn ports_of_services(&self) -> BTreeMap<u16, Vec<u16>> {
        let directory = self.tables.directory();
        let mut ports: BTreeMap<u16, Vec<u16>> = BTreeMap::new();
        for (transport, ports_of) in [(0, 0..=u16::MAX), (1, 0..=u16::MAX), (2, 0..=0)] {
            let mut last = [NONE; throttle_common::records::CANDIDATES];
            for port in ports_of {
                match services::candidates(&directory, transport, port) {
                    // Ranges of ports share a list.
                    Some(found) if found != last => {
                        found.iter().filter(|&&number| number != NONE).for_each(|&number| {
                            ports.entry(number).or_default().push(port);
                        });
                        last = found;
                    }
                    _ => {}
                }
            }
        }
        ports
    }

    /// The services that share a port, most specific first, by number.
    pub fn services_at(&self, transport: u32, port: u16) -> Vec<u16> {
        let list = services::candidates(&self.tables.directory(), transport, port).unwrap_or_default();
        list.into_iter().take_while(|&number| number != NONE).collect()
    }

    /// One service in force.
    pub fn service(&self, number: u16) -> Option<Service> {
        self.tables.directory().service(number)
    }

    fn entry(&self, packet: &Packet) -> io::Result<Option<SourceEntry>> {
        let source = net(packet);
        let (bits, [address, prefix]) = match packet.family {
            Family::V4 => (SourceMaps::V4, [Kind::AddressV4, Kind::PrefixV4]),
            Family::V6 => (SourceMaps::V6, [Kind::AddressV6, Kind::PrefixV6]),
        };
        let look_up = |kind| self.sources.look_up(kind, &source).transpose();
        SourceEntry::find(self.tables.control().sources, bits, || look_up(address), || look_up(prefix)).transpose()
    }

    /// The shortest prefix from which on all that cover the source say so.
    fn stated_by(&self, source: IpAddr, is: &dyn Fn(&SourceEntry) -> bool) -> io::Result<IpNet> {
        let whole = IpNet::from(source);
        let kind = if source.is_ipv4() { Kind::PrefixV4 } else { Kind::PrefixV6 };
        let mut since = None;
        for length in 0..whole.prefix_len() {
            let prefix = IpNet::new(source, length).expect("shorter than an address").trunc();
            if let Some(entry) = self.sources.look_up(kind, &prefix)? {
                since = if is(&entry) { since.or(Some(prefix)) } else { None };
            }
        }
        Ok(since.unwrap_or(whole))
    }

    fn handshakes(&self, question: &Question) -> Result<Line> {
        let proven = MappedArray::<Line>::new(&map(&self.ebpf, maps::PROVEN)?)?;
        Ok(proven.get(question.claim().line))
    }

    /// The breakers of a packet's service, and of the backend that it is for.
    fn breakers_met(&self, service: Option<&Service>, packet: &Packet) -> Result<Vec<(u16, Breaker)>> {
        let Packet { destination: address, destination_port: port, family, protocol, .. } = *packet;
        let backend = Backend { address, port, family: family as u8, protocol, padding: [0; 4] };
        let numbers = [service.map_or(NONE, |service| service.breaker), self.breaker_of(&backend)?];
        let met = numbers.into_iter().filter(|&number| number != NONE);
        Ok(met.map(|number| (number, self.breaker(number))).collect())
    }

    /// What the source has asked of limits on open connections.
    fn asked(&self, question: &Question, limits: &[(u16, Limit)]) -> Result<Vec<u64>> {
        if limits.is_empty() {
            return Ok(Vec::new());
        }
        let cells = MappedArray::<u64>::new(&map(&self.ebpf, maps::HANDSHAKES)?)?;
        let cell = |limit| question.home(limit).map(|home| cells.get(question.asking(limit, home).cell));
        Ok(limits.iter().map(|(_, limit)| cell(limit).unwrap_or_default()).collect())
    }

    fn bucket_of_answers(&self) -> Result<Ticks> {
        let (map, mut value) = (map(&self.ebpf, maps::ANSWER_BUCKET)?, [0; size_of::<Ticks>()]);
        bpf::map_lookup(map.fd().as_fd(), bytes_of(&[0_u32]), &mut value)?;
        Ok(Ticks::from_ne_bytes(value))
    }
}

/// Whether the packet may be answered; one without a destination stands for one to an address of this host.
fn answerable(packet: &Packet) -> bool {
    let nowhere = packet.destination == Address::default();
    Packet { destination: if nowhere { packet.source } else { packet.destination }, ..*packet }.may_be_answered()
}

fn net(packet: &Packet) -> IpNet {
    let Address { high, low } = packet.source;
    match packet.family {
        Family::V4 => IpAddr::from((low as u32).to_be_bytes()).into(),
        Family::V6 => IpAddr::from((u128::from(high) << 64 | u128::from(low)).to_be_bytes()).into(),
    }
}
