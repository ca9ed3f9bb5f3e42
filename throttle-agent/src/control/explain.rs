//! What would become of a source's next packet, in names: the kernel's own answer, for each packet that the question may
//! mean.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use throttle_common::{
    packet::Packet,
    records::{self, Address},
    words::{Outcome, Reason},
};

use super::{Control, kernel, packets::address};
use crate::{
    api::wire::{
        AskedPacket, BlockedBy, Event, ExplainQuery, Explanation, PastRefusal, Problem, ProblemKind, Standing,
        TenantOf, Walk,
    },
    datapath::{Held, explain::Foretold},
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
        let query = &ExplainQuery { address: source, to: query.to.map(|to| to.to_canonical()), ..query.clone() };
        if !(60..=65_535).contains(&length) {
            return Err(malformed(format!("length: a frame of {length} bytes; write 60 to 65535")));
        }
        if query.to.is_some_and(|to| to.is_ipv4() != source.is_ipv4()) {
            return Err(malformed(format!("to: not of the family of {source}; write an address of the same one")));
        }
        let (now, policy) = (self.datapath.now(), self.datapath.policy());
        let asked = self.packets(query)?;
        let held = if policy.counts_connections == 0 { Vec::new() } else { self.connections_held()? };
        let walk = |asked: &(Protocol, Packet)| self.walk(query, asked, length, (&held, now));
        let mut walks = asked.iter().map(walk).collect::<Result<Vec<_>, _>>()?;
        // What is for no service by its description, or for a backend, may be for one that is asked about already.
        let mut seen = BTreeSet::new();
        walks.retain(|walk| seen.insert((walk.service.clone(), walk.packet.to, walk.packet.port)));
        walks.sort_by_key(severity);
        let left_out = walks.len().saturating_sub(MOST) as u64;
        walks.truncate(MOST);
        for walk in &mut walks {
            walk.health = walk.service.as_deref().and_then(|service| self.health_line(service));
        }
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
        let Foretold { outcome, reason, .. } = explained.verdict;
        let has_page = explained.service.is_some_and(|(_, service)| service.scope.pages != 0);
        let page = has_page && outcome == Outcome::Reject && reason != Reason::BreakerOpen && packet.opens_connection();
        Ok(Walk {
            packet: AskedPacket {
                protocol: *protocol,
                to,
                port: (port != 0).then_some(port),
                length,
                opens_connection: packet.opens_connection(),
            },
            service: explained.service.map(|(_, service)| records::name_str(&service.name).to_owned()),
            health: None,
            outcome: explained.verdict.outcome.name().to_owned(),
            page,
            reason: explained.verdict.reason.name().to_owned(),
            limit: explained.verdict.limit.and_then(named),
            passes_at: moment(explained.passes_at),
            passes_in_seconds: rest(explained.passes_at),
            breakers: explained.breakers.iter().map(|met| self.breaker_walk(met, packet, &explained, now)).collect(),
            limits: explained
                .limits
                .iter()
                .filter(|it| !it.record.is_guarantee())
                .map(|it| self.limit_walk(it, &explained, query.address, packet.family, (held, now)))
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
        let sentences = self.sentences(source, self.clock.wall(now));
        Ok(Standing { allowed: said.allowed, blocked, tenant, known: said.known, proven, sentences })
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
