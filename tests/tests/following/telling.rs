//! What is seen of a service and moves nothing, but says why it is slow.

use super::{RUN, policy};
use anyhow::{Context as _, Result};
use std::process::{Child, Stdio};
use throttle_tests::{
    agent::Site,
    groups::Group,
    machine, needs_root,
    nginx::Server,
    slow::at,
    standing::until,
    stranger::Stranger,
    wire::{FAR_V4, Wire},
};

/// Of somebody who is not there, so that nobody answers a SYN-ACK.
const STRANGER: &str = "10.98.77.1";
const ASKED: u32 = 5;

/// Processes that want a CPU each, until this is dropped.
struct Busy(Vec<Child>);

impl Drop for Busy {
    fn drop(&mut self) {
        for process in &mut self.0 {
            _ = process.kill();
            _ = process.wait();
        }
    }
}

#[test]
fn says_of_handshakes_that_nobody_completes_and_of_a_group_that_waits_for_a_cpu() -> Result<()> {
    needs_root!();
    let Some(group) = Group::new("telling")? else { return Ok(()) };
    let wire = Wire::new()?;
    let site = Site::on(&wire.far)?;
    let (_server, _agent) = (Server::within(&group, &wire.far)?, site.start(&RUN)?);
    site.apply(&policy("control = \"latency\"", ""))?;
    let stranger = Stranger::new(&wire, STRANGER, at(FAR_V4, 80))?;
    stranger.asks(&(1024..1024 + ASKED as u16))?;
    until(&site, "all SYN-ACKs are sent again", |view| {
        view.waiting.is_some_and(|it| it.handshakes == ASKED && it.sent_again == ASKED && it.connections == 0)
    })?;
    until(&site, "the group's pressure is known", |view| view.pressure.is_some())?;
    let busy = (0..=machine::cpus()).map(|_| {
        let mut shell = group.command(&wire.far, "sh");
        shell.args(["-c", "while :; do :; done"]).stdin(Stdio::null()).spawn().context("start a shell")
    });
    let busy = Busy(busy.collect::<Result<_>>()?);
    until(&site, "it waits for a CPU", |view| view.pressure.is_some_and(|it| it.cpu > 0.5 && it.cpu <= 1.0))?;
    drop(busy);
    until(&site, "it waits no more", |view| view.pressure.is_some_and(|it| it.cpu < 0.5))?;
    Ok(())
}
