//! What the binary shows: status, events, metrics, the API's description, completions.

use super::{ends_with, send_from};
use anyhow::{Context, Result, ensure};
use std::{
    fs,
    io::{BufRead as _, BufReader, ErrorKind},
    net::Ipv4Addr,
    process::{Command, Stdio},
};
use throttle_tests::{
    agent::{Site, path},
    machine, needs_root, say,
    wire::{FAR, Wire},
};

const POLICY: &str = "mode = \"enforce\"\n[[limit]]\nname = \"few\"\nunit = \"packets\"\nrate = \"1/min\"\n";

#[test]
fn status_is_one_contract_for_people_and_programs() -> Result<()> {
    needs_root!();
    let wire = Wire::silent()?;
    let site = Site::on(&wire.far)?;
    let _agent = site.start(&["--interface", FAR, "--mode=native"])?;
    site.apply(POLICY)?;
    let json = site.json(&["status"])?;
    ensure!(json["schema_version"] == 1, "{json}");
    let fields = [
        "problems",
        "mode",
        "revision",
        "pending",
        "attachments",
        "table",
        "limits",
        "reasons",
        "losses",
        "blocks",
        "build",
        "capabilities",
    ];
    for field in fields {
        ensure!(json.get(field).is_some(), "status has no {field}: {json}");
    }
    ensure!(json["attachments"][0]["mode"] == "native" && json["problems"].as_array().is_some_and(Vec::is_empty));
    let page = site.ask(&["status", "--verbose"])?;
    for word in ["far", "native", "few", "1/min"] {
        ensure!(page.contains(word), "status does not show {word}: {page}");
    }
    ensure!(!page.contains('\x1b'), "no colour where nobody looks");
    // Read from the socket, as a collector would.
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--fail", "--unix-socket", &path(&site.file("api.sock")), "http://throttle/metrics"]);
    let metrics = machine::run(&mut curl)?;
    for line in
        ["throttle_attached{interface=\"far\",mode=\"native\"} 1", "throttle_enforcing 1", "throttle_policy_revision 1"]
    {
        ensure!(metrics.lines().any(|it| it == line), "no {line} in {metrics}");
    }
    Ok(())
}

#[test]
fn generic_mode_is_a_warning_that_stays() -> Result<()> {
    needs_root!();
    let wire = Wire::silent()?;
    let site = Site::on(&wire.far)?;
    let _agent = site.start(&["--interface", FAR, "--mode=generic"])?;
    site.apply(POLICY)?;
    for _ in 0..2 {
        let output = site.run(&["status"])?;
        let page = String::from_utf8_lossy(&output.stdout);
        ensure!(output.status.code() == Some(4) && page.contains("generic"), "{}: {page}", output.status);
    }
    Ok(())
}

#[test]
fn events_are_followed_as_they_come_and_filtered() -> Result<()> {
    needs_root!();
    let wire = Wire::silent()?;
    let site = Site::on(&wire.far)?;
    let _agent = site.start(&["--interface", FAR])?;
    site.apply(POLICY)?;
    let (one, other) = (Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(198, 51, 100, 1));
    // The past first, which the agent keeps.
    send_from(&wire, [one, one, other, other, one])?;
    site.until("all are judged", |status| status.reasons.iter().map(|count| count.packets).sum::<u64>() == 5)?;
    let read = |arguments: &[&str]| -> Result<Vec<serde_json::Value>> {
        let lines = site.ask(&[&["events", "--json"], arguments].concat())?;
        lines.lines().map(|line| serde_json::from_str(line).with_context(|| line.to_owned())).collect()
    };
    let past = read(&["--limit", "few"])?;
    ensure!(past.len() == 3, "three were refused: {past:?}");
    let event = &past[0]["event"];
    ensure!(past[0]["schema_version"] == 1 && event["source"] == "192.0.2.1", "{event}");
    ensure!(
        event["reason"] == "source-limit" && event["interface"] == FAR && event["destination_port"] == 9,
        "{event}"
    );
    ensure!(read(&["--source", "198.51.100.0/24"])?.len() == 1, "one source's");
    ensure!(read(&["--source", "!192.0.2.0/24", "--reason", "source-limit"])?.len() == 1, "all but one source's");
    ensure!(read(&["--outcome", "reject"])?.is_empty(), "none was answered");
    let said = ends_with(&site, 2, &["events", "--limit", "fwe"])?;
    ensure!(said.contains("did you mean `few`?"), "a name that no event has is refused: {said}");
    ends_with(&site, 2, &["events", "--service", "few"])?;
    let mut follow = site.command(["events", "--follow", "--last", "1", "--json", "--source", "192.0.2.0/24"])?;
    let mut follow = follow.stdout(Stdio::piped()).stdin(Stdio::null()).spawn()?;
    let mut lines = BufReader::new(follow.stdout.take().context("it is piped")?).lines();
    let mut next =
        || -> Result<serde_json::Value> { Ok(serde_json::from_str(&lines.next().context("the stream ended")??)?) };
    // The one of the past says that the stream has begun.
    let begun = next().and_then(|_| {
        send_from(&wire, [other, one])?;
        next()
    });
    follow.kill()?;
    follow.wait()?;
    let event = begun?;
    ensure!(event["event"]["source"] == "192.0.2.1", "{event}");
    Ok(())
}

#[test]
fn completions_and_the_description_of_the_api_need_no_agent() -> Result<()> {
    needs_root!();
    let wire = Wire::silent()?;
    let site = Site::on(&wire.far)?;
    for shell in ["bash", "zsh", "fish"] {
        let script = site.file(shell);
        fs::write(&script, site.ask(&["completions", shell])?)?;
        ensure!(fs::read_to_string(&script)?.contains("rollback"), "{shell}");
        match Command::new(shell).arg("-n").arg(&script).output() {
            Err(error) if error.kind() == ErrorKind::NotFound => say!("skipped completions: {shell} is not installed"),
            checked => {
                let checked = checked?;
                ensure!(checked.status.success(), "{shell}: {}", super::said(&checked));
            }
        }
    }
    let description: serde_json::Value = serde_json::from_str(&site.ask(&["openapi"])?)?;
    ensure!(description["openapi"].as_str().is_some_and(|version| version.starts_with("3.")));
    ensure!(description["paths"].as_object().is_some_and(|paths| paths.contains_key("/v1/status")));
    let examined = site.run(&["doctor", "--interface", FAR, "--json"])?;
    ensure!(examined.status.code() == Some(0), "{}", super::said(&examined));
    Ok(())
}
