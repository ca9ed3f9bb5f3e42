//! What is changed on one host of a stamp is in force on all.

use super::*;
use std::{
    net::TcpStream,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};
use throttle_agent::{
    api::wire::{Conflicts, DeadLetters},
    replica::{Versions, envelope},
    stamp,
};
use throttle_tests::{machine, needs_root, say};

const POLICY: &str = "\
mode = \"enforce\"
[[limit]]
name = \"slow\"
unit = \"packets\"
rate = \"1000000/s\"
sources = 300
";

impl<'g> Stamp<'g> {
    /// One of which all hosts have [`POLICY`].
    fn under_the_policy(ground: &'g Ground) -> Result<Self> {
        let stamp = Self::running(ground)?;
        stamp.sites[0].apply(POLICY)?;
        stamp.all_allow(&[1, 2], "slow", Some("1000000/s"))?;
        Ok(stamp)
    }

    /// What a limit allows in the kernel of a host.
    fn allows(&self, host: usize, limit: &str) -> Option<String> {
        self.sites[host].limit(limit).ok().map(|it| it.limit.allowance())
    }

    /// Returns once the kernels of all these hosts allow so much; gives how long that took.
    fn all_allow(&self, hosts: &[usize], limit: &str, wanted: Option<&str>) -> Result<Duration> {
        let start = Instant::now();
        for &host in hosts {
            while self.allows(host, limit).as_deref() != wanted {
                let is = self.allows(host, limit);
                ensure!(start.elapsed() < PATIENCE, "{limit} allows {is:?} on {}, not {wanted:?}", NAMES[host]);
                thread::sleep(Duration::from_millis(5));
            }
        }
        Ok(start.elapsed())
    }

    fn set(&self, host: usize, limit: &str, rate: &str) -> Result<String> {
        self.sites[host].ask(&["limit", "set", limit, "--unit", "packets", "--rate", rate, "--sources", "60"])
    }

    fn conflicts(&self, host: usize) -> Result<Conflicts> {
        let told: Envelope<Conflicts> = serde_json::from_value(self.sites[host].json(&["policy", "conflicts"])?)?;
        Ok(told.body)
    }

    fn letters(&self, host: usize) -> Result<DeadLetters> {
        let told: Envelope<DeadLetters> = serde_json::from_value(self.sites[host].json(&["policy", "dead-letters"])?)?;
        Ok(told.body)
    }

    /// Returns once all these hosts know the same changes and have the same policy in force.
    fn agreed(&self, hosts: &[usize]) -> Result<Duration> {
        let start = Instant::now();
        for &host in hosts {
            self.until(host, "all have the same", |view| {
                let of_all = |what: fn(&StampHostView) -> Option<String>| {
                    let mut all = hosts.iter().map(|&it| of(view, it).and_then(what));
                    let first = all.next().flatten();
                    first.is_some() && all.all(|it| it == first)
                };
                of_all(|it| it.shares.clone()) && of_all(|it| it.policy.clone())
            })?;
        }
        Ok(start.elapsed())
    }
}

#[test]
fn a_change_on_any_host_is_in_force_in_the_kernels_of_all_and_so_is_the_way_back() -> Result<()> {
    needs_root!();
    let _machine = machine::alone()?;
    let ground = Ground::of(3)?;
    let stamp = Stamp::under_the_policy(&ground)?;
    let round = |what: &str, first: u32| -> Result<()> {
        let mut times = Vec::new();
        for change in 0..machine::amount(12, 200) {
            let (host, rate) = (change as usize % 3, format!("{}/s", first + change));
            stamp.set(host, "slow", &rate)?;
            let others = [(host + 1) % 3, (host + 2) % 3];
            times.push(stamp.all_allow(&others, "slow", Some(&rate))?.as_secs_f64());
        }
        times.sort_by(f64::total_cmp);
        let (middle, most) = (times[times.len() / 2], times[times.len() - 1]);
        say!(
            "stamps: {what}: a change is in force on both others after {middle:.2} s, at most {most:.2} s, of {}",
            times.len()
        );
        Ok(())
    };
    round("idle", 2000)?;
    let end = Arc::new(AtomicBool::new(false));
    let busy: Vec<_> = (0..4)
        .map(|_| {
            let end = Arc::clone(&end);
            thread::spawn(move || while !end.load(Ordering::Relaxed) {})
        })
        .collect();
    let loaded = round("four busy loops beside", 5000);
    end.store(true, Ordering::Relaxed);
    for it in busy {
        _ = it.join();
    }
    loaded?;
    stamp.set(1, "slow", "7777/s")?;
    stamp.all_allow(&[0, 2], "slow", Some("7777/s"))?;
    let history = stamp.sites[2].ask(&["policy", "history"])?;
    ensure!(history.contains("at b: limit set"), "{history}");
    stamp.sites[2].ask(&["policy", "rollback"])?;
    let back = stamp.allows(2, "slow");
    ensure!(back.as_deref() != Some("7777/s"), "{back:?}");
    stamp.all_allow(&[0, 1], "slow", back.as_deref())?;
    stamp.sites[1].ask(&["limit", "delete", "slow"])?;
    stamp.all_allow(&[0, 2], "slow", None)?;
    stamp.agreed(&[0, 1, 2])?;
    Ok(())
}

