//! Takes part in the gossip: says what this host has to say, looks at what others say, and looks for them by the seeds.

use std::{
    convert::Infallible,
    net::{SocketAddr, TcpListener as Bound, UdpSocket},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context as _, anyhow};
use chitchat::{ChitchatConfig, ChitchatHandle, ChitchatId, FailureDetectorConfig, NodeState, spawn_chitchat};
use jiff::Timestamp;
use tokio::{
    net::TcpListener,
    sync::watch,
    time::{MissedTickBehavior, interval, sleep},
};
use tokio_util::sync::CancellationToken;

use super::{
    Board, INTERVAL, KeyFile, Keys, LOOK, Seeds,
    endpoint::Endpoint,
    facts::{Fact, Facts, OWN, is_name},
    roster::{DEAD, Id, Seen},
    transport::{Datagrams, Sealed, random},
};
use crate::{
    control::{Control, Faults, Handle, InForce, Shares},
    policy::Mode,
    replica::Standing,
};

/// How often a host looks what to say of itself, and whom its seeds name that does not take part.
const SAY: Duration = Duration::from_secs(1);
/// How often it looks whether its policy refuses what others gossip.
const REFUSALS: Duration = Duration::from_secs(5);
/// How long it is kept in mind what a host said that is dead. What is kept is gossiped for half as long: of an agent that is
/// started again and again, every start.
const GRACE: Duration = Duration::from_mins(4);
/// How long a host that leaves waits for its last word to go round.
const LAST_WORD: Duration = Duration::from_millis(300);

/// How a host is to take part.
#[derive(Clone, Debug)]
pub struct Options {
    /// The stamp's name.
    pub stamp: String,
    /// This host's name in it.
    pub host: String,
    /// Where it listens.
    pub listen: SocketAddr,
    /// Where others reach it.
    pub advertise: SocketAddr,
    /// Whom it asks for the others.
    pub seeds: Seeds,
    /// The file of the stamp's keys.
    pub keys: std::path::PathBuf,
}

/// A host that is about to take part: its port is bound, and its keys are read.
#[derive(Debug)]
pub struct Joining {
    options: Options,
    socket: UdpSocket,
    listener: Bound,
    keys: Arc<KeyFile>,
}

impl Joining {
    /// How it is to take part.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// Reads the keys and binds the port, for gossip and for changes of the policy.
    pub fn bind(options: &Options) -> anyhow::Result<Self> {
        let keys = Arc::new(KeyFile::open(&options.keys)?);
        let socket = UdpSocket::bind(options.listen).with_context(|| {
            let address = options.listen;
            format!("gossip on {address}: choose an address of this host and a free UDP port above 1023")
        })?;
        let listener = Bound::bind(options.listen).and_then(|it| it.set_nonblocking(true).map(|()| it));
        let listener = listener.with_context(|| {
            let address = options.listen;
            format!("take changes of the policy on {address}: choose a port that is free for TCP as for UDP")
        })?;
        Ok(Self { options: options.clone(), socket, listener, keys })
    }

    /// Begins, inside the event loop. [`Gossip::take_part`] does the rest.
    pub fn start(
        self,
        control: Handle,
        shares: watch::Receiver<Arc<Shares>>,
        faults: Faults,
        end: CancellationToken,
    ) -> anyhow::Result<Gossip> {
        let Self { options, socket, listener, keys } = self;
        let listener = TcpListener::from_std(listener).context("watch the port of changes")?;
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned();
        let datagrams = Arc::<Datagrams>::default();
        let own = own(&options);
        let seeds = !options.seeds.named.is_empty() || options.seeds.file.is_some();
        let (held, told) = (Arc::clone(&keys), Arc::clone(&datagrams));
        let board = Board::new(&options.stamp, own, seeds, held, told, shares.clone());
        let endpoint = Endpoint::new(&options.stamp, &options.host, &boot, options.advertise, random()?);
        let sealed = Sealed::new(socket, endpoint, Arc::clone(&keys), datagrams).context("watch the port of gossip")?;
        let mut facts = Facts::default();
        facts.set(Fact::Boot, boot);
        let facts = Mutex::new(facts);
        let all = Shared { options, control, shares, faults, end, board, sealed, listener, keys, facts };
        Ok(Gossip { shared: Arc::new(all), left: CancellationToken::new() })
    }
}

fn own(options: &Options) -> Id {
    let generation = Timestamp::now().as_millisecond().try_into().unwrap_or_default();
    Id { name: options.host.clone(), address: options.advertise, generation }
}

/// A host's part in the gossip.
#[derive(Clone, Debug)]
pub struct Gossip {
    shared: Arc<Shared>,
    /// Once the last word is said.
    left: CancellationToken,
}

