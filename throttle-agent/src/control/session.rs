//! Whether policy would hit the administrator who writes it.

use std::net::IpAddr;

use ipnet::IpNet;
use throttle_common::words::{Fate, Reason, Unit};

use crate::{
    api::wire::Write,
    policy::{Diagnostic, Document, Limit, Mode, Protocol, units::Rate},
};

/// The port on which administrators log in, where they do not say.
const SSH: u16 = 22;

/// What an interactive session needs of a limit.
struct Need {
    /// Units each second, on average.
    per_second: f64,
    /// Units at once.
    burst: u64,
    /// The same in words.
    words: &'static str,
}

const PACKETS: Need = Need { per_second: 100.0, burst: 50, words: "100 packets each second, 50 at once" };
/// A key exchange, or a screen of text.
const BYTES: Need = Need { per_second: 16_384.0, burst: 16_384, words: "16384 bytes each second and at once" };
/// A login that failed, one that did not, a copy; and another one after a while.
const CONNECTIONS: Need =
    Need { per_second: 1.0 / 60.0, burst: 5, words: "5 connections in a row and one each minute" };

/// The session that a change is written from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Session {
    address: IpAddr,
    port: u16,
}

impl Session {
    /// The session of a request that names one.
    pub(super) fn of(write: &Write) -> Option<Self> {
        let port = write.session_port.unwrap_or(SSH);
        write.session.map(|address| Self { address: address.to_canonical(), port })
    }

    /// What the rules would do to this session, a sentence each; none where they leave it alone. `blocks` are those
    /// beside the document.
    pub(super) fn dangers<'b>(self, document: &Document, blocks: impl IntoIterator<Item = &'b IpNet>) -> Vec<String> {
        let Self { address, .. } = self;
        if document.mode == Mode::Observe || document.sources.allow.iter().any(|p| p.net().contains(&address)) {
            return Vec::new();
        }
        let blocked = document.sources.block.iter().map(|prefix| prefix.net()).chain(blocks.into_iter().copied());
        let mut dangers: Vec<String> = blocked
            .filter(|block| block.contains(&address))
            .map(|block| format!("the block of {block} covers your session from {address}"))
            .collect();
        let enforced = document.limits.iter().filter(|limit| limit.mode == Mode::Enforce);
        dangers.extend(enforced.filter(|limit| self.meets(document, limit) && starves(limit)).map(|limit| {
            format!(
                "the limit `{}` ({}, burst {}) would hit your session from {address}, which may need {}",
                limit.name,
                limit.allowance(),
                limit.burst_units(),
                need(limit.unit).words
            )
        }));
        dangers
    }

    /// Whether a policy drops what this session needs to reach the host at all: a frame that is refused for its shape is
    /// refused before anybody's address is looked at.
    pub(super) fn severed(self, document: &Document) -> Option<Diagnostic> {
        let Self { address, .. } = self;
        let shape = if address.is_ipv4() { Reason::Arp } else { Reason::NeighbourDiscovery };
        let fate = document.shapes.get(&shape).copied().unwrap_or(shape.default_fate());
        if document.mode == Mode::Observe || fate == Fate::Pass || address.is_loopback() {
            return None;
        }
        Some(Diagnostic {
            line: None,
            column: None,
            path: format!("shapes.{}", shape.name()),
            name: None,
            reason: format!(
                "without it the host is soon out of reach of your session from {address}, which no allow helps"
            ),
            remedy: "write \"pass\", or pass --lock-me-out if that is meant".to_owned(),
        })
    }

    fn meets(self, document: &Document, limit: &Limit) -> bool {
        let Some(name) = &limit.service else { return true };
        document.services.iter().filter(|service| service.name == *name).any(|service| {
            service.protocol == Protocol::Tcp && service.ports.iter().any(|range| range.ports().contains(&self.port))
        })
    }
}

fn starves(limit: &Limit) -> bool {
    let need = need(limit.unit);
    let too_slow = |rate: Rate| (rate.units(limit.unit) as f64 / rate.per.seconds() as f64) < need.per_second;
    limit.rate.is_some_and(too_slow) || limit.burst_units() < need.burst
}

fn need(unit: Unit) -> Need {
    match unit {
        Unit::Packets => PACKETS,
        Unit::Bytes => BYTES,
        Unit::Connections => CONNECTIONS,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy;

    const ADMIN: &str = "192.0.2.7";

    fn judged(text: &str, blocks: &[&str]) -> usize {
        let blocks: Vec<IpNet> = blocks.iter().map(|block| block.parse().unwrap()).collect();
        session(SSH).dangers(&policy::parse(text).unwrap(), &blocks).len()
    }

    fn session(port: u16) -> Session {
        Session { address: ADMIN.parse().unwrap(), port }
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
    fn a_limit_is_judged_by_its_rate_and_by_its_burst() {
        let burst = |unit, rate, burst: u32| judged(&format!("{}burst = {burst}\n", limit(unit, rate)), &[]);
        assert_eq!((burst("packets", "1000/s", 3), burst("packets", "1000/s", 50)), (1, 0));
        assert_eq!((burst("connections", "5/day", 5), burst("connections", "1/min", 5)), (1, 0));
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
    fn what_finds_the_sessions_neighbour_must_pass_and_no_allow_helps() {
        let severed = |address: &str, text: &str| {
            let session = Session { address: address.parse().unwrap(), port: SSH };
            session.severed(&policy::parse(text).unwrap()).map(|fault| fault.path)
        };
        let text = "mode = \"enforce\"\n[sources]\nallow = [\"192.0.2.7\", \"2001:db8::7\"]\n[shapes]\n";
        for (shape, hit, spared) in [("arp", ADMIN, "2001:db8::7"), ("neighbour-discovery", "2001:db8::7", ADMIN)] {
            let drop = format!("{text}{shape} = \"drop\"\n");
            assert_eq!(severed(hit, &drop), Some(format!("shapes.{shape}")));
            assert_eq!((severed(spared, &drop), severed("127.0.0.1", &drop)), (None, None));
            assert_eq!(severed(hit, &drop.replace("enforce", "observe")), None);
            assert_eq!(severed(hit, &drop.replace("drop", "pass")), None);
        }
        assert_eq!(severed(ADMIN, text), None, "it passes by default");
    }

    #[test]
    fn a_limit_of_another_service_leaves_it_alone() {
        let service = "[[service]]\nname = \"s\"\nprotocol = \"tcp\"\nports = [PORT]\n";
        let limit = limit("packets", "1/s") + "service = \"s\"\n" + service;
        assert_eq!(judged(&limit.replace("PORT", "80"), &[]), 0);
        assert_eq!(judged(&limit.replace("PORT", "22"), &[]), 1);
        let elsewhere = policy::parse(&limit.replace("PORT", "2222")).unwrap();
        assert_eq!((session(22).dangers(&elsewhere, []).len(), session(2222).dangers(&elsewhere, []).len()), (0, 1));
    }
}
