//! Who writes down what is to outlive the agent, on a thread of its own, because the loop waits for no disk.

use std::{
    sync::{
        Arc,
        mpsc::{self, SyncSender},
    },
    thread::{self, JoinHandle},
};

use crate::{control::Faults, store::Store};

/// Who writes it down, one word after the other; what it was given is written when this is dropped.
#[derive(Debug)]
pub(super) struct Keeper<T> {
    queue: Option<SyncSender<Vec<T>>>,
    thread: Option<JoinHandle<()>>,
}

impl<T: Send + 'static> Keeper<T> {
    /// One whose thread has a name, and which writes so.
    pub(super) fn of(name: &str, store: Arc<Store>, faults: Faults, write: fn(&Store, &Faults, &[T])) -> Self {
        let (queue, waiting) = mpsc::sync_channel::<Vec<T>>(1);
        let work = move || {
            while let Ok(all) = waiting.recv() {
                write(&store, &faults, &all);
            }
        };
        match thread::Builder::new().name(name.to_owned()).spawn(work) {
            Ok(thread) => Self { queue: Some(queue), thread: Some(thread) },
            Err(_) => Self { queue: None, thread: None },
        }
    }

    /// Says whether it takes that; while it still writes what came before, it takes one more.
    pub(super) fn keep(&self, all: Vec<T>) -> bool {
        self.queue.as_ref().is_some_and(|queue| queue.try_send(all).is_ok())
    }
}

impl<T> Drop for Keeper<T> {
    fn drop(&mut self) {
        self.queue = None;
        _ = self.thread.take().map(JoinHandle::join);
    }
}