#[derive(Debug)]
pub(super) struct Shared {
    options: Options,
    control: Handle,
    /// How this host's policy stands.
    shares: watch::Receiver<Arc<Shares>>,
    faults: Faults,
    /// When it is to leave.
    end: CancellationToken,
    board: Board,
    sealed: Sealed,
    /// Where others ask for changes of the policy.
    listener: TcpListener,
    keys: Arc<KeyFile>,
    facts: Mutex<Facts>,
}

impl Gossip {
    /// What is known of the stamp.
    pub fn board(&self) -> Board {
        self.shared.board.clone()
    }

    pub(super) fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.shared)
    }

    /// Waits until the others have been told that this host leaves; for a moment only, where it cannot.
    pub async fn leave(&self) {
        // Whoever did not hear it will take it to be dead.
        _ = tokio::time::timeout(2 * LAST_WORD, self.left.cancelled()).await;
    }

    /// Takes part until it cannot any more, each time as another run.
    pub async fn take_part(self) -> anyhow::Result<Infallible> {
        let Self { shared, left } = self;
        let own = own(&shared.options);
        shared.board.begin(own.clone());
        let chitchat = spawn_chitchat(configuration(&shared.options, own), Vec::new(), &shared.sealed).await;
        let chitchat = Ending(chitchat.context("start the gossip")?);
        let ended = chitchat.0.termination_watcher();
        tokio::select! {
            never = shared.look(&chitchat.0) => never,
            never = shared.say() => never,
            never = shared.seek(&chitchat.0) => never,
            never = shared.leave(&chitchat.0, &left) => never,
            cause = ended => Err(cause.err().unwrap_or_else(|| anyhow!("the gossip ended"))),
        }
    }
}

/// Ends with whoever holds it.
struct Ending(ChitchatHandle);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn configuration(options: &Options, own: Id) -> ChitchatConfig {
    ChitchatConfig {
        chitchat_id: ChitchatId {
            node_id: own.name.into(),
            generation_id: own.generation,
            gossip_advertise_addr: own.address,
        },
        cluster_id: options.stamp.clone(),
        gossip_interval: INTERVAL,
        listen_addr: options.listen,
        // They are found here, because they may change.
        seed_nodes: Vec::new(),
        failure_detector_config: FailureDetectorConfig {
            phi_threshold: DEAD,
            initial_interval: INTERVAL,
            dead_node_grace_period: GRACE,
            ..FailureDetectorConfig::default()
        },
        marked_for_deletion_grace_period: GRACE,
        catchup_callback: None,
        extra_liveness_predicate: None,
    }
}

impl Shared {
    pub(super) fn stamp(&self) -> &str {
        &self.options.stamp
    }

    pub(super) fn host(&self) -> &str {
        &self.options.host
    }

    pub(super) fn has_seeds(&self) -> bool {
        !self.options.seeds.named.is_empty() || self.options.seeds.file.is_some()
    }

    pub(super) fn control(&self) -> &Handle {
        &self.control
    }

    pub(super) fn shares(&self) -> &watch::Receiver<Arc<Shares>> {
        &self.shares
    }

    pub(super) fn board(&self) -> &Board {
        &self.board
    }

    pub(super) fn listener(&self) -> &TcpListener {
        &self.listener
    }

    pub(super) fn keys(&self) -> Keys {
        (*self.keys.keys()).clone()
    }

