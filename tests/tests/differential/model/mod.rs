//! What the kernel program should do, written anew in user space on the shared arithmetic: one packet at a time, with
//! the buckets in an ordinary vector. It knows services by their ports, tenants and known sources, not blocks and allows, and
//! of limits not those on open connections.

mod terms;

use anyhow::{Result, ensure};
use ipnet::IpNet;
use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};
use throttle_agent::policy::{Document, PortRange, Tenants};
use throttle_common::{
    gcra::{self, Ticks},
    hash::Secret,
    lease::{self, Holding},
    packet::{Family, Packet, parse_bytes},
    records::{HOST_CLOCK, Home, Lease, Limit, LimitTally, NONE, Tally, Whose},
    speed::{Speed, Timeline},
    table::{Check, Commit, OPEN_WAYS, Request, WAYS, check, commit},
    turns::Turns,
    windows::Sliding,
    words::{Fate, Outcome, Overflow, Reason, Unit},
};
use throttle_tests::{
    program::{Program, Tallies},
    set::{Shared, Slots},
};

/// A policy, and what its limits remember.
pub(crate) struct Model {
    secret: Secret,
    observe: bool,
    limits: Vec<Judge>,
    /// Which of them the host has, and which each service, as the document names them.
    scopes: Vec<Vec<usize>>,
    known: Vec<IpNet>,
    document: Document,
    tenants: Tenants,
    buckets: Vec<Slots>,
    aggregates: Vec<Ticks>,
    leases: Vec<Lease>,
    /// How many policies have been in force.
    epoch: u32,
    /// What the clocks of limits read.
    clocks: BTreeMap<u16, Timeline>,
    tallies: Tallies,
}

/// A limit and what it did.
struct Judge {
    number: u16,
    limit: Limit,
    tally: LimitTally,
}

/// A limit's answer to a packet, before anything is charged.
enum Answer {
    /// It has no say in it.
    Unasked,
    /// It would charge this; or nothing, where overflow admits.
    Yes {
        overflowed: bool,
        charge: Option<Charge>,
    },
    No {
        overflowed: bool,
        reason: Reason,
    },
}

#[derive(Clone, Copy)]
enum Charge {
    Slot {
        set: u32,
        request: Request,
        seen: Check,
    },
    /// Of buckets with two words, the second in another set.
    Turns {
        sets: [u32; 2],
        window: Sliding,
        request: Request,
        seen: Check,
    },
    Aggregate {
        place: u32,
        next: Ticks,
    },
    /// To the lease in a place, of which the next piece then begins later.
    Lease {
        place: usize,
        next: Ticks,
    },
    /// To a slot, if there is no other lease to be had.
    Leasing {
        place: usize,
        holding: Holding,
        batch: Ticks,
        set: u32,
        request: Request,
        seen: Check,
    },
}

impl Model {
    /// The policy in force, with the table and the counters as they are.
    pub(crate) fn of(program: &Program) -> Result<Self> {
        let compiled = &program.compiled;
        let mut limits = Vec::new();
        for &(number, limit) in &compiled.limits {
            limits.push(Judge { number, limit, tally: program.datapath.limit_tally(number)? });
        }
        let place = |number| limits.iter().position(|it| it.number == number).expect("a scope names real limits");
        let scopes = [&compiled.policy.scope].into_iter().chain(compiled.services.iter().map(|service| &service.scope));
        let scopes =
            scopes.map(|it| it.limits[..usize::from(it.count)].iter().map(|&number| place(number)).collect()).collect();
        let clocks = [HOST_CLOCK].into_iter().chain(compiled.services.iter().map(|service| service.clock));
        let clocks = clocks.map(|clock| (clock, program.datapath.followed(clock))).collect();
        let regions = limits.iter().flat_map(|judge| [judge.limit.v4, judge.limit.v6]);
        let end = regions.map(|region| region.base + region.extent()).max().unwrap_or(0);
        let (buckets, aggregates) = program.table(end)?;
        Ok(Self {
            secret: program.control()?.secret,
            observe: compiled.policy.observe != 0,
            limits,
            scopes,
            known: program.document.sources.known.iter().map(|prefix| prefix.net()).collect(),
            document: program.document.clone(),
            tenants: (*compiled.tenants).clone(),
            buckets: buckets.into_iter().map(Slots::holding).collect(),
            aggregates,
            leases: program.leases()?,
            epoch: program.control()?.generation,
            clocks,
            tallies: BTreeMap::new(),
        })
    }

    /// Has a clock run at another speed; `false` where it has to wait.
    pub(crate) fn publish(&mut self, clock: u16, now: u64, speed: Speed, lease: u64) -> bool {
        let clock = self.clocks.get_mut(&clock).expect("a limit goes by it");
        let next = clock.then(now, speed, (speed != Speed::ONE).then_some(lease));
        *clock = next.unwrap_or(*clock);
        next.is_some()
    }