#[test]
fn both_sides_of_a_cut_go_on_and_agree_after_it_and_a_conflict_is_settled_once_for_all() -> Result<()> {
    needs_root!();
    let _machine = machine::alone()?;
    let ground = Ground::of(3)?;
    let stamp = Stamp::under_the_policy(&ground)?;
    ground.hosts[2].unplug()?;
    stamp.until(0, "c is dead", |view| is(view, 2, "dead"))?;
    stamp.set(0, "slow", "100/s")?;
    stamp.set(1, "ours", "10/s")?;
    stamp.set(2, "slow", "200/s")?;
    stamp.set(2, "theirs", "20/s")?;
    ensure!(stamp.allows(2, "slow").as_deref() == Some("200/s"), "what is written there is in force there at once");
    ground.hosts[2].plug_in()?;
    let healed = Instant::now();
    stamp.all_allow(&[0, 1, 2], "ours", Some("10/s"))?;
    stamp.all_allow(&[0, 1, 2], "theirs", Some("20/s"))?;
    stamp.agreed(&[0, 1, 2])?;
    say!(
        "stamps: both sides of a cut have the same policy {:.2} s after it has healed",
        healed.elapsed().as_secs_f64()
    );
    let told = stamp.conflicts(0)?;
    ensure!(told == stamp.conflicts(1)? && told == stamp.conflicts(2)?, "{told:#?}");
    let [conflict] = &told.conflicts[..] else { anyhow::bail!("{told:#?}") };
    let (won, lost) = (&conflict.values[0], &conflict.values[1]);
    ensure!(
        conflict.place == "limit slow: rate" && stamp.allows(1, "slow").as_deref() == won.value.as_str(),
        "{told:#?}"
    );
    let warnings = stamp.sites[1].status()?.warnings;
    ensure!(warnings.iter().any(|it| it.contains("throttle policy conflicts")), "{warnings:?}");
    stamp.sites[1].ask(&["policy", "conflicts", "resolve", "limit slow: rate", "--host", &lost.host])?;
    stamp.all_allow(&[0, 1, 2], "slow", lost.value.as_str())?;
    stamp.agreed(&[0, 1, 2])?;
    for host in 0..3 {
        ensure!(stamp.conflicts(host)? == Conflicts::default(), "{:#?}", stamp.conflicts(host)?);
        let (_, figures) = stamp.sites[host].request("GET", "/metrics", "")?;
        ensure!(figures.contains("throttle_stamp_policy_conflicts 0"), "{figures}");
    }
    Ok(())
}

#[test]
fn what_was_acknowledged_outlives_the_host_that_took_it() -> Result<()> {
    needs_root!();
    let _machine = machine::alone()?;
    let ground = Ground::of(3)?;
    let mut stamp = Stamp::under_the_policy(&ground)?;
    let mut rate = 1000_u32;
    for _ in 0..machine::amount(3, 25) {
        let mut acknowledged = rate;
        for step in 0..8 {
            rate += 1;
            let mut setting = stamp.sites[1].command([
                "limit",
                "set",
                "slow",
                "--unit",
                "packets",
                "--rate",
                &format!("{rate}/s"),
            ])?;
            setting.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
            let mut child = setting.spawn()?;
            if step == 5 {
                thread::sleep(Duration::from_millis(u64::from(rate % 7) * 3));
                stamp.take(1)?.kill()?;
            }
            if child.wait()?.success() {
                acknowledged = rate;
            }
        }
        stamp.start(1, &[])?;
        stamp.all_alive()?;
        stamp.agreed(&[0, 1, 2])?;
        let allowed = stamp.allows(0, "slow").unwrap_or_default();
        let allowed: u32 = allowed.trim_end_matches("/s").parse().with_context(|| allowed.clone())?;
        ensure!(allowed >= acknowledged, "{acknowledged}/s was acknowledged, and {allowed}/s is in force");
        rate += 10;
    }
    Ok(())
}

