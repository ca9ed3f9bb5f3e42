//! Limits: what a bucket can hold, and what a packet can be asked.

use crate::policy::{
    document::{Document, Lengths, Limit, Protocol, default},
    fault::{Diagnostic, Fault},
    read::Unread,
    units::{Rate, Scale},
    word::{Word, one_of},
};
use std::collections::HashMap;
use throttle_common::{
    connections,
    records::{CONNECTION_LIMITS, MAX_LIMITS, PACKET_LIMITS},
    words::{Algorithm, Overflow, Per, Unit},
};

/// A full frame of Ethernet with two VLAN tags: a smaller burst would refuse it for ever.
const FULL_FRAME: u64 = 1_522;
/// The smallest frame of Ethernet.
const SMALLEST_FRAME: u32 = 64;
/// What that costs at 1000 Gbit/s, and a packet at 1000000000/s, in ticks: below these, rounding to whole ones shows.
const LEAST_COST: [u64; 2] = [130, 256];

pub(super) fn check(document: &Document, unread: &Unread, found: &mut Vec<Diagnostic>) {
    let guarantees = document.limits.iter().filter(|limit| limit.guarantees()).count();
    if document.limits.len() + guarantees > MAX_LIMITS as usize {
        let with = if guarantees == 0 { String::new() } else { format!(" and {guarantees} guarantees") };
        let reason = format!("there are {} limits{with}", document.limits.len());
        let path = format!("limit[{MAX_LIMITS}]");
        found.push(Fault::new(reason, format!("keep at most {MAX_LIMITS}")).at(path));
    }
    let path = |index: usize, field: &str| format!("limit[{index}].{field}");
    // Of two of the same name, which are refused elsewhere, the first.
    let named = document.services.iter().enumerate().rev();
    let places: HashMap<&str, usize> = named.map(|(index, service)| (service.name.as_str(), index)).collect();
    for (index, limit) in document.limits.iter().enumerate() {
        let read = |fields: &[&str]| unread.is_empty() || fields.iter().all(|field| unread.spares(&path(index, field)));
        let mut wrong = |field: &str, fault: Fault| found.push(fault.at(path(index, field)));
        if read(&["service"]) {
            service(document, &places, limit, unread, read(&["unit"]), &mut wrong);
        }
        if read(&["unit", "rate", "concurrent", "per", "algorithm"]) {
            bounds(limit, read(&["burst"]), &mut wrong);
        }
        if read(&["per", "service", "prefix", "aggregate", "overflow", "sources"]) {
            shared(limit, &mut wrong);
        }
        if read(&["prefix", "aggregate", "overflow"]) {
            lengths(limit, &mut wrong);
        }
        if limit.sources == 0 {
            let remedy = "write how many sources to have room for, such as 196608";
            wrong("sources", Fault::new("room for no source", remedy));
        }
    }
    if unread.is_empty() || (0..document.limits.len()).all(|index| unread.spares(&path(index, "service"))) {
        scopes(document, found);
    }
}

fn service(
    document: &Document,
    places: &HashMap<&str, usize>,
    limit: &Limit,
    unread: &Unread,
    unit_read: bool,
    wrong: &mut impl FnMut(&str, Fault),
) {
    let Some(name) = &limit.service else { return };
    let part = |index: usize, field: &str| unread.is_empty() || unread.spares(&format!("service[{index}].{field}"));
    let unknown = || Fault::new(format!("there is no service `{name}`"), "");
    match places.get(name.as_str()).copied() {
        // One whose name cannot be read may be the one.
        None if unread.holds("service") || !(0..document.services.len()).all(|index| part(index, "name")) => {}
        None if places.is_empty() => {
            wrong("service", Fault { remedy: "add a [[service]] with that name".to_owned(), ..unknown() });
        }
        None => {
            let names: Vec<_> = document.services.iter().map(|service| service.name.as_str()).collect();
            wrong("service", Fault { remedy: one_of(name, &names), ..unknown() });
        }
        Some(index) if limit.unit == Unit::Connections && unit_read && part(index, "protocol") => {
            let protocol = document.services[index].protocol;
            if protocol != Protocol::Tcp {
                let reason = format!("`{name}` speaks {}, which has no connections", protocol.name());
                wrong("unit", Fault::new(reason, "count `packets` or `bytes`"));
            }
        }
        Some(_) => {}
    }
}

