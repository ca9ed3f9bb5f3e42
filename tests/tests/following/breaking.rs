//! Breakers of backends: one that is dead, with the agent alive and dead, and one that an operator holds.

use super::{RUN, policy};
use anyhow::{Context, Result, ensure};
use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpListener,
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};
use throttle_agent::api::wire::TransitionView;
use throttle_tests::{
    agent::{Site, path},
    needs_root,
    netns::Namespace,
    say,
    slow::{SlowServer, at, open_at_once},
    standing::{breaker, changes, health, held, level, until},
    wire::{FAR_V4, Wire},
};

pub(super) const BACKENDS: &str = "\
[[backend]]\nname = \"web-1\"\nservice = \"web\"\naddress = \"10.98.0.1:80\"\nprobe = \"http:/\"\n\
[[backend]]\nname = \"web-2\"\nservice = \"web\"\naddress = \"10.98.0.1:81\"\nprobe = \"http:/\"\n";

/// Where changes are told, as a URL, and what comes there by POST, a body each.
pub(super) fn listen(host: &Namespace) -> Result<(String, mpsc::Receiver<String>)> {
    let listener = host.enter(|| TcpListener::bind(("127.0.0.1", 0)))??;
    let hook = format!("http://{}/hook", listener.local_addr()?);
    let (told, heard) = mpsc::channel();
    thread::spawn(move || {
        while let Ok((mut client, _)) = listener.accept() {
            let mut text = String::new();
            let mut buffer = [0; 4096];
            while !whole(&text)
                && let Ok(length @ 1..) = client.read(&mut buffer)
            {
                text += &String::from_utf8_lossy(&buffer[..length]);
            }
            let answered = client.write_all(b"HTTP/1.1 204 No Content\r\n\r\n");
            let body = text.split_once("\r\n\r\n").map_or("", |(_, body)| body);
            if answered.is_err() || told.send(body.to_owned()).is_err() {
                return;
            }
        }
    });
    Ok((hook, heard))
}

/// Whether a request has come with all of its body.
fn whole(text: &str) -> bool {
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
    length.is_some_and(|length: usize| body.len() >= length)
}

