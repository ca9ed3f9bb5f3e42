//! Waiting for interfaces to come, go or change.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
};

use rustix::net::{RecvFlags, SocketFlags, recv};
use tokio::io::unix::AsyncFd;

use super::{
    events::readable,
    netlink::{ROUTE, socket},
};

/// `RTMGRP_LINK` and `RTMGRP_TC` of include/uapi/linux/rtnetlink.h.
const LINKS: u32 = 1;
const FILTERS: u32 = 8;

/// Hears of every change to an interface, and to the filters on one, of the network namespace that it was made in.
pub struct Watch(AsyncFd<OwnedFd>);

impl Watch {
    /// Starts listening. Needs a tokio runtime.
    pub fn new() -> io::Result<Self> {
        Ok(Self(readable(socket(ROUTE, LINKS | FILTERS, SocketFlags::NONBLOCK)?)?))
    }

    /// Returns after a change, or several; may be dropped at any time without missing one. What changed is to be looked
    /// up: the kernel drops messages when they come too fast, but says that it did, which counts as a change.
    pub async fn changed(&mut self) -> io::Result<()> {
        let mut changed = false;
        loop {
            let mut ready = self.0.readable().await?;
            loop {
                match recv(ready.get_inner().as_fd(), &mut [0u8; 1][..], RecvFlags::TRUNC) {
                    Ok(_) | Err(rustix::io::Errno::NOBUFS) => changed = true,
                    Err(rustix::io::Errno::WOULDBLOCK) => break,
                    Err(rustix::io::Errno::INTR) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            ready.clear_ready();
            if changed {
                return Ok(());
            }
        }
    }
}
