//! The real binary: what its commands change, what they refuse, what they print, and how they end.

mod algorithms;
mod blocks;
mod detaching;
mod endings;
mod explain;
mod following;
mod policies;
mod refused;
mod sessions;
mod speeds;
mod top;
mod unit;
mod views;
mod warnings;

use anyhow::{Context, Result, ensure};
use std::{net::Ipv4Addr, process::Output};
use throttle_tests::{
    agent::Site,
    clients::send_raw,
    frames::Frame,
    wire::{NEAR, Wire},
};

/// Sends one frame from each source over the wire.
fn send_from(wire: &Wire, sources: impl IntoIterator<Item = Ipv4Addr>) -> Result<()> {
    let frames: Vec<_> = sources.into_iter().map(|source| Frame::v4(source).bytes()).collect();
    wire.near.enter(|| send_raw(NEAR, frames.iter().map(Vec::as_slice)))?
}

/// Sends one frame from each source, and gives how many of them the agent counted as it was asked to.
fn count_of(site: &Site<'_>, wire: &Wire, sources: &[Ipv4Addr], which: impl Fn(&str, &str) -> bool) -> Result<u64> {
    let before = [site.judged(|_, _| true)?, site.judged(&which)?];
    send_from(wire, sources.iter().copied())?;
    let all = |status: &throttle_agent::api::wire::Status| {
        status.reasons.iter().map(|count| count.packets).sum::<u64>() >= before[0] + sources.len() as u64
    };
    site.until("all frames are judged", all)?;
    Ok(site.judged(&which)? - before[1])
}

/// What a command wrote to standard error.
fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Runs a command that must end with this code, and gives what it wrote to standard error.
fn ends_with(site: &Site<'_>, code: i32, arguments: &[&str]) -> Result<String> {
    let output = site.run(arguments).with_context(|| format!("throttle {arguments:?}"))?;
    let said = said(&output);
    ensure!(output.status.code() == Some(code), "throttle {arguments:?} ended with {}: {said}", output.status);
    Ok(said)
}
