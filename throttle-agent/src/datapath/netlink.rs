//! The few netlink messages that this needs: one question, its answers, and their attributes (RFC 3549).

use std::{io, os::fd::OwnedFd};

use rustix::net::{
    AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, bind, netlink::SocketAddrNetlink, recv,
    send, socket_with,
};

/// `NETLINK_ROUTE`, which is 0 and so goes without saying.
pub(super) const ROUTE: Option<Protocol> = None;
/// `NETLINK_GENERIC`.
pub(super) const GENERIC: Option<Protocol> = Some(rustix::net::netlink::GENERIC);

/// `NLM_F_REQUEST`, with `NLM_F_ACK` said to be done, and with `NLM_F_DUMP` all there are.
const REQUEST: u16 = 1;
const ACKNOWLEDGE: u16 = 4;
const DUMP: u16 = 0x300;
/// `NLM_F_CREATE`: what is not there is made; with `NLM_F_EXCL` what is there is left.
pub(super) const CREATE: u16 = 0x400;
pub(super) const EXCLUSIVE: u16 = 0x200;
/// `NLMSG_ERROR` and `NLMSG_DONE`.
const ERROR: u16 = 2;
const DONE: u16 = 3;
/// `struct nlmsghdr`.
const HEADER: usize = 16;

/// A socket of a netlink protocol that hears the groups named by bits.
pub(super) fn socket(protocol: Option<Protocol>, groups: u32, flags: SocketFlags) -> io::Result<OwnedFd> {
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC | flags, protocol)?;
    bind(&socket, &SocketAddrNetlink::new(0, groups))?;
    Ok(socket)
}

/// Asks for everything of a kind, and gives the body of every answer.
pub(super) fn dump(protocol: Option<Protocol>, kind: u16, body: &[u8]) -> io::Result<Vec<Vec<u8>>> {
    Talk::begin(protocol)?.dump(kind, body)
}

/// Asks for one thing, and gives the body of the answer.
pub(super) fn ask(protocol: Option<Protocol>, kind: u16, body: &[u8]) -> io::Result<Vec<u8>> {
    Talk::begin(protocol)?.ask(kind, body)
}

/// Has something done.
pub(super) fn tell(protocol: Option<Protocol>, kind: u16, flags: u16, body: &[u8]) -> io::Result<()> {
    Talk::begin(protocol)?.tell(kind, flags, body)
}

/// A socket for many questions: to open one takes longer than to ask.
#[derive(Debug)]
pub(super) struct Talk(OwnedFd);

impl Talk {
    pub(super) fn begin(protocol: Option<Protocol>) -> io::Result<Self> {
        socket(protocol, 0, SocketFlags::empty()).map(Self)
    }

    /// As [`dump`].
    pub(super) fn dump(&self, kind: u16, body: &[u8]) -> io::Result<Vec<Vec<u8>>> {
        exchange(&self.0, kind, REQUEST | DUMP, body)
    }

    /// As [`ask`].
    pub(super) fn ask(&self, kind: u16, body: &[u8]) -> io::Result<Vec<u8>> {
        exchange(&self.0, kind, REQUEST, body)?.pop().ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }

    /// As [`tell`].
    pub(super) fn tell(&self, kind: u16, flags: u16, body: &[u8]) -> io::Result<()> {
        exchange(&self.0, kind, REQUEST | ACKNOWLEDGE | flags, body).map(drop)
    }
}

fn exchange(socket: &OwnedFd, kind: u16, flags: u16, body: &[u8]) -> io::Result<Vec<Vec<u8>>> {
    let mut request = Vec::with_capacity(HEADER + body.len());
    request.extend_from_slice(&((HEADER + body.len()) as u32).to_ne_bytes());
    request.extend_from_slice(&kind.to_ne_bytes());
    request.extend_from_slice(&flags.to_ne_bytes());
    request.extend_from_slice(&[0; 8]);
    request.extend_from_slice(body);
    send(socket, &request, SendFlags::empty())?;
    let mut answers = Vec::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        let (length, _) = recv(socket, &mut buffer[..], RecvFlags::empty())?;
        let mut rest = &buffer[..length];
        while let Some((kind, body, next)) = message(rest) {
            match kind {
                DONE => return Ok(answers),
                ERROR => return error(body).map(|()| answers),
                _ => answers.push(body.to_vec()),
            }
            rest = next;
        }
        if flags & DUMP != DUMP {
            return Ok(answers);
        }
    }
}

/// The kind and the body of the first message, and what follows it.
fn message(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let length = u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?) as usize;
    let kind = u16::from_ne_bytes(bytes.get(4..6)?.try_into().ok()?);
    let body = bytes.get(HEADER..length)?;
    Some((kind, body, bytes.get(length.next_multiple_of(4)..).unwrap_or_default()))
}

/// What went wrong; nothing where the number is 0.
fn error(body: &[u8]) -> io::Result<()> {
    let code = body.get(..4).and_then(|bytes| bytes.try_into().ok()).map_or(-libc::EPROTO, i32::from_ne_bytes);
    if code == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(-code)) }
}

/// The attributes in a message or in another attribute, by their numbers.
pub(super) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(bytes.get(..2)?.try_into().ok()?));
        // The two highest bits say how the value is written, not what it is.
        let kind = u16::from_ne_bytes(bytes.get(2..4)?.try_into().ok()?) & 0x3fff;
        let value = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// An attribute, written.
pub(super) fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = 4 + value.len();
    let mut bytes = Vec::with_capacity(length.next_multiple_of(4));
    bytes.extend_from_slice(&(length as u16).to_ne_bytes());
    bytes.extend_from_slice(&kind.to_ne_bytes());
    bytes.extend_from_slice(value);
    bytes.resize(length.next_multiple_of(4), 0);
    bytes
}

/// A 32-bit attribute's value; 0 where it is shorter.
pub(super) fn number(value: &[u8]) -> u32 {
    value.get(..4).and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_ne_bytes)
}

/// A text attribute's value.
pub(super) fn text(value: &[u8]) -> String {
    let length = value.iter().position(|&byte| byte == 0).unwrap_or(value.len());
    String::from_utf8_lossy(&value[..length]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_attributes_that_it_writes() {
        let bytes = [attribute(3, b"eth0\0"), attribute(4 | 0x8000, &1500u32.to_ne_bytes())].concat();
        let read: Vec<_> = attributes(&bytes).collect();
        assert_eq!(read, [(3, &b"eth0\0"[..]), (4, &1500u32.to_ne_bytes()[..])]);
        assert_eq!((text(read[0].1), number(read[1].1)), ("eth0".to_owned(), 1500));
    }

    #[test]
    fn stops_at_an_attribute_that_promises_more_than_there_is() {
        assert_eq!(attributes(&[200, 0, 1, 0, 5]).count(), 0);
        assert_eq!(attributes(&[0; 8]).count(), 0);
    }
}
