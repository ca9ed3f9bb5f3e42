//! A client without a kernel: its segments are frames of ours, and what it gets for them is read off the wire.

use crate::{
    frames::Frame,
    wire::{FAR, NEAR, NEAR_MAC, Wire, mac},
};
use anyhow::{Context as _, Result, ensure};
use rustix::net::{RecvFlags, SendFlags, recv, send, sockopt};
use std::{
    collections::BTreeMap,
    ffi::CString,
    io,
    net::SocketAddr,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
    time::{Duration, Instant},
};
use throttle_common::packet::{Packet, parse_bytes, tcp};

/// The number of its SYNs.
pub const FIRST: u32 = 1000;
/// How long it waits for what has to come.
const PATIENCE: Duration = Duration::from_mins(1);
/// How long for one frame.
const SOON: Duration = Duration::from_millis(50);

/// A source on the near end of the cable that is no host, and what it talks to.
#[derive(Debug)]
pub struct Stranger {
    socket: OwnedFd,
    source: String,
    to: SocketAddr,
}

impl Stranger {
    /// Has the far host send what is for the source to the near one, whose kernel passes it over.
    pub fn new(wire: &Wire, source: &str, to: SocketAddr) -> Result<Self> {
        wire.far.ip(&["neighbour", "replace", source, "lladdr", &mac(NEAR_MAC), "nud", "permanent", "dev", FAR])?;
        let socket = wire.near.enter(listen)??;
        Ok(Self { socket, source: source.to_owned(), to })
    }

    /// Sends a segment with its number, and the one that it acknowledges.
    pub fn says(&self, port: u16, [sequence, acknowledged]: [u32; 2], flags: u8, payload: usize) -> Result<()> {
        self.send(&self.frame(port, [sequence, acknowledged], flags).payload(payload).bytes())
    }

    /// A segment between the two, to be changed and sent.
    pub fn frame(&self, port: u16, [sequence, acknowledged]: [u32; 2], flags: u8) -> Frame {
        let frame = Frame::from(&self.source).to(&self.to.ip().to_string()).tcp(port, self.to.port(), flags);
        frame.sequence(sequence).acknowledging(acknowledged)
    }

    /// Sends a frame.
    pub fn send(&self, frame: &[u8]) -> Result<()> {
        let sent = send(&self.socket, frame, SendFlags::empty()).context("send a frame")?;
        ensure!(sent == frame.len(), "{sent} bytes of a frame were sent");
        Ok(())
    }

    /// Asks for connections from these ports, and gives the numbers of the SYN-ACKs when all have come.
    pub fn asks(&self, ports: &(impl Iterator<Item = u16> + Clone)) -> Result<BTreeMap<u16, u32>> {
        self.asks_by(FIRST, ports)
    }

    /// The same by SYNs of another number.
    pub fn asks_by(&self, number: u32, ports: &(impl Iterator<Item = u16> + Clone)) -> Result<BTreeMap<u16, u32>> {
        ports.clone().try_for_each(|port| self.says(port, [number, 0], tcp::SYN, 0))?;
        self.hears_of(ports, tcp::SYN | tcp::ACK)
    }

    /// Waits for segments to all of these ports with these flags of SYN, ACK and RST, and gives their numbers.
    pub fn hears_of(&self, ports: &(impl Iterator<Item = u16> + Clone), flags: u8) -> Result<BTreeMap<u16, u32>> {
        const OF: u8 = tcp::SYN | tcp::ACK | tcp::RST;
        self.awaits(ports, |packet, number| (packet.flags & OF == flags).then_some(number))
    }

    /// Waits for data to all of these ports, and gives the numbers that acknowledge it.
    pub fn is_served(&self, ports: &(impl Iterator<Item = u16> + Clone)) -> Result<BTreeMap<u16, u32>> {
        self.awaits(ports, |packet, number| (packet.payload != 0).then_some(number.wrapping_add(packet.payload.into())))
    }

    /// Waits for a segment to each of these ports of which something is to be said, by its packet and its number.
    fn awaits(
        &self,
        ports: &(impl Iterator<Item = u16> + Clone),
        of: impl Fn(&Packet, u32) -> Option<u32>,
    ) -> Result<BTreeMap<u16, u32>> {
        let (mut heard, start) = (BTreeMap::new(), Instant::now());
        while !ports.clone().all(|port| heard.contains_key(&port)) {
            ensure!(start.elapsed() < PATIENCE, "only {} ports were answered", heard.len());
            let Some((packet, number)) = self.hears()? else { continue };
            heard.extend(of(&packet, number).map(|said| (packet.destination_port, said)));
        }
        Ok(heard)
    }

    /// Completes a handshake, and says no more.
    pub fn completes(&self, port: u16, answer: u32) -> Result<()> {
        self.says(port, [FIRST + 1, answer.wrapping_add(1)], tcp::ACK, 0)
    }

    /// The same, by a segment that the stack takes for damaged.
    pub fn completes_damaged(&self, port: u16, answer: u32) -> Result<()> {
        self.send(&damaged(self.frame(port, [FIRST + 1, answer.wrapping_add(1)], tcp::ACK).bytes()))
    }

    /// The next segment and its number, if the next frame is one.
    fn hears(&self) -> Result<Option<(Packet, u32)>> {
        let mut frame = [0; 2048];
        let length = match recv(&self.socket, &mut frame, RecvFlags::empty()) {
            Ok((_, length)) => length,
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => return Ok(None),
            Err(error) => return Err(error).context("receive a frame"),
        };
        let Ok(packet) = parse_bytes(&frame[..length.min(frame.len())]) else { return Ok(None) };
        if packet.source_port != self.to.port() {
            return Ok(None);
        }
        let number = frame[usize::from(packet.transport) + 4..].first_chunk().expect("the header was read");
        Ok(Some((packet, u32::from_be_bytes(*number))))
    }
}

/// A segment without payload or options, with another checksum.
pub fn damaged(mut frame: Vec<u8>) -> Vec<u8> {
    // Before the urgent pointer.
    let at = frame.len() - 4;
    frame[at] ^= 0x55;
    frame
}

/// A packet socket on the near end.
fn listen() -> Result<OwnedFd> {
    let name = CString::new(NEAR).expect("an interface name has no NUL");
    // SAFETY: plain numbers; the result is checked.
    let socket = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    ensure!(socket >= 0, "open a packet socket: {}", io::Error::last_os_error());
    // SAFETY: the descriptor was just opened, and nobody else has it.
    let socket = unsafe { OwnedFd::from_raw_fd(socket) };
    // SAFETY: zero is a valid value of every field.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
    // SAFETY: the name lives through the call.
    address.sll_ifindex = unsafe { libc::if_nametoindex(name.as_ptr()) }.cast_signed();
    let length = size_of_val(&address) as libc::socklen_t;
    // SAFETY: the address lives through the call and has the length given.
    let bound = unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length) };
    ensure!(bound == 0, "bind a packet socket to {NEAR}: {}", io::Error::last_os_error());
    sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, Some(SOON))?;
    sockopt::set_socket_recv_buffer_size_force(&socket, 1 << 24)?;
    Ok(socket)
}
