//! The link-layer addresses of interfaces: the programs must know which frames are for this host.

use std::os::fd::AsFd;

use anyhow::{Context, Result};
use throttle_common::records::station;

use super::{Datapath, Interface, bpf};

impl Datapath {
    /// Tells the programs the address of an interface that they are on, or are about to be.
    pub(super) fn know_station(&self, device: &Interface) -> Result<()> {
        let Some(address) = &device.address else { return Ok(()) };
        bpf::map_update(self.stations.fd().as_fd(), &device.index.to_ne_bytes(), &station(address).to_ne_bytes())
            .with_context(|| format!("cannot note the address of {}", device.name))
    }
}
