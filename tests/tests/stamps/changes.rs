//! Hosts come, die and leave.

use super::*;
use throttle_tests::{machine, needs_root, say};

#[test]
fn three_join_by_seeds_and_each_shows_the_others_with_what_they_run() -> Result<()> {
    needs_root!();
    let _machine = machine::alone()?;
    let ground = Ground::of(3)?;
    let mut stamp = Stamp::on(&ground)?;
    stamp.start(0, &[])?;
    stamp.start(1, &[])?;
    stamp.start(2, &[])?;
    let start = Instant::now();
    stamp.all_alive()?;
    say!("stamps: three hosts see each other {:.2} s after the last has started", start.elapsed().as_secs_f64());
    for (seen_by, name) in NAMES.into_iter().enumerate().take(3) {
        let told =
            |view: &StampView| view.hosts.iter().all(|it| it.packets_per_second.is_some() && it.policy.is_some());
        stamp.until(seen_by, "all facts are told", told)?;
        let view = stamp.view(seen_by)?;
        ensure!(view.stamp == "blue" && view.host == name && view.hosts.len() == 3, "{view:#?}");
        for host in 0..3 {
            let it = of(&view, host).context("it is not shown")?;
            let program = format!("{:016x}", stamp.sites[host].program_tag()?);
            ensure!(it.own == (host == seen_by) && it.address == ground.gossip(host).to_string(), "{it:?}");
            ensure!(it.program.as_deref() == Some(&*program), "{it:?}: its program is {program}");
            ensure!(it.build.as_deref() == Some(env!("CARGO_PKG_VERSION")) && it.revision == Some(0), "{it:?}");
            ensure!(it.boot.is_some() && it.load.is_some() && it.mode.as_deref() == Some("observe"), "{it:?}");
            ensure!(it.keys == view.keys && it.keys.len() == 1, "{it:?}");
        }
        ensure!(view.warnings.is_empty() && view.skew.is_empty(), "{view:#?}");
    }
    let shown = stamp.sites[1].ask(&["stamp", "status", "--verbose"])?;
    ensure!(shown.starts_with("stamp blue, as b sees it: 3 alive\n") && shown.contains("b (this)"), "{shown}");
    let (status, figures) = stamp.sites[1].request("GET", "/metrics", "")?;
    ensure!(status == 200 && figures.contains("throttle_stamp_hosts{state=\"alive\"} 3"), "{figures}");
    ensure!(figures.contains("throttle_stamp_datagrams_refused_total{reason=\"forged\"} 0"), "{figures}");
    Ok(())
}

#[test]
fn one_that_is_killed_is_seen_dead_told_once_and_comes_back_as_another_run() -> Result<()> {
    needs_root!();
    let _machine = machine::alone()?;
    let ground = Ground::of(3)?;
    let mut stamp = Stamp::running(&ground)?;
    // Once all know how often they hear of each other.
    thread::sleep(Duration::from_secs(3));
    let mut times = Vec::new();
    for _ in 0..machine::amount(3, 20) {
        let first = of(&stamp.view(0)?, 2).map(|it| it.generation);
        let before = [stamp.changes(0)?.len(), stamp.changes(1)?.len()];
        let (killed, start) = (stamp.take(2)?, Instant::now());
        killed.kill()?;
        for seen_by in [0, 1] {
            stamp.until(seen_by, "it is dead", |view| is(view, 2, "dead"))?;
            times.push(start.elapsed().as_secs_f64());
            let view = stamp.view(seen_by)?;
            ensure!(view.warnings.iter().any(|it| it.starts_with("c (") && it.contains("is dead")), "{view:#?}");
        }
        let warnings = stamp.sites[0].status()?.warnings;
        ensure!(warnings.iter().any(|it| it.starts_with("stamp blue: c (")), "{warnings:?}");
        stamp.start(2, &[])?;
        stamp.all_alive()?;
        let again = of(&stamp.view(0)?, 2).map(|it| it.generation);
        ensure!(again > first, "{again:?} is another run than {first:?}");
        for (seen_by, before) in before.into_iter().enumerate() {
            let changes = stamp.changes(seen_by)?;
            let said: Vec<_> =
                changes[before..].iter().filter(|(host, _)| host == "c").map(|(_, what)| &**what).collect();
            let count = |word: &str| said.iter().filter(|what| what.starts_with(word)).count();
            ensure!(count("is dead") == 1 && count("is back") == 1, "{said:?}");
        }
        thread::sleep(Duration::from_secs(2));
    }
    times.sort_by(f64::total_cmp);
    let (least, most) = (times[0], times[times.len() - 1]);
    say!("stamps: a killed host is seen dead after {least:.2} to {most:.2} s, {} times", times.len());
    let log = stamp.agents[0].as_ref().map(Agent::log).unwrap_or_default();
    let deaths = log.lines().filter(|line| line.contains("c is dead")).count();
    ensure!(deaths == machine::amount(3, 20), "each death is one line of the log, and there are {deaths}:\n{log}");
    Ok(())
}

#[test]
fn one_that_ends_in_good_order_has_left_and_nobody_is_warned() -> Result<()> {
    needs_root!();
    let _machine = machine::alone()?;
    let ground = Ground::of(3)?;
    let mut stamp = Stamp::running(&ground)?;
    let ended = stamp.take(2)?.stop()?;
    ensure!(ended.success(), "{ended}");
    for seen_by in [0, 1] {
        stamp.until(seen_by, "it has left", |view| is(view, 2, "left"))?;
    }
    thread::sleep(Duration::from_secs(2));
    for seen_by in [0, 1] {
        let view = stamp.view(seen_by)?;
        ensure!(is(&view, 2, "left") && view.warnings.is_empty(), "{view:#?}");
        ensure!(!stamp.changes(seen_by)?.iter().any(|(_, what)| what.contains("dead")), "{view:#?}");
    }
    stamp.start(2, &[])?;
    stamp.all_alive()
}
