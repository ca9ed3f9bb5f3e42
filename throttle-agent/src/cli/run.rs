//! `throttle run`: the agent itself, in the foreground.

use std::{net::SocketAddr, path::PathBuf};

use clap::{Args, ValueEnum};
use throttle_agent::{
    agent::{self, Webhook},
    datapath,
    policy::Diagnostics,
};

use super::{Context, DEFAULT_SETS, Pins, failure::Failure, policy};

/// How to run.
#[derive(Debug, Args)]
#[command(after_help = "\
Nothing is refused until the policy says `mode = \"enforce\"`. The agent may end, by a signal or by accident: its programs
go on enforcing from their pins, and the next agent adopts them. `throttle detach` takes them off.

Examples:
  throttle run --interface eth0
  throttle run --interface eth0 --interface eth1 --policy /etc/throttle/policy.toml --socket-group throttle
  throttle run --interface eth0 --metrics 127.0.0.1:9851
  throttle run --interface eth0 --webhook http://oncall.internal:8080/throttle")]
pub(crate) struct Run {
    /// An interface to throttle; may be given several times. One that is absent is waited for
    #[arg(long = "interface", short, value_name = "IF")]
    interfaces: Vec<String>,
    /// Where to judge packets: in the driver, in the network stack, or in the driver where it can
    #[arg(long, value_enum, default_value_t, value_name = "MODE")]
    mode: Mode,
    /// The policy to put in force if the store has none yet
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// Sets of the table of buckets, 72 bytes each, with room for three sources and a proven one
    #[arg(long, value_name = "N", default_value_t = DEFAULT_SETS, value_parser = clap::value_parser!(u32).range(1..))]
    table_sets: u32,
    /// The group that may use the socket beside root, by name or number
    #[arg(long, value_name = "GROUP")]
    socket_group: Option<String>,
    /// Where policy revisions and blocks are kept
    #[arg(long, env = "THROTTLE_STATE_DIR", default_value = "/var/lib/throttle", value_name = "DIR")]
    #[arg(hide_env_values = true)]
    state_dir: PathBuf,
    #[command(flatten)]
    pins: Pins,
    /// A control group (cgroup2) whose processes find a backend refused at once while its breaker is open, so that a proxy
    /// tries the next; e.g. /sys/fs/cgroup/system.slice/nginx.service
    #[arg(long, value_name = "DIR")]
    cgroup: Option<PathBuf>,
    /// A loopback address that serves /metrics for Prometheus, e.g. 127.0.0.1:9851
    #[arg(long, value_name = "ADDRESS:PORT", value_parser = metrics)]
    metrics: Option<SocketAddr>,
    /// Tell this URL of backends that are suspect, die or come back, of breakers, and of services that need more workers: by
    /// POST, as JSON; may be given several times. Plain http
    #[arg(long = "webhook", value_name = "URL")]
    webhooks: Vec<Webhook>,
    /// Let the kernel programs write debugging output to the agent's log; it costs time for every packet
    #[arg(long)]
    debug: bool,
    /// Keep every privilege after the start, instead of only those that are needed
    #[arg(long)]
    keep_privileges: bool,
}

/// [`datapath::Mode`] as a flag.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Mode {
    /// In the driver where it can, else in the network stack, which `status` keeps saying
    #[default]
    Auto,
    /// In the driver, or not at all
    Native,
    /// In the network stack
    Generic,
}

fn metrics(text: &str) -> Result<SocketAddr, String> {
    agent::metrics_address(text.parse().map_err(|_| "write an address and a port, as in 127.0.0.1:9851".to_owned())?)
}

impl Run {
    /// Runs until it is told to end.
    pub(crate) fn obey(self, context: &Context) -> Result<(), Failure> {
        let file = self.policy.as_ref().map(|file| file.display().to_string());
        let options = agent::Options {
            interfaces: self.interfaces,
            mode: match self.mode {
                Mode::Auto => datapath::Mode::Auto,
                Mode::Native => datapath::Mode::Native,
                Mode::Generic => datapath::Mode::Generic,
            },
            table_sets: self.table_sets,
            socket: context.global.socket.clone(),
            socket_group: self.socket_group,
            state_dir: self.state_dir,
            pin_dir: self.pins.pin_dir,
            policy: self.policy,
            cgroup: self.cgroup,
            metrics: self.metrics,
            webhooks: self.webhooks,
            debug: self.debug,
            drop_privileges: !self.keep_privileges,
        };
        agent::run(&options).map_err(|error| match (error.downcast::<Diagnostics>(), file) {
            (Ok(faults), Some(file)) => Failure::File { title: policy::REFUSED, faults, file },
            (Ok(faults), None) => Failure::Failed(faults.into()),
            (Err(error), _) => Failure::Failed(error),
        })
    }
}
