//! What a host's end of the gossip decides about datagrams: to whom they are addressed, and which of those that come count.
//! Pure: keys, random bytes and datagrams come in, datagrams and texts go out.
//!
//! A datagram counts if it is addressed to this run of this agent and has not come before. Nobody can have recorded such a
//! one before the run began, and no clock is asked. Whoever does not know this run yet addresses nobody: it is told by a
//! greeting, which is addressed to it, and tries again. A greeting is shorter than what it answers and is never answered.
//!
//! The text that is sealed:
//!
//! ```text
//! kind 1 | the session that it is for 16 | where its sender listens 19 | what is said
//! ```

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr, SocketAddr},
};

use super::{
    key::Keys,
    replay::Window,
    seal::{Refusal, SEAL, Session, open, seal},
};

/// Bytes of a UDP datagram over IPv4.
pub(super) const LONGEST: usize = 65_507;
/// Bytes before what is said.
const PREFACE: usize = 1 + 16 + ADDRESS;
const ADDRESS: usize = 1 + 16 + 2;
/// Bytes of what is said, at most.
pub(super) const MOST_SAID: usize = LONGEST - SEAL - PREFACE;
/// Runs of others that are remembered, and addresses of theirs. Each is of somebody who has the key.
const MOST_SESSIONS: usize = 4096;

const GOSSIP: u8 = 0;
const GREETING: u8 = 1;

/// One end.
#[derive(Debug)]
pub(super) struct Endpoint {
    stamp: String,
    host: String,
    boot: String,
    listens: SocketAddr,
    session: Session,
    /// The last datagram's number.
    number: u64,
    /// Who is at an address, by the last word of theirs that counted.
    sessions: HashMap<SocketAddr, Session>,
    /// What of each has come.
    windows: HashMap<Session, Window>,
}

/// What came of a datagram that counts.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Heard<'d> {
    /// Something for the gossip.
    Said(&'d [u8]),
    /// Its sender, which is known from now on.
    Greeted,
}

/// What came of one that does not.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unheard {
    pub(super) why: Refusal,
    /// What to answer.
    pub(super) greeting: Option<Vec<u8>>,
}

impl From<Refusal> for Unheard {
    fn from(why: Refusal) -> Self {
        Self { why, greeting: None }
    }
}

impl Endpoint {
    /// The end of a host in a stamp, which others reach where it `listens`.
    pub(super) fn new(stamp: &str, host: &str, boot: &str, listens: SocketAddr, random: [u8; 16]) -> Self {
        Self {
            stamp: stamp.to_owned(),
            host: host.to_owned(),
            boot: boot.to_owned(),
            listens,
            session: Session::new(host, boot, random),
            number: 0,
            sessions: HashMap::new(),
            windows: HashMap::new(),
        }
    }

    /// A datagram that says something to whoever is at an address; `None` where it does not fit into one.
    pub(super) fn say(&mut self, keys: &Keys, to: SocketAddr, random: [u8; 16], said: &[u8]) -> Option<Vec<u8>> {
        let session = self.sessions.get(&to).copied().unwrap_or(Session::UNKNOWN);
        (said.len() <= MOST_SAID).then(|| self.write(keys, GOSSIP, session, random, said))
    }

    /// Reads a datagram that came from an address. `random` are bytes for an answer.
    pub(super) fn hear<'d>(
        &mut self,
        keys: &Keys,
        from: SocketAddr,
        random: [u8; 16],
        datagram: &'d mut [u8],
    ) -> Result<Heard<'d>, Unheard> {
        let opened = open(keys, &self.stamp, datagram)?;
        let (kind, to, listens, said) = read(opened.text).ok_or(Refusal::Malformed)?;
        if to != self.session {
            let greeting = (kind == GOSSIP).then(|| self.write(keys, GREETING, opened.sender, random, &[]));
            return Err(Unheard { why: Refusal::Unaddressed, greeting });
        }
        if !self.windows.contains_key(&opened.sender) && self.windows.len() == MOST_SESSIONS {
            self.begin_anew(random);
            return Err(Refusal::Unaddressed.into());
        }
        if !self.windows.entry(opened.sender).or_default().admit(opened.number) {
            return Err(Refusal::Replayed.into());
        }
        // Where it listens, and where a reply goes.
        for address in [listens, from] {
            if self.sessions.len() < MOST_SESSIONS || self.sessions.contains_key(&address) {
                self.sessions.insert(address, opened.sender);
            }
        }
        Ok(if kind == GREETING { Heard::Greeted } else { Heard::Said(said) })
    }

    /// What this host has heard of others is forgotten, and what was addressed to it counts no more: no recording of what is
    /// forgotten ever does.
    fn begin_anew(&mut self, random: [u8; 16]) {
        self.session = Session::new(&self.host, &self.boot, random);
        self.windows.clear();
        self.sessions.clear();
    }

    fn write(&mut self, keys: &Keys, kind: u8, to: Session, random: [u8; 16], said: &[u8]) -> Vec<u8> {
        self.number += 1;
        let text = [&[kind], &to.bytes()[..], &address(self.listens), said].concat();
        seal(keys.sealing(), &self.stamp, (self.session, self.number), random, &text)
    }
}

fn address(of: SocketAddr) -> [u8; ADDRESS] {
    let mut bytes = [0; ADDRESS];
    let (family, ip) = match of.ip() {
        IpAddr::V4(ip) => (4, ip.to_ipv6_mapped()),
        IpAddr::V6(ip) => (6, ip),
    };
    bytes[0] = family;
    bytes[1..17].copy_from_slice(&ip.octets());
    bytes[17..].copy_from_slice(&of.port().to_be_bytes());
    bytes
}

type Text<'t> = (u8, Session, SocketAddr, &'t [u8]);

fn read(text: &[u8]) -> Option<Text<'_>> {
    let (preface, said) = text.split_at_checked(PREFACE)?;
    let session = Session::read(preface[1..17].try_into().ok()?);
    let address = &preface[17..];
    let ip = Ipv6Addr::from(<[u8; 16]>::try_from(&address[1..17]).ok()?);
    let ip = match address[0] {
        4 => ip.to_ipv4_mapped()?.into(),
        6 => ip.into(),
        _ => return None,
    };
    let port = u16::from_be_bytes(address[17..].try_into().ok()?);
    let known = [GOSSIP, GREETING].contains(&preface[0]);
    known.then(|| (preface[0], session, SocketAddr::new(ip, port), said))
}

#[cfg(test)]
#[path = "endpoint_tests.rs"]
mod tests;
