//! What `top` shows of real packets: on a terminal, as text, and to programs.

use super::{ends_with, send_from};
use anyhow::{Context, Result, ensure};
use std::{
    io::{Read as _, Write as _},
    net::Ipv4Addr,
    process::Stdio,
};
use throttle_tests::{
    agent::{Site, path},
    needs_root, say,
    wire::{FAR, Wire},
};

const POLICY: &str = r#"
mode = "enforce"
[[limit]]
name = "slow"
unit = "packets"
rate = "1/min"
burst = 400
"#;

const LOUD: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 77);
const QUIET: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 8);

/// Sends so many packets from each source, and returns when all are judged.
fn send(site: &Site<'_>, wire: &Wire, loud: usize, quiet: usize) -> Result<()> {
    let before = site.judged(|_, _| true)?;
    let of = |source, count| std::iter::repeat_n(source, count);
    // Taking turns, so that what is sampled of them is in proportion.
    let turns = loud.div_ceil(quiet.max(1));
    let mut sources: Vec<_> = (0..quiet).flat_map(|_| of(LOUD, turns).chain(of(QUIET, 1))).collect();
    sources.truncate(loud + quiet);
    let sent = sources.len() as u64;
    send_from(wire, sources)?;
    let all = |count: u64| count >= before + sent;
    site.until("all are judged", |status| all(status.reasons.iter().map(|count| count.packets).sum())).map(drop)
}

#[test]
fn refusals_count_for_the_tenant_and_for_all_who_share_a_bucket() -> Result<()> {
    needs_root!();
    let wire = Wire::silent()?;
    let site = Site::on(&wire.far)?;
    let _agent = site.start(&["--interface", FAR])?;
    for per in ["tenant", "host"] {
        site.apply(&format!(
            "mode = \"enforce\"\n[[tenant]]\nname = \"acme\"\nsources = [\"{LOUD}\"]\n\
             [[limit]]\nname = \"of-each-{per}\"\nunit = \"packets\"\nrate = \"1/h\"\nburst = 5\nper = \"{per}\"\n"
        ))?;
        send(&site, &wire, 50, 1)?;
        let top = site.json(&["top", "--iterations", "1"])?;
        let refused = top["talkers"][0]["refused"].as_u64();
        ensure!(refused.is_some_and(|refused| refused > 0), "{top}");
        ensure!(top["limits"][0]["slots"] == 0, "who shares a bucket needs no place: {top}");
    }
    Ok(())
}

#[test]
fn the_loudest_source_is_on_top() -> Result<()> {
    needs_root!();
    let wire = Wire::silent()?;
    let site = Site::on(&wire.far)?;
    let _agent = site.start(&["--interface", FAR])?;
    site.apply(POLICY)?;
    send(&site, &wire, 200, 20)?;
    // Neither is refused yet: who used more of its burst comes first.
    let top = site.json(&["top", "--iterations", "1"])?;
    let talkers = top["talkers"].as_array().context("no talkers")?;
    ensure!(talkers[0]["source"] == LOUD.to_string() && talkers[1]["source"] == QUIET.to_string(), "{top}");
    let room = |it: &serde_json::Value| it["room"].as_u64().unwrap_or(0);
    ensure!(room(&talkers[0]) < 220 && (375..400).contains(&room(&talkers[1])), "{top}");
    ensure!(top["limits"][0]["busy"] == 2 && top["refused"].as_array().is_some_and(Vec::is_empty), "{top}");
    // Both are: who is refused more comes first.
    send(&site, &wire, 4000, 800)?;
    let top = site.json(&["top", "--iterations", "1", "--most", "2"])?;
    ensure!(top["talkers"][0]["source"] == LOUD.to_string() && room(&top["talkers"][1]) == 0, "{top}");
    ensure!(top["talkers"][0]["refused"].as_u64() > top["talkers"][1]["refused"].as_u64(), "{top}");
    ensure!(top["refused"][0]["source"] == LOUD.to_string() && top["refused"][0]["limit"] == "slow", "{top}");

    let page = site.ask(&["top", "--batch", "--iterations", "2", "--interval", "1s"])?;
    let heads = page.lines().filter(|line| line.starts_with("throttle enforcing, revision 1, ")).count();
    let first = page.lines().skip_while(|line| !line.starts_with("SOURCE")).nth(1).context("no talker")?;
    ensure!(heads == 2 && first.starts_with(&format!("{LOUD}  slow ")), "{page}");
    ensure!(page.contains("0/s refused"), "nothing came meanwhile: {page}");

    // As keys sort and filter them.
    let batch = |more: &[&str]| site.ask(&[&["top", "--batch", "--iterations", "1"], more].concat());
    let talkers = |page: &str| -> Vec<String> {
        let rows = page.lines().skip_while(|line| !line.starts_with("SOURCE")).skip(1);
        rows.take_while(|line| !line.is_empty()).filter_map(|line| Some(line.split(' ').next()?.to_owned())).collect()
    };
    let sorted = batch(&["--sort", "refused", "--reverse"])?;
    ensure!(talkers(&sorted) == [QUIET.to_string(), LOUD.to_string()], "{sorted}");
    let filtered = batch(&["--filter", &QUIET.to_string()])?;
    ensure!(talkers(&filtered) == [QUIET.to_string()], "{filtered}");
    for wrong in [["--interval", "0s"], ["--sort", "colour"]] {
        let refused = site.run(&[&["top", "--batch", "--iterations", "1"], &wrong[..]].concat())?;
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        ensure!(!refused.status.success() && said.contains("; write "), "{wrong:?}: {said}");
    }
    Ok(())
}

