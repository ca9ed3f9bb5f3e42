//! Entries of sources that are replaced while packets look them up: the kernel gives their room to the next entry at once.

use anyhow::{Result, ensure};
use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
};
use throttle_agent::datapath::Entries;
use throttle_common::records::{NONE, SourceEntry, SourceFlags};
use throttle_tests::{attached::Attached, frames::Frame, machine, needs_root, program::Program, say};

/// What two tenants do is counted, and what all do.
const POLICY: &str = "mode = \"enforce\"\n\
    [[tenant]]\nname = \"a\"\nsources = [\"203.0.113.0/25\"]\n[[tenant]]\nname = \"b\"\nsources = [\"203.0.113.128/25\"]\n\
    [[service]]\nname = \"s\"\nprotocol = \"udp\"\nports = [9]\n\
    [[limit]]\nname = \"tenants\"\nunit = \"packets\"\nper = \"tenant\"\nrate = \"10000000/s\"\n\
    [[limit]]\nname = \"all\"\nunit = \"packets\"\nper = \"host\"\nrate = \"10000000/s\"\n";
/// Nobody's, and a tenant's, whose entry is written next.
const SOURCE: &str = "192.0.2.1";
const TENANTS: &str = "198.51.100.1";

#[test]
fn no_packet_is_taken_for_another_sources_while_entries_are_replaced() -> Result<()> {
    needs_root!();
    let _machine = machine::alone()?;
    let times = machine::amount(1_000_000, 10_000_000);
    let mut program = Program::live(POLICY)?;
    let entries = |number: u64| -> Result<Entries> {
        let flags = if number.is_multiple_of(2) { SourceFlags::KNOWN } else { 0 };
        let nobodys = SourceEntry { flags, tenants: [NONE; 2], ..SourceEntry::default() };
        let tenants = SourceEntry { tenants: [1 + number as u16 % 2; 2], ..SourceEntry::default() };
        Ok([(format!("{SOURCE}/32").parse()?, nobodys), (format!("{TENANTS}/32").parse()?, tenants)].into())
    };
    let kinds = [entries(0)?, entries(1)?];
    let (attached, frame, over) =
        (Attached::of(program.datapath.program_fd()?)?, Frame::from(SOURCE).udp(40_000, 9), AtomicBool::new(false));
    thread::scope(|scope| {
        let packets = scope.spawn(|| -> Result<()> {
            while !over.load(Ordering::Relaxed) {
                attached.act_often(&frame, 1 << 14)?;
            }
            Ok(())
        });
        let written = (0..times)
            .try_for_each(|number| program.datapath.set_sources(&kinds[usize::from(number % 2 == 1)]).map(drop));
        over.store(true, Ordering::Relaxed);
        written.and(packets.join().expect("judging does not panic"))
    })?;
    let [all, tenants] = ["all", "tenants"].map(|limit| program.limit(limit).map(|tally| tally.admitted.packets));
    let (all, tenants) = (all?, tenants?);
    say!("{all} packets while entries were replaced {times} times");
    ensure!(all > times && tenants == 0, "{tenants} of {all} packets were taken for a tenant's");
    Ok(())
}
