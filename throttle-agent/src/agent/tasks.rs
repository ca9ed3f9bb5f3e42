//! What the agent does beside answering: each runs until it fails, and is then started anew (see [`super::supervise`]).

use std::{convert::Infallible, time::Duration};

use anyhow::{Context as _, bail};
use tokio::{runtime, time::timeout};

use crate::{
    control::{Control, Handle},
    datapath::Watch,
    events::Hub,
};

/// How often interfaces are looked at although the kernel reported no change.
const LOOK: Duration = Duration::from_secs(10);

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
