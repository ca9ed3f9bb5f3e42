//! The TCP sockets of this network namespace, as the kernel lists them (`sock_diag(7)`).

use std::{
    cell::OnceCell,
    collections::{HashMap, HashSet},
    io,
    net::IpAddr,
};

use rustix::net::Protocol;
use throttle_common::{
    packet::Family,
    records::{Address, Ends},
};

use super::{
    connections,
    interfaces::interfaces,
    netlink::{Talk, attributes},
};

/// `NETLINK_SOCK_DIAG`.
const SOCK_DIAG: Option<Protocol> = Some(rustix::net::netlink::SOCK_DIAG);
/// `SOCK_DIAG_BY_FAMILY` of include/uapi/linux/sock_diag.h.
const BY_FAMILY: u16 = 20;
/// `SOCK_DESTROY` of the same.
const DESTROY: u16 = 21;
const TCP: u8 = 6;
/// `AF_INET` and `AF_INET6`.
const V4: u8 = 2;
const V6: u8 = 10;
/// States of include/net/tcp_states.h in which a connection is open: all but SYN-SENT, SYN-RECV, TIME-WAIT, CLOSE and
/// LISTEN.
const OPEN: u32 = 1 << 1 | 1 << 4 | 1 << 5 | 1 << 8 | 1 << 9 | 1 << 11;
/// The state of a socket that waits for connections.
const LISTEN: u32 = 1 << 10;
/// The state of one that its SYN has opened (TCP fast open), and of a request, which is no socket yet.
const SYN_RECEIVED: u8 = 3;
/// `struct inet_diag_msg`, and behind it the attribute `INET_DIAG_SHUTDOWN`, which only a socket has.
const MESSAGE: usize = 72;
const SHUTDOWN: u16 = 8;
/// `INET_DIAG_CGROUP_ID`.
const GROUP: u16 = 21;
/// What `idiag_timer` says of what is left of a socket in TIME-WAIT, which is no socket any more.
const TIME_WAIT: u8 = 3;
/// `struct inet_diag_sockid` within both messages.
const ID: usize = 48;
/// The interface within that, and what tells the socket from any other.
const DEVICE: usize = 36;
const COOKIE: usize = 40;
/// `::ffff:0:0/96`: IPv4 on an IPv6 socket.
const MAPPED: u128 = 0xffff;

/// The number of the interface that a socket is bound to, as those of link-local addresses are; 0 where it is to none.
type Device = u32;

/// `idiag_rqueue` and `idiag_wqueue` of `struct inet_diag_msg`: of a socket that waits for connections how many wait to be
/// accepted, and how many may.
const QUEUE: usize = 56;
const ROOM: usize = 60;

/// A socket that waits for connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listener {
    /// At which address; unspecified for any of its family, and of IPv6 often for all of IPv4 too.
    pub address: IpAddr,
    /// At which port.
    pub port: u16,
    /// Connections that are complete and wait to be accepted.
    pub waiting: u32,
    /// How many may; one more is let in by the kernel before it drops.
    pub room: u32,
    /// The number of the control group of who listens, where the kernel says it.
    pub group: Option<u64>,
}

/// A handshake that is not complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handshake {
    /// The address that it is to.
    pub address: IpAddr,
    /// The port.
    pub port: u16,
    /// Whether its SYN-ACK was sent again.
    pub sent_again: bool,
}

/// The sockets of this network namespace that wait for TCP connections, each with how many wait.
pub fn listeners() -> io::Result<Vec<Listener>> {
    Kernel::new()?.list(LISTEN, listener)
}

fn listener(answer: &[u8]) -> Option<Listener> {
    let (ends, _) = read(answer)?;
    let number = |at: usize| Some(u32::from_ne_bytes(answer.get(at..at + 4)?.try_into().ok()?));
    let address = connections::own(&ends);
    let group = attributes(answer.get(MESSAGE..)?).find(|&(kind, _)| kind == GROUP);
    let group = group.and_then(|(_, number)| number.try_into().ok().map(u64::from_ne_bytes));
    Some(Listener { address, port: ends.destination_port, waiting: number(QUEUE)?, room: number(ROOM)?, group })
}