#[test]
fn a_dead_backend_is_kept_from_new_connections_and_tried_again_with_the_agent_dead() -> Result<()> {
    needs_root!();
    let wire = Wire::new()?;
    let site = Site::on(&wire.far)?;
    let (hook, heard) = listen(&wire.far)?;
    let (_first, second) = (SlowServer::on(&wire.far, 80)?, SlowServer::on(&wire.far, 81)?);
    let agent = site.start(&[&RUN[..], &["--webhook", &hook]].concat())?;
    site.apply(&policy("mode = \"enforce\"", BACKENDS))?;
    until(&site, "both are well", |view| {
        view.backends.len() == 2 && view.backends.iter().all(|it| it.level == "healthy" && it.latency_seconds.is_some())
    })?;
    ensure!(open_at_once(&wire.near, 5, at(FAR_V4, 81))?.len() == 5);

    drop(second);
    let dies = Instant::now();
    until(&site, "the breaker opens", |view| breaker(view, "web-2") == "open")?;
    say!("breaking: a backend that refuses is kept away {:?} after its end", dies.elapsed());
    ensure!(open_at_once(&wire.near, 3, at(FAR_V4, 81))?.is_empty());
    ensure!(open_at_once(&wire.near, 5, at(FAR_V4, 80))?.len() == 5, "the other is no affair of it");
    let refused = site.judged(|reason, _| reason == "breaker-open")?;
    ensure!(refused >= 3, "{refused} were refused by a breaker");
    let status = site.status()?;
    ensure!(status.problems.iter().any(|it| it.contains("web-2 (10.98.0.1:81)")), "{:?}", status.problems);
    let (_, metrics) = site.request("GET", "/metrics", "")?;
    for figure in [
        r#"backends{service="web",backend="web-1",level="healthy"} 1"#,
        r#"backends{service="web",backend="web-2",level="dead"} 1"#,
        r#"breakers{service="web",backend="web-1",state="closed"} 1"#,
        r#"breakers{service="web",backend="web-2",state="open"} 1"#,
        r#"breakers{service="web",backend="web-2",state="closed"} 0"#,
        r#"backend_suspicion{service="web",backend="web-1"} "#,
    ] {
        ensure!(metrics.contains(&format!("throttle_{figure}")), "no {figure} in {metrics}");
    }

    let told: Vec<TransitionView> =
        heard.try_iter().map(|body| serde_json::from_str(&body)).collect::<Result<_, _>>().context("JSON was told")?;
    let is = |kind: &str, to: &str| {
        told.iter().any(|it| it.kind == kind && it.to == to && it.backend.as_deref() == Some("web-2"))
    };
    ensure!(is("backend", "dead") && is("breaker", "open"), "{told:#?}");

    // It comes back, and nobody is there to see that.
    agent.kill()?;
    let _second = SlowServer::on(&wire.far, 81)?;
    let start = Instant::now();
    let mut let_in = Vec::new();
    while let_in.is_empty() {
        ensure!(start.elapsed() < Duration::from_secs(30), "the kernel tries nobody by itself");
        thread::sleep(Duration::from_millis(100));
        let_in = open_at_once(&wire.near, 1, at(FAR_V4, 81))?;
    }
    let_in.extend(open_at_once(&wire.near, 30, at(FAR_V4, 81))?);
    say!("breaking: with the agent dead, tried again after {:?}, {} of 31 let in", start.elapsed(), let_in.len());
    ensure!(let_in.len() <= 10, "{} trials in a round", let_in.len());
    Ok(())
}

#[test]
fn since_when_and_why_outlive_the_agent_as_long_as_it_is_so() -> Result<()> {
    needs_root!();
    let wire = Wire::new()?;
    let site = Site::on(&wire.far)?;
    let (_first, second) = (SlowServer::on(&wire.far, 80)?, SlowServer::on(&wire.far, 81)?);
    let agent = site.start(&RUN)?;
    site.apply(&policy("mode = \"enforce\"", BACKENDS))?;
    until(&site, "both are well", |view| view.backends.iter().filter(|it| it.latency_seconds.is_some()).count() == 2)?;
    drop(second);
    until(&site, "the breaker opens", |view| breaker(view, "web-2") == "open")?;
    let open = Instant::now();
    thread::sleep(Duration::from_secs(1));
    agent.stop()?;
    let agent = site.start(&RUN)?;
    let view = until(&site, "it is dead still", |view| level(view, "web-2") == "dead")?;
    let passed = open.elapsed().as_secs_f64();
    let it = held(&view, "web-2").context("it is known")?;
    ensure!(it.since_seconds + 0.5 >= passed, "{passed} s have passed: {it:#?}");
    ensure!(it.why.as_deref().is_some_and(|why| why.contains("refuses") && !why.contains("watched")), "{it:#?}");
    let kept = it.breaker.as_ref().context("it has a breaker")?;
    ensure!(kept.state == "open" && kept.since_seconds + 0.5 >= passed, "{passed} s have passed: {kept:#?}");
    ensure!(kept.why.as_deref() == Some("the backend is dead"), "{kept:#?}");
    let shown = site.ask(&["health", "web"])?;
    ensure!(shown.contains("web-2 (10.98.0.1:81) is dead: it refuses connections"), "{shown}");

    // It comes back while nobody watches.
    agent.stop()?;
    let _second = SlowServer::on(&wire.far, 81)?;
    let away = Instant::now();
    let _agent = site.start(&RUN)?;
    let view = until(&site, "it is known to have changed", |view| {
        held(view, "web-2").is_some_and(|it| it.level == "healthy" && it.why.is_some())
    })?;
    let it = held(&view, "web-2").context("it is known")?;
    ensure!(it.why.as_deref().is_some_and(|why| why.contains("while no agent watched; it was dead")), "{it:#?}");
    ensure!(it.since_seconds <= away.elapsed().as_secs_f64(), "{it:#?}");
    Ok(())
}

