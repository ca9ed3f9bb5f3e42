//! How commands end when they do not do what was asked: the code, and what is said to people and to programs.

use super::ends_with;
use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use throttle_tests::{
    agent::{Site, path},
    needs_root,
    wire::{FAR, Wire},
};

#[test]
fn without_an_agent_every_client_ends_with_three() -> Result<()> {
    needs_root!();
    let wire = Wire::silent()?;
    let site = Site::on(&wire.far)?;
    for command in [&["status"][..], &["limit", "list"], &["block", "list"], &["events"], &["policy", "export"]] {
        let said = ends_with(&site, 3, command)?;
        ensure!(said.contains("throttle run"), "the remedy is named: {said}");
    }
    Ok(())
}

#[test]
fn an_agent_that_is_stuck_is_one_that_does_not_answer() -> Result<()> {
    needs_root!();
    let wire = Wire::silent()?;
    let site = Site::on(&wire.far)?;
    let agent = site.start(&["--interface", FAR])?;
    let pid = Pid::from_raw(agent.process().cast_signed()).context("a process has a number")?;
    kill_process(pid, Signal::STOP)?;
    let said = ends_with(&site, 3, &["status"]);
    kill_process(pid, Signal::CONT)?;
    let said = said?;
    ensure!(said.contains("no answer within 10 s") && !said.contains("change"), "{said}");
    ends_with(&site, 4, &["status"]).or_else(|_| ends_with(&site, 0, &["status"]))?;
    Ok(())
}

#[test]
fn wrong_usage_ends_with_two() -> Result<()> {
    needs_root!();
    let wire = Wire::silent()?;
    let site = Site::on(&wire.far)?;
    for command in [
        &["frobnicate"][..],
        &["limit", "set"],
        &["block", "add"],
        &["block", "add", "everyone"],
        &["events", "--reason", "bad luck"],
        &["run", "--heartbeats", "127.0.0.1:9852"],
        &["run", "--heartbeats-key", "web.key"],
        &["run", "--webhook-authority", "authority.crt"],
        &["run", "--webhook", "http://oncall", "--webhook-authority", "authority.crt"],
        &["run", "--webhook", "ftp://oncall"],
    ] {
        ends_with(&site, 2, command)?;
    }
    Ok(())
}

#[test]
fn a_file_of_certificates_that_is_wrong_ends_with_78_and_a_host_that_trusts_nobody_with_one() -> Result<()> {
    needs_root!();
    let wire = Wire::silent()?;
    let site = Site::on(&wire.far)?;
    let letter = site.file("letter");
    fs::write(&letter, "Dear operator")?;
    let letter = path(&letter);
    let address = ["--heartbeats", "127.0.0.1:9852", "--heartbeats-certificate", &letter];
    let others = ["--heartbeats-key", &letter, "--heartbeats-authority", &letter];
    let said = ends_with(&site, 78, &[&["run", "--interface", FAR][..], &address, &others].concat())?;
    ensure!(said.contains(&format!("{letter}: it holds no certificate; write certificates as PEM")), "{said}");
    let webhook = ["run", "--interface", FAR, "--webhook", "https://oncall"];
    let said = ends_with(&site, 78, &[&webhook[..], &["--webhook-authority", &letter]].concat())?;
    ensure!(said.contains(&format!("{letter}: it holds no certificate")), "{said}");

    let nowhere = site.file("nowhere");
    let output = site.command(webhook)?.env("SSL_CERT_FILE", &nowhere).env("SSL_CERT_DIR", &nowhere).output()?;
    let said = super::said(&output);
    ensure!(output.status.code() == Some(1), "it ended with {}: {said}", output.status);
    ensure!(said.contains("https://oncall/") && said.contains("apt install ca-certificates"), "{said}");
    ensure!(!site.file("state").exists(), "something was left behind");
    Ok(())
}

/// Mistakes that can be typed and can stand in a file, whether the command finds them or the agent.
const MISTAKES: [(&[&str], &str); 7] = [
    (&["--rate", "fast"], "rate = \"fast\""),
    (&["--rate", "-5/s"], "rate = \"-5/s\""),
    (&["--rate", "0/s"], "rate = \"0/s\""),
    (&["--rate", "5/s", "--burst", "0"], "rate = \"5/s\"\nburst = 0"),
    (&["--rate", "5/s", "--service", "web"], "rate = \"5/s\"\nservice = \"web\""),
    (&["--rate", "5/s", "--prefix-v4", "33"], "rate = \"5/s\"\nprefix = { ipv4 = 33 }"),
    (&["--rate", "5/s", "--sources", "100000000"], "rate = \"5/s\"\nsources = 100000000"),
];

