//! Connections that a tenant is guaranteed: a place is kept for each, and lent to nobody.

use super::{address, eventually, host::Host};
use anyhow::{Context as _, Result, ensure};
use std::{
    io::ErrorKind,
    net::{SocketAddr, TcpListener, TcpStream},
};
use throttle_agent::datapath::Drift;
use throttle_tests::{
    clients::connect_from,
    needs_root,
    wire::{FAR_V4, NEAR, NEAR_V4},
};

/// The other tenant.
const OTHER: &str = "10.98.0.7";

/// Both tenants have two places for sure, and four at most, of six that the service has.
fn policy(port: u16) -> String {
    let tenants = format!(
        "\n[[tenant]]\nname = \"acme\"\nsources = [\"{NEAR_V4}\"]\n[[tenant]]\nname = \"globex\"\nsources = [\"{OTHER}\"]\n"
    );
    let own = "per = \"tenant\"\nconcurrent = 4\nguarantee = 2\naction = \"reject\"";
    super::policy(port, &[own, "per = \"service\"\nconcurrent = 6\naction = \"reject\""]) + &tenants
}

/// The places that are taken: guaranteed, tenants' others, and those of the service that nobody is guaranteed.
fn places(host: &Host) -> [u64; 3] {
    ["open-0:guarantee", "open-0", "open-1"].map(|name| host.open_under(name))
}

type Connection = (TcpStream, TcpStream);

struct Server {
    host: Host,
    listener: TcpListener,
    to: SocketAddr,
}

impl Server {
    fn new() -> Result<Self> {
        let host = Host::new()?;
        host.wire.near.ip(&["address", "add", &format!("{OTHER}/16"), "dev", NEAR])?;
        let listener = host.listen(FAR_V4)?;
        let to = SocketAddr::new(address(FAR_V4), listener.local_addr()?.port());
        Ok(Self { host, listener, to })
    }

    fn connect(&self, from: &str) -> Result<Connection> {
        Ok((
            self.host.connect(Some(from), self.to)?.with_context(|| format!("{from} has room"))?,
            self.listener.accept()?.0,
        ))
    }

    fn refuses(&self, from: &str) -> Result<()> {
        let met = self.host.connect(Some(from), self.to)?.err().map(|error| error.kind());
        ensure!(met == Some(ErrorKind::ConnectionRefused), "{from} met {met:?} instead of a refusal");
        Ok(())
    }

    fn holds(&self, expected: [u64; 3]) -> Result<()> {
        eventually(&expected, || Ok(places(&self.host)))
    }
}

#[test]
fn what_a_tenant_is_guaranteed_is_there_for_it_and_lent_to_nobody() -> Result<()> {
    needs_root!();
    let mut server = Server::new()?;
    server.host.put(&policy(server.to.port()))?;
    let mut first: Vec<Connection> = (0..4).map(|_| server.connect(NEAR_V4)).collect::<Result<_>>()?;
    server.holds([2, 2, 2])?;
    server.refuses(NEAR_V4)?;
    // The rest of the service is full; what the other is guaranteed is not.
    let mut second: Vec<Connection> = (0..2).map(|_| server.connect(OTHER)).collect::<Result<_>>()?;
    server.holds([4, 2, 2])?;
    server.refuses(OTHER)?;
    // A place of the rest goes to whoever comes first.
    first.pop();
    server.holds([4, 1, 1])?;
    second.push(server.connect(OTHER)?);
    server.holds([4, 2, 2])?;
    // One of a guarantee does not.
    second.remove(0);
    server.holds([3, 2, 2])?;
    server.refuses(NEAR_V4)?;
    second.push(server.connect(OTHER)?);
    server.holds([4, 2, 2])?;
    ensure!(server.host.reconcile()? == Drift::default(), "the sockets say the same");
    server.holds([4, 2, 2])?;
    drop((first, second));
    server.holds([0, 0, 0])?;
    eventually(&0, || server.host.connections())
}

#[test]
fn connections_that_are_older_than_the_limit_have_the_guarantee_first() -> Result<()> {
    needs_root!();
    let mut server = Server::new()?;
    let open: Vec<Connection> = (0..3).map(|_| server.connect(NEAR_V4)).collect::<Result<_>>()?;
    server.host.put(&policy(server.to.port()))?;
    server.holds([2, 1, 1])?;
    ensure!(server.host.reconcile()? == Drift::default(), "nothing moves once all have their places");
    let more = [server.connect(OTHER)?, server.connect(NEAR_V4)?];
    server.holds([3, 2, 2])?;
    // Without the guarantee all have places of the limit itself.
    server.host.put(&policy(server.to.port()).replace("guarantee = 2\n", ""))?;
    eventually(&[5, 5], || Ok(["open-0", "open-1"].map(|name| server.host.open_under(name))))?;
    drop((open, more));
    eventually(&[0, 0], || Ok(["open-0", "open-1"].map(|name| server.host.open_under(name))))
}

#[test]
fn a_connection_of_this_host_to_itself_is_its_own_tenants_whoever_sent_the_last_packet() -> Result<()> {
    needs_root!();
    let mut server = Server::new()?;
    let tenants = format!(
        "\n[[tenant]]\nname = \"acme\"\nsources = [\"{FAR_V4}\"]\n[[tenant]]\nname = \"globex\"\nsources = [\"{NEAR_V4}\"]\n"
    );
    server.host.put(&(super::policy(server.to.port(), &["per = \"tenant\"\nconcurrent = 4"]) + &tenants))?;
    let counted = |server: &Server, expected| eventually(&expected, || Ok(server.host.open(0)));
    let _others = server.connect(NEAR_V4)?;
    counted(&server, 1)?;
    let _own = server.host.wire.far.enter(|| connect_from(address(FAR_V4), server.to))??;
    counted(&server, 2)
}
