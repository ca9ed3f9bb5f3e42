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

use super::{connections, interfaces::interfaces, netlink::Talk};

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
}

/// The sockets of this network namespace that wait for TCP connections, each with how many wait.
pub fn listeners() -> io::Result<Vec<Listener>> {
    Kernel::new()?.list(LISTEN, listener)
}

fn listener(answer: &[u8]) -> Option<Listener> {
    let (ends, _) = read(answer)?;
    let number = |at: usize| Some(u32::from_ne_bytes(answer.get(at..at + 4)?.try_into().ok()?));
    let address = connections::own(&ends);
    Some(Listener { address, port: ends.destination_port, waiting: number(QUEUE)?, room: number(ROOM)? })
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

    /// Whether there is an open connection between two ends now.
    pub(super) fn is_open(&self, ends: &Ends) -> io::Result<bool> {
        let found = match self.open.get(ends) {
            Some(&device) => self.kernel.ask(ends, device),
            None => self.kernel.find(ends),
        };
        found.map(|found| found.is_some())
    }
}

/// Closes the open connections between these ends, as if each side had been reset; gives how many there were.
///
/// Each is asked for first: the kernel closes whatever it finds for two ends, and where there is no connection any more that
/// is the listening socket. Only with what tells the socket from any other it closes this one or none.
pub(super) fn close(all: impl IntoIterator<Item = Ends>) -> io::Result<usize> {
    let kernel = Kernel::new()?;
    let mut closed = 0;
    for ends in all {
        let Some(id) = kernel.find(&ends)? else { continue };
        match kernel.talk.tell(DESTROY, 0, &request(version(&ends), u32::MAX, &id)) {
            Ok(()) => closed += 1,
            // It has closed meanwhile, and what is there now is another.
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESTALE)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(closed)
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

    /// The one that is bound to an interface, or to none where that is 0.
    fn ask(&self, ends: &Ends, device: Device) -> io::Result<Option<[u8; ID]>> {
        match self.talk.ask(BY_FAMILY, &request(version(ends), u32::MAX, &id(ends, device))) {
            // Where there is none, the kernel may answer with the listener.
            Ok(answer) => {
                let found = read(&answer).is_some_and(|(found, _)| found == *ends);
                let open = found && answer.get(1).is_some_and(|&state| OPEN >> state & 1 == 1);
                Ok(answer.get(4..).and_then(|id| id.first_chunk().copied()).filter(|_| open))
            }
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
            Err(error) => Err(error),
        }
    }
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
mod tests {
    use super::*;
    use std::{
        io::{Read as _, Write as _},
        net::{TcpListener, TcpStream},
    };

    #[test]
    fn a_socket_tells_how_many_wait_to_be_accepted_and_how_many_may() {
        for listen in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(listen) else { continue };
            let here = listener.local_addr().unwrap();
            let own = || *listeners().unwrap().iter().find(|it| it.port == here.port()).unwrap();
            let before = own();
            assert_eq!((before.address, before.waiting), (here.ip(), 0));
            assert!(before.room > 0);
            let clients: Vec<_> = (0..3).map(|_| TcpStream::connect(here).unwrap()).collect();
            assert_eq!(own().waiting, 3);
            let accepted = listener.accept().unwrap();
            assert_eq!(own().waiting, 2);
            drop((clients, accepted));
        }
    }

    #[test]
    fn the_connection_that_is_meant_is_closed_and_never_the_listener() {
        for listen in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(listen) else { continue };
            let here = listener.local_addr().unwrap();
            let mut clients: Vec<_> = (0..2).map(|_| TcpStream::connect(here).unwrap()).collect();
            let servers: Vec<_> = (0..2).map(|_| listener.accept().unwrap().0).collect();
            let port = clients[0].local_addr().unwrap().port();
            let sockets = Sockets::list().unwrap();
            let ends = *sockets.open().find(|it| (it.source_port, it.destination_port) == (port, here.port())).unwrap();
            match close([ends]) {
                Err(error) if error.raw_os_error() == Some(libc::EPERM) => return,
                closed => assert_eq!(closed.unwrap(), 1),
            }
            assert!(clients[0].read(&mut [0]).is_err(), "it was reset");
            assert_eq!(close([ends]).unwrap(), 0, "it is closed already");
            clients.push(TcpStream::connect(here).expect("the listener stays"));
            (&servers[1]).write_all(b"!").unwrap();
            clients[1].read_exact(&mut [0]).unwrap();
        }
    }

    #[test]
    fn an_open_connection_is_listed_and_found_until_it_is_closed() {
        for listen in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(listen) else { continue };
            let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (server, _) = listener.accept().unwrap();
            let port = listener.local_addr().unwrap().port();
            let of_port = || {
                let sockets = Sockets::list().unwrap();
                sockets.open().filter(|ends| ends.destination_port == port).copied().collect::<Vec<_>>()
            };
            let (sockets, found) = (Sockets::list().unwrap(), of_port());
            assert_eq!(found.len(), 1, "{found:?}");
            let ends = found[0];
            assert!(sockets.listening.contains(&port));
            assert_eq!((ends.source_port, ends.destination_port), (client.local_addr().unwrap().port(), port));
            assert!(sockets.is_open(&ends).unwrap());
            assert!(!sockets.is_open(&Ends { source_port: 1, ..ends }).unwrap(), "the listener is no connection");
            // The client closes first, and keeps the TIME-WAIT.
            drop(client);
            drop(server);
            let closed =
                std::iter::repeat_with(|| !sockets.is_open(&ends).unwrap()).take(1_000_000).any(|closed| closed);
            assert!(closed && of_port().is_empty());
        }
    }
}
