//! Services that follow their health, and backends: made, changed, shown, exported and removed by single commands.

use super::ends_with;
use anyhow::{Result, ensure};
use serde_json::json;
use std::fs;
use throttle_tests::{
    agent::{Site, path},
    needs_root,
    wire::{FAR, Wire},
};

/// Has an agent serve a service with a limit on all of its connections.
fn with_web(test: impl FnOnce(&Site<'_>) -> Result<()>) -> Result<()> {
    let wire = Wire::silent()?;
    let site = Site::on(&wire.far)?;
    let _agent = site.start(&["--interface", FAR])?;
    site.ask(&["service", "set", "web", "--protocol", "tcp", "--port", "80,443"])?;
    test(&site)
}

#[test]
fn a_service_follows_its_health_by_single_commands() -> Result<()> {
    needs_root!();
    with_web(|site| {
        // Without a limit that could follow, nothing is written, and the remedy is named.
        let said = ends_with(site, 2, &["service", "set", "web", "--objective", "200ms"])?;
        ensure!(said.contains("concurrent = 1000, per = \"service\""), "{said}");
        ensure!(site.json(&["service", "show", "web"])?["service"].get("health").is_none(), "nothing has changed");
        site.ask(&["limit", "set", "open", "--service", "web", "--concurrent", "500", "--per", "service"])?;
        let said = site.ask(&["service", "set", "web", "--objective", "200ms"])?;
        ensure!(said.contains("+ service \"web\": health mode observe, objective 200ms"), "{said}");
        site.ask(&["service", "set", "web", "--health", "enforce", "--least", "8"])?;
        let shown = site.json(&["service", "show", "web"])?;
        let health = &shown["service"]["health"];
        let expected =
            json!({"mode": "enforce", "control": "latency", "objective": "200ms", "least": 8, "breaker": true});
        ensure!(*health == expected, "what is not named stays: {shown}");
        ensure!(shown["service"]["ports"] == json!([80, 443]), "nor do its ports change: {shown}");
        ensure!(shown["limits"] == json!(["open"]) && shown["connections"] == 500 && shown["speaks"] == "http");
        let page = site.ask(&["service", "show", "web"])?;
        ensure!(page.contains("8 to 500 connections") && page.contains("enforce"), "{page}");
        site.ask(&["service", "set", "web", "--most", "90", "--speaks", "opaque"])?;
        let said = site.ask(&["service", "set", "web", "--no-most", "--no-speaks"])?;
        ensure!(said.contains("most") && said.contains("speaks"), "{said}");
        let shown = site.json(&["service", "show", "web"])?;
        ensure!(
            shown["service"]["health"] == expected && shown["speaks"] == "http",
            "both are the default again: {shown}"
        );
        let said = ends_with(site, 2, &["limit", "set", "open", "--concurrent", "5"])?;
        ensure!(said.contains("health.least"), "a limit below the least window is refused: {said}");
        let said = ends_with(site, 2, &["limit", "delete", "open"])?;
        ensure!(said.contains("health.control"), "a limit that follows cannot go: {said}");
        let said = site.ask(&["service", "set", "web", "--no-health"])?;
        ensure!(said.contains("- service \"web\": health"), "{said}");
        site.ask(&["limit", "delete", "open"])?;
        Ok(())
    })
}

#[test]
fn backends_are_made_changed_shown_and_removed() -> Result<()> {
    needs_root!();
    with_web(|site| {
        let said = ends_with(site, 2, &["backend", "set", "web-1", "--service", "web"])?;
        ensure!(said.contains("--address"), "a new one needs an address: {said}");
        let said = ends_with(site, 2, &["backend", "set", "web-1", "--service", "wbe", "--address", "10.0.0.5:80"])?;
        ensure!(said.contains("did you mean `web`?"), "{said}");
        let said = ends_with(site, 2, &["backend", "set", "web-1", "--service", "web", "--address", "10.0.0.5"])?;
        ensure!(said.contains("10.0.0.5:80"), "a wrong address is told the right one: {said}");
        site.ask(&["backend", "set", "web-1", "--service", "web", "--address", "10.0.0.5:80", "--probe", "http:/up"])?;
        let said = ends_with(site, 2, &["backend", "set", "web-2", "--service", "web", "--address", "10.0.0.5:80"])?;
        ensure!(said.contains("`web-1` is at 10.0.0.5:80 already"), "{said}");
        site.ask(&["backend", "set", "web-2", "--service", "web", "--address", "dns:web.internal:80"])?;
        site.ask(&["backend", "set", "web-1", "--timeout", "2s"])?;
        site.ask(&["backend", "set", "web-1", "--interval", "1s", "--no-timeout"])?;
        let shown = site.json(&["backend", "show", "web-1"])?;
        let backend = json!({
            "name": "web-1", "service": "web", "address": "10.0.0.5:80", "probe": "http:/up", "interval": "1s"
        });
        ensure!(shown["backend"] == backend && shown["timeout_milliseconds"] == 1000, "{shown}");
        let listed = site.json(&["backend", "list"])?;
        ensure!(listed["backends"].as_array().is_some_and(|all| all.len() == 2), "{listed}");
        ensure!(site.json(&["service", "show", "web"])?["backends"] == json!(["web-1", "web-2"]));
        let said = ends_with(site, 1, &["service", "delete", "web"])?;
        ensure!(said.contains("backend web-1, web-2"), "those that answer for it are named: {said}");

        // The whole of it goes to a file and comes back.
        let file = site.file("exported.toml");
        let exported = site.ask(&["policy", "export"])?;
        fs::write(&file, &exported)?;
        ensure!(exported.contains("dns:web.internal:80"), "{exported}");
        for name in ["web-1", "web-2"] {
            site.ask(&["backend", "remove", name])?;
        }
        let said = ends_with(site, 1, &["backend", "show", "web-1"])?;
        ensure!(said.contains("there is no backend `web-1`"), "{said}");
        let diff = site.ask(&["policy", "diff", &path(&file)])?;
        ensure!(diff.lines().filter(|line| line.starts_with("+ backend \"web-")).count() == 2, "{diff}");
        site.ask(&["policy", "apply", &path(&file)])?;
        ensure!(site.ask(&["policy", "export"])? == exported, "it is what was exported");
        Ok(())
    })
}