/// How much it allows.
pub(super) fn bounds(limit: &Limit, burst_read: bool, wrong: &mut impl FnMut(&str, Fault)) {
    match (limit.concurrent, limit.rate) {
        (Some(connections), _) => concurrent(limit, connections, wrong),
        (None, Some(rate)) => rated(limit, rate, burst_read, wrong),
        // Only a document that no reader made says neither.
        (None, None) => wrong("rate", Fault::new("`rate` is missing", "add rate = \"1000/s\"")),
    }
}

/// What is wrong with a limit that is told both.
pub(in crate::policy) fn rate_and_concurrent() -> Fault {
    Fault::new("a limit has a rate or a number of open connections, not both", "make two limits of it")
}

/// A limit on connections that are open at once.
fn concurrent(limit: &Limit, connections: u32, wrong: &mut impl FnMut(&str, Fault)) {
    if limit.rate.is_some() {
        wrong("concurrent", rate_and_concurrent());
    }
    if limit.algorithm != Algorithm::Concurrency {
        let reason = format!("a {} has a rate, not a number of open connections", limit.algorithm.name());
        wrong("algorithm", Fault::new(reason, "leave it out, or write a rate in the place of `concurrent`"));
    }
    if limit.unit != Unit::Connections {
        let reason = format!("open connections are no {}", limit.unit.name());
        wrong("concurrent", Fault::new(reason, "write unit = \"connections\", or a rate"));
    }
    if connections == 0 || connections > connections::MOST {
        let reason = format!("{connections} connections at once");
        let remedy = format!("write 1 to {}; to refuse sources altogether, block them", connections::MOST);
        wrong("concurrent", Fault::new(reason, remedy));
    }
    if limit.burst.is_some() {
        wrong(
            "burst",
            Fault::new("a burst belongs to a rate", "leave it out: `concurrent` is what may be open at once"),
        );
    }
}

/// Who shares it, and what only makes sense where each source is by itself.
fn shared(limit: &Limit, wrong: &mut impl FnMut(&str, Fault)) {
    match (limit.per, &limit.service) {
        (Per::Service, None) => {
            wrong("per", Fault::new("no service is named that this is the limit of", "add service = \"NAME\""));
        }
        (Per::Host, Some(service)) => {
            let reason = format!("a limit of the host is not one of `{service}`");
            wrong("per", Fault::new(reason, "leave `service` out, or write per = \"service\""));
        }
        _ => {}
    }
    if limit.per == Per::Source {
        return;
    }
    let by_default = [
        ("prefix", limit.prefix == default::prefix()),
        ("aggregate", limit.aggregate == default::aggregate()),
        ("overflow", limit.overflow == default::overflow()),
        ("sources", limit.sources == default::sources()),
    ];
    for (field, _) in by_default.into_iter().filter(|(_, default)| !default) {
        let reason = format!("a limit per {} keeps nothing of single sources", limit.per.name());
        wrong(field, Fault::new(reason, "leave it out, or write per = \"source\""));
    }
}

