//! Somebody on the way who records UDP datagrams, and says them again.

use crate::netns::Namespace;
use anyhow::{Context, Result, ensure};
use rustix::net::{RecvFlags, recv, sockopt};
use std::{
    ffi::CString,
    io,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
    time::{Duration, Instant},
};

/// `ETH_P_IP`, include/uapi/linux/if_ether.h
const IPV4: u16 = 0x0800;
const UDP: u8 = 17;
/// Bytes of a UDP header.
const HEADER: usize = 8;

/// Listens to what passes by an interface.
#[derive(Debug)]
pub struct Recorder {
    socket: OwnedFd,
}

impl Recorder {
    /// At an interface of a host: what it receives there.
    pub fn at(host: &Namespace, interface: &str) -> Result<Self> {
        let name = CString::new(interface)?;
        let socket = host.enter(|| listen(&name))?.with_context(|| format!("record at {interface}"))?;
        sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, Some(Duration::from_millis(50)))?;
        Ok(Self { socket })
    }

    /// The payloads of IPv4 datagrams to a UDP port that pass by within a time. What the kernel has cut into fragments is
    /// left out.
    pub fn record(&self, port: u16, time: Duration) -> Result<Vec<Vec<u8>>> {
        let (start, mut recorded, mut packet) = (Instant::now(), Vec::new(), vec![0; 65_536]);
        while start.elapsed() < time {
            match recv(&self.socket, &mut packet, RecvFlags::empty()) {
                Ok((length, _)) => recorded.extend(payload(&packet[..length], port).map(<[u8]>::to_vec)),
                Err(error) if error == rustix::io::Errno::AGAIN => {}
                Err(error) => return Err(error).context("record a packet"),
            }
        }
        Ok(recorded)
    }
}

fn listen(interface: &CString) -> Result<OwnedFd> {
    // SAFETY: the name lives through the call.
    let index = unsafe { libc::if_nametoindex(interface.as_ptr()) };
    ensure!(index != 0, "there is no such interface");
    let kind = libc::SOCK_DGRAM | libc::SOCK_CLOEXEC;
    // SAFETY: plain numbers; the result is checked.
    let socket = unsafe { libc::socket(libc::AF_PACKET, kind, i32::from(IPV4.to_be())) };
    ensure!(socket >= 0, "open a packet socket: {}", io::Error::last_os_error());
    // SAFETY: the descriptor was just opened, and nobody else has it.
    let socket = unsafe { OwnedFd::from_raw_fd(socket) };
    // SAFETY: zero is a valid value of every field.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = IPV4.to_be();
    address.sll_ifindex = index.cast_signed();
    let length = size_of::<libc::sockaddr_ll>() as u32;
    // SAFETY: the address lives through the call, and the length is its own.
    let bound = unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length) };
    ensure!(bound == 0, "bind a packet socket: {}", io::Error::last_os_error());
    Ok(socket)
}

/// What a whole IPv4 datagram to a UDP port carries.
fn payload(packet: &[u8], port: u16) -> Option<&[u8]> {
    let begin = usize::from(packet.first()? & 0xf) * 4;
    let is_fragment = u16::from_be_bytes([*packet.get(6)?, *packet.get(7)?]) & 0x3fff != 0;
    let udp = packet.get(begin..).filter(|_| !is_fragment && packet[9] == UDP)?;
    let to = u16::from_be_bytes([*udp.get(2)?, *udp.get(3)?]);
    let length = u16::from_be_bytes([*udp.get(4)?, *udp.get(5)?]);
    udp.get(HEADER..usize::from(length)).filter(|_| to == port)
}