#[test]
fn one_that_is_back_is_let_in_again_by_the_agent() -> Result<()> {
    needs_root!();
    let wire = Wire::new()?;
    let site = Site::on(&wire.far)?;
    let (_first, second) = (SlowServer::on(&wire.far, 80)?, SlowServer::on(&wire.far, 81)?);
    let _agent = site.start(&RUN)?;
    site.apply(&policy("mode = \"enforce\"", BACKENDS))?;
    until(&site, "both are well", |view| view.backends.iter().filter(|it| it.latency_seconds.is_some()).count() == 2)?;
    drop(second);
    until(&site, "the breaker opens", |view| breaker(view, "web-2") == "open")?;
    let _second = SlowServer::on(&wire.far, 81)?;
    until(&site, "the breaker closes", |view| breaker(view, "web-2") == "closed")?;
    ensure!(open_at_once(&wire.near, 20, at(FAR_V4, 81))?.len() == 20);
    Ok(())
}

#[test]
fn an_operator_holds_a_breaker_over_a_restart_until_it_is_left_to_itself() -> Result<()> {
    needs_root!();
    let wire = Wire::new()?;
    let site = Site::on(&wire.far)?;
    let (_first, _second) = (SlowServer::on(&wire.far, 80)?, SlowServer::on(&wire.far, 81)?);
    let agent = site.start(&RUN)?;
    site.apply(&policy("mode = \"enforce\"", BACKENDS))?;
    until(&site, "both are known", |view| view.backends.len() == 2)?;
    site.ask(&["breaker", "open", "web/web-2"])?;
    ensure!(open_at_once(&wire.near, 3, at(FAR_V4, 81))?.is_empty(), "it takes effect at once");
    agent.kill()?;
    let _agent = site.start(&RUN)?;
    until(&site, "it is held still", |view| breaker(view, "web-2") == "held-open")?;
    ensure!(open_at_once(&wire.near, 3, at(FAR_V4, 81))?.is_empty());
    ensure!(site.ask(&["status"])?.contains("throttle breaker auto web/web-2"));
    site.ask(&["breaker", "auto", "web/web-2"])?;
    until(&site, "it is left to itself", |view| breaker(view, "web-2") == "closed")?;
    ensure!(open_at_once(&wire.near, 3, at(FAR_V4, 81))?.len() == 3);
    let refusal = site.run(&["breaker", "open", "web/web-3"])?;
    ensure!(
        !refusal.status.success() && String::from_utf8_lossy(&refusal.stderr).contains("did you mean `web-1`"),
        "{refusal:?}"
    );
    Ok(())
}

#[test]
fn what_an_operator_holds_can_be_ended_where_policy_has_the_name_no_more() -> Result<()> {
    needs_root!();
    let wire = Wire::new()?;
    let site = Site::on(&wire.far)?;
    let (_first, _second) = (SlowServer::on(&wire.far, 80)?, SlowServer::on(&wire.far, 81)?);
    let _agent = site.start(&RUN)?;
    let whole = policy("mode = \"enforce\"", BACKENDS);
    site.apply(&whole)?;
    until(&site, "both are known", |view| view.backends.len() == 2)?;
    for whose in ["web/web-2", "web"] {
        site.ask(&["breaker", "open", whose])?;
    }
    let one = backend("web-1", "10.98.0.1:80");
    let without = [("web/web-2", policy("mode = \"enforce\"", &one)), ("web", policy("breaker = false", &one))];
    for (whose, policy) in without {
        site.apply(&policy)?;
        let auto = format!("throttle breaker auto {whose}");
        ensure!(site.ask(&["status"])?.contains(&auto), "{whose} is held still");
        site.ask(&["breaker", "auto", whose])?;
        ensure!(!site.ask(&["status"])?.contains(&auto), "{whose} is held no more");
        ensure!(!site.run(&["breaker", "auto", whose])?.status.success(), "nobody holds {whose}");
    }
    site.apply(&whole)?;
    until(&site, "nothing of it comes back", |view| {
        breaker(view, "web-2") != "held-open" && view.breaker.as_ref().is_some_and(|it| it.state == "closed")
    })?;
    Ok(())
}

