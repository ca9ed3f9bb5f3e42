//! What limits allow whom, by the document alone: tenants and overrides are searched anew for every packet.

use super::{Model, source};
use throttle_agent::policy::{
    self, Guarantee, Prefix,
    units::{Quantity, Rate},
};
use throttle_common::{
    gcra::{Price, Ticks},
    packet::Packet,
    records::{Limit, name_str},
    words::Unit,
};

impl Model {
    /// The name of the tenant whose source sent a packet: the one with the longest prefix.
    pub(super) fn tenant(&self, packet: &Packet) -> Option<&str> {
        let from = source(packet);
        let named = self.document.tenants.iter().flat_map(|it| it.sources.iter().map(move |prefix| (prefix, &it.name)));
        let covering = named.filter(|(prefix, _)| prefix.net().contains(&from));
        covering.max_by_key(|(prefix, _)| prefix.net().prefix_len()).map(|(_, name)| name.as_str())
    }

    /// The price of a unit and the depth of the bucket that a packet is charged to.
    pub(super) fn terms(&self, limit: &Limit, packet: &Packet) -> (Price, Ticks) {
        let name = name_str(&limit.name).split(':').next().unwrap_or_default();
        let stated = self.document.limits.iter().find(|it| it.name == name).expect("the policy has the limit");
        let (from, tenant) = (source(packet), self.tenant(packet));
        let longest = |prefixes: &[Prefix]| {
            let covering = prefixes.iter().map(|prefix| prefix.net()).filter(|net| net.contains(&from));
            covering.map(|net| i16::from(net.prefix_len())).max()
        };
        let rank = |it: &policy::Override| match &it.tenant {
            Some(name) if tenant == Some(name) => Some(-1),
            Some(_) => None,
            None => longest(&it.sources),
        };
        let ranked = stated.overrides.iter().filter_map(|it| Some((rank(it)?, it)));
        let Some((_, terms)) = ranked.max_by_key(|(rank, _)| *rank) else { return (limit.price, limit.depth) };
        let there = stated.with(terms);
        if limit.guarantee == 0 { ceiling(&there) } else { guarantee(&there) }
    }
}

fn ceiling(there: &policy::Limit) -> (Price, Ticks) {
    let rate = there.rate.expect("the model knows rates");
    if there.algorithm.name().ends_with("window") {
        return rate.window_price(there.unit).expect("a window can hold it");
    }
    bucket(rate, there.unit, there.burst_units())
}

fn guarantee(there: &policy::Limit) -> (Price, Ticks) {
    let Some(Guarantee::Rate(rate)) = there.guarantee else { return (Price { mantissa: 2, shift: 0 }, 0) };
    let due = rate.units(there.unit).min(there.burst_units());
    bucket(rate, there.unit, there.guarantee_burst.map_or(due, Quantity::amount))
}

fn bucket(rate: Rate, unit: Unit, burst: u64) -> (Price, Ticks) {
    (rate.price(unit).expect("it has a price"), rate.depth(unit, burst).expect("it has a depth"))
}
