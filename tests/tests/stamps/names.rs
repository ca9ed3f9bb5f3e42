//! Who is called what, and who is in no stamp.

use super::*;
use throttle_tests::{machine, needs_root};

#[test]
fn two_hosts_under_one_name_are_both_shown_and_warned_of() -> Result<()> {
    needs_root!();
    let _machine = machine::alone()?;
    let ground = Ground::of(3)?;
    let mut stamp = Stamp::on(&ground)?;
    stamp.start(0, &[])?;
    stamp.start(1, &[])?;
    stamp.start(2, &["--stamp-host", "b"])?;
    let both = |view: &StampView| view.hosts.iter().filter(|it| it.host == "b" && it.state == "alive").count() == 2;
    for seen_by in 0..3 {
        stamp.until(seen_by, "both are shown", both)?;
        let warned = |view: &StampView| view.warnings.iter().any(|it| it.starts_with("several hosts are called b"));
        stamp.until(seen_by, "both are warned of", warned)?;
    }
    let warning = stamp.view(0)?.warnings.join("\n");
    let at = [ground.gossip(1).to_string(), ground.gossip(2).to_string()];
    ensure!(at.iter().all(|it| warning.contains(it)) && warning.contains("--stamp-host"), "{warning}");
    ensure!(stamp.take(2)?.stop()?.success(), "it ends when it is asked to");
    stamp.until(0, "one is left", |view| view.warnings.is_empty())?;
    Ok(())
}

#[test]
fn a_host_in_no_stamp_says_so_and_how_to_join_one() -> Result<()> {
    needs_root!();
    let ground = Ground::of(1)?;
    let site = Site::on(&ground.hosts[0].host)?;
    let _agent = site.start(&["--interface", "uplink", "--table-sets", "1024"])?;
    let output = site.run(&["stamp", "status"])?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == Some(1) && said.contains("in no stamp"), "{}: {said}", output.status);
    ensure!(site.request("GET", "/v1/stamp", "")?.0 == 404, "the API says so too");
    let (_, figures) = site.request("GET", "/metrics", "")?;
    ensure!(!figures.contains("throttle_stamp"), "no figures of a stamp");
    Ok(())
}

#[test]
fn seeds_may_stand_in_a_file_that_is_written_later() -> Result<()> {
    needs_root!();
    let _machine = machine::alone()?;
    let ground = Ground::of(2)?;
    let mut stamp = Stamp::on(&ground)?;
    let seeds = stamp.sites[0].file("seeds");
    fs::write(&seeds, "# nobody yet\n")?;
    stamp.start(0, &["--stamp-seeds", &path(&seeds)])?;
    let (listen, key) = (ground.gossip(1).to_string(), path(&stamp.key(1)));
    let arguments = ["--stamp", "blue", "--stamp-host", "b", "--stamp-listen", &listen, "--stamp-key", &key];
    stamp.agents[1] =
        Some(stamp.sites[1].start(&[&["--interface", "uplink", "--table-sets", "1024"], &arguments[..]].concat())?);
    thread::sleep(Duration::from_secs(2));
    ensure!(stamp.view(0)?.hosts.len() == 1 && stamp.view(1)?.hosts.len() == 1, "neither knows of the other");
    fs::write(&seeds, format!("# the others\n{listen}\n"))?;
    stamp.all_alive()
}
