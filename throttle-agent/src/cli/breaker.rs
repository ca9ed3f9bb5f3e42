//! `throttle breaker`: holds the breakers of services and backends, whatever is seen of them.

use clap::{Args, Subcommand};
use throttle_agent::api::wire::{BreakerRequest, Envelope, HeldBreakerView, paths};

use super::{Context, client::under, failure::Failure, output};

/// What to do with which breaker.
#[derive(Debug, Subcommand)]
#[command(after_help = "\
A breaker keeps new connections from what fails, and lets a few try when some time has passed; open connections go on.
`throttle health` shows all of them.

Examples:
  throttle breaker open web/web-1
  throttle breaker close web
  throttle breaker auto web/web-1")]
pub(crate) enum BreakerCommand {
    /// Let no new connection pass, until `auto` or `close`
    Open(Whose),
    /// Let all new connections pass, whatever fails, until `auto` or `open`
    Close(Whose),
    /// Leave it to itself again
    Auto(Whose),
}

/// Whose breaker.
#[derive(Debug, Args)]
pub(crate) struct Whose {
    /// A service, or one of its backends in all its places
    #[arg(value_name = "SERVICE[/BACKEND]", value_parser = named)]
    whose: (String, Option<String>),
}

impl BreakerCommand {
    /// Does it.
    pub(crate) fn obey(self, context: &Context) -> Result<(), Failure> {
        let (Whose { whose: (service, backend) }, open) = match self {
            Self::Open(whose) => (whose, Some(true)),
            Self::Close(whose) => (whose, Some(false)),
            Self::Auto(whose) => (whose, None),
        };
        let path = under(paths::BREAKERS, &service);
        let path = backend.map_or(path.clone(), |backend| under(&path, &backend));
        let client = context.client()?;
        let answer = match open {
            Some(open) => client.put(&path, &BreakerRequest { open })?,
            None => client.delete(&path)?,
        };
        if context.output.json {
            return output::data(&answer.text());
        }
        let held = answer.parse::<Envelope<HeldBreakerView>>()?.body;
        output::data(&format!("{}\n", sentence(&held)))?;
        held.warnings.iter().for_each(|warning| context.output.warn(warning));
        Ok(())
    }
}

fn named(text: &str) -> Result<(String, Option<String>), String> {
    let (service, backend) = text.split_once('/').map_or((text, None), |(service, backend)| (service, Some(backend)));
    if service.is_empty() || backend.is_some_and(|backend| backend.is_empty() || backend.contains('/')) {
        return Err("write a service, or a service and one of its backends, as in web/web-1".to_owned());
    }
    Ok((service.to_owned(), backend.map(str::to_owned)))
}

fn sentence(view: &HeldBreakerView) -> String {
    let whose = view.backend.as_ref().map_or(view.service.clone(), |backend| format!("{}/{backend}", view.service));
    let meets = meets(view);
    match view.state.as_str() {
        "open" => format!("{whose}: no new connection {meets} passes until `throttle breaker auto {whose}`"),
        "closed" => format!("{whose}: every new connection {meets} passes until `throttle breaker auto {whose}`"),
        _ => format!("{whose}: the breaker is left to itself"),
    }
}

/// Which connections meet a breaker.
fn meets(view: &HeldBreakerView) -> String {
    let addresses: Vec<_> = view.addresses.iter().map(ToString::to_string).collect();
    match (&view.backend, addresses.is_empty()) {
        (None, _) => "that comes in for it".to_owned(),
        (Some(_), true) => "that comes in for an address of it, none of which is known yet,".to_owned(),
        (Some(_), false) => {
            let dialled = if view.dialled { ", or that a process under --cgroup dials there," } else { "" };
            format!("that comes in for {}{dialled}", addresses.join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_breaker_is_named_by_its_service_or_by_a_backend_of_it() {
        assert_eq!(named("web"), Ok(("web".to_owned(), None)));
        assert_eq!(named("web/web-1"), Ok(("web".to_owned(), Some("web-1".to_owned()))));
        for wrong in ["", "/", "web/", "/web-1", "web/a/b"] {
            assert!(named(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn says_what_holds_and_how_it_ends() {
        let view = |state: &str| HeldBreakerView {
            service: "web".to_owned(),
            backend: Some("web-1".to_owned()),
            state: state.to_owned(),
            addresses: vec!["192.0.2.1:80".parse().unwrap()],
            dialled: false,
            warnings: Vec::new(),
        };
        assert_eq!(
            sentence(&view("open")),
            "web/web-1: no new connection that comes in for 192.0.2.1:80 passes until `throttle breaker auto web/web-1`"
        );
        assert_eq!(
            sentence(&HeldBreakerView { dialled: true, ..view("closed") }),
            "web/web-1: every new connection that comes in for 192.0.2.1:80, or that a process under --cgroup dials there, \
             passes until `throttle breaker auto web/web-1`"
        );
        assert_eq!(
            sentence(&HeldBreakerView { backend: None, addresses: Vec::new(), ..view("open") }),
            "web: no new connection that comes in for it passes until `throttle breaker auto web`"
        );
        assert_eq!(sentence(&view("auto")), "web/web-1: the breaker is left to itself");
    }
}
