//! The network fails: it is cut, and it loses packets.

use super::*;
use throttle_tests::{machine, needs_root, say};

#[test]
fn both_sides_of_a_cut_see_the_other_dead_and_find_each_other_again() -> Result<()> {
    needs_root!();
    let _machine = machine::alone()?;
    let ground = Ground::of(3)?;
    let stamp = Stamp::running(&ground)?;
    thread::sleep(Duration::from_secs(2));
    // The seed of the others, which itself has none.
    ground.hosts[0].unplug()?;
    stamp.until(0, "the others are dead", |view| is(view, 1, "dead") && is(view, 2, "dead"))?;
    for seen_by in [1, 2] {
        stamp.until(seen_by, "the one is dead", |view| is(view, 0, "dead") && is(view, 3 - seen_by, "alive"))?;
    }
    thread::sleep(machine::amount(Duration::from_secs(5), Duration::from_mins(6)));
    ground.hosts[0].plug_in()?;
    let healed = Instant::now();
    stamp.all_alive()?;
    say!("stamps: all see each other {:.2} s after a cut has healed", healed.elapsed().as_secs_f64());
    for seen_by in 0..3 {
        ensure!(stamp.view(seen_by)?.warnings.is_empty(), "{:#?}", stamp.view(seen_by)?);
    }
    Ok(())
}

#[test]
fn a_network_that_loses_one_packet_in_five_kills_nobody() -> Result<()> {
    needs_root!();
    let _machine = machine::alone()?;
    let ground = Ground::of(3)?;
    let stamp = Stamp::running(&ground)?;
    let before = (0..3).map(|host| Ok(stamp.changes(host)?.len())).collect::<Result<Vec<_>>>()?;
    let lossy = (0..3).map(|host| ground.hosts[host].lose(20, ground.ip(0), host as u64 + 1));
    let lossy = lossy.collect::<Result<Vec<_>>>()?;
    let time = machine::amount(Duration::from_secs(30), Duration::from_mins(10));
    thread::sleep(time);
    let (mut came, mut lost) = (0, 0);
    for losses in &lossy {
        let arrivals = losses.so_far()?;
        came += arrivals.packets;
        lost += arrivals.lost;
    }
    ensure!(lost * 10 > came, "{lost} of {came} packets were lost");
    let (mut suspected, mut died) = (0, 0);
    for seen_by in 0..3 {
        let changes = stamp.changes(seen_by)?;
        let count = |word: &str| changes[before[seen_by]..].iter().filter(|(_, what)| what.starts_with(word)).count();
        suspected += count("is suspect");
        died += count("is dead");
    }
    say!("stamps: {lost} of {came} packets lost in {} s: {suspected} times suspect, {died} dead", time.as_secs());
    ensure!(died == 0, "{died} were taken to be dead");
    Ok(())
}
