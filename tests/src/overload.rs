//! A real server under more than it can bear, behind a throttle or none: [`crate::workers`] on the far host, and
//! [`crate::demand`] from the near one.

use crate::{
    agent::Site,
    demand::{self, Answers},
    generator::Sender,
    kernel,
    simulator::scenario::{CAPACITY, OBJECTIVE, Phase},
    wire::{FAR, Wire},
    workers::Workers,
};
use anyhow::{Context, Result};
use aya::{Ebpf, programs::XdpMode};
use std::path::Path;
use throttle_agent::health::MILLISECOND;

/// What stands before the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guard {
    /// A bare XDP_PASS.
    Nothing,
    /// A limit on new connections that is what the server can do at its best.
    AtCapacity,
    /// A limit on open connections that is far too wide, and follows the server's health.
    Health,
}

/// All of them, the worst first.
pub const GUARDS: [Guard; 3] = [Guard::Nothing, Guard::AtCapacity, Guard::Health];

impl Guard {
    /// What it is called.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Nothing => "no throttle",
            Self::AtCapacity => "a static limit at capacity",
            Self::Health => "throttle, by health",
        }
    }

    /// The policy of the agent, where there is one. Who is refused is told so at once, however many there are.
    pub fn policy(self) -> Option<String> {
        let (health, limit) = match self {
            Self::Nothing => return None,
            Self::AtCapacity => (String::new(), format!("rate = \"{CAPACITY:.0}/s\"\nburst = {:.0}", CAPACITY / 10.0)),
            Self::Health => {
                let objective = OBJECTIVE / MILLISECOND;
                let health = format!("[service.health]\nmode = \"enforce\"\nobjective = \"{objective}ms\"\n");
                (health, "concurrent = 1000".to_owned())
            }
        };
        Some(format!(
            "mode = \"enforce\"\n[answers]\nrate = \"1000000/s\"\n\
             [[service]]\nname = \"web\"\nprotocol = \"tcp\"\nports = [80]\n{health}\
             [[limit]]\nname = \"web\"\nservice = \"web\"\nper = \"service\"\nunit = \"connections\"\naction = \"reject\"\n\
             {limit}\n"
        ))
    }
}

/// Has a server of its own go through the phases behind a guard. `binary` is one that calls [`crate::workers::work`].
pub fn run(guard: Guard, phases: &[Phase], binary: &Path) -> Result<Answers> {
    let wire = Wire::new()?;
    // Refusals reach a near end only where it has an XDP program.
    let _near = Sender::on(&wire)?;
    demand::add_sources(&wire.near)?;
    let site = Site::on(&wire.far)?;
    let mut workers = Workers::on(&wire.far, binary)?;
    let begin = |phase: &Phase| workers.set_capacity(phase.capacity);
    match guard.policy() {
        None => {
            let _bare = pass(&wire)?;
            demand::ask(&wire.near, phases, begin)
        }
        Some(policy) => {
            let _agent = site.start(&["--interface", FAR, "--mode=native"])?;
            site.apply(&policy)?;
            demand::ask(&wire.near, phases, begin)
        }
    }
}

/// What is there where no throttle is: a program that lets everything pass, so that the driver works alike.
fn pass(wire: &Wire) -> Result<Ebpf> {
    let mut object = kernel::load(64)?;
    let pass = kernel::xdp(&mut object, "pass")?;
    wire.far.enter(|| pass.attach(FAR, XdpMode::Driver))?.context("attach to the far end")?;
    Ok(object)
}