    /// Judges and charges a frame on a CPU.
    pub(crate) fn judge(&mut self, now: u64, cpu: u32, frame: &[u8]) -> (Reason, Outcome) {
        let length = frame.len() as u32;
        let (reason, outcome) = match parse_bytes(frame) {
            Ok(packet) => self.limit((now, cpu), &packet, length),
            Err(shape) if shape.default_fate() == Fate::Pass => (shape, Outcome::Pass),
            Err(shape) => (shape, if self.observe { Outcome::Observe } else { Outcome::Drop }),
        };
        count(self.tallies.entry((reason, outcome)).or_default(), length);
        (reason, outcome)
    }

    /// Whose limits a packet meets: the host's, or a service's.
    fn scope(&self, packet: &Packet) -> Vec<usize> {
        let serves = |range: &PortRange| range.ports().contains(&packet.destination_port);
        let found = self.document.services.iter().position(|service| service.ports.iter().any(serves));
        self.scopes[found.map_or(0, |service| service + 1)].clone()
    }

    fn limit(&mut self, at: (u64, u32), packet: &Packet, length: u32) -> (Reason, Outcome) {
        let mut verdict = (Reason::Admitted, Outcome::Pass);
        let mut agreed = Vec::new();
        // In which units the packet is within a guarantee so far.
        let mut guaranteed = [false; 3];
        for index in self.scope(packet) {
            let limit = self.limits[index].limit;
            match self.ask(index, at, packet, length, guaranteed) {
                Answer::Unasked => {}
                Answer::No { .. } if limit.guarantee != 0 => {}
                Answer::Yes { charge, .. } if limit.guarantee != 0 => {
                    guaranteed[usize::from(limit.unit)] = true;
                    agreed.push((index, false, charge));
                }
                Answer::Yes { overflowed, charge } => agreed.push((index, overflowed, charge)),
                Answer::No { overflowed, reason } => {
                    let Judge { limit, tally, .. } = &mut self.limits[index];
                    let observes = self.observe || limit.observe != 0;
                    count_for(tally, overflowed, length, |tally| {
                        if observes { &mut tally.observed } else { &mut tally.refused }
                    });
                    let outcome = if observes { Outcome::Observe } else { Outcome::Drop };
                    if limit.observe == 0 {
                        for (index, overflowed, _) in agreed {
                            count_for(&mut self.limits[index].tally, overflowed, length, |tally| &mut tally.spared);
                        }
                        return (reason, outcome);
                    }
                    if verdict.1 == Outcome::Pass {
                        verdict = (reason, outcome);
                    }
                }
            }
        }
        for (index, overflowed, charge) in agreed {
            match charge {
                Some(Charge::Slot { set, request, seen }) => {
                    let charged = commit(&self.buckets[set as usize], &request, seen);
                    assert!(matches!(charged, Commit::Charged(_)), "nobody else is at the table");
                }
                Some(Charge::Turns { sets, window, request, seen }) => {
                    let charged = commit(&self.turns(sets, &window), &request, seen);
                    assert!(matches!(charged, Commit::Charged(_)), "nobody else is at the table");
                }
                Some(Charge::Aggregate { place, next }) => self.aggregates[place as usize] = next,
                Some(Charge::Lease { place, next }) => self.leases[place].next = next,
                Some(Charge::Leasing { place, holding, batch, set, request, seen }) => {
                    let (held, bucket) = (&self.leases[place], &self.buckets[set as usize]);
                    if holding.may_replace(held, request.now)
                        && let Some((renewed, _)) = lease::renew(bucket, &request, seen, (held, holding), batch)
                    {
                        self.leases[place] = renewed;
                    } else {
                        let charged = commit(bucket, &request, seen);
                        assert!(matches!(charged, Commit::Charged(_)), "nobody else is at the table");
                    }
                }
                None => {}
            }
            count_for(&mut self.limits[index].tally, overflowed, length, |tally| &mut tally.admitted);
        }
        verdict
    }

