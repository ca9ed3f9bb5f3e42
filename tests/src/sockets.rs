//! The TCP sockets of a host as the kernel lists them (`sock_diag(7)`), asked without a program in between, so that they can
//! be held against a count thousands of times while both change.

use crate::netns::Namespace;
use anyhow::{Context, Result, bail};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind,
    netlink::{SOCK_DIAG, SocketAddrNetlink},
    recv, send, socket_with,
};
use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::OwnedFd,
};

/// `SOCK_DIAG_BY_FAMILY`, and `NLM_F_REQUEST | NLM_F_DUMP`.
const BY_FAMILY: u16 = 20;
const DUMP: u16 = 0x301;
/// `NLMSG_ERROR` and `NLMSG_DONE`.
const ERROR: u16 = 2;
const DONE: u16 = 3;
/// `struct nlmsghdr`, and `struct inet_diag_req_v2` behind it.
const HEADER: usize = 16;
const REQUEST: usize = 56;
/// States of include/net/tcp_states.h that a connection is in from its handshake to its end: what waits in TIME-WAIT is no
/// socket any more, and a request is none yet.
const OPEN: u32 = 1 << 1 | 1 << 4 | 1 << 5 | 1 << 8 | 1 << 9 | 1 << 11;
/// What `idiag_timer` says of the rest of a socket in TIME-WAIT, which the kernel lists in the state that it was in.
const TIME_WAIT: u8 = 3;

/// A question that can be asked again and again, from any thread.
#[derive(Debug)]
pub struct Sockets(OwnedFd);

impl Sockets {
    /// Those of a host.
    pub fn of(host: &Namespace) -> Result<Self> {
        let made = host.enter(|| -> std::io::Result<OwnedFd> {
            let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, Some(SOCK_DIAG))?;
            bind(&socket, &SocketAddrNetlink::new(0, 0))?;
            Ok(socket)
        })?;
        Ok(Self(made.context("open a socket to ask for sockets")?))
    }

    /// The other ends of all connections that are open at a port.
    pub fn open(&self, port: u16) -> Result<BTreeSet<SocketAddr>> {
        let mut open = BTreeSet::new();
        for family in [AddressFamily::INET, AddressFamily::INET6] {
            self.list(family.as_raw() as u8, port, &mut open)?;
        }
        Ok(open)
    }

    fn list(&self, family: u8, port: u16, open: &mut BTreeSet<SocketAddr>) -> Result<()> {
        let mut request = [0; HEADER + REQUEST];
        request[..4].copy_from_slice(&((HEADER + REQUEST) as u32).to_ne_bytes());
        request[4..6].copy_from_slice(&BY_FAMILY.to_ne_bytes());
        request[6..8].copy_from_slice(&DUMP.to_ne_bytes());
        request[HEADER..HEADER + 2].copy_from_slice(&[family, libc::IPPROTO_TCP as u8]);
        request[HEADER + 4..HEADER + 8].copy_from_slice(&OPEN.to_ne_bytes());
        request[HEADER + 8..HEADER + 10].copy_from_slice(&port.to_be_bytes());
        send(&self.0, &request, SendFlags::empty()).context("ask for sockets")?;
        let mut buffer = vec![0; 1 << 16];
        loop {
            let (length, _) = recv(&self.0, &mut buffer[..], RecvFlags::empty()).context("hear of sockets")?;
            let mut rest = &buffer[..length];
            while let Some(head) = rest.first_chunk::<HEADER>() {
                let length = u32::from_ne_bytes([head[0], head[1], head[2], head[3]]) as usize;
                let body = rest.get(HEADER..length).context("a message that ends early")?;
                match u16::from_ne_bytes([head[4], head[5]]) {
                    DONE => return Ok(()),
                    ERROR => bail!("the kernel lists no sockets"),
                    _ => open.extend(peer(body).filter(|_| body[2] != TIME_WAIT)),
                }
                rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
            }
        }
    }
}

/// The other end in a `struct inet_diag_msg`.
fn peer(body: &[u8]) -> Option<SocketAddr> {
    let (port, address) = (body.get(6..8)?, body.get(24..40)?);
    let address: [u8; 16] = address.try_into().ok()?;
    let address = if i32::from(body[0]) == libc::AF_INET {
        IpAddr::from(Ipv4Addr::new(address[0], address[1], address[2], address[3]))
    } else {
        IpAddr::from(Ipv6Addr::from(address)).to_canonical()
    };
    Some(SocketAddr::new(address, u16::from_be_bytes([port[0], port[1]])))
}
