//! The keys that the hosts of a stamp share: replaced while they gossip, and wrong.

use super::*;
use throttle_tests::{machine, needs_root, say};

#[test]
fn a_key_is_replaced_in_three_steps_and_nobody_is_missed() -> Result<()> {
    needs_root!();
    let _machine = machine::alone()?;
    let ground = Ground::of(3)?;
    let stamp = Stamp::running(&ground)?;
    let first = stamp.view(0)?.keys;
    let before = (0..3).map(|host| Ok(stamp.changes(host)?.len())).collect::<Result<Vec<_>>>()?;
    for step in ["add", "promote", "retire"] {
        stamp.sites[0].ask(&["stamp", "key", step, &path(&stamp.key(0))])?;
        let listed = stamp.sites[0].json(&["stamp", "key", "list", &path(&stamp.key(0))])?;
        let wanted: Vec<String> = serde_json::from_value(listed["keys"].clone())?;
        for host in 1..3 {
            // The file gets to one host after the other, and what is sealed either way is heard meanwhile.
            thread::sleep(Duration::from_millis(1500));
            stamp.copy_key(host)?;
        }
        for seen_by in 0..3 {
            let have = |view: &StampView| (0..3).all(|host| of(view, host).is_some_and(|it| it.keys == wanted));
            stamp.until(seen_by, "all have the keys", have)?;
        }
    }
    thread::sleep(Duration::from_secs(2));
    let last = stamp.view(0)?;
    ensure!(last.keys.len() == 1 && last.keys != first, "{first:?} became {:?}", last.keys);
    for seen_by in 0..3 {
        ensure!((0..3).all(|host| stamp.view(seen_by).is_ok_and(|view| is(&view, host, "alive"))), "all are alive");
        stamp.nobody_was_missed(seen_by, before[seen_by])?;
        let refused = stamp.refused(seen_by, "unknown-key")?;
        ensure!(refused == 0, "{} refused {refused} datagrams under a key that it has not", NAMES[seen_by]);
    }
    say!("stamps: a key was replaced on three hosts, no datagram was refused for it and nobody was suspect");
    Ok(())
}

#[test]
fn a_host_with_another_key_is_refused_counted_and_told_and_joins_with_the_right_one() -> Result<()> {
    needs_root!();
    let _machine = machine::alone()?;
    let ground = Ground::of(3)?;
    let stamp = Stamp::with_a_stranger(&ground)?;
    let told = |view: &StampView| view.warnings.iter().any(|it| it.contains("nobody else is heard"));
    stamp.until(2, "it says that it hears nobody", told)?;
    let view = stamp.view(0)?;
    ensure!(view.hosts.len() == 2 && of(&view, 2).is_none(), "{view:#?}");
    let refused = stamp.refused(0, "unknown-key")?;
    ensure!(refused > 2 && stamp.refused(0, "forged")? == 0, "{refused} were refused");
    // A file that others may read is not used, and the keys from before stay.
    fs::set_permissions(stamp.key(2), fs::Permissions::from_mode(0o644))?;
    let status = stamp.sites[2].until("it says what is wrong", |status| !status.problems.is_empty())?;
    ensure!(status.problems.iter().any(|it| it.contains("0644") && it.contains("chmod 600")), "{:?}", status.problems);
    stamp.copy_key(2)?;
    stamp.all_alive()?;
    stamp.sites[2].until("all is well again", |status| status.problems.is_empty())?;
    Ok(())
}

#[test]
fn an_agent_does_not_start_with_a_key_that_others_may_read_and_says_what_helps() -> Result<()> {
    needs_root!();
    let ground = Ground::of(1)?;
    let stamp = Stamp::on(&ground)?;
    let key = stamp.key(0);
    fs::set_permissions(&key, fs::Permissions::from_mode(0o640))?;
    let output = stamp.sites[0].run(&[
        "run",
        "--stamp",
        "blue",
        "--stamp-listen",
        "10.99.1.2:7946",
        "--stamp-key",
        &path(&key),
    ])?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == Some(78) && said.contains(&format!("chmod 600 {}", key.display())), "{said}");
    let output = stamp.sites[0].run(&["stamp", "key", "new", &path(&key)])?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == Some(2) && said.contains("is there already"), "{said}");
    Ok(())
}
