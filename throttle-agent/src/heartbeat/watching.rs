//! The task of one instance: it probes at its pace, and at once when asked to, each on a connection of its own.

use std::{sync::Arc, time::Duration};

use futures_util::future::join_all;
use tokio::time::{Instant, sleep_until, timeout};

use super::{
    Member, now,
    pace::Pace,
    probe::{self, Road},
    roll::{Sink, Watched},
    seen::{Outcome, Silence},
};
use crate::{
    health::detector::{CONFIRM_EVERY, KNOCKS},
    policy::{Probe, Protocol},
};

/// How long a confirmation waits for its answer: as long as until the next one.
const CONFIRMS_WITHIN: Duration = Duration::from_nanos(CONFIRM_EVERY);

/// Watches it until it is dropped.
pub(super) async fn watch(watched: Arc<Watched>, sink: Sink, seed: u64) {
    tokio::join!(at_its_pace(&watched, &sink, seed), when_asked(&watched, &sink));
}

/// Probes every interval, and when somebody cannot wait for that, on a connection that is kept. One that the backend closes
/// is no answer, but worth a probe before its time: where the backend has died, it is refused.
async fn at_its_pace(watched: &Watched, sink: &Sink, seed: u64) {
    let member = &watched.member;
    if member.probe == Probe::Push {
        return;
    }
    let start = Instant::now();
    let mut pace = Pace::new(Duration::ZERO, member.interval, seed);
    let (mut road, mut is_early) = (Road::default(), false);
    let mut due = start + pace.next(start.elapsed());
    loop {
        let keeps_pace = tokio::select! {
            biased;
            () = sleep_until(due) => {
                is_early = false;
                true
            }
            () = road.closed(), if !is_early => {
                is_early = true;
                true
            }
            () = watched.hurry.notified() => false,
        };
        let outcome = Box::pin(ask(watched, sink, &mut road, member.timeout)).await;
        watched.report(sink, now(), &outcome);
        if keeps_pace {
            due = start + pace.next(start.elapsed());
        }
    }
}

/// Probes the application and its host by new connections each time that somebody asks for it.
async fn when_asked(watched: &Watched, sink: &Sink) {
    loop {
        watched.confirm.notified().await;
        let host = Box::pin(knock(watched, sink, CONFIRMS_WITHIN));
        if watched.member.probe == Probe::Push {
            Box::pin(await_beat(watched, sink, host, CONFIRMS_WITHIN)).await;
        } else {
            let mut road = Road::default();
            let (outcome, _) = tokio::join!(Box::pin(ask(watched, sink, &mut road, CONFIRMS_WITHIN)), host);
            watched.report_confirmation(sink, now(), &outcome);
        }
    }
}

/// One probe of the application. That its kernel took the connection is told as soon as it is known.
async fn ask(watched: &Watched, sink: &Sink, road: &mut Road, within: Duration) -> Outcome {
    let mut silence = Silence::Connecting as fn(Duration) -> Silence;
    let asked = probe::ask(&watched.member, road, || {
        silence = Silence::Answering;
        watched.report(sink, now(), &Outcome::Packet);
    });
    let outcome = timeout(within, asked).await;
    outcome.unwrap_or_else(|_| Outcome::Unanswered(silence(within)))
}

/// Looks whether the host lives, by [`KNOCKS`] connections; whether it refused one.
async fn knock(watched: &Watched, sink: &Sink, within: Duration) -> bool {
    let Member { instance, protocol, .. } = &watched.member;
    let once = async || match timeout(within, probe::knock(instance.address)).await {
        Ok(Outcome::Answered { .. }) => {
            watched.report(sink, now(), &Outcome::Packet);
            false
        }
        // Who listens to datagrams takes no connection; that its host refuses one shows that the host lives.
        Ok(Outcome::Refused) if *protocol != Protocol::Tcp => {
            watched.report(sink, now(), &Outcome::Packet);
            false
        }
        Ok(refused @ Outcome::Refused) => {
            watched.report(sink, now(), &refused);
            true
        }
        _ => false,
    };
    join_all((0..KNOCKS).map(|_| once())).await.contains(&true)
}

/// Looks whether one beats meanwhile that does so by itself, unless its host says that it is not there.
async fn await_beat(watched: &Watched, sink: &Sink, host: impl Future<Output = bool>, within: Duration) {
    let (beats, end) = (watched.beats(), Instant::now() + within);
    if host.await {
        return;
    }
    sleep_until(end).await;
    if watched.beats() == beats {
        watched.report_confirmation(sink, now(), &Outcome::Unanswered(Silence::NoBeat(within)));
    }
}
