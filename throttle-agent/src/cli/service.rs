//! `throttle service`: names for protocol, ports and destination, so that limits can be theirs, and follow their health.

use clap::{Args, Subcommand, builder::NonEmptyStringValueParser};
use throttle_agent::{
    api::wire::{ServicePatch, ServiceView, Services, paths},
    policy::{HealthChange, PortRange, Prefix, Protocol, ServiceChange, units::Span},
};

use super::{
    Context,
    client::under,
    entries,
    failure::Failure,
    following::Following,
    paging::Paging,
    service_views::{describe, render},
    words::word,
    writing,
    writing::Writing,
};

/// What to do with services.
#[derive(Debug, Subcommand)]
pub(crate) enum ServiceCommand {
    /// Create a service, or change what is named of it
    #[command(after_help = SET_EXAMPLES)]
    Set(Box<Set>),
    /// List services
    List,
    /// Show everything about one service, defaults included
    Show {
        /// Its name
        #[arg(value_parser = NonEmptyStringValueParser::new())]
        name: String,
    },
    /// Delete a service; no limit and no backend may name it
    Delete {
        /// Its name
        #[arg(value_parser = NonEmptyStringValueParser::new())]
        name: String,
        #[command(flatten)]
        writing: Writing,
    },
}

const SET_EXAMPLES: &str = "\
Examples:
  throttle service set web --protocol tcp --port 80 --port 443
  throttle service set dns --protocol udp --port 53 --destination 192.0.2.53
  throttle service set ping --protocol icmp
  throttle service set app --protocol tcp --port 443 --forwarded --idle-after 1h
  throttle service set web --health observe --objective 200ms
  throttle service set dns --health enforce --control rate
  throttle service set web --no-health
  throttle service set web --http --http-body 'Come back later.'";

/// A service as its flags say it. What no flag names stays as it is, or is the default in a new service.
#[derive(Debug, Default, Args)]
pub(crate) struct Set {
    /// Its name
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    name: String,
    /// What it speaks; `icmp` covers both families and has no ports; a new service needs it
    #[arg(long, value_parser = word::<Protocol>())]
    protocol: Option<Protocol>,
    /// A port or a range of ports, e.g. 80 or 8000-8080; may be given several times, and is then all that it has
    #[arg(long = "port", value_name = "PORT", value_delimiter = ',', allow_hyphen_values = true)]
    ports: Vec<PortRange>,
    /// Only packets to this address or prefix of the host
    #[arg(long, value_name = "PREFIX")]
    destination: Option<Prefix>,
    /// Packets to every address of the host again
    #[arg(long, conflicts_with = "destination")]
    any_destination: bool,
    /// Count its open connections by their packets: they may end on another host that this one forwards to
    #[arg(long)]
    forwarded: bool,
    /// Count its open connections by this host's sockets again; the default
    #[arg(long, conflicts_with_all = ["forwarded", "idle_after"])]
    no_forwarded: bool,
    /// After how long a forwarded connection that nothing is heard of is forgotten; 15m without this
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    idle_after: Option<Span>,
    #[command(flatten)]
    paging: Paging,
    #[command(flatten)]
    following: Following,
    #[command(flatten)]
    writing: Writing,
}

impl ServiceCommand {
    /// Does it.
    pub(crate) fn obey(self, context: &Context) -> Result<(), Failure> {
        match self {
            Self::Set(set) => {
                let request = ServicePatch { change: set.change()?, write: set.writing.wire() };
                writing::tell(context, &context.client()?.patch(&under(paths::SERVICES, &set.name), &request)?)
            }
            Self::List => entries::list(
                context,
                paths::SERVICES,
                |all: Services| all.services,
                "no service is named; `throttle service set --help` shows how",
                render,
            ),
            Self::Show { name } => entries::show::<ServiceView>(context, paths::SERVICES, &name, describe),
            Self::Delete { name, writing } => entries::remove(context, paths::SERVICES, &name, &writing),
        }
    }
}

impl Set {
    /// What the flags say.
    fn change(&self) -> Result<ServiceChange, Failure> {
        if self.protocol == Some(Protocol::Icmp) && !self.ports.is_empty() {
            return Err(Failure::Usage("--port: ICMP has no ports; leave it out".into()));
        }
        Ok(ServiceChange {
            protocol: self.protocol,
            ports: (!self.ports.is_empty()).then(|| self.ports.clone()),
            destination: self.destination,
            any_destination: self.any_destination,
            forwarded: match (self.forwarded, self.no_forwarded) {
                (true, _) => Some(true),
                (_, true) => Some(false),
                _ => None,
            },
            idle_after: self.idle_after,
            http: self.paging.change(),
            no_http: self.paging.ends(),
            health: Some(self.following.change()).filter(|change| *change != HealthChange::default()),
            no_health: self.following.ends(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_flag_names_is_not_changed() {
        assert_eq!(Set::default().change().unwrap(), ServiceChange::default());
        let set = Set { no_forwarded: true, ports: vec!["80".parse().unwrap()], ..Set::default() };
        let change = set.change().unwrap();
        assert_eq!((change.forwarded, change.ports), (Some(false), Some(set.ports)));
    }

    #[test]
    fn icmp_has_no_ports() {
        let set = Set { protocol: Some(Protocol::Icmp), ports: vec!["1".parse().unwrap()], ..Set::default() };
        assert!(matches!(set.change(), Err(Failure::Usage(text)) if text.contains("--port")));
    }
}
