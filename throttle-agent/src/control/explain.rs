//! What would become of a source's next packet, in names: the kernel's own answer, for each packet that the question may
//! mean.

use std::{collections::BTreeSet, net::IpAddr};

use ipnet::IpNet;
use throttle_common::{
    gcra::{TICKS_PER_NANO, Ticks},
    packet::{Family, Packet, protocol},
    records::{self, Address, Limit, Service},
    speed::Speed,
    words::{Algorithm, Outcome, Per, Unit},
};

use super::{Control, held, kernel, speeds::ratio};
use crate::{
    api::wire::{
        AskedPacket, BlockedBy, ExplainQuery, Explanation, GuaranteeWalk, LimitWalk, Problem, ProblemKind, Standing,
        TenantOf, Walk, WindowWalk,
    },
    datapath::{
        Held,
        explain::{Bucket, Explained, Weighed, packet},
    },
    policy::{Mode, Protocol, sources::FOR_EVER},
};

/// Walks that are shown.
const MOST: usize = 16;
/// Bytes of a SYN of Linux with its usual options, in its frame.
const LENGTH: u32 = 74;

impl Control {
    /// What would become of the packets that the question means. The refusals of the past are not known here.
    pub fn explain(&self, query: &ExplainQuery) -> Result<Explanation, Problem> {
        let length = query.length.unwrap_or(LENGTH);
        let malformed = |detail: String| Problem::new(ProblemKind::Malformed, detail);
        let source = query.address.to_canonical();
        if !(60..=65_535).contains(&length) {
            return Err(malformed(format!("length: a frame of {length} bytes; write 60 to 65535")));
        }
        if query.to.is_some_and(|to| to.to_canonical().is_ipv4() != source.is_ipv4()) {
            return Err(malformed(format!("to: not of the family of {source}; write an address of the same one")));
        }
        let (now, policy) = (self.datapath.now(), self.datapath.policy());
        let asked = self.packets(query, source);
        let held = if policy.counts_connections == 0 { Vec::new() } else { self.connections_held()? };
        let walk = |asked: &(Protocol, Packet)| self.walk(query, asked, length, (&held, now));
        let mut walks = asked.iter().map(walk).collect::<Result<Vec<_>, _>>()?;
        // What is for no service by its description may be for one that is asked about already.
        let mut seen = BTreeSet::new();
        walks.retain(|walk| seen.insert(walk.service.clone()));
        walks.sort_by_key(severity);
        let left_out = walks.len().saturating_sub(MOST) as u64;
        walks.truncate(MOST);
        Ok(Explanation {
            source,
            at: self.clock.wall(now),
            revision: policy.revision,
            mode: mode(policy.observe),
            standing: self.standing(source, now)?,
            walks,
            walks_left_out: left_out,
            refusals: Vec::new(),
        })
    }

    /// One packet for each service that the question may mean, and one for none of them where there is such a packet.
    fn packets(&self, query: &ExplainQuery, source: IpAddr) -> Vec<(Protocol, Packet)> {
        let make = |protocol: Protocol, to, port| {
            (protocol, packet(source, to, number(protocol, source), port, !query.established))
        };
        let ports = self.datapath.ports_of_services();
        let mut packets = Vec::new();
        for (number, service) in self.datapath.services() {
            let protocol = match service.protocol {
                protocol::TCP => Protocol::Tcp,
                protocol::UDP => Protocol::Udp,
                _ => Protocol::Icmp,
            };
            let port = match (query.port, protocol) {
                (_, Protocol::Icmp) => Some(0),
                (Some(port), Protocol::Tcp) => self.datapath.services_at(0, port).contains(&number).then_some(port),
                (Some(port), Protocol::Udp) => self.datapath.services_at(1, port).contains(&number).then_some(port),
                (None, _) => ports.get(&number).copied(),
            };
            let wanted = query.protocol.map_or(query.port.is_none() || protocol != Protocol::Icmp, |it| it == protocol);
            if let (true, Some(port), Some(to)) = (wanted, port, destination(&service, query.to, source)) {
                packets.push(make(protocol, to, port));
            }
        }
        packets.push(make(query.protocol.unwrap_or(Protocol::Tcp), query.to, query.port.unwrap_or(0)));
        packets
    }

