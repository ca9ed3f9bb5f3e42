//! Where backends are: the addresses of names, which are looked up every few seconds, and of files that are watched.
//!
//! [`Book`] says what is due and what it comes to; here it is asked for, each on a thread of its own for as long as it
//! takes. What cannot be found changes nothing: the addresses before it stay.

mod book;
mod file;
mod listed;

use std::{net::ToSocketAddrs as _, sync::Arc};

use book::{Book, Due, Found};
use tokio::{sync::Semaphore, task::JoinSet};

use super::{Member, Target, now};
use crate::policy::Endpoint;

/// Names that are looked up at once: a resolver that does not answer takes one for half a minute.
const NAMES_AT_ONCE: usize = 6;
/// Files that are read at once.
const FILES_AT_ONCE: usize = 2;
/// Threads that this takes at most.
pub(super) const AT_ONCE: usize = NAMES_AT_ONCE + FILES_AT_ONCE;

/// What finds them.
#[derive(Debug)]
pub(super) struct Discovery {
    book: Book,
    asked: JoinSet<(Endpoint, Found)>,
    names: Arc<Semaphore>,
    files: Arc<Semaphore>,
}

impl Default for Discovery {
    fn default() -> Self {
        let [names, files] = [NAMES_AT_ONCE, FILES_AT_ONCE].map(|count| Arc::new(Semaphore::new(count)));
        Self { book: Book::default(), asked: JoinSet::new(), names, files }
    }
}

impl Discovery {
    /// These are to be found from now on.
    pub(super) fn want(&mut self, targets: &[Target]) {
        self.book.want(targets);
        self.look();
    }

    /// Asks for what is due.
    pub(super) fn look(&mut self) {
        let now = now();
        for (endpoint, due) in self.book.due(now) {
            let places = if matches!(due, Due::Name { .. }) { &self.names } else { &self.files };
            // Where there is no place it is due again at the next look.
            let Ok(place) = Arc::clone(places).try_acquire_owned() else { continue };
            self.book.asked(&endpoint, now);
            self.asked.spawn_blocking(move || {
                let found = find(due);
                drop(place);
                (endpoint, found)
            });
        }
    }

    /// Comes when something was found, and says whether it changes anything; never where nothing is asked for.
    pub(super) async fn found(&mut self) -> bool {
        match self.asked.join_next().await {
            Some(Ok((endpoint, found))) => self.book.found(&endpoint, found, now()),
            Some(Err(error)) => {
                tracing::error!("a look for backends was lost: {error}");
                false
            }
            None => std::future::pending().await,
        }
    }

    /// Everybody who is known, by service, backend and address.
    pub(super) fn members(&self) -> Vec<Member> {
        self.book.members()
    }

    /// What cannot be found, and why.
    pub(super) fn fault(&self) -> Result<(), String> {
        self.book.fault(now())
    }
}

fn find(due: Due) -> Found {
    match due {
        Due::Name { name, port } => {
            let addresses = (&*name, port).to_socket_addrs().map_err(|error| error.to_string());
            Found::Addresses(addresses.map(Iterator::collect))
        }
        Due::File { path, known } => file::look(&path, known),
    }
}
