//! What two hosts say to each other to have the same changes, over a connection on which each knows the other as one of the
//! stamp.
//!
//! ```text
//! who asks:      what it knows ->                          -> what the other lacks, end
//! who is asked:                -> what it knows itself, what the other lacks, end   -> end
//! ```
//!
//! A frame is its length in four bytes, its kind in one, and what it says.

use std::{io, time::Duration};

use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    time::timeout,
};

use super::{Keys, facts::is_name};
use crate::replica::{
    Versions,
    envelope::{self, LONGEST, Refusal},
};

/// Bytes of changes that are sent at once, at most, but for one that is longer; the rest goes the next time.
pub(super) const BATCH: usize = 4 << 20;
/// Bytes of what a host knows: of some 20 000 starts of agents.
const HELLO: usize = 1 << 20;
/// Changes that are taken at once, at most.
const MOST: usize = 100_000;
/// How long one may be silent.
const PATIENCE: Duration = Duration::from_secs(10);
/// Bytes of an envelope before its change, and some.
const HEAD: usize = 256;

const KNOWS: u8 = 1;
const CHANGE: u8 = 2;
const END: u8 = 3;

/// What a host knows.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Hello {
    pub(super) stamp: String,
    pub(super) host: String,
    pub(super) versions: Versions,
}

/// What came: changes, and what is none.
#[derive(Debug, Default)]
pub(super) struct Heard {
    pub(super) changes: Vec<Vec<u8>>,
    pub(super) refused: Vec<(Refusal, Vec<u8>)>,
}

impl Heard {
    /// Opens envelopes.
    pub(super) fn open(keys: &Keys, stamp: &str, envelopes: impl IntoIterator<Item = Vec<u8>>) -> Self {
        let mut heard = Self::default();
        for sealed in envelopes {
            match envelope::open(keys, stamp, &sealed) {
                Ok(change) => heard.changes.push(change.to_vec()),
                Err(why) => heard.refused.push((why, sealed)),
            }
        }
        heard
    }
}

/// Says what this host knows.
pub(super) async fn greet(to: &mut (impl AsyncWrite + Unpin), hello: &Hello) -> io::Result<()> {
    say(to, KNOWS, &serde_json::to_vec(hello)?).await?;
    to.flush().await
}

/// Hears what the other knows, who must be of this stamp.
pub(super) async fn greeted(from: &mut (impl AsyncRead + Unpin), stamp: &str) -> io::Result<Hello> {
    let (kind, said) = hear(from, HELLO).await?;
    let hello: Hello = serde_json::from_slice(&said)?;
    if kind == KNOWS && hello.stamp == stamp && is_name(&hello.host) {
        Ok(hello)
    } else {
        Err(io::Error::other("it does not say what it knows of this stamp"))
    }
}

/// Sends changes, and that these are all.
pub(super) async fn tell(
    to: &mut (impl AsyncWrite + Unpin),
    keys: &Keys,
    stamp: &str,
    changes: &[Vec<u8>],
) -> io::Result<()> {
    let sealed: Vec<_> = changes.iter().map(|change| envelope::seal(keys.sealing(), stamp, change)).collect();
    hand(to, &sealed).await
}

/// Sends envelopes as they are, and that these are all.
pub(super) async fn hand(to: &mut (impl AsyncWrite + Unpin), envelopes: &[Vec<u8>]) -> io::Result<()> {
    for envelope in envelopes {
        say(to, CHANGE, envelope).await?;
    }
    say(to, END, &[]).await?;
    to.flush().await
}

/// Hears what comes until the end.
pub(super) async fn told(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<Vec<u8>>> {
    let (mut envelopes, mut bytes) = (Vec::new(), 0);
    loop {
        let (kind, said) = hear(from, LONGEST + HEAD).await?;
        bytes += said.len();
        match kind {
            END => return Ok(envelopes),
            CHANGE if envelopes.len() < MOST && bytes <= LONGEST + BATCH + HEAD * MOST => envelopes.push(said),
            _ => return Err(io::Error::other("it says what is not expected, or too much")),
        }
    }
}

/// Says that all is done.
pub(super) async fn end(to: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
    say(to, END, &[]).await?;
    to.shutdown().await
}

async fn say(to: &mut (impl AsyncWrite + Unpin), kind: u8, said: &[u8]) -> io::Result<()> {
    let length = u32::try_from(said.len()).map_err(io::Error::other)?;
    let sending = async {
        to.write_all(&length.to_be_bytes()).await?;
        to.write_all(&[kind]).await?;
        to.write_all(said).await
    };
    timeout(PATIENCE, sending).await.map_err(|_| io::ErrorKind::TimedOut)?
}

async fn hear(from: &mut (impl AsyncRead + Unpin), longest: usize) -> io::Result<(u8, Vec<u8>)> {
    let hearing = async {
        let mut head = [0; 5];
        from.read_exact(&mut head).await?;
        let [length @ .., kind] = head;
        let length = u32::from_be_bytes(length) as usize;
        if length > longest {
            return Err(io::Error::other("it says more than may be said at once"));
        }
        // What was announced may never come: room is made for what does.
        let mut said = Vec::new();
        from.take(length as u64).read_to_end(&mut said).await?;
        if said.len() < length { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok((kind, said)) }
    };
    timeout(PATIENCE, hearing).await.map_err(|_| io::ErrorKind::TimedOut)?
}
