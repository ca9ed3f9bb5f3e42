//! `throttle run`: the agent itself, in the foreground.

use std::{net::SocketAddr, path::PathBuf};

use clap::{Args, ValueEnum};
use throttle_agent::{
    agent::{self, Webhook},
    datapath,
    policy::Diagnostics,
    stamp::{self, Seeds},
    tls::{FileFault, Identity},
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
  throttle run --interface eth0 --webhook https://oncall.internal:8443/throttle
  throttle run --interface eth0 --heartbeats 10.0.0.1:9852 --heartbeats-certificate throttle.crt \\
    --heartbeats-key throttle.key --heartbeats-authority authority.crt
  throttle run --interface eth0 --stamp blue --stamp-listen 10.0.0.1:7946 --stamp-key /etc/throttle/blue.key \
    --stamp-seed 10.0.0.2:7946")]
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
    #[command(flatten)]
    heartbeats: Heartbeats,
    /// Tell this URL of backends that are suspect, die or come back, of breakers, and of services that need more workers: by
    /// POST, as JSON; may be given several times. http or https
    #[arg(long = "webhook", value_name = "URL")]
    webhooks: Vec<Webhook>,
    /// Who must have signed for webhooks of https, as PEM: one of these, instead of those that the system trusts
    #[arg(long, value_name = "FILE", requires = "webhooks")]
    webhook_authority: Option<PathBuf>,
    #[command(flatten)]
    stamp: Stamp,
    /// Let the kernel programs write debugging output to the agent's log; it costs time for every packet
    #[arg(long)]
    debug: bool,
    /// Keep every privilege after the start, instead of only those that are needed
    #[arg(long)]
    keep_privileges: bool,
}

/// Heartbeats over TLS: all of these, or none.
#[derive(Debug, Args)]
struct Heartbeats {
    /// Take heartbeats here too, over TLS, from clients whose certificate names the backend that they beat for; e.g.
    /// 10.0.0.1:9852. The files are read anew when they change
    #[arg(long = "heartbeats", id = "heartbeats", value_name = "ADDRESS:PORT")]
    #[arg(requires_all = ["heartbeats-certificate", "heartbeats-key", "heartbeats-authority"])]
    address: Option<SocketAddr>,
    /// The certificate that clients of --heartbeats are shown, as PEM, with those that lead to their authority
    #[arg(
        long = "heartbeats-certificate",
        id = "heartbeats-certificate",
        value_name = "FILE",
        requires = "heartbeats"
    )]
    certificate: Option<PathBuf>,
    /// The private key of that certificate, as PEM
    #[arg(long = "heartbeats-key", id = "heartbeats-key", value_name = "FILE", requires = "heartbeats")]
    key: Option<PathBuf>,
    /// Who must have signed the certificates of clients of --heartbeats, as PEM: one of these
    #[arg(long = "heartbeats-authority", id = "heartbeats-authority", value_name = "FILE", requires = "heartbeats")]
    authority: Option<PathBuf>,
}

