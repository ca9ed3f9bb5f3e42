//! From the kernel's ring buffer to every reader of the API, each with a bounded backlog of its own.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

use throttle_common::records;
use tokio::sync::{broadcast, watch};
use tokio_util::sync::CancellationToken;

use super::{
    filter::Named,
    names::{Names, decode},
};
use crate::api::wire::{Event, Gap, LossCounts};

/// Events that a reader may lag behind before it loses some.
const BACKLOG: usize = 4096;
/// The last events, kept for readers who come later.
const KEPT: usize = 1024;

/// Where events come in and readers subscribe.
#[derive(Clone, Debug)]
pub struct Hub {
    events: broadcast::Sender<Arc<Event>>,
    kept: Arc<Mutex<VecDeque<Arc<Event>>>>,
    names: watch::Receiver<Arc<Names>>,
    losses: watch::Receiver<LossCounts>,
    end: CancellationToken,
}

/// A reader's place.
#[derive(Debug)]
pub struct Subscription {
    events: broadcast::Receiver<Arc<Event>>,
    losses: watch::Receiver<LossCounts>,
    seen: LossCounts,
    end: CancellationToken,
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
    /// A hub that looks names and losses up where the control thread publishes them, until `end`.
    pub fn new(
        names: watch::Receiver<Arc<Names>>,
        losses: watch::Receiver<LossCounts>,
        end: CancellationToken,
    ) -> Self {
        Self { events: broadcast::channel(BACKLOG).0, kept: Arc::default(), names, losses, end }
    }

    /// Tells every reader of a refusal.
    pub fn publish(&self, event: &records::Event) {
        let event = Arc::new(decode(event, &self.names.borrow()));
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() == KEPT {
            kept.pop_front();
        }
        kept.push_back(Arc::clone(&event));
        // Without a reader there is nobody to miss it.
        let _ = self.events.send(event);
    }

    /// The names that events can bear.
    pub fn named(&self) -> Named {
        let held = self.names.borrow();
        let mut named = Named {
            limits: held.limits.values().cloned().collect(),
            services: held.services.values().cloned().collect(),
        };
        for event in self.kept.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            named.limits.extend(event.limit.clone());
            named.services.extend(event.service.clone());
        }
        named
    }

    /// The events that are kept, the oldest first.
    pub fn kept(&self) -> Vec<Arc<Event>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    /// The events that are kept, the oldest first, and a place from there on: each event is in one of the two.
    pub fn subscribe(&self) -> (Vec<Arc<Event>>, Subscription) {
        let mut losses = self.losses.clone();
        let seen = *losses.borrow_and_update();
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        (
            kept.iter().cloned().collect(),
            Subscription { events: self.events.subscribe(), losses, seen, end: self.end.clone() },
        )
    }
}

impl Subscription {
    /// What was not told before this place: since the kernel's maps exist.
    pub fn missed(&self) -> Gap {
        Gap { lost: self.seen.events_lost, withheld: self.seen.events_withheld }
    }

    /// What comes next; `None` once the agent ends.
    pub async fn next(&mut self) -> Option<Next> {
        loop {
            tokio::select! {
                biased;
                () = self.end.cancelled() => return None,
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

#[cfg(test)]
mod tests {
    use super::*;

    fn hub() -> (Hub, watch::Sender<LossCounts>, CancellationToken) {
        let (losses, end) = (watch::Sender::default(), CancellationToken::new());
        let names = watch::Sender::new(Arc::new(Names::default()));
        (Hub::new(names.subscribe(), losses.subscribe(), end.clone()), losses, end)
    }

    #[tokio::test]
    async fn each_event_is_kept_or_still_to_come() {
        let (hub, losses, _end) = hub();
        losses.send_replace(LossCounts { events_withheld: 3, ..LossCounts::default() });
        let publish = |length| hub.publish(&records::Event { length, ..records::Event::default() });
        (0..=KEPT as u32).for_each(publish);
        let (kept, mut coming) = hub.subscribe();
        publish(7);
        assert_eq!((kept.len(), kept[0].length), (KEPT, 1));
        assert!(matches!(coming.next().await, Some(Next::Event(event)) if event.length == 7));
        assert_eq!(coming.missed(), Gap { lost: 0, withheld: 3 });
    }

    #[tokio::test]
    async fn a_reader_that_is_too_slow_is_told_what_it_lost() {
        let (hub, _losses, _end) = hub();
        let (_, mut slow) = hub.subscribe();
        for _ in 0..BACKLOG + 7 {
            hub.publish(&records::Event::default());
        }
        let Some(Next::Gap(gap)) = slow.next().await else { panic!("no gap") };
        assert_eq!(gap, Gap { lost: 7, withheld: 0 });
        assert!(matches!(slow.next().await, Some(Next::Event(_))));
    }

    #[tokio::test]
    async fn what_the_kernel_lost_or_withheld_is_told_from_the_subscription_on() {
        let (hub, losses, end) = hub();
        losses.send_replace(LossCounts { events_lost: 3, events_withheld: 5, ..LossCounts::default() });
        let (_, mut reader) = hub.subscribe();
        losses.send_replace(LossCounts { events_lost: 4, events_withheld: 9, ..LossCounts::default() });
        let Some(Next::Gap(gap)) = reader.next().await else { panic!("no gap") };
        assert_eq!(gap, Gap { lost: 1, withheld: 4 });
        end.cancel();
        assert!(reader.next().await.is_none());
    }
}
