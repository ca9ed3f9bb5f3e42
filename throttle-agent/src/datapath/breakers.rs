//! The breakers of services and of backends, as the kernel follows them.
//!
//! What a breaker has lies in the kernel's map, and stays in force when the agent falls silent: an open one half-opens by
//! itself, see `throttle_common::breakers`. Which backends have one is a map of its own, by their addresses.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::AsFd as _,
    sync::atomic::{
        AtomicU64,
        Ordering::{Relaxed, SeqCst},
    },
};

use anyhow::{Context, Result, ensure};
use throttle_common::{
    breakers::{Breaker, State, Taken, Word},
    packet::Family,
    records::{Backend, FIRST_BACKEND, MAX_BACKENDS, NONE},
};

use super::{
    Datapath, bpf,
    explain::address,
    mapped::{bytes_of, record},
};

impl Datapath {
    /// Has the kernel follow a breaker in a state, from now on. A round of trials that runs goes on: what the kernel has
    /// admitted of it counts. As long as a half-open state is published again within five seconds, the kernel begins no
    /// round of its own.
    pub fn publish_breaker(&self, number: u16, state: State) -> Result<()> {
        ensure!(number != NONE && u32::from(number) < self.tables.breakers.len(), "there is no breaker {number}");
        let [word, taken] = self.breaker_words(number);
        let (now, held) = (self.now(), Word::of(word.load(Relaxed)));
        let next = held.then(state, now);
        if held.is_closed() && !next.is_closed() {
            self.broken().fetch_add(1, SeqCst);
        }
        word.store(next.word(), SeqCst);
        if let State::HalfOpen { left } = state {
            let after = |seen| Some(next.taken_after(held, Taken::of(seen), now, left).word());
            taken.fetch_update(SeqCst, SeqCst, after).expect("an update that never changes its mind");
        }
        if !held.is_closed() && next.is_closed() {
            self.broken().fetch_sub(1, SeqCst);
        }
        Ok(())
    }

    /// How many trials the kernel has admitted in the round that runs: of all that were published since it began.
    pub fn trials_taken(&self, number: u16) -> u32 {
        let Breaker { word, taken } = self.breaker(number);
        Word::of(word).taken(Taken::of(taken), self.now())
    }

    /// Whether the kernel has gone on alone with the trials of a breaker: nobody has said that it is half open for as long as a
    /// round lasts.
    pub fn goes_on_alone(&self, number: u16) -> bool {
        Word::of(self.breaker(number).word).rounds_alone(self.now()) > 0
    }

    /// What the kernel follows: of a half-open breaker, how many trials the round that runs may yet admit. A breaker that an
    /// operator holds closed is closed.
    pub fn breaker_state(&self, number: u16) -> State {
        let Breaker { word, taken } = self.breaker(number);
        Word::of(word).state_at(Taken::of(taken), self.now())
    }

    /// Says which backends have breakers: where each listens, by which protocol (IANA's number), and the number of its
    /// breaker, from [`FIRST_BACKEND`] on. Those that are not named have none any more. On an error some may be as before.
    pub fn set_backends(&self, backends: &[(SocketAddr, u8, u16)]) -> Result<()> {
        ensure!(backends.len() <= MAX_BACKENDS as usize, "at most {MAX_BACKENDS} backends can have breakers");
        let outside = backends.iter().find(|(.., number)| !(FIRST_BACKEND..self.breakers_end()).contains(number));
        ensure!(outside.is_none(), "there is no breaker for {outside:?}");
        let wanted: BTreeMap<Backend, u64> =
            backends.iter().map(|&(at, protocol, number)| (key(at, protocol), number.into())).collect();
        let held = self.held_backends().context("read which backends have breakers")?;
        let map = self.backends.fd().as_fd();
        for gone in held.keys().filter(|backend| !wanted.contains_key(backend)) {
            bpf::map_delete(map, bytes_of(&[*gone])).context("forget the breaker of a backend")?;
        }
        // A number that is another backend's now begins closed: what failed was not that one.
        let kept: BTreeSet<u64> = wanted
            .iter()
            .filter(|(backend, number)| held.get(backend) == Some(number))
            .map(|(_, number)| *number)
            .collect();
        for &number in held.values().filter(|number| !kept.contains(number)) {
            self.publish_breaker(number as u16, State::Closed)?;
        }
        for (backend, number) in wanted.iter().filter(|(backend, number)| held.get(backend) != Some(number)) {
            bpf::map_update(map, bytes_of(&[*backend]), bytes_of(&[*number])).context("give a backend its breaker")?;
        }
        Ok(())
    }

