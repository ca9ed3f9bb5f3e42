//! Tasks that must not end: where one does, the status says so and it is started anew, ever more seldom.

use std::{
    convert::Infallible,
    time::{Duration, Instant},
};

use tokio::task::{JoinError, JoinSet};

use crate::{control::Faults, run::retry::Retry};

/// A task that has run for so long has been started well.
const SETTLED: Duration = Duration::from_secs(2);

/// Keeps a task running until this is dropped. `start` makes it anew each time; `subject` is its name among the faults.
pub(super) async fn keep_running<T>(subject: &'static str, faults: Faults, mut start: impl FnMut() -> T)
where
    T: Future<Output = anyhow::Result<Infallible>> + Send + 'static,
{
    let mut retry = Retry::default();
    loop {
        // In a task of its own, so that its panic ends nothing else; it ends with this.
        let mut task = JoinSet::new();
        task.spawn(start());
        let early = tokio::time::timeout(SETTLED, task.join_next()).await;
        let ended = if let Ok(ended) = early {
            ended
        } else {
            faults.note(subject, Ok(()));
            retry = Retry::default();
            task.join_next().await
        };
        let cause = ended.map_or_else(|| "it was lost".to_owned(), cause);
        faults.note(subject, Err(format!("{subject}: {cause}; it is tried again, see the agent's log")));
        tokio::time::sleep(retry.failed(Instant::now())).await;
    }
}

fn cause(ended: Result<anyhow::Result<Infallible>, JoinError>) -> String {
    match ended {
        Ok(Err(error)) => format!("{error:#}"),
        Err(error) => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    };

    use anyhow::bail;

    use super::*;

    async fn pass(millis: u64) {
        tokio::time::sleep(Duration::from_millis(millis)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_fails_or_panics_is_told_and_started_anew() {
        let (starts, faults) = (Arc::new(AtomicU32::new(0)), Faults::default());
        let counted = Arc::clone(&starts);
        let keeper = tokio::spawn(keep_running("watching", faults.clone(), move || {
            let start = counted.fetch_add(1, Ordering::Relaxed);
            async move {
                match start {
                    0 => bail!("the socket is closed"),
                    1 => panic!("a mistake"),
                    _ => Ok(std::future::pending().await),
                }
            }
        }));
        pass(500).await;
        assert!(faults.all()[0].contains("watching: the socket is closed"), "{:?}", faults.all());
        pass(1_000).await;
        assert!(faults.all()[0].contains("panic"), "{:?}", faults.all());
        pass(10_000).await;
        assert_eq!((starts.load(Ordering::Relaxed), faults.all()), (3, vec![]), "it runs, and nothing is wrong");
        keeper.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_always_fails_is_started_ever_more_seldom() {
        let (starts, faults) = (Arc::new(AtomicU32::new(0)), Faults::default());
        let counted = Arc::clone(&starts);
        let keeper = tokio::spawn(keep_running("watching", faults.clone(), move || {
            counted.fetch_add(1, Ordering::Relaxed);
            async { bail!("never") }
        }));
        pass(600_000).await;
        let starts = starts.load(Ordering::Relaxed);
        assert!((10..=20).contains(&starts), "{starts} starts in ten minutes");
        assert_eq!(faults.all().len(), 1);
        keeper.abort();
    }
}
