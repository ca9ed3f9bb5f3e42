//! How services are shown: one a line for all, and everything about one.

use std::fmt::Write as _;

use throttle_agent::{
    api::wire::ServiceView,
    policy::{ControlKind, Health, Mode, PortRange, Protocol, Service, Speaks, Word as _},
};

use super::{
    output::Paint,
    quantity::span,
    table::{Cell, Table, Tone},
};

/// Services, one a line.
pub(crate) fn render(services: &[Service], paint: Paint) -> String {
    let mut table = Table::new(&["SERVICE", "PROTOCOL", "PORTS", "DESTINATION", "COUNTED BY", "CONTROL", "HEALTH"]);
    for service in services {
        let (control, health) = match service.health {
            None => ("", "".into()),
            Some(Health { control, mode: Mode::Observe, .. }) => {
                (control.name(), Cell::new(Mode::Observe.name(), Tone::Warning))
            }
            Some(Health { control, mode, .. }) => (control.name(), mode.name().into()),
        };
        table.row([
            service.name.as_str().into(),
            service.protocol.name().into(),
            ports(service).into(),
            service.destination.map(|prefix| prefix.to_string()).unwrap_or_default().into(),
            if service.forwarded { "packets" } else { "" }.into(),
            control.into(),
            health,
        ]);
    }
    table.render(paint)
}

fn ports(service: &Service) -> String {
    service.ports.iter().map(PortRange::to_string).collect::<Vec<_>>().join(", ")
}

/// Everything about one service, what the policy leaves to defaults included.
pub(crate) fn describe(view: &ServiceView) -> String {
    let ServiceView { service, limits, backends, .. } = view;
    let mut text = String::new();
    let mut line = |name: &str, value: String| _ = writeln!(text, "{name:<11} {value}");
    line("service", service.name.clone());
    let speaks = service.protocol.name();
    line(
        "protocol",
        if service.ports.is_empty() { speaks.into() } else { format!("{speaks}, ports {}", ports(service)) },
    );
    line("to", service.destination.map_or_else(|| "every address of the host".to_owned(), |prefix| prefix.to_string()));
    if service.forwarded {
        let after = span(std::time::Duration::from_secs(service.idle_seconds()));
        line("connections", format!("counted by their packets, forgotten after {after} of silence"));
    } else if service.protocol == Protocol::Tcp {
        line("connections", "counted by this host's sockets".to_owned());
    }
    if let Some(http) = &service.http {
        let body =
            if http.body.is_empty() { "no body".to_owned() } else { format!("a body of {} bytes", http.body.len()) };
        let headers = http.headers.iter().map(|(name, value)| format!("{name}: {value}"));
        let carries = std::iter::once(body).chain(headers).collect::<Vec<_>>().join(", ");
        line("http", format!("`reject` answers new connections with 429 and Retry-After: {carries}"));
    }
    let none = |names: &[String]| if names.is_empty() { "none".to_owned() } else { names.join(", ") };
    line("limits", none(limits));
    line("backends", none(backends));
    match service.health {
        None => line("health", "no limit follows it; `throttle service set --help` shows how one would".to_owned()),
        Some(health) => follow(view, health, &mut line),
    }
    text
}

/// How the limits follow.
fn follow(view: &ServiceView, health: Health, line: &mut impl FnMut(&str, String)) {
    line(
        "health",
        match health.mode {
            Mode::Observe => "observe: what limits would do is shown, and not done".to_owned(),
            Mode::Enforce => "enforce: limits follow it".to_owned(),
        },
    );
    let control = match health.control {
        ControlKind::Latency => "latency says how many connections may be open",
        ControlKind::Rate => "only the clock of its rates moves",
        ControlKind::Aimd => "heartbeats say how many connections may be open",
        ControlKind::Fixed => "neither the connections nor the rates move; only the breaker acts",
    };
    line("control", format!("{}: {control}", health.control.name()));
    line("objective", format!("{} to the first byte", health.objective));
    let default = if health.speaks.is_none() { " (by default)" } else { "" };
    let measured = if view.speaks == Speaks::Opaque { "; no time to the first byte is measured" } else { "" };
    line("speaks", format!("{}{default}{measured}", view.speaks.name()));
    if health.control.moves_window() {
        let most = health.most.into_iter().chain(view.connections).min();
        let most = most.map_or_else(|| "as many as its limits allow".to_owned(), |most| most.to_string());
        line("window", format!("{} to {most} connections", health.least));
    }
    let breaker = if health.breaker { "keeps new connections from what fails" } else { "none" };
    line("breaker", breaker.to_owned());
    if health.close_oldest {
        line("kept", "connections above the window are closed, the oldest first".to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(protocol: Protocol, ports: &[&str]) -> Service {
        Service::new("web", protocol, ports.iter().map(|port| port.parse().unwrap()).collect())
    }

    #[test]
    fn a_list_shows_ports_as_they_are_written() {
        let services = [service(Protocol::Tcp, &["80", "8000-8080"]), service(Protocol::Icmp, &[])];
        let expected = "\
SERVICE  PROTOCOL  PORTS
web      tcp       80, 8000-8080
web      icmp
";
        assert_eq!(render(&services, Paint::PLAIN), expected);
    }

    #[test]
    fn one_that_follows_its_health_is_shown_with_its_defaults() {
        let followed = Service { health: Some(Health::default()), ..service(Protocol::Tcp, &["80"]) };
        let expected = "\
SERVICE  PROTOCOL  PORTS  CONTROL  HEALTH
web      tcp       80     latency  observe
";
        assert_eq!(render(std::slice::from_ref(&followed), Paint::PLAIN), expected);
        let view = ServiceView {
            speaks: followed.speaks(),
            service: followed,
            connections: Some(1000),
            limits: vec!["open".to_owned()],
            backends: Vec::new(),
        };
        let expected = "\
service     web
protocol    tcp, ports 80
to          every address of the host
connections counted by this host's sockets
limits      open
backends    none
health      observe: what limits would do is shown, and not done
control     latency: latency says how many connections may be open
objective   250ms to the first byte
speaks      http (by default)
window      2 to 1000 connections
breaker     keeps new connections from what fails
";
        assert_eq!(describe(&view), expected);
    }

    #[test]
    fn one_that_does_not_is_told_so() {
        let service = service(Protocol::Udp, &["53"]);
        let speaks = service.speaks();
        let view = ServiceView { service, speaks, connections: None, limits: Vec::new(), backends: Vec::new() };
        let text = describe(&view);
        assert!(text.contains("health      no limit follows it") && !text.contains("breaker"), "{text}");
    }
}
