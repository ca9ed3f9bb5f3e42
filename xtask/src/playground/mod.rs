//! A small network of its own: a server namespace with nginx, client namespaces, and an agent between them.
//!
//! ```text
//!   throttle-play-client1-PID        throttle-play-server-PID
//!     server  10.77.0.11, fd77::11 --- client1 \
//!   throttle-play-client2-PID                   10.77.0.1, fd77::1   nginx on port 80
//!     server  10.77.0.12, fd77::12 --- client2 /
//!                                        ^ the agent's XDP program
//! ```
//!
//! Nothing of the host's network is touched. All of it goes when the [`Playground`] is dropped; what a killed
//! run leaves behind goes when the next one starts.

mod listener;
mod namespace;
mod nginx;
mod scratch;

use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

pub(crate) use namespace::Namespace;
pub(crate) use nginx::Served;

use crate::process::{self, Background};
use crate::setup;
use crate::workspace::Agent;

/// The agent that serves it.
pub(crate) const AGENT: Agent = Agent::Quick;

/// The address of nginx, for every client.
pub(crate) const SERVER: Addresses = addresses(1);

/// How long nginx may take to answer at first.
const PATIENCE: Duration = Duration::from_secs(10);

/// The exit code of a `status` that came through but has something to warn of.
const DEGRADED: i32 = 4;

/// The programs that a playground calls.
pub(crate) const PROGRAMS: &[&str] = &["ethtool", "ip", "nginx", "setpriv"];

/// One host's address in each family.
type Addresses = (Ipv4Addr, Ipv6Addr);

const fn addresses(host: u8) -> Addresses {
    let v6 = 0x10 * (host / 10) as u16 + (host % 10) as u16;
    (Ipv4Addr::new(10, 77, 0, host), Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, v6))
}

/// A namespace that talks to the server, and the addresses it may talk from.
pub(crate) struct Client {
    _listener: OwnedFd,
    pub(crate) namespace: Namespace,
    pub(crate) addresses: Vec<Addresses>,
}

// Dropped in this order: first who uses the network, then the network, then the files.
/// The whole of it; see the module.
pub(crate) struct Playground {
    _nginx: Background,
    pub(crate) clients: Vec<Client>,
    pub(crate) server: Namespace,
    pub(crate) scratch: scratch::Scratch,
}

impl Playground {
    /// Makes one with `clients` client namespaces of `addresses` source addresses each.
    pub(crate) fn new(clients: u8, addresses: u8) -> Result<Self> {
        namespace::sweep()?;
        scratch::sweep()?;
        let scratch = scratch::Scratch::new()?;
        let server = Namespace::new("server")?;
        let clients = (0..clients)
            .map(|index| Client::new(&server, index, 11 + index * addresses, addresses))
            .collect::<Result<_>>()?;
        let nginx = nginx::start(&server, &scratch.folder).context("start nginx in the server's namespace")?;
        Ok(Self { _nginx: nginx, clients, server, scratch })
    }

    /// The server's interfaces, one for each client: where the agent attaches.
    pub(crate) fn interfaces(&self) -> impl Iterator<Item = String> {
        (1..=self.clients.len()).map(|number| format!("client{number}"))
    }

    /// The agent in the server's namespace on all its interfaces, with files of its own; not yet started.
    pub(crate) fn agent(&self) -> Command {
        let mut agent = self.server.command(AGENT.path());
        agent.envs(self.agent_environment()).arg("run");
        for interface in self.interfaces() {
            agent.args(["--interface", &interface]);
        }
        agent
    }

    /// A command of the agent's command line, addressed to this playground's agent.
    pub(crate) fn throttle(&self, words: &str) -> Command {
        let mut throttle = Command::new(AGENT.path());
        throttle.args(words.split_whitespace()).envs(self.agent_environment());
        throttle
    }

    /// The variables that lead to this playground's agent.
    pub(crate) fn agent_environment(&self) -> [(&'static str, PathBuf); 3] {
        let folder = &self.scratch.folder;
        [
            ("THROTTLE_SOCKET", folder.join("api.sock")),
            ("THROTTLE_STATE_DIR", folder.join("state")),
            ("THROTTLE_PIN_DIR", self.scratch.pins().join("throttle")),
        ]
    }

    /// Starts the agent in the background and waits until it answers and enforces.
    pub(crate) fn start_agent(&self) -> Result<Background> {
        let log = self.scratch.folder.join("agent.log");
        let agent = process::spawn(self.agent().stdin(Stdio::null()).stderr(fs::File::create(&log)?))?;
        let agent = Background(agent);
        let status = process::status(self.throttle("status --wait --timeout 10s --json").stdout(Stdio::null()))?;
        if !matches!(status.code(), Some(0 | DEGRADED)) {
            let said = fs::read_to_string(&log).unwrap_or_default();
            bail!("the agent does not answer ({status}); it said:\n{said}");
        }
        Ok(agent)
    }

    /// Every request that nginx has answered so far.
    pub(crate) fn served(&self) -> Result<Vec<Served>> {
        nginx::served(&self.scratch.folder)
    }
}

impl Client {
    fn new(server: &Namespace, index: u8, first_host: u8, count: u8) -> Result<Self> {
        let number = index + 1;
        let interface = format!("client{number}");
        let namespace = Namespace::new(&interface)?;
        let pair = ["link", "add", "name", &interface, "netns", &server.name, "type", "veth"];
        let peer = ["peer", "name", "server", "netns", &namespace.name];
        process::output(Command::new("ip").args(pair).args(peer)).context("make a veth pair")?;
        let listener = listener::listen(&namespace, "server")?;
        let addresses = (first_host..first_host + count).map(addresses).collect();
        let client = Self { _listener: listener, namespace, addresses };

        server.add_addresses(&interface, SERVER)?;
        for &addresses in &client.addresses {
            client.namespace.add_addresses("server", addresses)?;
            server.add_routes(&interface, addresses, None)?;
        }
        client.namespace.add_routes("server", SERVER, Some(client.addresses[0]))?;
        Ok(client)
    }
}

/// Installs and builds what a playground needs, for the command of this name.
pub(crate) fn prepare(command: &str, more_programs: &'static [&'static str]) -> Result<()> {
    setup::root(command, "for network namespaces and XDP")?;
    setup::kernel_toolchain()?;
    setup::Programs::Only(PROGRAMS).install()?;
    setup::Programs::Only(more_programs).install()?;
    AGENT.build().map(drop)
}
