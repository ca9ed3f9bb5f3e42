//! `throttle detach`: the end of all throttling. It works on the pins alone, so that it works when nothing else does.

use clap::Args;
use serde::Serialize;
use throttle_agent::{
    api::wire::{Envelope, paths},
    datapath::{Detached, detach_all},
};

use super::{Context, failure::Failure, output};

/// What to detach.
#[derive(Debug, Args)]
#[command(after_help = "\
Programs leave their interfaces, and buckets, counters and blocks in the kernel go with them; the policy stays in the
store. A running agent would attach again, so it must end first.

Examples:
  systemctl stop throttle && throttle detach
  throttle detach --force       # beside an agent that is stuck")]
pub(crate) struct Detach {
    /// Detach although an agent runs
    #[arg(long)]
    force: bool,
}

#[derive(Debug, Serialize)]
struct Report<'a> {
    interfaces: &'a [String],
    maps: usize,
}

impl Detach {
    /// Detaches.
    pub(crate) fn obey(self, context: &Context) -> Result<(), Failure> {
        if context.client()?.get(paths::HEALTHZ).is_ok() {
            let socket = context.global.socket.display();
            if !self.force {
                return Err(Failure::Failed(anyhow::anyhow!(
                    "an agent runs at {socket} and would attach again: end it first (`systemctl stop throttle`), \
                     or detach beside it with --force"
                )));
            }
            context.output.warn(&format!("the agent at {socket} still runs; what it does from now on judges nothing"));
        }
        let detached = detach_all(&context.global.pin_dir)?;
        if context.output.json {
            let report = Report { interfaces: &detached.interfaces, maps: detached.maps };
            return output::json(&Envelope::new(report));
        }
        output::data(&render(&detached))
    }
}

fn render(detached: &Detached) -> String {
    match (detached.interfaces.as_slice(), detached.maps) {
        ([], 0) => "nothing was attached\n".to_owned(),
        ([], maps) => format!("nothing was attached; removed {maps} maps\n"),
        (interfaces, maps) => format!("detached from {}; removed {maps} maps\n", interfaces.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_taken_away_is_named() {
        let detached = Detached { interfaces: vec!["eth0".to_owned(), "eth1".to_owned()], maps: 19 };
        assert_eq!(render(&detached), "detached from eth0, eth1; removed 19 maps\n");
        assert_eq!(render(&Detached::default()), "nothing was attached\n");
    }
}