    /// The backends that have breakers, as [`Datapath::set_backends`] takes them: an agent that starts anew finds them.
    pub fn backends(&self) -> Result<Vec<(SocketAddr, u8, u16)>> {
        let held = self.held_backends().context("read which backends have breakers")?;
        Ok(held.into_iter().map(|(backend, number)| (at(&backend), backend.protocol, number as u16)).collect())
    }

    /// The breaker of a backend.
    pub(super) fn breaker_of(&self, backend: &Backend) -> Result<u16> {
        let mut number = 0u64.to_ne_bytes();
        match bpf::map_lookup(self.backends.fd().as_fd(), bytes_of(&[*backend]), &mut number) {
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(NONE),
            read => read.map(|()| u64::from_ne_bytes(number) as u16).context("read the breaker of a backend"),
        }
    }

    /// A breaker as it lies.
    pub(super) fn breaker(&self, number: u16) -> Breaker {
        let known = number != NONE && number < self.breakers_end();
        if known { self.tables.breakers.get(number.into()) } else { Breaker::default() }
    }

    /// Counts anew how many are not closed: an agent that died may have left the number wrong.
    pub(super) fn count_broken(&self) {
        let all = (1..self.breakers_end()).map(|number| self.breaker(number));
        self.broken().store(all.filter(|it| !Word::of(it.word).is_closed()).count() as u64, SeqCst);
    }

    /// After a policy is put in force: the breakers of services that have none any more are closed.
    pub(super) fn forget_breakers(&self) {
        let held: BTreeSet<u16> = self.services().iter().map(|(_, service)| service.breaker).collect();
        for number in (1..FIRST_BACKEND).filter(|number| !held.contains(number)) {
            if !Word::of(self.breaker(number).word).is_closed() {
                self.publish_breaker(number, State::Closed).expect("every number of a service is a breaker's");
            }
        }
    }

    fn held_backends(&self) -> Result<BTreeMap<Backend, u64>> {
        let all = bpf::map_lookup_all(self.backends.fd().as_fd(), size_of::<Backend>(), size_of::<u64>())?;
        let read = |(key, value): (Vec<u8>, Vec<u8>)| Some((record(&key)?, record(&value)?));
        all.into_iter().map(read).collect::<Option<_>>().context("elements of another size")
    }

    fn breaker_words(&self, number: u16) -> &[AtomicU64; 2] {
        self.tables.breakers.words(number.into()).try_into().expect("a breaker has two words")
    }

    fn broken(&self) -> &AtomicU64 {
        &self.tables.breakers.words(NONE.into())[0]
    }

    fn breakers_end(&self) -> u16 {
        self.tables.breakers.len() as u16
    }
}

fn key(at: SocketAddr, protocol: u8) -> Backend {
    let (address, family) = address(at.ip().to_canonical());
    Backend { address, port: at.port(), family: family as u8, protocol, padding: [0; 4] }
}

fn at(backend: &Backend) -> SocketAddr {
    let Backend { address, port, family, .. } = *backend;
    let wide = u128::from(address.high) << 64 | u128::from(address.low);
    let ip = if family == Family::V4 as u8 {
        Ipv4Addr::from_bits(address.low as u32).into()
    } else {
        Ipv6Addr::from_bits(wide).into()
    };
    SocketAddr::new(ip, port)
}