/// A backend of the service that is asked for a page, at an address or wherever it is to be found.
fn backend(name: &str, address: &str) -> String {
    format!("[[backend]]\nname = \"{name}\"\nservice = \"web\"\naddress = \"{address}\"\nprobe = \"http:/\"\n")
}

/// The file of a site that lists where a backend is.
fn listed(site: &Site<'_>, name: &str) -> String {
    format!("file:{}", path(&site.file(name)))
}

#[test]
fn a_breaker_is_held_before_it_is_known_where_its_backend_is() -> Result<()> {
    needs_root!();
    let wire = Wire::new()?;
    let site = Site::on(&wire.far)?;
    let (_first, _second) = (SlowServer::on(&wire.far, 80)?, SlowServer::on(&wire.far, 81)?);
    let _agent = site.start(&RUN)?;
    let late = backend("web-2", &listed(&site, "web-2"));
    site.apply(&policy("mode = \"enforce\"", &(backend("web-1", "10.98.0.1:80") + &late)))?;
    let said = site.ask(&["breaker", "open", "web/web-2"])?;
    ensure!(said.contains("an address of it, none of which is known yet"), "{said}");
    fs::write(site.file("web-2"), "10.98.0.1:81\n").context("write a file of backends")?;
    until(&site, "it is held", |view| breaker(view, "web-2") == "held-open")?;
    ensure!(open_at_once(&wire.near, 3, at(FAR_V4, 81))?.is_empty(), "it keeps all away");
    ensure!(open_at_once(&wire.near, 3, at(FAR_V4, 80))?.len() == 3, "and from its own backend alone");
    Ok(())
}

#[test]
fn breakers_of_backends_that_are_found_late_are_as_they_were_before_a_restart() -> Result<()> {
    needs_root!();
    let wire = Wire::new()?;
    let site = Site::on(&wire.far)?;
    let (_first, _third) = (SlowServer::on(&wire.far, 80)?, SlowServer::on(&wire.far, 82)?);
    let second = SlowServer::on(&wire.far, 81)?;
    let write = |name: &str, address: &str| fs::write(site.file(name), address).context("write a file of backends");
    write("web-2", "10.98.0.1:81\n")?;
    write("web-3", "10.98.0.1:82\n")?;
    let agent = site.start(&RUN)?;
    let late = ["web-2", "web-3"].map(|name| backend(name, &listed(&site, name))).concat();
    site.apply(&policy("mode = \"enforce\"", &(backend("web-1", "10.98.0.1:80") + &late)))?;
    let are_well = |count: usize| {
        until(&site, "they are well", |view| {
            view.backends.len() == count && view.backends.iter().all(|it| it.latency_seconds.is_some())
        })
    };
    are_well(3)?;
    site.ask(&["breaker", "open", "web/web-3"])?;
    drop(second);
    until(&site, "the breaker opens", |view| breaker(view, "web-2") == "open")?;
    agent.kill()?;

    // The next agent finds one backend at once, and the others when their files are there again.
    fs::remove_file(site.file("web-2"))?;
    fs::remove_file(site.file("web-3"))?;
    let _agent = site.start(&RUN)?;
    are_well(1)?;
    ensure!(open_at_once(&wire.near, 3, at(FAR_V4, 82))?.is_empty(), "what an operator holds lets nobody in meanwhile");
    write("web-3", "10.98.0.1:82\n")?;
    until(&site, "it is held still", |view| breaker(view, "web-3") == "held-open")?;
    ensure!(open_at_once(&wire.near, 3, at(FAR_V4, 82))?.is_empty());
    write("web-2", "10.98.0.1:81\n")?;
    until(&site, "it is found", |view| held(view, "web-2").is_some())?;
    until(&site, "it is found dead", |view| level(view, "web-2") == "dead")?;
    let anew: Vec<_> = changes(&site, "web")?.into_iter().filter(|it| it.from == "closed").collect();
    ensure!(anew.is_empty(), "breakers began closed: {anew:#?}");
    Ok(())
}

