//! Who is watched, and what is seen of each: what the tasks write and the API reads.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use tokio::sync::{Notify, mpsc};

use super::{
    Instance, Member, Seen,
    pushed::{Beat, Pushed},
    seen::Outcome,
};
use crate::{
    api::wire::HeartbeatView,
    health::{Nanos, SECOND, succession::Order},
    policy::Probe,
};

/// All that are watched, by service, backend and address. Clones are of one roll.
#[derive(Clone, Debug, Default)]
pub(super) struct Roll(Arc<RwLock<BTreeMap<Arc<Instance>, Arc<Watched>>>>);

impl Roll {
    /// One of them.
    pub(super) fn find(&self, instance: &Instance) -> Option<Arc<Watched>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(instance).cloned()
    }

    /// All of them.
    pub(super) fn all(&self) -> Vec<Arc<Watched>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// These and no others. Those that were there under another pace keep what was seen of them.
    pub(super) fn set(&self, members: &[Member]) {
        let mut held = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::take(&mut *held);
        let stay = |member: &Member| match before.get(&member.instance) {
            Some(same) if same.member == *member => Arc::clone(same),
            Some(other) => Arc::new(Watched::new(member.clone(), Arc::clone(&other.record))),
            None => Arc::new(Watched::new(member.clone(), Arc::default())),
        };
        *held = members.iter().map(|member| (Arc::clone(&member.instance), stay(member))).collect();
    }
}

/// One that is watched.
#[derive(Debug)]
pub(super) struct Watched {
    pub(super) member: Member,
    /// Asks for a confirmation at once, and for the next probe.
    pub(super) confirm: Notify,
    pub(super) hurry: Notify,
    record: Arc<Mutex<Record>>,
}

/// What was seen of it.
#[derive(Debug, Default)]
struct Record {
    last: Option<(Outcome, Nanos)>,
    latency: Option<Nanos>,
    counts: Counts,
    pushed: Pushed,
}

#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    answered: u64,
    failed: u64,
    unanswered: u64,
    refused: u64,
    unsent: u64,
    beats: u64,
}

impl Watched {
    fn new(member: Member, record: Arc<Mutex<Record>>) -> Self {
        Self { member, confirm: Notify::new(), hurry: Notify::new(), record }
    }

    /// Notes what was seen and tells who listens; the log, where it is of another kind than what was seen before.
    pub(super) fn report(&self, sink: &Sink, at: Nanos, outcome: &Outcome) {
        self.tell(sink, at, outcome, outcome.counts());
    }

    /// The same of a confirmation.
    pub(super) fn report_confirmation(&self, sink: &Sink, at: Nanos, outcome: &Outcome) {
        self.tell(sink, at, outcome, outcome.counts_of_confirmation());
    }

    fn tell(&self, sink: &Sink, at: Nanos, outcome: &Outcome, good: Option<bool>) {
        self.note(at, outcome);
        sink.tell(Seen { instance: Arc::clone(&self.member.instance), at, said: outcome.said(good) });
    }

    fn note(&self, at: Nanos, outcome: &Outcome) {
        let mut record = self.record();
        let count = match outcome {
            Outcome::Answered { .. } => &mut record.counts.answered,
            Outcome::Failed { .. } => &mut record.counts.failed,
            Outcome::Unanswered(_) => &mut record.counts.unanswered,
            Outcome::Refused => &mut record.counts.refused,
            Outcome::Unsent(_) => &mut record.counts.unsent,
            Outcome::Beat { .. } => &mut record.counts.beats,
            // No news beside the answer that is still to come.
            Outcome::Packet => return,
        };
        *count += 1;
        record.latency = outcome.latency().or(record.latency);
        let was_good = record.last.as_ref().is_none_or(|(last, _)| last.is_good());
        let is_news = record
            .last
            .as_ref()
            .is_none_or(|(last, _)| std::mem::discriminant(last) != std::mem::discriminant(outcome));
        record.last = Some((outcome.clone(), at));
        drop(record);
        if is_news && !(was_good && outcome.is_good()) {
            let Instance { service, backend, address } = &*self.member.instance;
            tracing::info!(%service, %backend, %address, "heartbeat: {outcome}");
        }
    }

    /// Takes a pushed beat, if it is newer than the last.
    pub(super) fn take(&self, beat: Beat) -> Order {
        self.record().pushed.take(beat, self.member.interval.as_nanos() as Nanos)
    }

    /// How many beats it has pushed.
    pub(super) fn beats(&self) -> u64 {
        self.record().counts.beats
    }

    /// What is known of it, for the API.
    pub(super) fn view(&self, now: Nanos) -> HeartbeatView {
        let (record, Instance { service, backend, address }) = (self.record(), &*self.member.instance);
        let Counts { answered, failed, unanswered, refused, unsent, beats } = record.counts;
        HeartbeatView {
            service: service.to_string(),
            backend: backend.to_string(),
            address: *address,
            probe: word(&self.member.probe).to_owned(),
            interval_seconds: self.member.interval.as_secs_f64(),
            last: record.last.as_ref().map(|(outcome, _)| outcome.to_string()),
            ago_seconds: record.last.as_ref().map(|(_, at)| seconds(now.saturating_sub(*at))),
            latency_seconds: record.latency.map(seconds),
            answered,
            failed,
            unanswered,
            refused,
            unsent,
            beats,
            pushed: record.pushed.view(now),
        }
    }

    fn record(&self) -> std::sync::MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn word(probe: &Probe) -> &'static str {
    match probe {
        Probe::Tcp => "tcp",
        Probe::Http { .. } => "http",
        Probe::Grpc { .. } => "grpc",
        Probe::Push => "push",
    }
}

pub(super) fn seconds(span: Nanos) -> f64 {
    span as f64 / SECOND as f64
}

/// Where what is seen goes. Nobody waits for who does not look.
#[derive(Clone, Debug)]
pub(super) struct Sink {
    seen: mpsc::Sender<Seen>,
    lost: Arc<AtomicU64>,
}

impl Sink {
    pub(super) fn new(seen: mpsc::Sender<Seen>) -> Self {
        Self { seen, lost: Arc::default() }
    }

    fn tell(&self, seen: Seen) {
        if self.seen.try_send(seen).is_err() {
            self.lost.fetch_add(1, Relaxed);
        }
    }

    /// What was seen, but not looked at in time.
    pub(super) fn lost(&self) -> u64 {
        self.lost.load(Relaxed)
    }
}
