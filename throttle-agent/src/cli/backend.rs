//! `throttle backend`: who answers for a service, and how it is asked whether it is well.

use std::fmt::Write as _;

use clap::{Args, Subcommand, builder::NonEmptyStringValueParser};
use throttle_agent::{
    api::wire::{BackendPatch, BackendView, Backends, paths},
    policy::{Backend, BackendChange, Endpoint, Probe, units::Span},
};

use super::{
    Context, client::under, entries, failure::Failure, output::Paint, table::Table, writing, writing::Writing,
};

/// What to do with backends.
#[derive(Debug, Subcommand)]
pub(crate) enum BackendCommand {
    /// Create a backend, or change what is named of it
    #[command(after_help = SET_EXAMPLES)]
    Set(Set),
    /// List backends
    List,
    /// Show everything about one backend, defaults included
    Show {
        /// Its name
        #[arg(value_parser = NonEmptyStringValueParser::new())]
        name: String,
    },
    /// Remove a backend: it is not asked any more, and has no breaker
    #[command(visible_alias = "delete")]
    Remove {
        /// Its name
        #[arg(value_parser = NonEmptyStringValueParser::new())]
        name: String,
        #[command(flatten)]
        writing: Writing,
    },
}

const SET_EXAMPLES: &str = "\
Examples:
  throttle backend set web-1 --service web --address 10.0.0.5:80 --probe http:/healthz
  throttle backend set upstreams --service web --address dns:web.internal:80
  throttle backend set listed --service web --address file:/etc/throttle/web.backends
  throttle backend set resolver --service dns --address 127.0.0.1:53 --probe push
  throttle backend set web-1 --interval 1s";

/// A backend as its flags say it. What no flag names stays as it is, or is the default in a new backend.
#[derive(Debug, Args)]
pub(crate) struct Set {
    /// Its name
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    name: String,
    /// The service that it answers for; a new backend needs it
    #[arg(long, value_name = "NAME")]
    service: Option<String>,
    /// Where it is: ADDRESS:PORT, dns:NAME:PORT or file:PATH; a new backend needs it
    #[arg(long, value_name = "PLACE")]
    address: Option<Endpoint>,
    /// How it is asked: tcp, http:PATH, grpc:SERVICE, or push where it beats by itself; by default tcp
    #[arg(long, value_name = "PROBE")]
    probe: Option<Probe>,
    /// How often it is asked, or beats; by default 200ms
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    interval: Option<Span>,
    /// How long it has for an answer; by default four times its service's objective, up to 5s
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    timeout: Option<Span>,
    /// Four times its service's objective, up to 5s, for an answer again
    #[arg(long, conflicts_with = "timeout")]
    no_timeout: bool,
    #[command(flatten)]
    writing: Writing,
}

impl BackendCommand {
    /// Does it.
    pub(crate) fn obey(self, context: &Context) -> Result<(), Failure> {
        match self {
            Self::Set(Set { name, service, address, probe, interval, timeout, no_timeout, writing }) => {
                let change = BackendChange { service, address, probe, interval, timeout, no_timeout };
                let request = BackendPatch { change, write: writing.wire() };
                writing::tell(context, &context.client()?.patch(&under(paths::BACKENDS, &name), &request)?)
            }
            Self::List => entries::list(
                context,
                paths::BACKENDS,
                |all: Backends| all.backends,
                "no backend is named; `throttle backend set --help` shows how",
                render,
            ),
            Self::Show { name } => entries::show::<BackendView>(context, paths::BACKENDS, &name, describe),
            Self::Remove { name, writing } => entries::remove(context, paths::BACKENDS, &name, &writing),
        }
    }
}

fn render(backends: &[Backend], paint: Paint) -> String {
    let mut table = Table::new(&["BACKEND", "SERVICE", "ADDRESS", "PROBE", ">INTERVAL", ">TIMEOUT"]);
    for backend in backends {
        table.row([
            backend.name.as_str().into(),
            backend.service.as_str().into(),
            backend.address.to_string().into(),
            backend.probe.to_string().into(),
            backend.interval.to_string().into(),
            backend.timeout.map(|timeout| timeout.to_string()).unwrap_or_default().into(),
        ]);
    }
    table.render(paint)
}

/// Everything about one backend, what the policy leaves to defaults included.
fn describe(view: &BackendView) -> String {
    let BackendView { backend, timeout_milliseconds } = view;
    let mut text = String::new();
    let mut line = |name: &str, value: String| _ = writeln!(text, "{name:<9} {value}");
    line("backend", backend.name.clone());
    line("service", backend.service.clone());
    line(
        "address",
        match &backend.address {
            Endpoint::Static(address) => address.to_string(),
            Endpoint::Dns { name, port } => format!("every address of {name}, port {port}"),
            Endpoint::File(path) => format!("every one that {} has", path.display()),
        },
    );
    line(
        "probe",
        match &backend.probe {
            Probe::Tcp => "tcp: it accepts connections".to_owned(),
            Probe::Http { path } => format!("http: GET {path} is answered with a status of 2xx"),
            Probe::Grpc { service } if service.is_empty() => "grpc: the server says that it serves".to_owned(),
            Probe::Grpc { service } => format!("grpc: the server says that {service} serves"),
            Probe::Push => "push: it sends heartbeats by itself".to_owned(),
        },
    );
    line("interval", backend.interval.to_string());
    if let Some(timeout) = timeout_milliseconds {
        let default = if backend.timeout.is_none() { " (by default)" } else { "" };
        line("timeout", format!("{}{default}", Span::of_millis(*timeout)));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backend(name: &str, address: &str, probe: &str) -> Backend {
        Backend { probe: probe.parse().unwrap(), ..Backend::new(name, "web", address.parse().unwrap()) }
    }

    #[test]
    fn a_list_shows_backends_as_they_are_written() {
        let slow = Backend { timeout: Some(Span::of_seconds(2)), ..backend("web-2", "[2001:db8::5]:80", "http:/up") };
        let backends = [backend("web-1", "dns:web.internal:80", "tcp"), slow];
        let expected = "\
BACKEND  SERVICE  ADDRESS              PROBE     INTERVAL  TIMEOUT
web-1    web      dns:web.internal:80  tcp          200ms
web-2    web      [2001:db8::5]:80     http:/up     200ms       2s
";
        assert_eq!(render(&backends, Paint::PLAIN), expected);
    }

    #[test]
    fn one_is_shown_with_its_defaults() {
        let backend = backend("web-1", "dns:web.internal:80", "grpc:shop.Cart");
        let view = BackendView { backend, timeout_milliseconds: Some(1_000) };
        let expected = "\
backend   web-1
service   web
address   every address of web.internal, port 80
probe     grpc: the server says that shop.Cart serves
interval  200ms
timeout   1s (by default)
";
        assert_eq!(describe(&view), expected);
    }
}
