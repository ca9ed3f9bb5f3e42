//! What one limit says of a packet, in names and in units.

use std::net::IpAddr;

use ipnet::IpNet;
use throttle_common::{
    gcra::{TICKS_PER_NANO, Ticks},
    packet::Family,
    records::{self, Limit},
    speed::Speed,
    words::{Algorithm, Per, Unit},
};

use super::{Control, explain::mode, held, speeds::ratio};
use crate::{
    api::wire::{GuaranteeWalk, LimitWalk, WindowWalk},
    datapath::{
        Held,
        explain::{Bucket, Explained, Weighed},
    },
};

impl Control {
    /// What a limit says at `now` of a packet of a source, where these connections hold places.
    pub(super) fn limit_walk(
        &self,
        it: &Weighed,
        explained: &Explained,
        source: IpAddr,
        family: Family,
        (held, now): (&[Held], u64),
    ) -> LimitWalk {
        LimitWalk {
            unenforced: (explained.unseen && it.record.is_concurrency()).then(|| self.unseen(explained)),
            guarantee: guarantee(it, explained),
            penalty: self.penalty_walk(&it.record, source, now),
            overridden_for: it.overridden.then(|| self.overridden_for(it, source, explained)),
            window: it.window.map(|window| WindowWalk {
                seconds: seconds(it.record.window),
                ends_at: self.clock.wall(window.ends_at),
                ends_in_seconds: (window.ends_at - now) as f64 / 1e9,
                used: units(&it.record, window.used),
                used_before: it.record.is_sliding().then(|| units(&it.record, window.before)),
            }),
            passes_at: it.passes_at.map(|at| self.clock.wall(at)),
            passes_in_seconds: it.passes_at.map(|at| (at - now) as f64 / 1e9),
            shared_by: shared_by(&it.record, explained),
            debt_seconds: (it.full_at - now) as f64 / 1e9,
            speed: self.slowed(&it.record),
            narrowed_from: self.narrowed(it),
            connections: held::walk(it, source, family, held, now),
            ..plain(it, source, family)
        }
    }

    /// Why limits on open connections are not asked.
    fn unseen(&self, explained: &Explained) -> String {
        let service = explained.service.as_ref().map_or("", |(_, service)| records::name_str(&service.name));
        let by: Vec<String> =
            self.datapath.unseen().map(|(interface, reason)| format!(" by {interface} ({reason})")).collect();
        format!(
            "connections to {service} are counted by their packets, and what leaves{} is not seen; `throttle doctor` says \
             more",
            by.join(" and")
        )
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

/// What stands in the limit and its bucket alone.
fn plain(it: &Weighed, source: IpAddr, family: Family) -> LimitWalk {
    let Weighed { record, bucket, debt, .. } = it;
    let (region, concurrency) = (record.region(family), record.is_concurrency());
    let prefix = |length| IpNet::new(source, length).map_or(IpNet::from(source), |net| net.trunc());
    LimitWalk {
        limit: records::name_str(&record.name).to_owned(),
        asked: it.asked,
        unenforced: None,
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
        penalty: None,
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
