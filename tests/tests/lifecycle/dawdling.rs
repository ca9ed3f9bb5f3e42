//! Packets that are still under a policy when others come: none meets parts of two.

use std::{
    net::IpAddr,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use anyhow::{Context, Result, ensure};
use aya::{
    Ebpf,
    maps::{Array, ProgramArray},
    programs::{ProgramFd, TestRun as _, TestRunOptions, Xdp},
};
use ipnet::IpNet;
use throttle_agent::{
    datapath::{Datapath, Entries, Options},
    policy::{
        self, Compiled,
        sources::{resolve, stated},
    },
};
use throttle_common::{
    records::{PORT_WORDS, PORTS_IN_WORD, maps, port_place, port_slot},
    words::Outcome,
};
use throttle_tests::{frames::Frame, kernel, machine, needs_root, pins::Pins, program::action, say};

use super::{SOURCE, options};

/// Which UDP port the packets are for, as `dawdle` knows.
const PORT: u16 = 9;
const UDP: u32 = 1;
/// What `dawdle` looks at.
type Records = [u64; 9];

/// A policy under which the packets pass, and what it says of sources. The other kind has the same names at other places: a
/// packet that met the ports, the services, the limits, the tenants or the overrides of both would be refused. And it has so
/// many more tenants that tables are divided anew with each change.
fn policy(datapath: &Datapath, revision: u64) -> Result<(Compiled, Entries)> {
    let service = |name: &str, port| format!("[[service]]\nname = \"{name}\"\nprotocol = \"udp\"\nports = [{port}]\n");
    let tenant = |name: &str, source: &str| format!("[[tenant]]\nname = \"{name}\"\nsources = [\"{source}\"]\n");
    // Slow, but for one tenant.
    let limit = |name: &str, service: &str, tenant: &str| {
        format!(
            "[[limit]]\nname = \"{name}\"\nservice = \"{service}\"\nunit = \"packets\"\nrate = \"1/hour\"\nsources = 6144\n\
             [[limit.override]]\ntenant = \"{tenant}\"\nrate = \"10000000/s\"\n"
        )
    };
    let (asked, other) = (service("asked", PORT), service("other", PORT + 1));
    let text = if revision.is_multiple_of(2) {
        let tenants = tenant("a", "10.98.0.2") + &tenant("b", "192.0.2.1");
        asked + &other + &tenants + &limit("one", "asked", "a") + &limit("two", "other", "b")
    } else {
        let more = (1..15).map(|number| tenant(&format!("c{number}"), &format!("198.51.100.{number}")));
        let tenants = tenant("a", "192.0.2.1") + &tenant("b", "10.98.0.2") + &more.collect::<String>();
        other + &asked + &tenants + &limit("one", "other", "a") + &limit("two", "asked", "b")
    };
    let document = policy::parse(&format!("mode = \"enforce\"\n{text}")).map_err(|wrong| anyhow::anyhow!("{wrong}"))?;
    let compiled =
        policy::compile(&document, revision, &datapath.layout()).map_err(|wrong| anyhow::anyhow!("{wrong}"))?;
    let entries = resolve(stated(&document, &compiled.tenants));
    Ok((compiled, entries))
}

/// What `dawdle` is to find in the records of a policy, and of its source; the generation is the same for all.
fn records((policy, entries): &(Compiled, Entries)) -> Result<Records> {
    let price = |number| {
        let limit = policy.limits.iter().find(|(held, _)| *held == number);
        limit.map_or(0, |(_, limit)| limit.price.mantissa)
    };
    let first_limit = |service: usize| u64::from(policy.services[service].scope.limits[0]);
    let (word, _) = port_place(port_slot(UDP, PORT));
    let in_word = policy.ports.iter().filter(|(slot, _)| slot / PORTS_IN_WORD == word);
    let ports = in_word.map(|&(slot, list)| u64::from(list) << port_place(slot).1).sum();
    debug_assert!(word < PORT_WORDS);
    let entry = entries.get(&IpNet::from(IpAddr::V4(SOURCE.into()))).context("policy says something of the source")?;
    let own = |number| {
        let terms = policy.overridden.get(&(number, entry.class(0)));
        terms.map_or(0, |terms| terms.price.mantissa)
    };
    let tenant = u64::from(entry.tenant(0));
    let first_listed = u64::from(policy.candidates[0][0]);
    Ok([price(0), price(1), first_limit(0), first_limit(1), ports, first_listed, tenant, own(0), own(1)])
}

#[test]
fn no_packet_sees_parts_of_two_policies_however_long_it_takes() -> Result<()> {
    needs_root!();
    // A thread of its own has a CPU of its own: on that of the packets it would wait until none is under way.
    let last = machine::cpus() - 1;
    thread::spawn(move || {
        machine::pin_to(0)?;
        change_over_and_over(last)
    })
    .join()
    .expect("the thread does not panic")
}

fn change_over_and_over(cpu: usize) -> Result<()> {
    let times = if machine::takes_turns()? { 250 } else { 1_000 };
    let _machine = machine::alone()?;
    let pins = Pins::new()?;
    let mut datapath = Datapath::open(&Options { test_clock: false, table_sets: 1 << 14, ..options(&pins) })?;
    let mut dawdler = Dawdler::new(&pins, datapath.program_fd()?)?;
    // Compiled once the limits have their places, so that each change begins as soon as the one before is done.
    let mut kinds = Vec::new();
    for revision in 1..=4 {
        let policy = policy(&datapath, revision)?;
        datapath.switch(&policy.0, &policy.1)?;
        kinds.push(policy);
    }
    let kinds = &mut kinds[2..];
    let [few, many] = [0, 1].map(|kind: usize| kinds[kind].0.limits[0].1.v4.tenants_compartments());
    ensure!(few.min(many) == 2 && few.max(many) == 16, "tables are divided among {few} tenants, and {many}");
    for policy in &*kinds {
        dawdler.expect(policy.0.policy.revision, records(policy)?)?;
    }
    let over = AtomicBool::new(false);
    let judged = thread::scope(|scope| {
        let packets = scope.spawn(|| dawdler.run(cpu, &over));
        let changed = (5..5 + times).zip([0, 1].into_iter().cycle()).try_for_each(|(revision, kind)| {
            let (policy, sources) = &mut kinds[kind];
            policy.policy.revision = revision;
            datapath.switch(policy, sources)
        });
        over.store(true, Ordering::Relaxed);
        let judged = packets.join().expect("judging does not panic");
        changed.and(judged)
    })?;
    let [packets, mixtures, overtaken] = dawdler.saw()?;
    let tallies = datapath.reason_tallies()?;
    let dropped: Vec<_> = tallies.iter().filter(|(_, outcome, _)| *outcome == Outcome::Drop).collect();
    say!("{times} policies while {judged} packets came; of {packets} that dawdled {overtaken} were overtaken by one");
    ensure!(judged > times && dropped.is_empty(), "{dropped:?} of {judged}");
    ensure!(
        overtaken > times / 100 && mixtures == 0,
        "{mixtures} of {packets} saw parts of two, {overtaken} overtaken"
    );
    Ok(())
}

/// The program that dawdles in the tables of a datapath, and what enters the datapath's own.
struct Dawdler(Ebpf);

impl Dawdler {
    fn new(pins: &Pins, throttle: &ProgramFd) -> Result<Self> {
        let shared = [
            maps::CONTROL,
            maps::POLICIES,
            maps::LIMITS,
            maps::SERVICES,
            maps::PORTS,
            maps::CANDIDATE_LISTS,
            maps::SOURCES_V4,
            maps::OVERRIDES,
        ];
        let mut object = kernel::load_beside(&pins.pin_dir(), &shared)?;
        for name in ["dawdle", "enter"] {
            kernel::xdp(&mut object, name)?;
        }
        ProgramArray::try_from(object.map_mut("MEASURED").context("no map MEASURED")?)?.set(0, throttle, 0)?;
        Ok(Self(object))
    }

    fn expect(&mut self, revision: u64, records: Records) -> Result<()> {
        let mut expected = Array::<_, Records>::try_from(self.0.map_mut("EXPECTED").context("no map EXPECTED")?)?;
        Ok(expected.set((revision % 2) as u32, records, 0)?)
    }

    /// Has one packet after the other dawdle on a CPU, and throttle judge many in between; gives how many. Each is a
    /// run of its own: for several in a row the kernel first changes how it calls the program, which takes it long.
    fn run(&self, cpu: usize, over: &AtomicBool) -> Result<u64> {
        const BETWEEN: usize = 50;
        machine::pin_to(cpu)?;
        let frame = Frame::v4(SOURCE).udp(40_000, PORT).bytes();
        let program = |name| -> Result<&Xdp> {
            Ok(self.0.program(name).with_context(|| format!("no program {name}"))?.try_into()?)
        };
        let (dawdle, enter) = (program("dawdle")?, program("enter")?);
        let mut judged = 0;
        while !over.load(Ordering::Relaxed) {
            for program in [dawdle].into_iter().chain([enter; BETWEEN]) {
                let options = TestRunOptions { data_in: Some(&frame), repeat: 1, ..TestRunOptions::default() };
                let run = program.test_run(options)?;
                ensure!(run.return_value == action::PASS, "a packet ended with {}", run.return_value);
            }
            judged += BETWEEN as u64;
        }
        Ok(judged)
    }

    /// How many packets dawdled, how many saw parts of two policies, and how many were overtaken by another.
    fn saw(&self) -> Result<[u64; 3]> {
        Ok(Array::<_, [u64; 3]>::try_from(self.0.map("DAWDLED").context("no map DAWDLED")?)?.get(&0, 0)?)
    }
}
