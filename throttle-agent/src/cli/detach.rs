//! `throttle detach`: the end of all throttling. It works on the pins alone, so that it works when nothing else does.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use clap::Args;
use serde::Serialize;
use throttle_agent::{
    api::wire::{Envelope, paths},
    datapath::{Detached, LINGER, claim, detach_all, detach_interface},
};

use super::{Context, Pins, failure::Failure, output};

/// What to detach.
#[derive(Debug, Args)]
#[command(after_help = "\
Programs leave their interfaces, and buckets, counters and blocks in the kernel go with them; the policy stays in the
store. A running agent would attach again, so it must end first.

Examples:
  systemctl stop throttle && throttle detach
  throttle detach --interface eth1     # the others, and all state, stay
  throttle detach --force              # beside an agent that is stuck")]
pub(crate) struct Detach {
    /// Only from this interface; buckets, counters and blocks stay
    #[arg(long = "interface", short, value_name = "IF")]
    interfaces: Vec<String>,
    /// Detach although an agent runs
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    pins: Pins,
}

#[derive(Debug, Serialize)]
struct Report<'a> {
    interfaces: &'a [String],
    maps: usize,
    left: &'a [PathBuf],
}

impl Detach {
    /// Detaches.
    pub(crate) fn obey(self, context: &Context) -> Result<(), Failure> {
        let pins = &self.pins.pin_dir;
        let claim = match claim(pins, Duration::ZERO)? {
            // One that answers will not end in a moment; one that was killed may have its pins for that long.
            None if !self.force && context.client()?.get(paths::HEALTHZ).is_err() => claim(pins, LINGER)?,
            claim => claim,
        };
        if claim.is_none() {
            let pins = pins.display();
            if !self.force {
                return Err(Failure::Failed(anyhow::anyhow!(
                    "an agent runs with {pins} and would attach again: end it first (`systemctl stop throttle`), or \
                     detach beside it with --force"
                )));
            }
            context.output.warn(&format!("the agent with {pins} still runs, and may attach again"));
        }
        let detached = self.detach(&self.pins.pin_dir)?;
        if !detached.left.is_empty() {
            let left: Vec<_> = detached.left.iter().map(|path| path.display().to_string()).collect();
            context.output.warn(&format!("what is none of ours stays: {}", left.join(", ")));
        }
        if context.output.json {
            let report = Report { interfaces: &detached.interfaces, maps: detached.maps, left: &detached.left };
            return output::json(&Envelope::new(report));
        }
        output::data(&render(&detached))
    }

    fn detach(&self, pins: &Path) -> Result<Detached, Failure> {
        if self.interfaces.is_empty() {
            return Ok(detach_all(pins)?);
        }
        let (mut detached, mut missing) = (Detached::default(), Vec::new());
        for interface in &self.interfaces {
            let was_there = detach_interface(pins, interface)?;
            if was_there { &mut detached.interfaces } else { &mut missing }.push(interface.clone());
        }
        if missing.is_empty() {
            return Ok(detached);
        }
        let (missing, done) = (missing.join(", "), render(&detached));
        Err(Failure::Failed(anyhow::anyhow!("no program of ours is on {missing}; {}", done.trim_end())))
    }
}

fn render(detached: &Detached) -> String {
    match (detached.interfaces.as_slice(), detached.maps) {
        ([], 0) => "nothing was attached\n".to_owned(),
        ([], maps) => format!("nothing was attached; removed {maps} maps\n"),
        (interfaces, 0) => format!("detached from {}\n", interfaces.join(", ")),
        (interfaces, maps) => format!("detached from {}; removed {maps} maps\n", interfaces.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_taken_away_is_named() {
        let interfaces = vec!["eth0".to_owned(), "eth1".to_owned()];
        let detached = Detached { interfaces, maps: 19, ..Detached::default() };
        assert_eq!(render(&detached), "detached from eth0, eth1; removed 19 maps\n");
        assert_eq!(render(&Detached::default()), "nothing was attached\n");
    }
}
