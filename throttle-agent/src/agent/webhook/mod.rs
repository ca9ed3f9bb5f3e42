//! Who is told of what changes with the health of services: a POST of JSON for each change, to each URL.
//!
//! Changes wait in a bounded queue ([`Notices`]). Each URL has a task and a queue of its own, so that one that does not answer
//! holds no other up: a change is tried [`TRIES`] times, then it is lost and counted, and the status says so until the next
//! one gets through.

mod post;
mod url;

use std::{path::Path, sync::Arc, time::Duration};

use anyhow::Context as _;
use bytes::Bytes;
use tokio::{
    sync::mpsc::{self, error::TrySendError},
    task::JoinSet,
    time,
};
pub use url::Webhook;

use crate::{
    api::wire::Envelope,
    control::{Faults, Notice, Notices},
    tls::{self, ClientConfig, Renewed},
};

/// By whose word receivers of `https` are trusted; nothing where there is none of them.
type Trust = Option<Arc<Renewed<ClientConfig>>>;

/// Changes that may wait for one URL.
const WAITING: usize = 256;
/// How often a change is tried.
const TRIES: u32 = 3;
/// How long one try may take, from the connection to the status.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long it waits before the second try; twice as long before the third.
const PAUSE: Duration = Duration::from_millis(500);

/// Everybody who is told.
#[derive(Debug)]
pub(super) struct Webhooks {
    hooks: Vec<Webhook>,
    trust: Trust,
}

impl Webhooks {
    /// Those of `https` must be vouched for by `authority`, or else by one that the system trusts.
    pub(super) fn new(hooks: Vec<Webhook>, authority: Option<&Path>) -> anyhow::Result<Self> {
        let encrypted = hooks.iter().find(|hook| hook.is_encrypted());
        let trust =
            |hook: &Webhook| tls::client(authority).with_context(|| format!("tell the webhook {hook}")).map(Arc::new);
        let trust = encrypted.map(trust).transpose()?;
        Ok(Self { hooks, trust })
    }

    /// Whether nobody is.
    pub(super) fn is_empty(&self) -> bool {
        self.hooks.is_empty()
    }

    /// Who must vouch for those of `https`, if there are any.
    pub(super) fn trust(&self) -> Trust {
        self.trust.clone()
    }

    /// Tells everybody of what changes, for as long as it runs.
    pub(super) async fn tell(self, mut waiting: mpsc::Receiver<Notice>, notices: Notices, faults: Faults) {
        let mut tasks = JoinSet::new();
        let mut queues = Vec::new();
        for hook in self.hooks {
            let (queue, coming) = mpsc::channel(WAITING);
            tasks.spawn(tell_one(hook, self.trust.clone(), coming, notices.clone(), faults.clone()));
            queues.push(queue);
        }
        while let Some(notice) = waiting.recv().await {
            let body = Bytes::from(serde_json::to_vec(&Envelope::new(notice)).expect("a notice is plain data"));
            for queue in &queues {
                if let Err(TrySendError::Full(_)) = queue.try_send(body.clone()) {
                    notices.lose();
                }
            }
        }
    }
}

async fn tell_one(hook: Webhook, trust: Trust, mut coming: mpsc::Receiver<Bytes>, notices: Notices, faults: Faults) {
    while let Some(body) = coming.recv().await {
        let mut tries = 0;
        let told = loop {
            let answer = time::timeout(PATIENCE, post::post(&hook, trust.as_deref(), body.clone())).await;
            tries += 1;
            match answer.unwrap_or_else(|_| Err(anyhow::anyhow!("no answer within {PATIENCE:?}; is it there?"))) {
                Err(_) if tries < TRIES => time::sleep(PAUSE * 2u32.pow(tries - 1)).await,
                outcome => break outcome,
            }
        };
        if told.is_err() {
            notices.lose();
        }
        let fault = |error| format!("the webhook {hook} was not told of a change: {error:#}");
        faults.note(format!("webhook {hook}"), told.map_err(fault));
    }
}