#[test]
fn a_mistake_ends_with_two_where_it_was_typed_and_with_78_where_it_stands_in_a_file() -> Result<()> {
    needs_root!();
    let wire = Wire::silent()?;
    let site = Site::on(&wire.far)?;
    let _agent = site.start(&["--interface", FAR])?;
    let file = site.file("wrong.toml");
    for (typed, written) in MISTAKES {
        ends_with(&site, 2, &[&["limit", "set", "few", "--unit", "packets"], typed].concat())?;
        fs::write(&file, format!("[[limit]]\nname = \"few\"\nunit = \"packets\"\n{written}\n"))?;
        ends_with(&site, 78, &["policy", "apply", &path(&file)])?;
    }
    ends_with(&site, 2, &["allow", "add", "192.0.2.1/24"])?;
    for (asked, remedy) in [
        (&["mode", "enforce", "--confirm-within", "2d"][..], "write a time from 1s to 1d"),
        (&["speed", "set", "0.5", "--for", "90d"], "write a time from 1s to 30d"),
        (&["block", "list", "--contains", "foo"], "write one such as 192.0.2.7"),
        (
            &["limit", "set", "few", "--unit", "packets", "--rate", "5/s", "--sources", "900000000"],
            "limit \"few\": sources",
        ),
        (&["limit", "set", "few", "--unit", "bytes", "--rate", "5/s"], "write 5B/s"),
    ] {
        let said = ends_with(&site, 2, asked)?;
        ensure!(said.contains(remedy) && !said.contains("--table-sets"), "{asked:?}: {said}");
    }
    ensure!(site.status()?.revision == 0, "nothing was changed");
    Ok(())
}

#[test]
fn a_file_that_is_no_text_is_refused_as_such() -> Result<()> {
    needs_root!();
    let wire = Wire::silent()?;
    let site = Site::on(&wire.far)?;
    let file = site.file("binary");
    fs::write(&file, b"mode = \"\xff\xfe\0\"\n")?;
    for command in [&["policy", "check"][..], &["policy", "apply"], &["policy", "diff"], &["block", "add", "--file"]] {
        let said = ends_with(&site, 78, &[command, &[&path(&file)]].concat())?;
        ensure!(said.contains("binary:1:9: this is no text"), "{said}");
    }
    let said = ends_with(&site, 78, &["run", "--interface", FAR, "--policy", &path(&file)])?;
    ensure!(said.contains("this is no text"), "{said}");
    Ok(())
}

#[test]
fn whoever_asks_for_json_is_told_failures_in_json() -> Result<()> {
    needs_root!();
    let wire = Wire::silent()?;
    let site = Site::on(&wire.far)?;
    let failed = |code: i32, arguments: &[&str]| -> Result<serde_json::Value> {
        let said = ends_with(&site, code, &[arguments, &["--json"]].concat())?;
        let told: serde_json::Value = serde_json::from_str(&said).with_context(|| format!("{arguments:?}: {said}"))?;
        ensure!(told["exit_code"] == code && told["title"].is_string() && told["detail"].is_string(), "{told}");
        Ok(told)
    };
    ensure!(failed(3, &["status"])?["type"] == "/problems/unreachable");
    ensure!(failed(2, &["limit", "set", "few", "--unit", "packtes"])?["type"] == "/problems/usage");
    ensure!(failed(2, &["frobnicate"])?["type"] == "/problems/usage");
    let file = site.file("wrong.toml");
    fs::write(&file, "mode = \"no\"\n")?;
    ensure!(failed(78, &["policy", "check", &path(&file)])?["diagnostics"][0]["line"] == 1);
    ensure!(failed(78, &["policy", "check", "/nonexistent"])?["type"] == "/problems/file-refused");

    let _agent = site.start(&["--interface", FAR])?;
    let unknown = failed(1, &["limit", "delete", "few"])?;
    ensure!(unknown["type"] == "/problems/not-found" && unknown["status"] == 404, "{unknown}");
    ensure!(failed(78, &["policy", "apply", &path(&file)])?["diagnostics"][0]["path"] == "mode");
    Ok(())
}
