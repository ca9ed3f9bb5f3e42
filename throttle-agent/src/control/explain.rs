//! What would become of a source's next packet, in names: the kernel's own answer, for each packet that the question may
//! mean.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use throttle_common::{
    packet::{Family, Packet, protocol},
    records::{self, Address, Service},
    words::Outcome,
};

use super::{Control, kernel};
use crate::{
    api::wire::{
        AskedPacket, BlockedBy, Event, ExplainQuery, Explanation, PastRefusal, Problem, ProblemKind, Standing,
        TenantOf, Walk,
    },
    datapath::{Held, explain::packet},
    policy::{Mode, Protocol, sources::FOR_EVER},
};

/// Walks that are shown.
const MOST: usize = 16;
/// Bytes of a SYN of Linux with its usual options, in its frame.
const LENGTH: u32 = 74;
/// Refusals of the past that are shown.
const REFUSALS: usize = 10;

impl Control {
    /// What would become of the packets that the question means; `events` are the sampled refusals that the agent keeps.
    pub fn explain(&self, query: &ExplainQuery, events: &[Arc<Event>]) -> Result<Explanation, Problem> {
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
            refusals: self.refusals(source, events),
        })
    }

    /// The last refusals of a source, the newest first.
    fn refusals(&self, source: IpAddr, events: &[Arc<Event>]) -> Vec<PastRefusal> {
        let limits: BTreeSet<&str> = self.in_force().limits.iter().map(|limit| limit.name.as_str()).collect();
        let own = events.iter().rev().filter(|event| event.source == Some(source)).take(REFUSALS);
        let past = |event: &Arc<Event>| PastRefusal {
            event: Event::clone(event),
            limit_is_gone: event.limit.as_deref().is_some_and(|limit| !limits.contains(limit)),
        };
        own.map(past).collect()
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
            breakers: explained.breakers.iter().map(|met| self.breaker_walk(met, packet, &explained, now)).collect(),
            limits: explained
                .limits
                .iter()
                .filter(|it| !it.record.is_guarantee())
                .map(|it| self.limit_walk(it, &explained, query.address.to_canonical(), packet.family, (held, now)))
                .collect(),
        })
    }

    fn connections_held(&self) -> Result<Vec<Held>, Problem> {
        self.datapath.connections().map_err(|error| kernel(&error))
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

pub(super) fn mode(observe: u8) -> Mode {
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

pub(super) fn address(packet: &Packet) -> IpAddr {
    wire_address(packet.destination, packet.family)
}

fn wire_address(Address { high, low }: Address, family: Family) -> IpAddr {
    match family {
        Family::V4 => IpAddr::from((low as u32).to_be_bytes()),
        Family::V6 => IpAddr::from((u128::from(high) << 64 | u128::from(low)).to_be_bytes()),
    }
}