    fn facts(&self) -> Facts {
        self.facts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, set: impl FnOnce(&mut Facts)) {
        set(&mut self.facts.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Says what there is to say, and looks who is heard.
    async fn look(&self, chitchat: &ChitchatHandle) -> anyhow::Result<Infallible> {
        let mut ticks = interval(LOOK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let said = match &self.shares.borrow().standing {
                Some(Standing { digest, changes }) => format!("{digest} {changes}"),
                None => OWN.to_owned(),
            };
            self.set(|facts| facts.set(Fact::Shares, said));
            let facts = self.facts();
            let seen = chitchat.with_chitchat(|chitchat| {
                let own = chitchat.self_node_state();
                facts.said().for_each(|(name, value)| own.set(name, value));
                chitchat.node_states().values().filter_map(seen).collect()
            });
            self.board.look(facts.clone(), seen.await);
        }
    }

    /// Finds out what there is to say of this host.
    async fn say(&self) -> anyhow::Result<Infallible> {
        let mut before: Option<(InForce, Instant)> = None;
        let mut looked: Option<Instant> = None;
        loop {
            // While the control thread is busy, what was said before stands.
            if let Ok(told) = self.control.ask(Control::tells).await {
                let now = Instant::now();
                self.set(|facts| tell(facts, &told, before.as_ref().map(|(before, at)| (before, now - *at))));
                before = Some((told, now));
            }
            self.renew_keys().await;
            let names: Vec<String> = self.keys.keys().all().iter().map(super::Key::name).collect();
            self.set(|facts| {
                facts.set(Fact::Keys, names.join(" "));
                if let Some(load) = load() {
                    facts.set(Fact::Load, format!("{load:.2}"));
                }
            });
            if looked.is_none_or(|at| at.elapsed() >= REFUSALS) {
                looked = Some(Instant::now());
                let (peers, here) = (self.board.peers(), self.options.advertise);
                if let Ok(refused) = self.control.ask(move |control| control.refuses(&peers, here)).await {
                    self.board.refuse(refused);
                }
            }
            sleep(SAY).await;
        }
    }

    /// Reads the keys anew if they have changed; where the file is wrong, says so and goes on with those before.
    async fn renew_keys(&self) {
        let keys = Arc::clone(&self.keys);
        let outcome = match tokio::task::spawn_blocking(move || keys.look()).await {
            Ok(Ok(changed)) => {
                if changed {
                    let (stamp, sealing) = (&self.options.stamp, self.keys.keys().sealing().name());
                    tracing::info!(stamp, sealing, "the keys of the stamp are read anew, because the file has changed");
                }
                Ok(())
            }
            Ok(Err(fault)) => Err(fault.to_string()),
            Err(panic) => Err(panic.to_string()),
        };
        let stays = |fault| format!("keys of the stamp: {fault}; those that were read before stay in use");
        self.faults.note("keys of the stamp", outcome.map_err(stays));
    }

    /// Speaks to those whom the seeds name and who do not take part, and to those who are gone.
    async fn seek(&self, chitchat: &ChitchatHandle) -> anyhow::Result<Infallible> {
        for turn in 0_usize.. {
            let (found, faults) = self.options.seeds.find().await;
            let outcome = if faults.is_empty() { Ok(()) } else { Err(faults.join("; ")) };
            let told = |fault| format!("seeds of the stamp: {fault}; the others are used");
            self.faults.note("seeds of the stamp", outcome.map_err(told));
            let here = [self.options.advertise, self.options.listen];
            let present = self.board.peers();
            for seed in found.iter().filter(|seed| !here.contains(seed) && !present.contains(seed)) {
                chitchat.gossip(*seed)?;
            }
            // One after the other: where a network was cut for long, each side has forgotten what the other said, not where.
            let gone: Vec<_> =
                self.board.addresses().into_iter().filter(|address| !present.contains(address)).collect();
            if let Some(one) = gone.get(turn % gone.len().max(1)) {
                chitchat.gossip(*one)?;
            }
            sleep(SAY).await;
        }
        unreachable!("there is always another turn")
    }

    /// Once it is to end, tells the others; then waits to be ended.
    async fn leave(&self, chitchat: &ChitchatHandle, left: &CancellationToken) -> anyhow::Result<Infallible> {
        self.end.cancelled().await;
        self.set(|facts| facts.set(Fact::Leaving, "1"));
        chitchat.with_chitchat(|chitchat| chitchat.self_node_state().set(Fact::Leaving.name(), "1")).await;
        for peer in self.board.peers() {
            chitchat.gossip(peer)?;
        }
        sleep(LAST_WORD).await;
        left.cancel();
        std::future::pending().await
    }
}

/// What the gossip shows of a host; nothing where its name cannot be one.
fn seen(node: &NodeState) -> Option<Seen> {
    let ChitchatId { node_id, generation_id, gossip_advertise_addr } = node.chitchat_id();
    let id = Id { name: node_id.to_string(), address: *gossip_advertise_addr, generation: *generation_id };
    let seen = || Seen { id, heartbeat: node.heartbeat().into(), facts: Facts::read(|name| node.get(name)) };
    is_name(node_id).then(seen)
}

/// Says what is in force, and how much came of it since what was said `before`.
fn tell(facts: &mut Facts, told: &InForce, before: Option<(&InForce, Duration)>) {
    let mode = if told.mode == Mode::Enforce { "enforce" } else { "observe" };
    facts.set(Fact::Build, &*told.version);
    if let Some(program) = told.program {
        facts.set(Fact::Program, format!("{program:016x}"));
    }
    facts.set(Fact::Revision, told.revision.to_string());
    facts.set(Fact::Policy, &*told.policy);
    facts.set(Fact::Mode, mode);
    if let Some((before, time)) = before {
        let rate = |now: u64, before: u64| format!("{:.0}", now.saturating_sub(before) as f64 / time.as_secs_f64());
        facts.set(Fact::Packets, rate(told.packets, before.packets));
        facts.set(Fact::Refused, rate(told.refused, before.refused));
    }
}

/// The load average of a minute for each CPU.
fn load() -> Option<f64> {
    let averages = std::fs::read_to_string("/proc/loadavg").ok()?;
    let minute: f64 = averages.split(' ').next()?.parse().ok()?;
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    Some(minute / cpus as f64)
}
