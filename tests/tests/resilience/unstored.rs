//! What cannot be stored is not in force.

use super::{RUN, back::Disk};
use anyhow::{Result, ensure};
use std::net::Ipv4Addr;
use throttle_tests::{agent::Site, attached::Attached, frames::Frame, needs_root, program::action, wire::Wire};

#[test]
fn a_rate_that_cannot_be_stored_is_the_one_from_before() -> Result<()> {
    needs_root!();
    let wire = Wire::silent()?;
    let site = Site::on(&wire.far)?;
    let disk = Disk::mount(site.file("state"))?;
    let _agent = site.start(&RUN)?;
    site.apply("mode = \"enforce\"\n[[limit]]\nname = \"l\"\nunit = \"packets\"\nrate = \"100/h\"\n")?;
    let attached = Attached::open(&site.pin_dir())?;
    // What a source that was never seen may send at once is what the rate names.
    let admits = |source: Ipv4Addr| -> Result<u64> {
        let frame = Frame::v4(source);
        let mut admitted = 0;
        while attached.act(&frame)? == action::PASS {
            admitted += 1;
        }
        Ok(admitted)
    };
    let mut held = 100;
    disk.fill()?;
    // A store finds room for a while in what it has.
    for number in 1..=50 {
        let rate = 100 + u64::from(number);
        let set = site.run(&["limit", "set", "l", "--rate", &format!("{rate}/h")])?;
        if set.status.success() {
            held = rate;
            continue;
        }
        ensure!(set.status.code() == Some(1), "{set:?}");
        let admitted = admits(Ipv4Addr::new(192, 0, 2, number))?;
        ensure!(admitted == held, "{admitted} at once in place of {held}, which could not become {rate}");
        let limit = site.limit("l")?;
        ensure!(limit.burst == held && limit.tallies.admitted.packets == held, "{limit:?}");
        let revision = site.status()?.revision;
        disk.empty()?;
        site.ask(&["limit", "set", "l", "--rate", "77/h"])?;
        ensure!(site.status()?.revision == revision + 1, "the next change is the next revision");
        ensure!(admits(Ipv4Addr::new(198, 51, 100, 1))? == 77, "and in force");
        return Ok(());
    }
    anyhow::bail!("the store found room fifty times")
}
