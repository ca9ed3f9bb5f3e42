//! Two neighbours under one host, each with a guarantee: A floods from thousands of sources, and B keeps to what it is
//! guaranteed. They are two tenants, or two services of which each has one of the two.
//!
//! Everything goes by new connections: a SYN is one, whatever comes of it.

use crate::{
    clients::HTTP,
    frames::Frame,
    kernel::{NEVER, Order},
    program::SECOND,
    wire::{FAR_V4, NEAR_V4},
};
use std::net::Ipv4Addr;
use throttle_common::packet::tcp;

/// Whose bulkheads they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Between {
    /// Of two tenants at one service.
    Tenants,
    /// Of two services.
    Services,
}

/// Both kinds.
pub const BETWEEN: [Between; 2] = [Between::Tenants, Between::Services];

/// What they have, in connections a second.
#[derive(Clone, Copy, Debug)]
pub struct Rates {
    /// What the host admits of all.
    pub host: u64,
    /// What each may have at most.
    pub ceiling: u64,
    /// What each has for sure.
    pub guarantee: u64,
    /// What the host admits at once, and each at its ceiling: so much of what was not used is saved up.
    pub burst: u64,
}

/// A floods with so many times its ceiling.
pub const TIMES: u64 = 10;
/// The port of the service that A floods where B has one of its own.
pub const OTHER_PORT: u16 = 81;
/// 16 384 sources: bits that they share, and those that are drawn.
const FLOOD: u64 = u64::from_be_bytes([0, 0, 0, 0, 10, 99, 0, 0]);
const DRAWN: u64 = (1 << 14) - 1;
/// What a bucket holds at its rate, as a part of a second: how long a sender may be kept from sending without loss.
pub const HELD: u64 = 5;

impl Between {
    /// What the two are called.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tenants => "tenants",
            Self::Services => "services",
        }
    }

    /// The port that A's flood goes to.
    const fn flooded(self) -> u16 {
        match self {
            Self::Tenants => HTTP,
            Self::Services => OTHER_PORT,
        }
    }

    /// The policy of a host that enforces. Guarantees hold a fifth of a second.
    pub fn policy(self, rates: Rates) -> String {
        let Rates { host, ceiling, guarantee, burst } = rates;
        let limit = |name: &str, rest: &str| {
            format!(
                "[[limit]]\nname = \"{name}\"\nunit = \"connections\"\nrate = \"{ceiling}/s\"\nburst = {burst}\n\
                 guarantee = \"{guarantee}/s\"\nguarantee-burst = {}\n{rest}\n",
                guarantee / HELD,
            )
        };
        let levels = match self {
            Self::Tenants => {
                "[[tenant]]\nname = \"a\"\nsources = [\"10.99.0.0/16\"]\n\
                 [[tenant]]\nname = \"b\"\nsources = [\"10.98.0.0/16\"]\n"
                    .to_owned()
                    + &limit("tenants", "per = \"tenant\"")
            }
            Self::Services => [("a", OTHER_PORT), ("b", HTTP)]
                .map(|(name, port)| {
                    format!("[[service]]\nname = \"{name}\"\nprotocol = \"tcp\"\nports = [{port}]\n")
                        + &limit(name, &format!("per = \"service\"\nservice = \"{name}\""))
                })
                .concat(),
        };
        format!(
            "mode = \"enforce\"\n{levels}[[limit]]\nname = \"host\"\nunit = \"connections\"\nper = \"host\"\n\
             rate = \"{host}/s\"\nburst = {burst}\n"
        )
    }

    /// The flood of A at ten times its ceiling, and B at its guarantee or not at all.
    pub fn order(self, rates: Rates, steady: bool) -> Order {
        Order {
            flood: FLOOD,
            random: DRAWN,
            flood_interval: SECOND / (TIMES * rates.ceiling),
            flood_port: self.flooded().into(),
            honest: u32::from(near()).into(),
            honest_interval: if steady { SECOND / rates.guarantee } else { NEVER },
            honest_port: HTTP.into(),
            ..Order::SILENT
        }
    }
}

/// The SYN that lacks only its source and its port.
pub fn frame() -> Vec<u8> {
    Frame::v4(near()).to(FAR_V4).tcp(40_000, HTTP, tcp::SYN).length(60).bytes()
}

fn near() -> Ipv4Addr {
    NEAR_V4.parse().expect("an address")
}