    fn walk(
        &self,
        query: &ExplainQuery,
        (protocol, packet): &(Protocol, Packet),
        length: u32,
        (held, now): (&[Held], u64),
    ) -> Result<Walk, Problem> {
        let explained = self.datapath.explain(packet, length, now).map_err(|error| kernel(&error))?;
        let moment = |at: Option<u64>| at.map(|at| self.clock.wall(at));
        let rest = |at: Option<u64>| at.map(|at| (at - now) as f64 / 1e9);
        let named = |number| {
            let mut limits = explained.limits.iter();
            limits.find(|it| it.number == number).map(|it| records::name_str(&it.record.name).to_owned())
        };
        let to = query.to.or_else(|| (packet.destination != Address::default()).then(|| address(packet)));
        let port = packet.destination_port;
        Ok(Walk {
            packet: AskedPacket {
                protocol: *protocol,
                to,
                port: (port != 0).then_some(port),
                length,
                opens_connection: packet.opens_connection(),
            },
            service: explained.service.map(|(_, service)| records::name_str(&service.name).to_owned()),
            outcome: explained.verdict.outcome.name().to_owned(),
            reason: explained.verdict.reason.name().to_owned(),
            limit: explained.verdict.limit.and_then(named),
            passes_at: moment(explained.passes_at),
            passes_in_seconds: rest(explained.passes_at),
            limits: explained
                .limits
                .iter()
                .filter(|it| !it.record.is_guarantee())
                .map(|it| LimitWalk {
                    guarantee: guarantee(it, &explained),
                    overridden_for: it
                        .overridden
                        .then(|| self.overridden_for(it, query.address.to_canonical(), &explained)),
                    window: it.window.map(|window| WindowWalk {
                        seconds: seconds(it.record.window),
                        ends_at: self.clock.wall(window.ends_at),
                        ends_in_seconds: (window.ends_at - now) as f64 / 1e9,
                        used: units(&it.record, window.used),
                        used_before: it.record.is_sliding().then(|| units(&it.record, window.before)),
                    }),
                    passes_at: moment(it.passes_at),
                    passes_in_seconds: rest(it.passes_at),
                    shared_by: shared_by(&it.record, &explained),
                    debt_seconds: (it.full_at - now) as f64 / 1e9,
                    speed: self.slowed(&it.record),
                    narrowed_from: self.narrowed(it),
                    connections: held::walk(it, query.address.to_canonical(), packet.family, held, now),
                    ..limit_walk(it, query.address.to_canonical(), packet.family)
                })
                .collect(),
        })
    }

    fn connections_held(&self) -> Result<Vec<Held>, Problem> {
        self.datapath.connections().map_err(|error| kernel(&error))
    }

    /// How fast a limit's clock runs, where that is not as fast as real time.
    fn slowed(&self, limit: &Limit) -> Option<f64> {
        let speed = self.datapath.clock_state(limit.clock).speed;
        (speed != Speed::ONE && !limit.is_concurrency()).then(|| ratio(speed))
    }

    /// How many connections policy says, where the service's health leaves fewer.
    fn narrowed(&self, it: &Weighed) -> Option<u64> {
        let limits = self.datapath.limits();
        let said = limits.iter().find(|held| held.number == it.number).map(|held| &held.record)?;
        let narrower = it.record.is_concurrency() && !it.overridden && it.record.depth < said.depth;
        narrower.then(|| units(said, said.depth))
    }

    /// Whom the override is for that applies to a source: the longest prefix of one, else its tenant.
    fn overridden_for(&self, it: &Weighed, source: IpAddr, explained: &Explained) -> String {
        let name = records::name_str(&it.record.name);
        let limit = self.in_force().limits.iter().find(|limit| limit.name == name);
        let overrides = || limit.into_iter().flat_map(|limit| &limit.overrides);
        let prefixes = overrides().flat_map(|it| &it.sources).filter(|prefix| prefix.net().contains(&source));
        match (prefixes.max_by_key(|prefix| prefix.net().prefix_len()), &explained.tenant) {
            (Some(prefix), _) => prefix.to_string(),
            (None, Some(tenant)) => format!("tenant {tenant}"),
            (None, None) => "somebody".to_owned(),
        }
    }

    fn standing(&self, source: IpAddr, now: u64) -> Result<Standing, Problem> {
        let said = self.datapath.said(source).map_err(|error| kernel(&error))?;
        let proven = self.datapath.is_proven(source, now).map_err(|error| kernel(&error))?;
        let blocked = said.blocked.filter(|&(_, until)| until > now).map(|(prefix, until)| {
            let command = self.blocks.get(&prefix);
            BlockedBy {
                prefix,
                until: (until != FOR_EVER).then(|| self.clock.wall(until)),
                reason: command.map(|block| block.reason.clone()).filter(|reason| !reason.is_empty()),
                author: command.map(|block| block.author.clone()),
            }
        });
        let tenant = said.tenant.map(|(prefix, name)| TenantOf { name, prefix });
        Ok(Standing { allowed: said.allowed, blocked, tenant, known: said.known, proven })
    }
}

/// What is refused comes first, then what is observed.
fn severity(walk: &Walk) -> u8 {
    match Outcome::from_name(&walk.outcome) {
        Some(Outcome::Drop | Outcome::Reject) => 0,
        Some(Outcome::Observe) => 1,
        _ => 2,
    }
}

fn mode(observe: u8) -> Mode {
    if observe == 0 { Mode::Enforce } else { Mode::Observe }
}

