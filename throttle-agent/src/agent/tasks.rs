//! What the agent does beside answering: each that can fail is started anew when it has (see [`super::supervise`]).

use std::{convert::Infallible, sync::Arc, time::Duration};

use anyhow::{Context as _, bail};
use tokio::{
    runtime,
    task::spawn_blocking,
    time::{sleep, timeout},
};

use crate::{
    control::{Control, Faults, Handle},
    datapath::Watch,
    events::Hub,
    tls::Renewed,
};

/// How often interfaces are looked at although the kernel reported no change.
const LOOK: Duration = Duration::from_secs(10);
/// How long those are gathered who are refused again and again.
const GATHERING: Duration = Duration::from_millis(100);
/// How often the files of certificates are read, to see whether they have changed.
const RENEWAL: Duration = Duration::from_secs(5);

/// Tells the readers of the API of every event that the kernel reports.
pub(super) async fn report_events(control: Handle, hub: Hub) -> anyhow::Result<Infallible> {
    let runtime = runtime::Handle::current();
    let opened = control.ask(move |control| {
        let _inside = runtime.enter();
        Ok(control.datapath().events())
    });
    let mut events = opened.await?.context("open the kernel's events")?;
    loop {
        hub.publish(&events.next().await.context("read the kernel's events")?);
    }
}

/// Has those sentenced who are refused again and again.
///
/// Some are gathered before the next are read, because a sentence costs the disk and the kernel's maps as much as many do.
pub(super) async fn sentence_offenders(control: Handle) -> anyhow::Result<Infallible> {
    let runtime = runtime::Handle::current();
    let opened = control.ask(move |control| {
        let _inside = runtime.enter();
        Ok(control.datapath().offences())
    });
    let mut offences = opened.await?.context("open the kernel's offences")?;
    loop {
        let found = offences.next().await.context("read the kernel's offences")?;
        // Where that fails, the status says so; whoever goes on is told of again.
        if let Err(problem) = control.ask(move |control| control.sentence(&found)).await {
            tracing::warn!("nobody is sentenced for now: {problem}");
        }
        sleep(GATHERING).await;
    }
}

/// Has the interfaces looked at whenever one changes.
pub(super) async fn watch_interfaces(control: Handle) -> anyhow::Result<Infallible> {
    let mut interfaces = Watch::new().context("watch the interfaces")?;
    loop {
        control.ask(Control::reattach).await?;
        if let Ok(changed) = timeout(LOOK, interfaces.changed()).await {
            changed.context("watch the interfaces")?;
        }
    }
}

/// Hands the programs' debugging output to the agent's log.
pub(super) async fn tell_kernel_log(control: Handle) -> anyhow::Result<Infallible> {
    let runtime = runtime::Handle::current();
    let opened = control.ask(move |control| {
        let _inside = runtime.enter();
        Ok(control.datapath().kernel_log())
    });
    match opened.await?.context("open the kernel programs' log")? {
        Some(log) => log.await.context("read the kernel programs' log")?,
        None => bail!("the programs write no debugging output"),
    }
    bail!("the kernel programs' log ended")
}

/// Has certificates read anew when their files change; where those are wrong, says so and goes on with what was read before.
pub(super) async fn renew<T: Send + Sync + 'static>(subject: &'static str, held: Arc<Renewed<T>>, faults: Faults) {
    loop {
        sleep(RENEWAL).await;
        let held = Arc::clone(&held);
        let outcome = match spawn_blocking(move || held.look()).await {
            Ok(Ok(changed)) => {
                if changed {
                    tracing::info!(subject, "read anew, because the files have changed");
                }
                Ok(())
            }
            Ok(Err(fault)) => Err(fault.to_string()),
            Err(panic) => Err(panic.to_string()),
        };
        let stays = |fault| format!("{subject}: {fault}; what was read before stays in use");
        faults.note(subject, outcome.map_err(stays));
    }
}
