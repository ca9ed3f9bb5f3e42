//! A network that loses packets.

use super::{Fleet, deaths_and_suspicions};
use anyhow::{Result, ensure};
use std::time::Duration;
use throttle_tests::{agent::Site, machine, needs_root, say, standing::changes_within, upstreams::Losses};

/// Of a hundred packets, in each direction.
const PERCENT: u32 = 30;
/// How long they get lost.
const SPAN: Duration = Duration::from_secs(8);

#[test]
fn nobody_who_lives_dies_of_packets_that_get_lost() -> Result<()> {
    needs_root!();
    let fleet = Fleet::new(3)?;
    let site = Site::on(&fleet.wire.far)?;
    let _backends = fleet.backends()?;
    let _agent = fleet.agent(&site, &[])?;
    fleet.follow(&site)?;
    let seed = machine::monotonic();
    let mut cables = Vec::new();
    for (number, upstream) in fleet.upstreams.iter().enumerate() {
        let seed = seed + 100 * number as u64;
        cables.push(upstream.lose(PERCENT, upstream.of(1), seed)?);
        cables.push(Losses::at(&fleet.wire.far, &upstream.interface(), PERCENT, upstream.of(2), seed + 50)?);
    }
    let changes = changes_within(&site, "web", SPAN)?;
    let [dead, suspect] = deaths_and_suspicions(&changes);
    let broken = changes.iter().filter(|it| it.kind == "breaker" && it.to == "open").count();
    let (mut packets, mut lost) = (0, 0);
    for cable in &cables {
        let so_far = cable.so_far()?;
        (packets, lost) = (packets + so_far.packets, lost + so_far.lost);
    }
    say!(
        "loss: {lost} of {packets} packets got lost in {SPAN:?} (seed {seed}): {suspect} suspicions, {dead} deaths, \
         {broken} openings of breakers"
    );
    ensure!(packets > 100 && (lost * 100 / packets).abs_diff(PERCENT.into()) < 10, "{lost} of {packets} got lost");
    // A breaker may open: it is asked how the backend serves, and many probes do fail.
    let died = || changes.iter().filter(|it| it.kind == "backend" && it.to == "dead").map(|it| &it.message);
    ensure!(dead == 0, "who lives died of lost packets: {:?}", died().collect::<Vec<_>>());
    Ok(())
}