/// IANA's number of a protocol, for a family.
fn number(protocol: Protocol, source: IpAddr) -> u8 {
    match protocol {
        Protocol::Tcp => protocol::TCP,
        Protocol::Udp => protocol::UDP,
        Protocol::Icmp if source.is_ipv4() => protocol::ICMP,
        Protocol::Icmp => protocol::ICMPV6,
    }
}

/// Where a packet to the service goes: as asked, or to the first address of the service. `None` where no packet of the
/// source's family does.
#[expect(clippy::option_option, reason = "a service without a destination is reached by any")]
fn destination(service: &Service, asked: Option<IpAddr>, source: IpAddr) -> Option<Option<IpAddr>> {
    match (asked, service.family) {
        (Some(to), _) => Some(Some(to)),
        (None, 0) => Some(None),
        (None, 4) if source.is_ipv4() => Some(Some(wire_address(service.destination, Family::V4))),
        (None, 6) if source.is_ipv6() => Some(Some(wire_address(service.destination, Family::V6))),
        (None, _) => None,
    }
}

fn address(packet: &Packet) -> IpAddr {
    wire_address(packet.destination, packet.family)
}

fn wire_address(Address { high, low }: Address, family: Family) -> IpAddr {
    match family {
        Family::V4 => IpAddr::from((low as u32).to_be_bytes()),
        Family::V6 => IpAddr::from((u128::from(high) << 64 | u128::from(low)).to_be_bytes()),
    }
}

/// Who shares the bucket of a limit, where it is not a source's.
fn shared_by(limit: &Limit, explained: &Explained) -> Option<String> {
    match Per::from_number(limit.per)? {
        Per::Source => None,
        Per::Tenant => Some(explained.tenant.as_ref().map_or("no tenant".to_owned(), |name| format!("tenant {name}"))),
        Per::Service => {
            let (_, service) = explained.service.as_ref()?;
            Some(format!("service {}", records::name_str(&service.name)))
        }
        Per::Host => Some("the host".to_owned()),
    }
}

/// What a limit guarantees, by the limit beside it.
fn guarantee(it: &Weighed, explained: &Explained) -> Option<GuaranteeWalk> {
    let name = records::name_str(&it.record.name);
    let own = |other: &&Weighed| {
        other.record.is_guarantee() && records::name_str(&other.record.name).split(':').next() == Some(name)
    };
    let own = explained.limits.iter().find(own)?;
    let record = &own.record;
    Some(GuaranteeWalk {
        rate_per_second: (!record.is_concurrency()).then(|| 1e9 * TICKS_PER_NANO as f64 / unit_price(record)),
        burst: units(record, record.depth),
        room: units(record, record.depth.saturating_sub(own.debt)),
        within: own.asked && own.refusal.is_none(),
    })
}

fn limit_walk(it: &Weighed, source: IpAddr, family: Family) -> LimitWalk {
    let Weighed { record, bucket, debt, .. } = it;
    let (region, concurrency) = (record.region(family), record.is_concurrency());
    let prefix = |length| IpNet::new(source, length).map_or(IpNet::from(source), |net| net.trunc());
    LimitWalk {
        limit: records::name_str(&record.name).to_owned(),
        asked: it.asked,
        unit: Unit::from_number(record.unit).map_or("", Unit::name).to_owned(),
        algorithm: Algorithm::from_number(record.algorithm).map_or("", Algorithm::name).to_owned(),
        window: None,
        speed: None,
        rate_per_second: (!concurrency).then(|| 1e9 * TICKS_PER_NANO as f64 / unit_price(record)),
        open: concurrency.then(|| units(record, *debt)),
        connections: None,
        narrowed_from: None,
        burst: units(record, record.depth),
        mode: mode(record.observe),
        source: prefix(region.prefix),
        shared_by: None,
        guarantee: None,
        overridden_for: None,
        aggregate: prefix(region.aggregate),
        bucket: match bucket {
            Bucket::Own => "own",
            Bucket::New => "new",
            Bucket::Shared => "shared",
            Bucket::Absent => "absent",
        }
        .to_owned(),
        room: units(record, record.depth.saturating_sub(*debt)),
        leased: record.is_leased().then(|| units(record, it.leased)),
        debt_seconds: 0.0,
        refusal: it.refusal.map(|reason| reason.name().to_owned()),
        passes_at: None,
        passes_in_seconds: None,
    }
}

/// A span in seconds.
fn seconds(span: Ticks) -> f64 {
    span as f64 / (1e9 * TICKS_PER_NANO as f64)
}

/// What one unit costs, in ticks.
pub(super) fn unit_price(limit: &Limit) -> f64 {
    limit.price.mantissa as f64 / (limit.price.shift as f64).exp2()
}

/// Whole units that a span pays for; a span that is short of one by rounding alone pays for it.
#[expect(clippy::cast_sign_loss, reason = "spans and prices are not negative")]
pub(super) fn units(limit: &Limit, span: Ticks) -> u64 {
    (span as f64 / unit_price(limit) + 1e-6) as u64
}