#[test]
fn a_terminal_shows_it_obeys_keys_and_is_given_back() -> Result<()> {
    needs_root!();
    if throttle_tests::machine::run(std::process::Command::new("script").arg("--version")).is_err() {
        say!("skipped top on a terminal: the command `script` is not installed");
        return Ok(());
    }
    let wire = Wire::silent()?;
    let site = Site::on(&wire.far)?;
    let _agent = site.start(&["--interface", FAR])?;
    site.apply(POLICY)?;
    send(&site, &wire, 10, 1)?;
    let binary = path(throttle_tests::agent::binary()?);
    // The environment of a command, in which `script` makes a terminal of its own.
    let command = site.command(["top"])?;
    let mut script = wire.far.command("script");
    script.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?)))).env("TERM", "xterm");
    let typed = format!("stty cols 110 rows 12; exec timeout --foreground 60 {binary} top");
    let mut child = script
        .args(["--quiet", "--return", "--command", &typed, "/dev/null"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("start script")?;
    let (mut keys, mut screen) = (child.stdin.take().context("piped")?, child.stdout.take().context("piped")?);
    let mut seen = String::new();
    let mut wait_for = |what: &str| -> Result<()> {
        let mut bytes = [0; 4096];
        while !seen.contains(what) {
            let read = screen.read(&mut bytes)?;
            ensure!(read > 0, "the terminal ended before it showed {what:?}: {seen:?}");
            seen += &String::from_utf8_lossy(&bytes[..read]);
        }
        seen.clear();
        Ok(())
    };
    wait_for(&LOUD.to_string())?;
    // Only cells that change are drawn: this is where nothing was.
    keys.write_all(b"/")?;
    wait_for("contains:")?;
    keys.write_all(b"\rq")?;
    // Back from the screen that it drew on.
    wait_for("\x1b[?1049l")?;
    let status = child.wait()?;
    ensure!(status.success(), "{status}");
    Ok(())
}

#[test]
fn json_is_not_sorted_or_filtered_and_who_asks_for_it_is_told() -> Result<()> {
    needs_root!();
    let wire = Wire::silent()?;
    let site = Site::on(&wire.far)?;
    let _agent = site.start(&["--interface", FAR])?;
    let once = ["top", "--batch", "--json", "--iterations", "1"];
    for also in [&["--sort", "room"][..], &["--filter", "203.0.113."], &["--reverse"]] {
        let said = ends_with(&site, 2, &[&once, also].concat())?;
        ensure!(said.contains("jq") && said.contains("--filter"), "the remedy is named: {said}");
    }
    site.ask(&once).map(drop)
}