/// The state of the breaker of a backend of a service, and the one in force where that is another's.
fn standing(site: &Site<'_>, service: &str, backend: &str) -> Result<(String, Option<String>)> {
    let view = health(site, service)?;
    let breaker = held(&view, backend).and_then(|it| it.breaker.clone()).context("it has a breaker")?;
    ensure!(breaker.shared_with.len() == 1, "{breaker:?}");
    Ok((breaker.state, breaker.in_force))
}

#[test]
fn two_services_at_one_address_share_a_breaker_that_neither_closes_for_the_other() -> Result<()> {
    needs_root!();
    let wire = Wire::new()?;
    let site = Site::on(&wire.far)?;
    let (_first, _second) = (SlowServer::on(&wire.far, 80)?, SlowServer::on(&wire.far, 81)?);
    fs::write(site.file("api"), "10.98.0.1:81\n")?;
    let api = format!(
        "[[service]]\nname = \"api\"\nprotocol = \"tcp\"\nports = [90]\n[service.health]\nmode = \"enforce\"\ncontrol \
         = \"fixed\"\n[[backend]]\nname = \"api-1\"\nservice = \"api\"\naddress = \"{}\"\n",
        listed(&site, "api")
    );
    let _agent = site.start(&RUN)?;
    site.apply(&policy("mode = \"enforce\"", &format!("{BACKENDS}{api}")))?;
    let passes = || -> Result<bool> { Ok(!open_at_once(&wire.near, 3, at(FAR_V4, 81))?.is_empty()) };
    let comes_to = |passing: bool| -> Result<()> {
        let start = Instant::now();
        while passes()? != passing {
            ensure!(start.elapsed() < Duration::from_secs(30), "connections pass: {}", !passing);
            thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    };
    let becomes = |state: &str| -> Result<()> {
        let start = Instant::now();
        while standing(&site, "api", "api-1")?.0 != state {
            ensure!(start.elapsed() < Duration::from_secs(30), "api's is not {state}");
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    };
    until(&site, "they share it", |view| {
        held(view, "web-2").and_then(|it| it.breaker.as_ref()).is_some_and(|it| it.shared_with == ["api/api-1"])
    })?;
    site.ask(&["breaker", "open", "web/web-2"])?;
    comes_to(false)?;
    site.ask(&["breaker", "open", "api/api-1"])?;
    becomes("held-open")?;
    site.ask(&["breaker", "auto", "api/api-1"])?;
    becomes("closed")?;
    ensure!(!passes()?, "what the one is left to does not end what is held of the other");
    assert_eq!(standing(&site, "api", "api-1")?, ("closed".to_owned(), Some("held-open".to_owned())));
    assert_eq!(standing(&site, "web", "web-2")?, ("held-open".to_owned(), None));
    let told = site.ask(&["explain", "10.98.0.2", "--to", "10.98.0.1", "--port", "81"])?;
    ensure!(told.contains("web/web-2 (shared with api/api-1): held open"), "{told}");

    // Who is there no more decides no more.
    site.apply(&policy("mode = \"enforce\"", &(backend("web-1", "10.98.0.1:80") + &api)))?;
    comes_to(true)?;
    Ok(())
}
