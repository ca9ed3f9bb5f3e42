//! Hosts differ, and one's policy stands in another's way.

use super::*;
use throttle_tests::{machine, needs_root, say};

const POLICY: &str = "[[limit]]\nname = \"slow\"\nunit = \"packets\"\nrate = \"1000000/s\"\nsources = 300\n";

fn odd(view: &StampView, host: usize, subject: &str) -> bool {
    view.skew.iter().any(|it| it.host == NAMES[host] && it.subject == subject)
}

#[test]
fn a_policy_that_differs_is_named_with_its_host_and_no_more_once_it_is_confirmed_for_all() -> Result<()> {
    needs_root!();
    let _machine = machine::alone()?;
    let ground = Ground::of(3)?;
    let stamp = Stamp::running(&ground)?;
    let file = stamp.sites[2].file("policy.toml");
    fs::write(&file, POLICY)?;
    // Until it is confirmed it is that host's alone.
    stamp.sites[2].ask(&["policy", "apply", &path(&file), "--confirm-within", "10m"])?;
    let applied = Instant::now();
    for seen_by in 0..3 {
        stamp.until(seen_by, "c differs", |view| odd(view, 2, "policy"))?;
        let view = stamp.view(seen_by)?;
        ensure!(view.skew.len() == 1 && view.skew[0].most.is_some(), "{view:#?}");
        let warned = view.warnings.iter().any(|it| it.starts_with("c has another policy in force"));
        ensure!(warned, "{view:#?}");
    }
    say!("stamps: a policy that differs is named {:.2} s after it was applied", applied.elapsed().as_secs_f64());
    stamp.until(0, "it is told as a change", |view| {
        view.changes.iter().any(|it| it.host == "c" && it.message.contains("another policy"))
    })?;
    let status = stamp.sites[0].status()?;
    ensure!(status.warnings.iter().any(|it| it.contains("another policy")), "{:?}", status.warnings);
    let (_, figures) = stamp.sites[0].request("GET", "/metrics", "")?;
    ensure!(figures.contains("throttle_stamp_skewed_hosts{subject=\"policy\"} 1"), "{figures}");
    stamp.sites[2].ask(&["policy", "confirm"])?;
    for seen_by in 0..3 {
        stamp.until(seen_by, "nobody differs", |view| view.skew.is_empty() && view.warnings.is_empty())?;
    }
    Ok(())
}

#[test]
fn a_block_that_keeps_a_host_out_is_warned_of_and_the_host_is_still_heard_through_others() -> Result<()> {
    needs_root!();
    let _machine = machine::alone()?;
    let ground = Ground::of(3)?;
    let stamp = Stamp::running(&ground)?;
    stamp.sites[1].apply("mode = \"enforce\"\n")?;
    stamp.until(2, "all enforce", |view| view.hosts.iter().all(|it| it.mode.as_deref() == Some("enforce")))?;
    stamp.sites[1].ask(&["block", "add", &ground.ip(2).to_string()])?;
    let warned = |view: &StampView| view.warnings.iter().any(|it| it.contains("refuses what c"));
    stamp.until(1, "the block is warned of", warned)?;
    let warnings = stamp.view(1)?.warnings.join("\n");
    ensure!(warnings.contains(&format!("throttle allow add {}", ground.ip(2))), "{warnings}");
    thread::sleep(Duration::from_secs(3));
    for seen_by in 0..3 {
        let view = stamp.view(seen_by)?;
        ensure!((0..3).all(|host| is(&view, host, "alive")), "{view:#?}");
    }
    stamp.sites[1].ask(&["allow", "add", &ground.ip(2).to_string()])?;
    stamp.until(1, "it is warned of no more", |view| !warned(view))?;
    Ok(())
}
