//! How many connections a limit lets in.

use super::{eventually, host::Host};
use anyhow::{Result, ensure};
use std::{io::ErrorKind, net::SocketAddr};
use throttle_tests::{
    needs_root,
    wire::{FAR_V4, FAR_V6},
};

#[test]
fn as_many_connections_are_open_as_a_source_may_have_and_a_closed_one_makes_room() -> Result<()> {
    needs_root!();
    for (listen, to) in [(FAR_V4, FAR_V4), (FAR_V6, FAR_V6), ("::", FAR_V4), ("::", FAR_V6)] {
        let mut host = Host::new()?;
        let listener = host.listen(listen)?;
        let port = listener.local_addr()?.port();
        host.limit(port, &["concurrent = 3\naction = \"reject\"\nsources = 300"])?;
        let to = SocketAddr::new(super::address(to), port);
        let mut clients = Vec::new();
        for open in 1..=3 {
            clients.push(host.connect(None, to)??);
            listener.accept()?;
            eventually(&open, || Ok(host.open(0)))?;
        }
        let refused = host.connect(None, to)?.err().map(|error| error.kind());
        ensure!(refused == Some(ErrorKind::ConnectionRefused), "the fourth connection to {to} met {refused:?}");
        ensure!(host.open(0) == 3 && host.connections()? == 3);
        clients.pop();
        eventually(&2, || Ok(host.open(0)))?;
        clients.push(host.connect(None, to)??);
        eventually(&3, || Ok(host.open(0)))?;
        drop(clients);
        eventually(&0, || Ok(host.open(0)))?;
        eventually(&0, || host.connections())?;
    }
    Ok(())
}
