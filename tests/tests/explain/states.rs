//! What the kernel holds when a question is asked: who is blocked or proven, what is open, which breakers are not closed and
//! which windows are narrower than policy says.

use std::net::IpAddr;

use anyhow::Result;
use throttle_agent::{
    datapath::explain::packet,
    policy::sources::{FOR_EVER, Standing},
};
use throttle_common::{
    breakers::{Forced, State, TRIALS},
    connections::PLACE,
    gcra::Ticks,
    packet::{Packet, protocol},
    proven::{Claim, Line},
    records::{Control, FIRST_BACKEND, NONE, PROVEN_LINES, Slot, Whose, maps},
    table::WAYS,
};
use throttle_tests::{
    frames::Dice,
    program::{Program, SECOND},
};

/// Where backends may listen: as questions have it, one of them beside every service.
const BACKENDS: [&str; 4] = ["192.0.2.1:80", "192.0.2.2:8001", "[2001:db8:1::1]:80", "192.0.2.1:9"];

/// One of two dozen sources of either family.
pub(crate) fn source(dice: &mut Dice) -> IpAddr {
    let low = dice.below(24) as u16;
    if dice.below(2) == 0 {
        [198, 51, 100, low as u8].into()
    } else {
        [0x2001, 0xdb8, 0, low / 2, 0, 0, 0, low % 2 + 1].into()
    }
}

/// Some are blocked for a while or for ever, some are allowed or known; some completed a handshake.
pub(crate) fn standings(program: &mut Program, dice: &mut Dice) -> Result<()> {
    let mut said = Vec::new();
    for _ in 0..20 {
        let standing = match dice.below(14) {
            0 => Standing::Allow,
            1 => Standing::Known,
            2 => Standing::Block { until: FOR_EVER },
            3..9 => Standing::Tenant(1 + dice.below(2) as u16),
            9..13 => Standing::Class(1 + dice.below(3) as u16),
            _ => Standing::Block { until: program.now() + dice.roll() % (3 * SECOND) },
        };
        let source = source(dice);
        let whole = if source.is_ipv4() { 32 } else { 128 };
        let length = if dice.below(3) == 0 { whole - 1 - dice.below(3) as u8 } else { whole };
        said.push((ipnet::IpNet::new(source, length)?.trunc(), standing));
    }
    program.set_sources(said)?;
    let secret = program.control()?.secret;
    let mut proven = program.map::<Line>(maps::PROVEN)?;
    for _ in 0..8 {
        let packet = packet(source(dice), None, protocol::TCP, 0, true);
        let claim = Claim::of(packet.source, packet.family, PROVEN_LINES, secret);
        let mut line = proven.get(&claim.line, 0)?;
        let (cell, value) = claim.remember(&line, program.now());
        line[cell] = value;
        proven.set(claim.line, line, 0)?;
    }
    Ok(())
}

/// Some have connections open, by what the table says, and so have the aggregates of others.
pub(crate) fn open_connections(program: &Program, dice: &mut Dice) -> Result<()> {
    let secret = program.control()?.secret;
    let mut aggregates = program.map::<Ticks>(maps::AGGREGATES)?;
    for (_, limit) in program.compiled.limits.iter().filter(|(_, limit)| limit.is_concurrency()) {
        for _ in 0..[12, 36][dice.below(2)] {
            let Packet { source, family, .. } = packet(source(dice), None, protocol::TCP, 0, true);
            let tenant = 1 + dice.below(2) as u16;
            let whose = Whose { source, family, tenant };
            let Some(home) = limit.home(&whose, secret) else { continue };
            // Whoever shares a bucket has a slot that is nobody else's.
            let way = if limit.is_shared() { home.key as usize % WAYS } else { dice.below(WAYS) };
            let open = (1 + dice.roll() % (limit.depth / PLACE).max(1)) * PLACE;
            program.put(home.set, way, Slot { key: home.key, tat: open })?;
            if !limit.is_shared() {
                let taken = dice.roll() % (limit.depth / PLACE + 1) * PLACE;
                aggregates.set(limit.aggregate(&whose, secret), taken, 0)?;
            }
        }
    }
    Ok(())
}

/// What leaves is seen, or is not.
pub(crate) fn sight(program: &Program, dice: &mut Dice) -> Result<()> {
    let mut control = program.map::<Control>(maps::CONTROL)?;
    let held = control.get(&0, 0)?;
    Ok(control.set(0, Control { sees_leaving: dice.below(2) as u32, ..held }, 0)?)
}

/// Some backends have breakers.
pub(crate) fn backends(program: &Program, dice: &mut Dice) -> Result<()> {
    let mut backends = Vec::new();
    for (number, at) in (FIRST_BACKEND..).zip(BACKENDS) {
        if dice.below(2) == 0 {
            backends.push((at.parse()?, protocol::TCP, number));
        }
    }
    program.datapath.set_backends(&backends)
}

/// A breaker of a service or of a backend comes to stand in another state.
pub(crate) fn turn_breaker(program: &Program, dice: &mut Dice) -> Result<()> {
    let of_services = program.compiled.services.iter().map(|service| service.breaker).filter(|&number| number != NONE);
    let of_backends = program.datapath.backends()?.into_iter().map(|(.., number)| number);
    let numbers: Vec<_> = of_services.chain(of_backends).collect();
    if numbers.is_empty() {
        return Ok(());
    }
    let state = match dice.below(9) {
        0..3 => State::Closed,
        3..6 => State::Open { until: program.now() + dice.roll() % (8 * SECOND) },
        6 => State::HalfOpen { left: dice.below(TRIALS as usize + 1) as u32 },
        7 => State::HalfOpen { left: dice.below(2) as u32 },
        _ => State::Forced([Forced::Open, Forced::Closed][dice.below(2)]),
    };
    program.datapath.publish_breaker(numbers[dice.below(numbers.len())], state)
}

/// The health of a service leaves fewer connections than its policy allows, or as many again.
pub(crate) fn turn_window(program: &Program, dice: &mut Dice) -> Result<()> {
    let limited = program.compiled.services.iter().filter(|service| service.connections > 0);
    let clocks: Vec<_> = limited.map(|service| service.clock).collect();
    if clocks.is_empty() {
        return Ok(());
    }
    let clock = clocks[dice.below(clocks.len())];
    let left = [None, Some(dice.below(6) as u32), Some(dice.below(3) as u32)][dice.below(3)];
    program.datapath.publish_window(clock, left)
}
