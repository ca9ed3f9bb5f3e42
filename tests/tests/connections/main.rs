//! Connections that are open at once: real sockets against what the kernel programs count, however they begin and end.

mod churn;
mod closing;
mod completing;
mod contended;
mod deferring;
mod egress;
mod entering;
mod extensions;
mod fast_open;
mod fast_sockets;
mod foretold;
mod forwarding;
mod host;
mod idling;
mod killing;
mod limits;
mod marking;
mod measuring;
mod mending;
mod multipath;
mod processes;
mod reserved;
mod resetting;
mod returning;
mod revealing;
mod router;
mod victim;

use anyhow::{Context as _, Result};
use std::{
    net::{IpAddr, SocketAddr, TcpListener},
    time::{Duration, Instant},
};

/// Longer than anything takes here that is going to happen at all, also 500 connections on an emulated CPU.
const PATIENCE: Duration = Duration::from_mins(1);

/// A policy with a service at a port and limits on its open connections: `limits` are their lines behind the unit.
fn policy(port: u16, limits: &[&str]) -> String {
    let limit = |(index, limit): (usize, &&str)| {
        format!("[[limit]]\nname = \"open-{index}\"\nservice = \"web\"\nunit = \"connections\"\n{limit}\n")
    };
    let limits: String = limits.iter().enumerate().map(limit).collect();
    format!(
        "mode = \"enforce\"\n[answers]\nrate = \"1000000/s\"\n\n[[service]]\nname = \"web\"\nprotocol = \"tcp\"\n\
         ports = [{port}]\n{limits}"
    )
}

fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn listen(at: &str) -> Result<TcpListener> {
    TcpListener::bind(SocketAddr::new(address(at), 0)).with_context(|| format!("listen at {at}"))
}

/// Waits for what has to happen, and says what is so instead where it does not.
fn eventually<T: PartialEq + std::fmt::Debug>(wanted: &T, mut look: impl FnMut() -> Result<T>) -> Result<()> {
    let start = Instant::now();
    loop {
        let found = look()?;
        if found == *wanted {
            return Ok(());
        }
        anyhow::ensure!(start.elapsed() < PATIENCE, "{found:?} instead of {wanted:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Waits for what takes its time, as long as it needs.
fn wait_for(mut look: impl FnMut() -> Result<bool>) -> Result<()> {
    while !look()? {
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}
