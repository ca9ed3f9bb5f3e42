//! From the kernel's ring buffer to every reader of the API, each with a bounded backlog of its own.

use std::sync::Arc;

use throttle_common::records;
use tokio::sync::{broadcast, watch};

use super::names::{Names, decode};
use crate::api::wire::{Event, Gap, LossCounts};

/// Events that a reader may lag behind before it loses some.
const BACKLOG: usize = 4096;

/// Where events come in and readers subscribe.
#[derive(Clone, Debug)]
pub struct Hub {
    events: broadcast::Sender<Arc<Event>>,
    names: watch::Receiver<Arc<Names>>,
    losses: watch::Receiver<LossCounts>,
}

/// A reader's place.
#[derive(Debug)]
pub struct Subscription {
    events: broadcast::Receiver<Arc<Event>>,
    losses: watch::Receiver<LossCounts>,
    seen: LossCounts,
}

/// What a reader gets next.
#[derive(Clone, Debug)]
pub enum Next {
    /// An event.
    Event(Arc<Event>),
    /// Events that it does not get.
    Gap(Gap),
}

impl Hub {
    /// A hub that looks names and losses up where the control thread publishes them.
    pub fn new(names: watch::Receiver<Arc<Names>>, losses: watch::Receiver<LossCounts>) -> Self {
        Self { events: broadcast::channel(BACKLOG).0, names, losses }
    }

    /// Tells every reader of a refusal.
    pub fn publish(&self, event: &records::Event) {
        if self.events.receiver_count() > 0 {
            let event = decode(event, &self.names.borrow());
            // The last reader may have gone in this instant.
            let _ = self.events.send(Arc::new(event));
        }
    }

    /// A place for a reader, from now on.
    pub fn subscribe(&self) -> Subscription {
        let mut losses = self.losses.clone();
        let seen = *losses.borrow_and_update();
        Subscription { events: self.events.subscribe(), losses, seen }
    }
}

impl Subscription {
    /// What comes next; `None` once the agent ends.
    pub async fn next(&mut self) -> Option<Next> {
        loop {
            tokio::select! {
                biased;
                event = self.events.recv() => return match event {
                    Ok(event) => Some(Next::Event(event)),
                    Err(broadcast::error::RecvError::Lagged(lost)) => Some(Next::Gap(Gap { lost, withheld: 0 })),
                    Err(broadcast::error::RecvError::Closed) => None,
                },
                changed = self.losses.changed() => {
                    changed.ok()?;
                    let now = *self.losses.borrow_and_update();
                    let gap = Gap {
                        lost: now.events_lost.saturating_sub(self.seen.events_lost),
                        withheld: now.events_withheld.saturating_sub(self.seen.events_withheld),
                    };
                    self.seen = now;
                    if gap != Gap::default() {
                        return Some(Next::Gap(gap));
                    }
                }
            }
        }
    }
}