/// A limit on a rate.
fn rated(limit: &Limit, of: Rate, burst_read: bool, wrong: &mut impl FnMut(&str, Fault)) {
    if limit.algorithm == Algorithm::Concurrency {
        let remedy = "write concurrent = 50 in the place of the rate, or leave the algorithm out";
        wrong("algorithm", Fault::new("`concurrency` counts open connections, which have no rate", remedy));
    }
    if limit.burst.is_some() && (limit.algorithm.is_windowed() || limit.algorithm == Algorithm::LeakyBucket) {
        let (reason, remedy) = if limit.algorithm.is_windowed() {
            ("a window has no burst: it admits what its rate names", "leave it out, or write another rate")
        } else {
            ("a leaky bucket has no burst: it admits what comes no faster than its rate", "leave it out")
        };
        let remedy = format!("{remedy}; or write algorithm = \"token-bucket\"");
        wrong("burst", Fault::new(reason, remedy));
    }
    match rate(limit, of) {
        Ok(()) if limit.algorithm.is_windowed() => window(limit, of).unwrap_or_else(|fault| wrong("rate", fault)),
        Ok(()) if limit.algorithm == Algorithm::LeakyBucket => {
            meter(limit, of).unwrap_or_else(|fault| wrong("rate", fault));
        }
        Ok(()) if burst_read => burst(limit, of).unwrap_or_else(|fault| wrong("burst", fault)),
        Ok(()) => {}
        Err(fault) => wrong("rate", fault),
    }
}

pub(super) fn rate(limit: &Limit, rate: Rate) -> Result<(), Fault> {
    if rate.quantity.amount() == 0 {
        let remedy = "write a rate above 0; to refuse sources altogether, block them";
        return Err(Fault::new(format!("`{rate}` admits nothing"), remedy));
    }
    if limit.unit != Unit::Bytes && rate.quantity.scale() != Scale::One {
        let reason = format!("`{rate}` measures bytes, but the limit counts {}", limit.unit.name());
        return Err(Fault::new(reason, "write a bare number such as 1000/s, or unit = \"bytes\""));
    }
    if limit.unit == Unit::Bytes && rate.quantity.scale() == Scale::One {
        let remedy = format!("write {} if bytes are meant, or a larger unit such as KiB or Mbit", rate.of_bytes());
        return Err(Fault::new(format!("`{rate}` does not say what it measures"), remedy));
    }
    let Some(price) = rate.price(limit.unit) else {
        let reason = format!("`{rate}` is beyond what a bucket can hold");
        return Err(Fault::new(reason, "write a rate from 1/day to 1000000000/s"));
    };
    let [of_bytes, of_one] = LEAST_COST;
    let (smallest, least) = if limit.unit == Unit::Bytes { (SMALLEST_FRAME, of_bytes) } else { (1, of_one) };
    if price.cost(smallest) < least {
        let reason = format!("`{rate}` is faster than any network, and more than a bucket can count");
        return Err(Fault::new(reason, "leave the limit out, or write at most 1000000000/s, for bytes 1000Gbit/s"));
    }
    Ok(())
}

/// A window must admit a packet at all, and its units must be told apart.
fn window(limit: &Limit, rate: Rate) -> Result<(), Fault> {
    if limit.unit == Unit::Bytes && limit.burst_units() < FULL_FRAME {
        let reason = format!("a window of {rate} is smaller than a full frame, which would never pass");
        return Err(Fault::new(
            reason,
            format!("write a rate of at least {FULL_FRAME}B in its period, or a longer one"),
        ));
    }
    if rate.window_price(limit.unit).is_none() {
        let reason = format!("`{rate}` is more than a window can count");
        return Err(Fault::new(reason, "write at most 1000000000/s, for bytes 1000Gbit/s"));
    }
    Ok(())
}

/// A leaky bucket must hold the largest packet.
fn meter(limit: &Limit, rate: Rate) -> Result<(), Fault> {
    if rate.depth(limit.unit, limit.burst_units()).is_none() {
        let reason = format!("at {rate} the largest frame takes more than a day to leak");
        return Err(Fault::new(reason, "write a higher rate"));
    }
    Ok(())
}

