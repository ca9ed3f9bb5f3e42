//! Whether policy would hit the administrator who writes it.

use std::net::IpAddr;

use ipnet::IpNet;
use throttle_common::words::Unit;

use crate::policy::{Document, Limit, Mode, Protocol};

/// The port on which administrators log in.
const SSH: u16 = 22;
/// Packets that an interactive session sends in a second when it pastes or scrolls.
const PACKETS_PER_SECOND: f64 = 100.0;
/// Bytes that it sends in a second.
const BYTES_PER_SECOND: f64 = 16_384.0;
/// Connections that an administrator opens in a row: a login that failed, one that did not, a copy.
const CONNECTIONS: u64 = 5;

/// What the rules would do to a session from `address`, a sentence each; none where they leave it alone. `blocks` are
/// those beside the document.
pub(super) fn dangers<'b>(
    document: &Document,
    blocks: impl IntoIterator<Item = &'b IpNet>,
    address: IpAddr,
) -> Vec<String> {
    let address = address.to_canonical();
    if document.mode == Mode::Observe || document.sources.allow.iter().any(|p| p.net().contains(&address)) {
        return Vec::new();
    }
    let blocked = document.sources.block.iter().map(|prefix| prefix.net()).chain(blocks.into_iter().copied());
    let mut dangers: Vec<String> = blocked
        .filter(|block| block.contains(&address))
        .map(|block| format!("the block of {block} covers your session from {address}"))
        .collect();
    dangers.extend(document.limits.iter().filter(|limit| limit.mode == Mode::Enforce).filter_map(|limit| {
        let need = (applies(document, limit) && starves(limit)).then(|| need(limit.unit))?;
        Some(format!(
            "the limit `{}` ({}) would hit your session from {address}, which may need {need}",
            limit.name, limit.rate
        ))
    }));
    dangers
}

fn applies(document: &Document, limit: &Limit) -> bool {
    let Some(name) = &limit.service else { return true };
    document.services.iter().filter(|service| service.name == *name).any(|service| {
        service.protocol == Protocol::Tcp && service.ports.iter().any(|range| range.ports().contains(&SSH))
    })
}

fn starves(limit: &Limit) -> bool {
    let per_second = limit.rate.units(limit.unit) as f64 / limit.rate.per.seconds() as f64;
    let burst = limit.burst_units();
    match limit.unit {
        Unit::Packets => per_second < PACKETS_PER_SECOND,
        Unit::Bytes => per_second < BYTES_PER_SECOND,
        Unit::Connections => burst < CONNECTIONS,
    }
}

fn need(unit: Unit) -> String {
    match unit {
        Unit::Packets => format!("{PACKETS_PER_SECOND} packets each second"),
        Unit::Bytes => format!("{BYTES_PER_SECOND} bytes each second"),
        Unit::Connections => format!("{CONNECTIONS} connections in a row"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy;

    const ADMIN: &str = "192.0.2.7";

    fn judged(text: &str, blocks: &[&str]) -> usize {
        let blocks: Vec<IpNet> = blocks.iter().map(|block| block.parse().unwrap()).collect();
        dangers(&policy::parse(text).unwrap(), &blocks, ADMIN.parse().unwrap()).len()
    }

    fn limit(unit: &str, rate: &str) -> String {
        format!("mode = \"enforce\"\n[[limit]]\nname = \"l\"\nunit = \"{unit}\"\nrate = \"{rate}\"\n")
    }

    #[test]
    fn a_block_that_covers_the_session_is_a_danger() {
        assert_eq!(judged("mode = \"enforce\"\n[sources]\nblock = [\"192.0.2.0/24\"]", &[]), 1);
        assert_eq!(judged("mode = \"enforce\"", &["192.0.2.7/32", "198.51.100.0/24"]), 1);
    }

    #[test]
    fn a_limit_that_starves_the_session_is_a_danger() {
        assert_eq!(judged(&limit("packets", "10/s"), &[]), 1);
        assert_eq!(judged(&limit("packets", "1000/s"), &[]), 0);
        assert_eq!(judged(&limit("bytes", "8KB/s"), &[]), 1);
        assert_eq!(judged(&limit("connections", "50/min"), &[]), 0);
        assert_eq!(judged(&limit("connections", "1/min"), &[]), 1);
    }

    #[test]
    fn observing_hits_nobody() {
        assert_eq!(judged(&limit("packets", "10/s").replace("enforce", "observe"), &["192.0.2.0/24"]), 0);
    }

    #[test]
    fn an_allow_wins() {
        let text = "mode = \"enforce\"\n[sources]\nallow = [\"192.0.2.0/28\"]\nblock = [\"192.0.2.0/24\"]";
        assert_eq!(judged(text, &["192.0.2.7/32"]), 0);
    }

    #[test]
    fn a_limit_of_another_service_leaves_it_alone() {
        let service = "[[service]]\nname = \"s\"\nprotocol = \"tcp\"\nports = [PORT]\n";
        let limit = limit("packets", "1/s") + "service = \"s\"\n" + service;
        assert_eq!(judged(&limit.replace("PORT", "80"), &[]), 0);
        assert_eq!(judged(&limit.replace("PORT", "22"), &[]), 1);
    }
}