#[test]
fn a_host_that_joins_with_a_policy_of_its_own_takes_the_stamps_and_keeps_its_own_to_go_back_to() -> Result<()> {
    needs_root!();
    let _machine = machine::alone()?;
    let ground = Ground::of(3)?;
    let mut stamp = Stamp::on(&ground)?;
    let own = |host: usize, rate: &str| -> Result<String> {
        let file = stamp.sites[host].file("own.toml");
        fs::write(&file, POLICY.replace("1000000/s", rate))?;
        Ok(path(&file))
    };
    let (first, other) = (own(0, "400/s")?, own(1, "300/s")?);
    stamp.start(0, &["--policy", &first])?;
    stamp.until(0, "its policy is the stamp's", |view| view.policy.belongs && view.policy.changes == 1)?;
    stamp.start(1, &["--policy", &other])?;
    stamp.start(2, &[])?;
    stamp.all_allow(&[1, 2], "slow", Some("400/s"))?;
    stamp.agreed(&[0, 1, 2])?;
    ensure!(stamp.view(1)?.policy.belongs, "{:#?}", stamp.view(1)?);
    let history = stamp.sites[1].ask(&["policy", "history"])?;
    ensure!(history.contains("this host's own was revision 1"), "{history}");
    let kept = stamp.sites[1].ask(&["policy", "export", "--revision", "1"])?;
    ensure!(kept.contains("300/s"), "{kept}");
    Ok(())
}

#[test]
fn what_is_forged_is_a_dead_letter_and_stops_nothing() -> Result<()> {
    needs_root!();
    let _machine = machine::alone()?;
    let ground = Ground::of(3)?;
    let stamp = Stamp::running(&ground)?;
    stamp.sites[0].apply(POLICY)?;
    stamp.agreed(&[0, 1, 2])?;
    let keys = stamp::read(&stamp.key(0)).map_err(|fault| anyhow::anyhow!("{fault}"))?;
    let stranger = stamp::Keys::one(stamp::Key::random()?);
    let mut replica = throttle_agent::replica::Replica::open("trial", [7; 16], []).map_err(anyhow::Error::from)?;
    let policy = throttle_agent::policy::parse(&POLICY.replace("slow", "evil"))?;
    let change = replica.seed(&policy)?.context("it changes something")?;
    let good = envelope::seal(keys.sealing(), "blue", &change);
    let (mut forged, mut newer) = (good.clone(), good.clone());
    *forged.last_mut().context("it has bytes")? ^= 1;
    newer[3] = 2;
    let unsigned = envelope::seal(stranger.sealing(), "blue", &change);
    let rubbish = envelope::seal(keys.sealing(), "blue", b"rubbish");
    let all = [forged, newer, unsigned, b"nothing".to_vec(), rubbish];
    let (to, host) = (ground.gossip(2), &ground.hosts[0].host);
    let deliver = |keys: &stamp::Keys, envelopes: &[Vec<u8>]| -> Result<Result<()>> {
        let runtime = || -> Result<()> {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(stamp::deliver(keys, "blue", to, envelopes))
        };
        host.enter(runtime)
    };
    // Who has no key of the stamp is not even heard.
    ensure!(deliver(&stranger, &all)?.is_err(), "a stranger was heard");
    stamp.until(2, "it is counted", |view| view.exchanges.strangers > 0)?;
    ensure!(stamp.letters(2)?.letters.is_empty(), "{:?}", stamp.letters(2)?);
    host.enter(|| TcpStream::connect(to))??;
    deliver(&keys, &all)??;
    let letters = stamp.letters(2)?.letters;
    let reasons: Vec<_> = letters.iter().map(|it| it.reason.as_str()).collect();
    ensure!(reasons == ["forged", "unknown-schema", "unsigned", "malformed", "malformed"], "{letters:#?}");
    ensure!((0..3).all(|host| stamp.allows(host, "evil").is_none()), "what was forged is in force");
    let told = stamp.sites[2].ask(&["policy", "dead-letters"])?;
    ensure!(told.contains("forged") && told.contains("trial"), "{told}");
    // The stream goes on, and so does what comes with it.
    stamp.set(0, "slow", "55/s")?;
    stamp.all_allow(&[1, 2], "slow", Some("55/s"))?;
    let replayed = stamp.sites[2].run(&["policy", "dead-letters", "replay"])?;
    ensure!(replayed.status.success(), "{replayed:?}");
    ensure!(stamp.letters(2)?.letters.iter().all(|it| it.times == 2), "{:#?}", stamp.letters(2)?);
    stamp.sites[2].ask(&["policy", "dead-letters", "drop", "--all"])?;
    ensure!(stamp.letters(2)?.letters.is_empty(), "{:?}", stamp.letters(2)?);
    ensure!(replica.missing(&Versions::new()).count() == 1, "the trial's own is its own");
    Ok(())
}

#[test]
fn a_host_with_a_wrong_key_changes_nothing() -> Result<()> {
    needs_root!();
    let _machine = machine::alone()?;
    let ground = Ground::of(3)?;
    let stamp = Stamp::with_a_stranger(&ground)?;
    stamp.sites[2].apply(&POLICY.replace("slow", "evil"))?;
    stamp.sites[0].apply(POLICY)?;
    stamp.all_allow(&[1], "slow", Some("1000000/s"))?;
    thread::sleep(Duration::from_secs(3));
    ensure!([0, 1].iter().all(|&host| stamp.allows(host, "evil").is_none()), "it changed something");
    ensure!(stamp.allows(2, "slow").is_none(), "it heard something");
    Ok(())
}
