//! What others are told of changes: a queue that never holds anybody up. What finds it full is lost, and counted.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use jiff::Timestamp;
use tokio::sync::mpsc;

use crate::{
    api::wire::TransitionView,
    health::{
        names,
        service::{Transition, What},
    },
};

/// Notices that may wait: many more than change at once, unless all of a large fleet does.
const WAITING: usize = 1_024;

/// A change, as others are told it.
pub type Notice = TransitionView;

/// Where notices go: to nobody, unless [`Notices::queue`] made it.
#[derive(Clone, Debug, Default)]
pub struct Notices {
    queue: Option<mpsc::Sender<Notice>>,
    lost: Arc<AtomicU64>,
    /// Those that somebody was told since [`Notices::take_told`].
    told: Arc<Mutex<Vec<Notice>>>,
}

impl Notices {
    /// A queue, and its end.
    pub fn queue() -> (Self, mpsc::Receiver<Notice>) {
        let (queue, waiting) = mpsc::channel(WAITING);
        (Self { queue: Some(queue), ..Self::default() }, waiting)
    }

    /// Those that nobody was told.
    pub fn lost(&self) -> u64 {
        self.lost.load(Relaxed)
    }

    /// One that nobody was told.
    pub fn lose(&self) {
        self.lost.fetch_add(1, Relaxed);
    }

    /// One that somebody was told.
    pub fn told(&self, notice: Notice) {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).push(notice);
    }

    /// Those that somebody was told since this was last asked.
    pub fn take_told(&self) -> Vec<Notice> {
        std::mem::take(&mut *self.told.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Has others told of one, if there are any.
    pub fn send(&self, notice: impl FnOnce() -> Notice) {
        if self.queue.as_ref().is_some_and(|queue| queue.try_send(notice()).is_err()) {
            self.lose();
        }
    }

    /// Has them told of a change. Which signal is followed is for who looks; the rest is for who sleeps.
    pub(super) fn send_change(&self, transition: &Transition, notice: impl FnOnce() -> Notice) {
        if !matches!(transition.what, What::Signal { .. }) {
            self.send(notice);
        }
    }
}

/// A change in the words of the API.
pub(super) fn view(number: u64, service: &str, transition: &Transition, time: Timestamp, message: String) -> Notice {
    let (kind, from, to, reason) = names::change(&transition.what);
    TransitionView {
        number,
        time,
        service: service.to_owned(),
        backend: transition.place.as_ref().map(|place| place.backend.to_string()),
        address: transition.place.as_ref().map(|place| place.address),
        kind: kind.to_owned(),
        from: from.to_owned(),
        to: to.to_owned(),
        reason: reason.map(str::to_owned),
        message,
    }
}
