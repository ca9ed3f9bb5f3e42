//! One backend after the other fails, each in its own way, and comes back.

use super::{Fleet, all_are_well, name, story};
use anyhow::{Context as _, Result, ensure};
use std::time::{Duration, Instant};
use throttle_agent::api::wire::TransitionView;
use throttle_tests::{
    agent::Site,
    needs_root, say,
    slow::open_at_once,
    standing::{breaker, changes, level, until},
};

/// What became of a backend that failed.
struct Death {
    /// When it was seen, since it failed.
    seen: Duration,
    suspected: bool,
    reason: String,
}

/// Returns when a backend that has failed just now is known to be dead, and is kept from new connections.
fn death(site: &Site<'_>, backend: usize, how: &str, after: u64) -> Result<Death> {
    let (start, backend) = (Instant::now(), name(backend));
    until(site, "it is known to be dead", |view| level(view, &backend) == "dead")?;
    let seen = start.elapsed();
    until(site, "it is kept from new connections", |view| breaker(view, &backend) == "open")?;
    let story = story(site, &backend, after)?;
    let place = |to: &str| story.iter().position(|it| it.to == to);
    let suspected = place("suspect") < place("dead") && place("suspect").is_some();
    let reason = story.iter().find(|it| it.to == "dead").and_then(|it| it.reason.clone()).context("why it is dead")?;
    let between = |from: &TransitionView, to: &TransitionView| to.time.as_millisecond() - from.time.as_millisecond();
    let suspicion = match (place("suspect"), place("dead")) {
        (Some(suspect), Some(dead)) if suspected => {
            format!(", {} ms after it was suspect", between(&story[suspect], &story[dead]))
        }
        _ => String::new(),
    };
    say!("deaths: {how}: dead after {seen:?}{suspicion}: {reason}");
    Ok(Death { seen, suspected, reason })
}

/// The number of the last change.
fn last(site: &Site<'_>) -> Result<u64> {
    Ok(changes(site, "web")?.last().map_or(0, |it| it.number))
}

#[test]
fn who_refuses_is_dead_at_once_who_is_cut_off_after_a_suspicion_and_who_hangs_at_last() -> Result<()> {
    needs_root!();
    let fleet = Fleet::new(4)?;
    let site = Site::on(&fleet.wire.far)?;
    let mut backends = fleet.backends()?;
    let _agent = fleet.agent(&site, &[])?;
    fleet.follow(&site)?;

    let before = last(&site)?;
    drop(backends.remove(0));
    let killed = death(&site, 0, "killed", before)?;
    let _again = fleet.backend(0)?;
    all_are_well(&site, 4)?;

    let before = last(&site)?;
    fleet.upstreams[1].unplug()?;
    let cut_off = death(&site, 1, "cut off", before)?;
    fleet.upstreams[1].plug_in()?;
    all_are_well(&site, 4)?;

    let before = last(&site)?;
    backends[1].pause()?;
    let hanging = death(&site, 2, "stopped", before)?;
    backends[1].go_on()?;
    all_are_well(&site, 4)?;

    ensure!(killed.reason == "refused", "{}", killed.reason);
    ensure!(cut_off.suspected && hanging.suspected, "silence makes suspect before it is death");
    // A host that is asked who has an address and says nothing has refused nobody: the fault may be here.
    ensure!(cut_off.reason == "unconfirmed", "{}", cut_off.reason);
    ensure!(hanging.reason == "hangs", "{}", hanging.reason);
    ensure!(killed.seen < hanging.seen && cut_off.seen < hanging.seen, "who can be asked is given more time");
    ensure!(story(&site, &name(3), 0)?.iter().all(|it| it.to != "dead"), "one that never failed died");
    until(&site, "all may have connections", |view| (0..4).all(|number| breaker(view, &name(number)) == "closed"))?;
    Ok(())
}

#[test]
fn what_is_forwarded_to_one_that_hangs_is_refused_by_its_breaker() -> Result<()> {
    needs_root!();
    let fleet = Fleet::new(2)?;
    fleet.forward()?;
    let site = Site::on(&fleet.wire.far)?;
    let backends = fleet.backends()?;
    let _agent = fleet.agent(&site, &[])?;
    fleet.follow(&site)?;
    let opened = |backend: usize| -> Result<usize> {
        Ok(open_at_once(&fleet.wire.near, 3, fleet.upstreams[backend].address())?.len())
    };
    ensure!((opened(0)?, opened(1)?) == (3, 3), "clients reach them through the host");
    backends[1].pause()?;
    until(&site, "it is kept from new connections", |view| breaker(view, &name(1)) == "open")?;
    // Its kernel would take them.
    ensure!((opened(0)?, opened(1)?) == (3, 0));
    let refused = site.judged(|reason, _| reason == "breaker-open")?;
    ensure!(refused >= 3, "{refused} were refused by a breaker");
    backends[1].go_on()?;
    until(&site, "it may have connections", |view| breaker(view, &name(1)) == "closed")?;
    ensure!(opened(1)? == 3);
    Ok(())
}