    fn ask(&self, index: usize, (now, cpu): (u64, u32), packet: &Packet, length: u32, guaranteed: [bool; 3]) -> Answer {
        let limit = &self.limits[index].limit;
        let now = self.clocks[&limit.clock].at(now);
        let region = limit.region(packet.family);
        if region.sets == 0 || (limit.unit == Unit::Connections as u8 && !packet.opens_connection()) {
            return Answer::Unasked;
        }
        let tenant = self.tenant(packet).and_then(|name| self.tenants.get(name)).copied().unwrap_or(NONE);
        let whose = Whose { source: packet.source, family: packet.family, tenant };
        let Some(Home { key, set }) = limit.home(&whose, self.secret) else { return Answer::Unasked };
        let (price, own_depth) = self.terms(limit, packet);
        let cost = price.cost(if limit.unit == Unit::Bytes as u8 { length } else { 1 });
        let holding = Holding::of(self.epoch, limit, tenant);
        let place = holding.slot(cpu) as usize;
        let held = self.leases[place];
        if limit.batch != 0
            && held.holding == holding.word()
            && let Some(next) = held.after(now, cost)
        {
            return Answer::Yes { overflowed: false, charge: Some(Charge::Lease { place, next }) };
        }
        let ways = if self.knows(packet) || limit.is_shared() { WAYS } else { OPEN_WAYS };
        let forced = guaranteed[usize::from(limit.unit)];
        let depth = own_depth + if forced { limit.overdraft() } else { 0 };
        let request = Request { key, now: limit.reading(now), cost, depth, ways };
        let (sets, window) = ([set, set + region.sets], limit.sliding(now));
        let seen = if limit.is_sliding() {
            check(&self.turns(sets, &window), &request)
        } else {
            check(&self.buckets[set as usize], &request)
        };
        match seen {
            Check::Exceeded if forced => Answer::Yes { overflowed: false, charge: None },
            Check::Exceeded => Answer::No { overflowed: false, reason: limit.refusal() },
            Check::Full if limit.is_shared() => Answer::Yes { overflowed: false, charge: None },
            Check::Full if limit.overflow == Overflow::Admit as u8 => Answer::Yes { overflowed: true, charge: None },
            Check::Full if limit.overflow == Overflow::Refuse as u8 => {
                Answer::No { overflowed: true, reason: Reason::SourceOverflow }
            }
            Check::Full => {
                let mut place = limit.aggregate(&whose, self.secret);
                let (mut depth, price) = (limit.depth, limit.price);
                let cost = price.cost(if limit.unit == Unit::Bytes as u8 { length } else { 1 });
                if limit.is_sliding() {
                    let (running, before) = window.turn(place, place + region.sets);
                    place = running;
                    depth = depth.saturating_sub(window.weight(self.aggregates[before as usize]));
                }
                match gcra::admit(self.aggregates[place as usize], request.now, cost, depth) {
                    Some(next) => Answer::Yes { overflowed: true, charge: Some(Charge::Aggregate { place, next }) },
                    None => Answer::No { overflowed: true, reason: Reason::SourceOverflow },
                }
            }
            seen if limit.is_sliding() => {
                Answer::Yes { overflowed: false, charge: Some(Charge::Turns { sets, window, request, seen }) }
            }
            seen if limit.batch != 0 => {
                let charge = Charge::Leasing { place, holding, batch: limit.batch, set, request, seen };
                Answer::Yes { overflowed: false, charge: Some(charge) }
            }
            seen => Answer::Yes { overflowed: false, charge: Some(Charge::Slot { set, request, seen }) },
        }
    }

    fn turns<'m>(&'m self, sets: [u32; 2], window: &'m Sliding) -> Turns<'m, Shared<'m>> {
        let [first, second] = sets.map(|set| Shared(&self.buckets[set as usize]));
        Turns::of(first, second, window)
    }

    fn knows(&self, packet: &Packet) -> bool {
        let source = source(packet);
        self.known.iter().any(|prefix| prefix.contains(&source))
    }

    /// What was judged.
    pub(crate) fn tallies(&self) -> &Tallies {
        &self.tallies
    }

    /// Fails where the kernel's table or a limit's counters differ from the model's.
    pub(crate) fn agrees_with(&self, program: &Program) -> Result<()> {
        let (buckets, aggregates) = program.table(self.buckets.len() as u32)?;
        for (number, (kernel, mine)) in buckets.iter().zip(self.buckets.iter().map(Slots::held)).enumerate() {
            ensure!(*kernel == mine, "set {number}: the kernel holds {kernel:?}, the model {mine:?}");
        }
        ensure!(aggregates == self.aggregates, "aggregates: {aggregates:?} in the kernel, {:?} here", self.aggregates);
        for (place, (kernel, mine)) in program.leases()?.iter().zip(&self.leases).enumerate() {
            ensure!(kernel == mine, "lease {place}: the kernel has {kernel:?}, the model {mine:?}");
        }
        for Judge { number, tally, .. } in &self.limits {
            let kernel = program.datapath.limit_tally(*number)?;
            ensure!(kernel == *tally, "limit {number}: the kernel counts {kernel:?}, the model {tally:?}");
        }
        Ok(())
    }
}

fn source(packet: &Packet) -> IpAddr {
    match packet.family {
        Family::V4 => Ipv4Addr::from_bits(packet.source.low as u32).into(),
        Family::V6 => Ipv6Addr::from_bits(u128::from(packet.source.high) << 64 | u128::from(packet.source.low)).into(),
    }
}

fn count(tally: &mut Tally, length: u32) {
    tally.packets += 1;
    tally.bytes += u64::from(length);
}

fn count_for(tally: &mut LimitTally, overflowed: bool, length: u32, of: impl FnOnce(&mut LimitTally) -> &mut Tally) {
    if overflowed {
        count(&mut tally.overflowed, length);
    }
    count(of(tally), length);
}