/// The handshakes with sockets of this network namespace that are not complete.
pub fn handshakes() -> io::Result<Vec<Handshake>> {
    Kernel::new()?.list(1 << SYN_RECEIVED, |answer| {
        let (ends, _) = read(answer)?;
        let &[_, _, _, sent_again, ..] = answer else { return None };
        Some(Handshake { address: connections::own(&ends), port: ends.destination_port, sent_again: sent_again > 0 })
    })
}

/// The sockets that there were at a time.
pub(super) struct Sockets {
    /// Every open connection, by its ends as packets to this host name them, whoever opened it.
    open: HashMap<Ends, Device>,
    /// The ports at which this host waits for connections.
    pub(super) listening: HashSet<u16>,
    /// Where the kernel is asked for single ones.
    kernel: Kernel,
}

impl Sockets {
    /// Lists them.
    pub(super) fn list() -> io::Result<Self> {
        let kernel = Kernel::new()?;
        let open = kernel.list(OPEN, read)?.into_iter().collect();
        let listening = kernel.list(LISTEN, read)?.into_iter().map(|(ends, _)| ends.destination_port).collect();
        Ok(Self { open, listening, kernel })
    }

    /// Every open connection.
    pub(super) fn open(&self) -> impl Iterator<Item = &Ends> {
        self.open.keys()
    }

    /// Whether it was listed.
    pub(super) fn contains(&self, ends: &Ends) -> bool {
        self.open.contains_key(ends)
    }

    /// Whether there is an open connection between two ends now, or one that its SYN has opened.
    pub(super) fn is_open(&self, ends: &Ends) -> io::Result<bool> {
        let found = match self.open.get(ends) {
            Some(&device) => self.kernel.ask(ends, device),
            None => self.kernel.find(ends),
        };
        found.map(|found| found.is_some())
    }
}

/// Closes the open connections between these ends, as if each side had been reset. Gives how many it closed, also where it
/// could not go on, and why it could not.
///
/// Each is asked for first: the kernel closes whatever it finds for two ends, and where there is no connection any more that
/// is the listening socket. Only with what tells the socket from any other it closes this one or none.
pub(super) fn close(all: impl IntoIterator<Item = Ends>) -> (usize, io::Result<()>) {
    let mut closed = 0;
    let outcome = Kernel::new().and_then(|kernel| {
        all.into_iter().try_for_each(|ends| {
            closed += usize::from(kernel.close(&ends)?);
            Ok(())
        })
    });
    (closed, outcome)
}

/// Who knows the sockets.
struct Kernel {
    talk: Talk,
    /// Every interface, where it matters.
    devices: OnceCell<Vec<Device>>,
}

impl Kernel {
    fn new() -> io::Result<Self> {
        Ok(Self { talk: Talk::begin(SOCK_DIAG)?, devices: OnceCell::new() })
    }

    /// Every socket in one of the states, as it is read.
    fn list<T>(&self, states: u32, read: fn(&[u8]) -> Option<T>) -> io::Result<Vec<T>> {
        let mut found = Vec::new();
        for family in [V4, V6] {
            let answers = self.talk.dump(BY_FAMILY, &request(family, states, &[0; ID]))?;
            found.extend(answers.iter().filter_map(|answer| read(answer)));
        }
        Ok(found)
    }

    /// The open connection between two ends. The kernel finds one that is bound to an interface only for who names that, and
    /// then any other too.
    fn find(&self, ends: &Ends) -> io::Result<Option<[u8; ID]>> {
        let listed = || interfaces().map(|all| all.into_iter().map(|it| it.index).collect()).unwrap_or_default();
        if let Some(id) = self.ask(ends, 0)? {
            return Ok(Some(id));
        }
        for &device in self.devices.get_or_init(listed) {
            if let Some(id) = self.ask(ends, device)? {
                return Ok(Some(id));
            }
        }
        Ok(None)
    }

