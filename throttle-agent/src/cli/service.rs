//! `throttle service`: names for protocol, ports and destination, so that limits can be theirs.

use clap::{Args, Subcommand, builder::NonEmptyStringValueParser};
use throttle_agent::{
    api::wire::{Envelope, ServiceRequest, Services, paths},
    policy::{PortRange, Prefix, Protocol, Service, Word as _, units::Span},
};

use super::{
    Context,
    client::{query, under},
    failure::Failure,
    output::{self, Paint},
    table::Table,
    words::word,
    writing,
    writing::Writing,
};

/// What to do with services.
#[derive(Debug, Subcommand)]
pub(crate) enum ServiceCommand {
    /// Create a service, or replace it as a whole
    #[command(after_help = "Examples:\n  throttle service set web --protocol tcp --port 80 --port 443\n  \
                            throttle service set dns --protocol udp --port 53 --destination 192.0.2.53\n  \
                            throttle service set ping --protocol icmp\n  \
                            throttle service set app --protocol tcp --port 443 --forwarded --idle-after 1h")]
    Set(Set),
    /// List services
    List,
    /// Delete a service; no limit may name it
    Delete {
        /// Its name
        #[arg(value_parser = NonEmptyStringValueParser::new())]
        name: String,
        #[command(flatten)]
        writing: Writing,
    },
}

/// A service as its flags say it.
#[derive(Debug, Args)]
pub(crate) struct Set {
    /// Its name
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    name: String,
    /// What it speaks; `icmp` covers both families and has no ports
    #[arg(long, value_parser = word::<Protocol>())]
    protocol: Protocol,
    /// A port or a range of ports, e.g. 80 or 8000-8080; may be given several times
    #[arg(long = "port", value_name = "PORT", value_delimiter = ',', allow_hyphen_values = true)]
    ports: Vec<PortRange>,
    /// Only packets to this address or prefix of the host
    #[arg(long, value_name = "PREFIX")]
    destination: Option<Prefix>,
    /// Count its open connections by their packets: they may end on another host that this one forwards to
    #[arg(long)]
    forwarded: bool,
    /// After how long a forwarded connection that nothing is heard of is forgotten; 15m without this
    #[arg(long, value_name = "TIME", requires = "forwarded")]
    idle_after: Option<Span>,
    #[command(flatten)]
    writing: Writing,
}

impl ServiceCommand {
    /// Does it.
    pub(crate) fn obey(self, context: &Context) -> Result<(), Failure> {
        match self {
            Self::Set(set) => {
                let path = under(paths::SERVICES, &set.name);
                let request = ServiceRequest { write: set.writing.wire(), service: set.service()? };
                writing::tell(context, &context.client()?.put(&path, &request)?)
            }
            Self::List => {
                let answer = context.client()?.get(paths::SERVICES)?;
                if context.output.json {
                    return output::data(&answer.text());
                }
                let services = answer.parse::<Envelope<Services>>()?.body.services;
                if services.is_empty() {
                    output::say("no service is named; `throttle service set --help` shows how");
                    return Ok(());
                }
                output::data(&render(&services, context.output.paint))
            }
            Self::Delete { name, writing } => {
                let path = query(&under(paths::SERVICES, &name), &writing.wire())?;
                writing::tell(context, &context.client()?.delete(&path)?)
            }
        }
    }
}

impl Set {
    fn service(self) -> Result<Service, Failure> {
        let Self { name, protocol, ports, destination, forwarded, idle_after, .. } = self;
        match (protocol, ports.is_empty()) {
            (Protocol::Icmp, false) => Err(Failure::Usage("--port: ICMP has no ports; leave it out".into())),
            (Protocol::Tcp | Protocol::Udp, true) => {
                Err(Failure::Usage(format!("a {} service needs --port, e.g. --port 80", protocol.name())))
            }
            _ => Ok(Service { destination, forwarded, idle_after, ..Service::new(name, protocol, ports) }),
        }
    }
}

fn render(services: &[Service], paint: Paint) -> String {
    let mut table = Table::new(&["SERVICE", "PROTOCOL", "PORTS", "DESTINATION", "COUNTED BY"]);
    for service in services {
        let ports: Vec<_> = service.ports.iter().map(PortRange::to_string).collect();
        table.row([
            service.name.as_str().into(),
            service.protocol.name().into(),
            ports.join(", ").into(),
            service.destination.map(|prefix| prefix.to_string()).unwrap_or_default().into(),
            if service.forwarded { "packets" } else { "" }.into(),
        ]);
    }
    table.render(paint)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(protocol: Protocol, ports: &[&str]) -> Set {
        Set {
            name: "web".to_owned(),
            protocol,
            ports: ports.iter().map(|port| port.parse().unwrap()).collect(),
            destination: None,
            forwarded: false,
            idle_after: None,
            writing: Writing::default(),
        }
    }

    #[test]
    fn ports_go_with_the_protocols_that_have_them() {
        assert!(matches!(set(Protocol::Tcp, &[]).service(), Err(Failure::Usage(text)) if text.contains("--port")));
        assert!(matches!(set(Protocol::Icmp, &["1"]).service(), Err(Failure::Usage(_))));
        assert!(set(Protocol::Icmp, &[]).service().is_ok());
    }

    #[test]
    fn a_list_shows_ports_as_they_are_written() {
        let services = [set(Protocol::Tcp, &["80", "8000-8080"]), set(Protocol::Icmp, &[])];
        let services = services.map(|set| set.service().unwrap());
        let expected = "\
SERVICE  PROTOCOL  PORTS
web      tcp       80, 8000-8080
web      icmp
";
        assert_eq!(render(&services, Paint::PLAIN), expected);
    }
}
