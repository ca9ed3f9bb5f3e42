//! The one thread that owns the kernel and the store, and how the rest of the agent asks it.
//!
//! What it does may block: a compile, 100 000 blocks, an fsync. So it has a thread of its own, takes one job after the
//! other, and between them does what is due: looks at the health of services, ends blocks, takes back what nobody confirmed.

use std::{
    sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel},
    thread::JoinHandle,
    time::Instant,
};

use anyhow::Context as _;
use tokio::sync::oneshot;

use super::Control;
use crate::api::wire::{Problem, ProblemKind};

/// Jobs that may wait. There are no more connections than this.
const WAITING: usize = 128;

type Job = Box<dyn FnOnce(&mut Control) + Send>;

/// A way to ask the control thread. It ends when the last one is dropped.
#[derive(Clone, Debug)]
pub struct Handle {
    jobs: SyncSender<Job>,
}

impl Handle {
    /// Gives `control` a thread of its own.
    pub fn spawn(control: Control) -> anyhow::Result<(Self, JoinHandle<()>)> {
        let (jobs, waiting) = sync_channel(WAITING);
        let thread = std::thread::Builder::new()
            .name("control".to_owned())
            .spawn(move || work(control, &waiting))
            .context("start the control thread")?;
        Ok((Self { jobs }, thread))
    }

    /// Has the control thread do `job` and gives what it came to.
    pub async fn ask<T, F>(&self, job: F) -> Result<T, Problem>
    where
        T: Send + 'static,
        F: FnOnce(&mut Control) -> Result<T, Problem> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let job: Job = Box::new(move |control| {
            // Whoever asked may have gone away; the job is done all the same.
            let _ = reply.send(job(control));
        });
        self.jobs.try_send(job).map_err(|refusal| match refusal {
            TrySendError::Full(_) => Problem::new(ProblemKind::Busy, "too many requests wait already; try again"),
            TrySendError::Disconnected(_) => gone(),
        })?;
        answer.await.map_err(|_| gone())?
    }
}

fn gone() -> Problem {
    Problem::new(ProblemKind::Unavailable, "the agent is ending, or its control thread died; see its log")
}

fn work(mut control: Control, jobs: &Receiver<Job>) {
    let mut due = Instant::now() + control.tick();
    loop {
        // Health is looked at between any two jobs, where that is due; the rest when a job may have changed it, and in time.
        let rest = control.look_at_health();
        match jobs.recv_timeout(rest.min(due.saturating_duration_since(Instant::now()))) {
            Ok(job) => job(&mut control),
            Err(RecvTimeoutError::Timeout) if Instant::now() < due => continue,
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        due = Instant::now() + control.tick();
    }
}
