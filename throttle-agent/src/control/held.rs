//! The source's connections that a limit counts, as an explanation lists them.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use throttle_common::packet::Family;

use crate::{
    api::wire::{ConnectionsWalk, OpenConnection},
    datapath::{Held, explain::Weighed, opener},
};

/// Connections that are listed of each limit.
const LISTED: usize = 10;

/// What a limit knows of the connections of a source, of all that hold places at `now`; `None` where it counts none.
pub(super) fn walk(it: &Weighed, source: IpAddr, family: Family, held: &[Held], now: u64) -> Option<ConnectionsWalk> {
    let under_way = it.under_way?;
    let itself = IpNet::from(source);
    let prefix = if it.record.is_shared() { itself.prefix_len() } else { it.record.region(family).prefix };
    let whose = IpNet::new(source, prefix).unwrap_or(itself);
    let own = held.iter().filter(|(ends, _)| whose.contains(&opener(ends)));
    let mut counted: Vec<_> = own
        .filter_map(|(ends, connection)| {
            let place = connection.hold(it.number)?;
            Some(OpenConnection {
                peer: SocketAddr::new(opener(ends), ends.source_port),
                port: ends.destination_port,
                counted_seconds: now.saturating_sub(connection.began()) as f64 / 1e9,
                shared: place.in_aggregate(),
            })
        })
        .collect();
    counted.sort_by(|one, other| other.counted_seconds.total_cmp(&one.counted_seconds).then(one.peer.cmp(&other.peer)));
    let left_out = counted.len().saturating_sub(LISTED) as u64;
    counted.truncate(LISTED);
    Some(ConnectionsWalk { under_way: under_way.handshakes, doubted: under_way.doubted, listed: counted, left_out })
}
