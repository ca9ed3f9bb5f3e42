//! Breakers of backends: one that is dead, with the agent alive and dead, and one that an operator holds.

use super::{RUN, policy};
use anyhow::{Context, Result, ensure};
use std::{
    io::{Read as _, Write as _},
    net::TcpListener,
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};
use throttle_agent::api::wire::TransitionView;
use throttle_tests::{
    agent::Site,
    needs_root,
    netns::Namespace,
    say,
    slow::{SlowServer, at, open_at_once},
    standing::{breaker, until},
    wire::{FAR_V4, Wire},
};

const BACKENDS: &str = "\
[[backend]]\nname = \"web-1\"\nservice = \"web\"\naddress = \"10.98.0.1:80\"\nprobe = \"http:/\"\n\
[[backend]]\nname = \"web-2\"\nservice = \"web\"\naddress = \"10.98.0.1:81\"\nprobe = \"http:/\"\n";

/// Where changes are told: what comes by POST, a body each.
fn listen(host: &Namespace) -> Result<(u16, mpsc::Receiver<String>)> {
    let listener = host.enter(|| TcpListener::bind(("127.0.0.1", 0)))??;
    let port = listener.local_addr()?.port();
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
    Ok((port, heard))
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
    let (port, heard) = listen(&wire.far)?;
    let (_first, second) = (SlowServer::on(&wire.far, 80)?, SlowServer::on(&wire.far, 81)?);
    let hook = format!("http://127.0.0.1:{port}/hook");
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