pub(super) fn burst(limit: &Limit, rate: Rate) -> Result<(), Fault> {
    let units = limit.burst_units();
    let written = limit.burst.map_or_else(|| units.to_string(), |burst| burst.to_string());
    if limit.unit != Unit::Bytes && limit.burst.is_some_and(|burst| burst.scale() != Scale::One) {
        let reason = format!("`{written}` measures bytes, but the limit counts {}", limit.unit.name());
        return Err(Fault::new(reason, "write a bare number"));
    }
    if units == 0 {
        return Err(Fault::new("a burst of 0 admits nothing", "write at least 1"));
    }
    if limit.unit == Unit::Bytes && units < FULL_FRAME {
        let reason = format!("a burst of {written} is smaller than a full frame, which would never pass");
        return Err(Fault::new(reason, "write at least \"2KB\", better \"64KiB\""));
    }
    if rate.depth(limit.unit, units).is_none() {
        let most = (24 * u128::from(rate.units(limit.unit)) * 3_600 / u128::from(rate.per.seconds())).max(1);
        let reason = format!("a burst of {written} takes more than a day to come back at {rate}");
        return Err(Fault::new(reason, format!("write a burst of at most {most}, or a higher rate")));
    }
    Ok(())
}

fn lengths(limit: &Limit, wrong: &mut impl FnMut(&str, Fault)) {
    let Lengths { ipv4, ipv6 } = limit.prefix;
    family("ipv4", [ipv4, limit.aggregate.ipv4], [32, 32], limit, wrong);
    family("ipv6", [ipv6, limit.aggregate.ipv6], [128, 64], limit, wrong);
}

fn family(
    name: &str,
    [prefix, aggregate]: [u8; 2],
    [longest, longest_aggregate]: [u8; 2],
    limit: &Limit,
    wrong: &mut impl FnMut(&str, Fault),
) {
    if prefix == 0 || prefix > longest {
        let fault = Fault::new(format!("a source cannot be {prefix} bits of {name}"), format!("write 1 to {longest}"));
        return wrong(&format!("prefix.{name}"), fault);
    }
    // Where the aggregate is as by default, what its author wrote is the prefix.
    let written = if limit.aggregate == default::aggregate() { "prefix" } else { "aggregate" };
    let field = format!("{written}.{name}");
    if aggregate == 0 || aggregate > longest_aggregate {
        let reason = format!("an aggregate cannot be {aggregate} bits of {name}");
        wrong(&field, Fault::new(reason, format!("write 1 to {longest_aggregate}")));
    } else if limit.overflow == Overflow::Aggregate && aggregate >= prefix {
        let reason = format!("an aggregate of {aggregate} bits is not shorter than a source of {prefix} bits");
        let remedy = match prefix.saturating_sub(8).min(longest_aggregate) {
            0 => "write overflow = \"refuse\" or \"admit\"".to_owned(),
            shorter => format!("write aggregate = {{ {name} = {shorter} }}, or overflow = \"refuse\""),
        };
        wrong(&field, Fault::new(reason, remedy));
    }
}

/// No packet may be asked about more limits than the kernel program looks at.
fn scopes(document: &Document, found: &mut Vec<Diagnostic>) {
    let concurrent = |limit: &Limit| usize::from(limit.concurrent.is_some());
    let of_host = document.limits.iter().filter(|limit| limit.service.is_none());
    let of_host = of_host.fold([0, 0], |[all, open], limit| [all + 1, open + concurrent(limit)]);
    // How many limits a packet meets before the one at hand, and how many of these on open connections: those of the host,
    // and those of its service.
    let mut met: HashMap<Option<&str>, [usize; 2]> = HashMap::new();
    for (index, limit) in document.limits.iter().enumerate() {
        let own = limit.service.as_deref();
        let counts = met.entry(own).or_insert(if own.is_some() { of_host } else { [0, 0] });
        let [all, open] = *counts;
        *counts = [all + 1, open + concurrent(limit)];
        let whose = limit.service.as_ref().map_or_else(|| "the host".to_owned(), |name| format!("`{name}`"));
        let reason = if all == PACKET_LIMITS {
            format!("more than {PACKET_LIMITS} limits apply to a packet of {whose}")
        } else if limit.concurrent.is_some() && open == CONNECTION_LIMITS {
            format!("more than {CONNECTION_LIMITS} limits on open connections apply to one of {whose}")
        } else {
            continue;
        };
        let remedy = "remove one; the host's limits count for every service";
        found.push(Fault::new(reason, remedy).at(format!("limit[{index}]")));
    }
}
