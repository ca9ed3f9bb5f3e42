//! A throttled host that forwards: to a server behind it that clients know by its own address, or by the router's.

use super::{
    PATIENCE, address,
    host::{Host, sockets},
};
use anyhow::{Context as _, Result};
use std::{
    io::{self, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    process::Command,
};
use throttle_agent::datapath::Egress;
use throttle_tests::{
    machine,
    netns::Namespace,
    wire::{FAR_V4, FAR_V6},
};

const INNER_V4: &str = "10.99.0.1";
const SERVER_V4: &str = "10.99.0.2";
const INNER_V6: &str = "fd99::1";
const SERVER_V6: &str = "fd99::2";
/// The server's own port.
const PORT: u16 = 8080;
/// The port of the router that leads to it.
const OUTER_PORT: u16 = 80;

/// Longer than a test leaves a connection alone, even where an emulated CPU checks programs for many seconds.
const IDLE_AFTER: &str = "10m";

/// How clients reach the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// By its own address.
    Route,
    /// The same over IPv6.
    RouteV6,
    /// By the router's address, which the router translates.
    Translate,
}

/// A throttled host with a server behind it.
pub(crate) struct Router {
    // In the order in which they must go.
    pub(crate) listener: TcpListener,
    pub(crate) host: Host,
    pub(crate) server: Namespace,
    /// Where clients connect to.
    pub(crate) to: SocketAddr,
}

impl Router {
    /// Makes one. `None`, said aloud, where this machine cannot translate addresses.
    pub(crate) fn new(egress: Egress, way: Way) -> Result<Option<Self>> {
        Self::of(Host::seeing_by(egress)?, way)
    }

    /// Puts a server behind a host.
    pub(crate) fn of(host: Host, way: Way) -> Result<Option<Self>> {
        let server = Namespace::new("server")?;
        host.wire.complete_checksums()?;
        let far = &host.wire.far;
        machine::run(Command::new("ip").args(["link", "add", "inner", "netns", far.name(), "type", "veth"]).args([
            "peer",
            "name",
            "outer",
            "netns",
            server.name(),
        ]))?;
        for (namespace, interface, v4, v6) in
            [(far, "inner", INNER_V4, INNER_V6), (&server, "outer", SERVER_V4, SERVER_V6)]
        {
            namespace.ip(&["address", "add", &format!("{v4}/24"), "dev", interface])?;
            namespace.ip(&["address", "add", &format!("{v6}/64"), "dev", interface])?;
            namespace.ip(&["link", "set", interface, "up"])?;
        }
        for (namespace, v4, v6) in [(&host.wire.near, FAR_V4, FAR_V6), (&server, INNER_V4, INNER_V6)] {
            namespace.ip(&["route", "add", "default", "via", v4])?;
            namespace.ip(&["-6", "route", "add", "default", "via", v6])?;
        }
        far.enter(|| -> io::Result<()> {
            std::fs::write("/proc/sys/net/ipv4/ip_forward", "1")?;
            std::fs::write("/proc/sys/net/ipv6/conf/all/forwarding", "1")
        })?
        .context("forward")?;
        if way == Way::Translate && !translate(far)? {
            return Ok(None);
        }
        let any = SocketAddr::new(address("::"), PORT);
        let listener = server.enter(|| TcpListener::bind(any))?.context("listen on the server")?;
        let to = match way {
            Way::Route => SocketAddr::new(address(SERVER_V4), PORT),
            Way::RouteV6 => SocketAddr::new(address(SERVER_V6), PORT),
            Way::Translate => SocketAddr::new(address(FAR_V4), OUTER_PORT),
        };
        Ok(Some(Self { listener, host, server, to }))
    }

    /// Limits the connections to the server to so many of a source.
    pub(crate) fn limit(&mut self, connections: u32) -> Result<()> {
        let policy = self.policy(connections);
        self.host.put(&policy)
    }

    /// The policy that does.
    pub(crate) fn policy(&self, connections: u32) -> String {
        let limit = format!("concurrent = {connections}\naction = \"reject\"\nsources = 300");
        let policy = super::policy(self.to.port(), &[&limit]);
        policy.replacen("ports =", &format!("forwarded = true\nidle-after = \"{IDLE_AFTER}\"\nports ="), 1)
    }

    /// A connection through the router, with both its ends.
    pub(crate) fn connect(&self) -> Result<(TcpStream, TcpStream)> {
        let client = self.host.connect(None, self.to)?.context("connect through the router")?;
        let mut server = self.listener.accept().context("accept what was forwarded")?.0;
        server.write_all(b"!")?;
        client.set_read_timeout(Some(PATIENCE))?;
        Ok((client, server))
    }

    /// Has the server's packets go astray, or find their way again.
    pub(crate) fn mislead(&self, astray: bool) -> Result<()> {
        for inner in [INNER_V4, INNER_V6] {
            let end: &[&str] = if astray { &["lladdr", "02:00:00:00:00:99", "nud", "permanent"] } else { &[] };
            let act = if astray { "replace" } else { "delete" };
            self.server.ip(&[&["neighbour", act, inner, "dev", "outer"], end].concat())?;
        }
        Ok(())
    }

    /// How many connections the server says are open.
    pub(crate) fn served(&self) -> Result<u64> {
        sockets(&self.server, PORT, None)
    }
}

fn translate(router: &Namespace) -> Result<bool> {
    let rules = format!(
        "table ip nat {{\n\
           chain prerouting {{ type nat hook prerouting priority -100; tcp dport {OUTER_PORT} dnat to {SERVER_V4}:{PORT}; }}\n\
           chain postrouting {{ type nat hook postrouting priority 100; oifname inner masquerade; }}\n\
         }}"
    );
    router.filter(&rules)
}