    /// Closes the open connection between two ends; `false` where there is none.
    fn close(&self, ends: &Ends) -> io::Result<bool> {
        let Some(id) = self.find(ends)? else { return Ok(false) };
        match self.talk.tell(DESTROY, 0, &request(version(ends), u32::MAX, &id)) {
            Ok(()) => Ok(true),
            // It has closed meanwhile, and what is there now is another.
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESTALE)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The one that is bound to an interface, or to none where that is 0.
    fn ask(&self, ends: &Ends, device: Device) -> io::Result<Option<[u8; ID]>> {
        match self.talk.ask(BY_FAMILY, &request(version(ends), u32::MAX, &id(ends, device))) {
            // Where there is none, the kernel may answer with the listener.
            Ok(answer) => {
                let found = read(&answer).is_some_and(|(found, _)| found == *ends);
                let open = found && answer.get(1).is_some_and(|&state| OPEN >> state & 1 == 1 || is_fast(&answer));
                Ok(answer.get(4..).and_then(|id| id.first_chunk().copied()).filter(|_| open))
            }
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Whether an answer tells of a socket that its SYN has opened and whose handshake is not complete.
fn is_fast(answer: &[u8]) -> bool {
    let is_socket = |attributes_: &[u8]| attributes(attributes_).any(|(kind, _)| kind == SHUTDOWN);
    answer.get(1) == Some(&SYN_RECEIVED) && answer.get(MESSAGE..).is_some_and(is_socket)
}

fn version(ends: &Ends) -> u8 {
    if ends.family == Family::V4 as u8 { V4 } else { V6 }
}

/// `struct inet_diag_req_v2`.
fn request(family: u8, states: u32, id: &[u8; ID]) -> Vec<u8> {
    let head = [family, TCP, 0, 0];
    [&head[..], &states.to_ne_bytes(), id].concat()
}

/// The kernel's own end comes first there.
fn id(ends: &Ends, device: Device) -> [u8; ID] {
    let address = |address: Address| {
        if ends.family == Family::V4 as u8 {
            (address.low << 32).to_be_bytes().into_iter().chain([0; 8]).collect::<Vec<u8>>()
        } else {
            (u128::from(address.high) << 64 | u128::from(address.low)).to_be_bytes().to_vec()
        }
    };
    let mut id = [0; ID];
    id[..2].copy_from_slice(&ends.destination_port.to_be_bytes());
    id[2..4].copy_from_slice(&ends.source_port.to_be_bytes());
    id[4..20].copy_from_slice(&address(ends.destination));
    id[20..36].copy_from_slice(&address(ends.source));
    id[DEVICE..COOKIE].copy_from_slice(&device.to_ne_bytes());
    // Whichever socket it is: `INET_DIAG_NOCOOKIE`.
    id[COOKIE..].fill(0xff);
    id
}

/// The ends and the interface in a `struct inet_diag_msg`, unless it tells of a TIME-WAIT.
fn read(answer: &[u8]) -> Option<(Ends, Device)> {
    let &[family, _, timer, _] = answer.get(..4)? else { return None };
    let id = answer.get(4..4 + ID)?;
    let port = |at: usize| u16::from_be_bytes([id[at], id[at + 1]]);
    let address = |at: usize| u128::from_be_bytes(id[at..at + 16].try_into().expect("sixteen bytes"));
    let (own, peer) = (address(4), address(20));
    let v4 = |address: u32| Address::v4(address);
    let (family, source, destination) = if family == V4 {
        // The first four of the sixteen bytes.
        (Family::V4, v4((peer >> 96) as u32), v4((own >> 96) as u32))
    } else if peer >> 32 == MAPPED {
        (Family::V4, v4(peer as u32), v4(own as u32))
    } else {
        (Family::V6, Address::v6(peer), Address::v6(own))
    };
    let ends = Ends {
        source,
        destination,
        source_port: port(2),
        destination_port: port(0),
        family: family as u8,
        padding: [0; 3],
    };
    let device = u32::from_ne_bytes(id[DEVICE..COOKIE].try_into().expect("four bytes"));
    (timer != TIME_WAIT).then_some((ends, device))
}

#[cfg(test)]
#[path = "sockdiag_tests.rs"]
mod tests;