/// The part in a stamp: the first three of these, or none.
#[derive(Debug, Args)]
struct Stamp {
    /// Take part in this stamp: tell its other hosts how this one stands, and hear how they do. `throttle stamp status` shows
    /// it
    #[arg(long = "stamp", id = "stamp", value_name = "NAME", value_parser = stamp_name)]
    #[arg(requires_all = ["stamp-listen", "stamp-key"])]
    name: Option<String>,
    /// Where to hear other hosts of the stamp, by UDP; e.g. 10.0.0.1:7946
    #[arg(long = "stamp-listen", id = "stamp-listen", value_name = "ADDRESS:PORT", requires = "stamp")]
    listen: Option<SocketAddr>,
    /// Where they reach it, if that is another address than the one of --stamp-listen
    #[arg(long = "stamp-advertise", id = "stamp-advertise", value_name = "ADDRESS:PORT", requires = "stamp")]
    advertise: Option<SocketAddr>,
    /// A host to ask for the others; may be given several times. At least one host must name another
    #[arg(long = "stamp-seed", id = "stamp-seed", value_name = "HOST:PORT", requires = "stamp")]
    #[arg(value_parser = stamp::seed)]
    seeds: Vec<String>,
    /// A file with such hosts, one on each line. It is read anew every second
    #[arg(long = "stamp-seeds", id = "stamp-seeds", value_name = "FILE", requires = "stamp")]
    seeds_file: Option<PathBuf>,
    /// The keys that the hosts of the stamp share, as `throttle stamp key new` makes them. The file is read anew when it
    /// changes
    #[arg(long = "stamp-key", id = "stamp-key", value_name = "FILE", requires = "stamp")]
    key: Option<PathBuf>,
    /// What this host is called in the stamp, unlike any other; by default its host name
    #[arg(long = "stamp-host", id = "stamp-host", value_name = "NAME", requires = "stamp", value_parser = stamp_name)]
    host: Option<String>,
}

impl Stamp {
    fn options(self) -> Result<Option<stamp::Options>, Failure> {
        let (Some(stamp), Some(listen), Some(keys)) = (self.name, self.listen, self.key) else { return Ok(None) };
        let advertise = self.advertise.unwrap_or(listen);
        if advertise.ip().is_unspecified() || advertise.port() == 0 {
            return Err(Failure::Usage(format!(
                "others cannot reach this host at {advertise}; name an address of it and a port with --stamp-advertise"
            )));
        }
        let named = || rustix::system::uname().nodename().to_string_lossy().into_owned();
        let host = self.host.unwrap_or_else(named);
        if !stamp::is_name(&host) {
            return Err(Failure::Usage(format!(
                "the host name {host:?} is no name in a stamp; give one with --stamp-host"
            )));
        }
        let seeds = Seeds { named: self.seeds, file: self.seeds_file };
        Ok(Some(stamp::Options { stamp, host, listen, advertise, seeds, keys }))
    }
}

fn stamp_name(text: &str) -> Result<String, String> {
    let refusal = "write 1 to 64 letters, digits, dots, dashes and underscores";
    stamp::is_name(text).then(|| text.to_owned()).ok_or_else(|| refusal.to_owned())
}

impl Heartbeats {
    fn options(self) -> Option<agent::Heartbeats> {
        let (address, certificate) = (self.address?, self.certificate?);
        let (key, authority) = (self.key?, self.authority?);
        Some(agent::Heartbeats { address, identity: Identity { certificate, key, authority } })
    }
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
        if self.webhook_authority.is_some() && !self.webhooks.iter().any(Webhook::is_encrypted) {
            let refusal = "--webhook-authority is for webhooks of https, and none is; leave it out, or write https://";
            return Err(Failure::Usage(refusal.to_owned()));
        }
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
            heartbeats: self.heartbeats.options(),
            webhooks: self.webhooks,
            webhook_authority: self.webhook_authority,
            stamp: self.stamp.options()?,
            debug: self.debug,
            drop_privileges: !self.keep_privileges,
        };
        agent::run(&options).map_err(|error| failure(error, file))
    }
}

/// How a run failed that was told to use this policy.
fn failure(error: anyhow::Error, policy: Option<String>) -> Failure {
    let error = match error.downcast::<FileFault>() {
        Ok(FileFault { file, fault }) => {
            let faults = Diagnostics(vec![fault.at("")]);
            return Failure::File { title: "The file is refused", faults, file: file.display().to_string() };
        }
        Err(error) => error,
    };
    match (error.downcast::<Diagnostics>(), policy) {
        (Ok(faults), Some(file)) => Failure::File { title: policy::REFUSED, faults, file },
        (Ok(faults), None) => Failure::Failed(faults.into()),
        (Err(error), _) => Failure::Failed(error),
    }
}
