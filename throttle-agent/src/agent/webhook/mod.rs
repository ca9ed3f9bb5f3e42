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
    task::{JoinHandle, JoinSet},
    time,
};
use tokio_util::sync::CancellationToken;
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

/// How long an agent that ends waits for those who have not been told yet: a try, and another.
const LAST_WORDS: Duration = Duration::from_secs(3);

/// A change with what is sent of it.
type Word = (Arc<Notice>, Bytes);

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

    /// Tells everybody of what changes, until that is finished.
    pub(super) fn start(self, waiting: mpsc::Receiver<Notice>, notices: Notices, faults: Faults) -> Telling {
        let end = CancellationToken::new();
        let task = tokio::spawn(self.tell(waiting, notices, faults, end.clone()));
        Telling { task, end }
    }

    async fn tell(self, mut waiting: mpsc::Receiver<Notice>, notices: Notices, faults: Faults, end: CancellationToken) {
        let mut tasks = JoinSet::new();
        let mut queues = Vec::new();
        for hook in self.hooks {
            let (queue, coming) = mpsc::channel(WAITING);
            tasks.spawn(tell_one(hook, self.trust.clone(), coming, notices.clone(), faults.clone()));
            queues.push(queue);
        }
        loop {
            let notice = tokio::select! {
                biased;
                notice = waiting.recv() => notice,
                () = end.cancelled() => {
                    waiting.close();
                    waiting.recv().await
                }
            };
            let Some(notice) = notice else { break };
            let notice = Arc::new(notice);
            let body = Bytes::from(serde_json::to_vec(&Envelope::new(&*notice)).expect("a notice is plain data"));
            for queue in &queues {
                if let Err(TrySendError::Full(_)) = queue.try_send((Arc::clone(&notice), body.clone())) {
                    notices.lose();
                }
            }
        }
        drop(queues);
        while tasks.join_next().await.is_some() {}
    }
}

/// Those who are told, while they are.
#[derive(Debug)]
pub(super) struct Telling {
    task: JoinHandle<()>,
    end: CancellationToken,
}

impl Telling {
    /// Tells what waits yet, and nothing after it; who does not answer soon is not waited for.
    pub(super) async fn finish(mut self) {
        self.end.cancel();
        if time::timeout(LAST_WORDS, &mut self.task).await.is_err() {
            self.task.abort();
        }
    }
}

async fn tell_one(hook: Webhook, trust: Trust, mut coming: mpsc::Receiver<Word>, notices: Notices, faults: Faults) {
    while let Some((notice, body)) = coming.recv().await {
        let mut tries = 0;
        let told = loop {
            let answer = time::timeout(PATIENCE, post::post(&hook, trust.as_deref(), body.clone())).await;
            tries += 1;
            match answer.unwrap_or_else(|_| Err(anyhow::anyhow!("no answer within {PATIENCE:?}; is it there?"))) {
                Err(_) if tries < TRIES => time::sleep(PAUSE * 2u32.pow(tries - 1)).await,
                outcome => break outcome,
            }
        };
        if told.is_ok() {
            notices.told((*notice).clone());
        } else {
            notices.lose();
        }
        let fault = |error| format!("the webhook {hook} was not told of a change: {error:#}");
        faults.note(format!("webhook {hook}"), told.map_err(fault));
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
    };

    use super::*;

    fn notice(number: u64) -> Notice {
        Notice {
            number,
            time: Timestamp::UNIX_EPOCH,
            service: "web".to_owned(),
            backend: None,
            address: None,
            kind: "scale-out".to_owned(),
            from: "no".to_owned(),
            to: "yes".to_owned(),
            reason: None,
            message: String::new(),
        }
    }

    #[tokio::test]
    async fn what_waits_at_the_end_is_told_yet_and_only_then_counts_as_told() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let hook = format!("http://{}/hook", listener.local_addr().unwrap()).parse().unwrap();
        let (notices, waiting) = Notices::queue();
        let telling = Webhooks::new(vec![hook], None).unwrap().start(waiting, notices.clone(), Faults::default());
        for number in 1..=3 {
            notices.send(|| notice(number));
        }
        tokio::spawn(async move {
            // The first try gets no answer.
            drop(listener.accept().await.unwrap());
            while let Ok((mut client, _)) = listener.accept().await {
                let _ = client.read(&mut [0; 4096]).await;
                let _ = client.write_all(b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n").await;
            }
        });
        assert_eq!(notices.take_told(), [], "nobody has answered");
        telling.finish().await;
        let told: Vec<u64> = notices.take_told().iter().map(|it| it.number).collect();
        assert_eq!((told, notices.lost()), (vec![1, 2, 3], 0));
    }

    #[tokio::test]
    async fn what_is_lost_does_not_count_as_told() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let hook = format!("http://{}/hook", listener.local_addr().unwrap()).parse().unwrap();
        drop(listener);
        let (notices, waiting) = Notices::queue();
        let telling = Webhooks::new(vec![hook], None).unwrap().start(waiting, notices.clone(), Faults::default());
        notices.send(|| notice(1));
        telling.finish().await;
        assert_eq!((notices.take_told(), notices.lost()), (Vec::new(), 1));
    }
}
