//! Sockets of this host: listed, found and closed.

use super::*;
use caps::{CapSet, Capability::CAP_NET_ADMIN};
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
        assert!(before.room > 0 && before.group.is_some());
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
            (_, Err(error)) if error.raw_os_error() == Some(libc::EPERM) => return,
            (closed, outcome) => assert_eq!((closed, outcome.unwrap()), (1, ())),
        }
        assert!(clients[0].read(&mut [0]).is_err(), "it was reset");
        assert_eq!(close([ends]).0, 0, "it is closed already");
        clients.push(TcpStream::connect(here).expect("the listener stays"));
        (&servers[1]).write_all(b"!").unwrap();
        clients[1].read_exact(&mut [0]).unwrap();
    }
}

#[test]
fn what_was_closed_is_counted_where_a_later_one_cannot_be() {
    if !caps::has_cap(None, CapSet::Effective, CAP_NET_ADMIN).unwrap() {
        return crate::skip::skipped("needs CAP_NET_ADMIN");
    }
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let here = listener.local_addr().unwrap();
    let connect = || (TcpStream::connect(here).unwrap(), listener.accept().unwrap());
    let _open = [connect(), connect()];
    let sockets = Sockets::list().unwrap();
    let ends: Vec<_> = sockets.open().filter(|it| it.destination_port == here.port()).copied().collect();
    // A thread of its own: capabilities belong to threads, and this one loses one before its second connection.
    let lamed = |(number, ends)| {
        if number == 1 {
            caps::drop(None, CapSet::Effective, CAP_NET_ADMIN).unwrap();
        }
        ends
    };
    let closing = std::thread::spawn(move || close(ends.into_iter().enumerate().map(lamed)));
    let (closed, outcome) = closing.join().unwrap();
    assert_eq!((closed, outcome.unwrap_err().raw_os_error()), (1, Some(libc::EPERM)));
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
        let closed = std::iter::repeat_with(|| !sockets.is_open(&ends).unwrap()).take(1_000_000).any(|closed| closed);
        assert!(closed && of_port().is_empty());
    }
}
