//! The agent as a process: wires the control thread, the API, the events and the watches together, and ends in order.
//!
//! The start is done by one thread: locks, socket, store, kernel, policy, interfaces; then privileges go, and only then
//! threads are started, because capabilities belong to threads. The end leaves enforcement in place.

mod options;
mod ports;
mod supervise;
mod tasks;
mod webhook;

use std::{fmt::Write as _, path::Path, sync::Arc, thread::JoinHandle};

use anyhow::Context as _;
pub use options::{Heartbeats, Options};
pub use ports::metrics_address;
use ports::{Beats, bind_metrics};
use sha2::{Digest as _, Sha256};
use supervise::keep_running;
use throttle_common::records::LAYOUT;
use tokio::{
    net::TcpListener,
    runtime,
    signal::unix::{SignalKind, signal},
    sync::watch,
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;
pub use webhook::Webhook;
use webhook::Webhooks;

use crate::{
    api::{
        Api,
        peer::{Admission, group_number},
        serve, tls,
        wire::Build,
    },
    control::{Control, Handle, Notices},
    datapath::{self, Datapath, OBJECT},
    events::Hub,
    heartbeat::{self, Target},
    policy::{self, Diagnostics, Document},
    run::{
        lock::{Lock, Socket},
        logs, notify,
        private::private_directory,
        privileges,
    },
    stamp::{self, Gossip, Joining},
    store::Store,
};

/// Runs until SIGTERM or SIGINT. A policy that is refused is a [`policy::Diagnostics`] in the error's chain.
pub fn run(options: &Options) -> anyhow::Result<()> {
    logs::start()?;
    let agent = Agent::start(options)?;
    agent.serve(&CancellationToken::new(), true)
}

/// An agent that is attached and has its policy in force, and is about to serve.
pub struct Agent {
    control: Control,
    socket: Socket,
    admission: Admission,
    metrics: Option<std::net::TcpListener>,
    beats: Option<Beats>,
    webhooks: Webhooks,
    stamp: Option<Joining>,
    debug: bool,
    _state: Lock,
}

impl Agent {
    /// Does everything that needs privileges, in the network namespace of the calling thread.
    pub fn start(options: &Options) -> anyhow::Result<Self> {
        privileges::require()?;
        datapath::doctor::require_kernel()?;
        let seed = options.policy.as_deref().map(read_policy).transpose()?;
        let group = options.socket_group.as_deref().map(group_number).transpose()?;
        let metrics = options.metrics.map(bind_metrics).transpose()?;
        let beats = options.heartbeats.as_ref().map(Beats::bind).transpose()?;
        let webhooks = Webhooks::new(options.webhooks.clone(), options.webhook_authority.as_deref())?;
        let stamp = options.stamp.as_ref().map(Joining::bind).transpose()?;
        private_directory(&options.state_dir, 0o700)?;
        let state = Lock::directory(&options.state_dir)?;
        let socket = Socket::bind(&options.socket, group)?;
        let (store, notes) = Store::open(&options.state_dir.join("store.redb"))?;
        let mut datapath = Datapath::open(&datapath::Options {
            pin_dir: options.pin_dir.clone(),
            table_sets: options.table_sets,
            debug: options.debug,
            test_clock: false,
            adopt: true,
        })?;
        datapath.try_out();
        if let Err(error) = datapath.watch_sockets() {
            tracing::warn!("a completed handshake proves nobody here: {error:#}");
        }
        match &options.cgroup {
            Some(cgroup) => datapath.guard_connects(cgroup)?,
            None => datapath.unguard_connects()?,
        }
        let mut control = Control::open(datapath, store, &options.state_dir, build(), seed)?;
        control.note_store(&notes);
        if let Some(joining) = &stamp {
            let stamp::Options { stamp, host, .. } = joining.options();
            control.share(stamp, host, stamp::random()?).context("take part in the policy of the stamp")?;
        }
        control.attach(&options.interfaces, options.mode)?;
        if !control.datapath().outlives_agent() {
            tracing::warn!("throttling will end with the agent: {}", datapath::PRIVATE_PINS);
        }
        let kept = if options.drop_privileges { privileges::drop_others()? } else { privileges::held() };
        tracing::info!(capabilities = kept.join(" "), dropped_others = options.drop_privileges, "privileges");
        control.keep_capabilities(kept);
        let uid = rustix::process::geteuid().as_raw();
        let admission = Admission { uid, group };
        control.datapath().keep();
        Ok(Self { control, socket, admission, metrics, beats, webhooks, stamp, debug: options.debug, _state: state })
    }

    /// Serves until `end` is cancelled or, with `signals`, SIGTERM or SIGINT comes.
    pub fn serve(self, end: &CancellationToken, signals: bool) -> anyhow::Result<()> {
        let runtime = runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("agent")
            .enable_all()
            .build()
            .context("start the event loop")?;
        let thread = runtime.block_on(self.work(end, signals))?;
        drop(runtime);
        thread.join().map_err(|_| anyhow::anyhow!("the control thread died; see the log"))
    }

    async fn work(self, end: &CancellationToken, signals: bool) -> anyhow::Result<JoinHandle<()>> {
        let Self { mut control, socket, admission, metrics, beats, webhooks, stamp, debug, _state } = self;
        if signals {
            end_by_signal(end.clone())?;
        }
        let published = control.published().clone();
        let faults = control.faults();
        let hub = Hub::new(published.names.subscribe(), published.losses.subscribe(), end.clone());
        let mut tasks = JoinSet::new();
        let (heartbeats, seen) = heartbeat::Heartbeats::start(faults.clone())?;
        let (notices, telling) = if webhooks.is_empty() {
            (Notices::default(), None)
        } else {
            let (notices, waiting) = Notices::queue();
            if let Some(trust) = webhooks.trust() {
                tasks.spawn(tasks::renew("webhook authority", trust, faults.clone()));
            }
            (notices.clone(), Some(webhooks.start(waiting, notices, faults.clone())))
        };
        control.watch_health(heartbeats.clone(), seen, notices);
        // Before the control thread says its first word, which is the one that the service manager waits for.
        let summary = published.summary.subscribe();
        let (control, thread) = Handle::spawn(control)?;
        let shares = published.shares.subscribe();
        let gossip = stamp.map(|it| it.start(control.clone(), shares, faults.clone(), end.clone())).transpose()?;
        let board = gossip.as_ref().map(Gossip::board);
        let api = Api {
            control: control.clone(),
            events: hub.clone(),
            heartbeats,
            faults: Arc::default(),
            stamp: board.clone(),
        };
        if let Some((gossip, board)) = gossip.clone().zip(board) {
            let watching = control.ask(|control| {
                control.watch_stamp(board);
                Ok(())
            });
            watching.await?;
            let (fetching, serving) = (gossip.clone(), gossip.clone());
            tasks.spawn(keep_running("gossip", faults.clone(), move || gossip.clone().take_part()));
            let fetch = move || fetching.clone().fetch_changes();
            tasks.spawn(keep_running("changes of the stamp", faults.clone(), fetch));
            let serve = move || serving.clone().serve_changes();
            tasks.spawn(keep_running("changes for the stamp", faults.clone(), serve));
        }

        tasks.spawn(keep_running("events", faults.clone(), {
            let control = control.clone();
            move || tasks::report_events(control.clone(), hub.clone())
        }));
        tasks.spawn(keep_running("penalties", faults.clone(), {
            let control = control.clone();
            move || tasks::sentence_offenders(control.clone())
        }));
        tasks.spawn(keep_running("interface watch", faults.clone(), {
            let control = control.clone();
            move || tasks::watch_interfaces(control.clone())
        }));
        if let Some(Beats { listener, identity }) = beats {
            let listener = TcpListener::from_std(listener).context("watch the port of heartbeats")?;
            tasks.spawn(tasks::renew("certificates of heartbeats", Arc::clone(&identity), faults.clone()));
            let faults = Arc::clone(&api.faults);
            tasks.spawn(tls::serve(listener, identity, api.clone().heartbeats_router(), faults, end.clone()));
        }
        if debug {
            let control = control.clone();
            tasks.spawn(keep_running("kernel log", faults, move || tasks::tell_kernel_log(control.clone())));
        }
        tasks.spawn(watch_backends(published.targets.subscribe(), api.heartbeats.clone()));
        if let Some(period) = notify::watchdog_period() {
            let beating = control.clone();
            tasks.spawn(notify::feed_watchdog(period, end.clone(), move || {
                let control = beating.clone();
                async move { control.ask(Control::beat).await.is_ok() }
            }));
        }
        if let Some(listener) = metrics {
            let listener = TcpListener::from_std(listener).context("watch the figures' socket")?;
            tasks.spawn(serve::serve_tcp(listener, api.clone().metrics_router(), end.clone()));
        }
        tasks.spawn(report(summary));
        let faults = Arc::clone(&api.faults);
        let serving = serve::serve_unix(socket.listener()?, api.router(), admission, faults, end.clone());
        serving.await;

        let farewell = control.ask(|control| Ok(control.farewell())).await.unwrap_or_else(|_| "ended".to_owned());
        notify::stopping(&farewell);
        if let Some(gossip) = gossip {
            gossip.leave().await;
        }
        if let Some(telling) = telling {
            telling.finish().await;
        }
        let kept = control.ask(|control| {
            control.keep_alerts();
            Ok(())
        });
        // Where the control thread died there is nothing to keep.
        _ = kept.await;
        tasks.shutdown().await;
        tracing::info!("{farewell}");
        Ok(thread)
    }
}

/// Tells the service manager and the log how it stands: ready first, then every change.
async fn report(mut summary: watch::Receiver<String>) {
    let mut tell: fn(&str) = notify::ready;
    while summary.changed().await.is_ok() {
        let summary = summary.borrow_and_update().clone();
        tracing::info!("{summary}");
        tell(&summary);
        tell = notify::status;
    }
}

/// Has those watched who are backends in the policy in force.
async fn watch_backends(mut targets: watch::Receiver<Arc<[Target]>>, heartbeats: heartbeat::Heartbeats) {
    targets.mark_changed();
    while targets.changed().await.is_ok() {
        heartbeats.set_targets(targets.borrow_and_update().to_vec());
    }
}

fn read_policy(path: &Path) -> anyhow::Result<Document> {
    let bytes = std::fs::read(path).map_err(|error| Diagnostics::unread(&error));
    let document = bytes.and_then(policy::text).and_then(|text| policy::parse(&text));
    document.with_context(|| format!("the policy {} is refused", path.display()))
}

/// What this build is.
pub fn build() -> Build {
    let mut digest = String::new();
    for byte in Sha256::digest(OBJECT) {
        write!(digest, "{byte:02x}").expect("a string takes all text");
    }
    Build { version: env!("CARGO_PKG_VERSION").to_owned(), layout: LAYOUT, object_digest: digest }
}

fn end_by_signal(end: CancellationToken) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("watch for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("watch for SIGINT")?;
    let mut hang_up = signal(SignalKind::hangup()).context("watch for SIGHUP")?;
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
                _ = hang_up.recv() => {
                    tracing::info!("SIGHUP changes nothing: policy comes by `throttle policy apply FILE`");
                }
            }
        }
        end.cancel();
    });
    Ok(())
}
