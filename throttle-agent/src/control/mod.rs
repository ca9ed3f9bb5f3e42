//! What the agent decides: one owner of the kernel's maps, the store and the policy in force.
//!
//! Requests come in through [`Handle`], one after the other; each is done wholly or not at all. A policy is checked and
//! compiled before anything is written, then stored, then put in force; where the kernel refuses, the store takes it
//! back. A crash between the two is mended at the next start, which puts what is stored in force again. What changes no more
//! than how much limits allow need not wait for the disk: it is in force first, then stored. Going back goes
//! that way round too: in force first, then stored, because until it is stored it is tried again. Time comes in through
//! [`Control::tick`]: blocks and sessions end, and what nobody confirmed goes back; and, twenty times a second where a service
//! follows its health (`health`).

mod back;
mod clock;
mod conflicts;
mod connections;
mod due;
mod enforce;
mod entries;
mod explain;
mod faults;
mod handle;
mod health;
mod held;
mod interfaces;
mod letters;
mod met;
mod occupancy;
mod packets;
mod penalties;
mod replica;
mod session;
mod sessions;
mod sources;
mod speeds;
mod stamp;
mod top;
mod trends;
mod unmet;
mod views;
mod weighed;
mod writes;

use std::{collections::BTreeMap, path::Path, sync::Arc, time::Instant};

use anyhow::Context as _;
use back::Waiting;
pub use clock::Clock;
use connections::Counting;
pub use faults::Faults;
pub use handle::Handle;
use health::Health;
pub use health::{Notice, Notices};
use ipnet::IpNet;
use jiff::Timestamp;
use penalties::Penalties;
pub use replica::{Figures, Shares};
use sessions::Sessions;
pub use stamp::InForce;
use tokio::sync::watch;
use trends::Trends;
pub use writes::{Author, read_document, read_said};

use crate::{
    api::wire::{Build, LossCounts, Problem, ProblemKind},
    datapath::{Attachment, Datapath},
    events::Names,
    heartbeat::Target,
    policy::{self, Diagnostics, Document},
    stamp::Board,
    store::{Block, DeadLetter, Note, SetSpeed, Store, StoreError},
};

/// The author of what the agent writes by itself.
const AGENT: &str = "throttle";

/// Where the kernel names this boot.
const BOOT: &str = "/proc/sys/kernel/random/boot_id";

/// Blocks by prefix.
type Blocks = BTreeMap<IpNet, Block>;

/// The owner of everything that changes.
pub struct Control {
    datapath: Datapath,
    store: Arc<Store>,
    sessions: Sessions,
    clock: Clock,
    /// The policy of the store, and its number: the default one and 0 before the first. Commands edit it.
    document: Document,
    revision: u64,
    /// What is in force instead, where the kernel has refused the store's policy at the start.
    kept: Option<Document>,
    /// Set where the policy in force goes back by itself.
    waiting: Option<Waiting>,
    /// Blocks beside the document.
    blocks: Blocks,
    /// Who was sentenced to some of them, and how often.
    penalties: Penalties,
    /// The speeds of health clocks that were set by hand.
    speeds: Vec<SetSpeed>,
    /// The health of services, and what follows from it.
    health: Health,
    /// Whether the kernel has all that this agent makes of the policy in force, so that a part of it that another policy
    /// has too is known to be right, and to be there.
    in_step: bool,
    /// Whether the kernel's sources have to be written anew: what is stated beside the policy has changed, or not all could
    /// be written.
    stale: bool,
    /// When the table was looked over; adopting it did so.
    swept: Instant,
    /// When the open connections are counted anew.
    counting: Counting,
    /// What limits come to over time, and when they were last looked at.
    trends: Trends,
    looked: Option<Instant>,
    /// How the interfaces stood when they were last looked at.
    attachments: Vec<Attachment>,
    faults: Faults,
    started: Timestamp,
    /// The kernel's name of this boot; empty where it gives none.
    boot: String,
    build: Build,
    capabilities: Vec<String>,
    /// The digest of the policy in force, with its revision; none where it has not been asked for since that changed.
    digest: Option<(u64, String)>,
    /// The stamp that this host is in.
    stamp: Option<Board>,
    /// The policy of that stamp.
    shared: Option<replica::Shared>,
    /// What its hosts sent that is no change.
    dead_letters: Vec<DeadLetter>,
    published: Published,
}

/// What the rest of the agent watches; the control thread keeps it up to date.
#[derive(Clone, Debug)]
pub struct Published {
    /// How the kernel's numbers read.
    pub names: watch::Sender<Arc<Names>>,
    /// What the kernel could not do.
    pub losses: watch::Sender<LossCounts>,
    /// How it stands, in one line.
    pub summary: watch::Sender<String>,
    /// The backends that the policy in force has.
    pub targets: watch::Sender<Arc<[Target]>>,
    /// How this host's policy stands in the stamp.
    pub shares: watch::Sender<Arc<Shares>>,
}

impl Default for Published {
    fn default() -> Self {
        Self {
            names: watch::Sender::new(Arc::default()),
            losses: watch::Sender::new(LossCounts::default()),
            summary: watch::Sender::new(String::new()),
            targets: watch::Sender::new(Arc::from([])),
            shares: watch::Sender::default(),
        }
    }
}

impl Control {
    /// Takes over what the store and the kernel hold, and puts the stored policy in force. `seed` is the policy for a
    /// store that has none. A stored policy that cannot be put in force ends nothing: the kernel goes on with the one
    /// that it has, and the status says so.
    pub fn open(
        datapath: Datapath,
        store: Store,
        state_dir: &Path,
        build: Build,
        seed: Option<Document>,
    ) -> anyhow::Result<Self> {
        let boot = std::fs::read_to_string(BOOT).unwrap_or_default();
        let mut control = Self {
            health: Health::new(state_dir, &boot),
            sessions: Sessions::open(state_dir),
            clock: Clock::new(),
            document: Document::default(),
            revision: 0,
            kept: None,
            waiting: None,
            blocks: BTreeMap::new(),
            penalties: Penalties::default(),
            speeds: Vec::new(),
            in_step: false,
            stale: false,
            swept: Instant::now(),
            counting: Counting::new(),
            trends: Trends::default(),
            looked: None,
            attachments: Vec::new(),
            faults: Faults::default(),
            started: Timestamp::now(),
            boot,
            build,
            capabilities: Vec::new(),
            digest: None,
            stamp: None,
            shared: None,
            dead_letters: Vec::new(),
            published: Published::default(),
            datapath,
            store: Arc::new(store),
        };
        control.resume(seed)?;
        control.take_over()?;
        // Buckets are carried over from an earlier layout while all clocks run as fast as real time.
        control.resume_sentences();
        control.resume_speeds();
        control.resume_breakers();
        control.resume_alerts();
        control.resume_standings();
        Ok(control)
    }

    /// Where the maps had an earlier layout: changes over to this build's, now that they hold the policy.
    fn take_over(&mut self) -> anyhow::Result<()> {
        let outcome = self.datapath.take_over(|_| ());
        let faults = self.faults.all();
        let outcome = if faults.is_empty() { outcome } else { outcome.with_context(|| faults.join("; ")) };
        let Some(taken) = outcome? else { return Ok(()) };
        tracing::info!(
            from = taken.from,
            admitted_meanwhile = taken.admitted_meanwhile,
            forgotten = taken.forgotten,
            "changed over from an earlier layout; counters and buckets are kept"
        );
        // What opened and closed meanwhile the programs before counted elsewhere.
        self.count_connections();
        Ok(())
    }

    fn resume(&mut self, seed: Option<Document>) -> anyhow::Result<()> {
        let now = Timestamp::now();
        let blocks = self.store.blocks().context("read the blocks of the store")?;
        self.blocks = blocks.into_iter().map(|block| (block.prefix, block)).collect();
        let pending = self.store.pending().context("read what waits for confirmation")?;
        self.waiting = pending.map(Waiting::new);
        match (self.store.current().context("read the policy of the store")?, seed) {
            (Some(held), _) => (self.document, self.revision) = (held.document, held.info.revision),
            (None, Some(document)) => {
                policy::compile(&document, 1, &self.datapath.layout())?;
                self.revision = self.store.append(&document, AGENT, "the policy given at the start", now)?;
                self.document = document;
            }
            (None, None) if self.head().revision > 0 => {
                let held = self.head().revision;
                let fault = format!(
                    "the store has no policy, so the kernel keeps revision {held}; \
                     apply your policy file again, or start with the right --state-dir"
                );
                self.faults.note("policy", Err(fault));
                self.publish_names();
                return Ok(());
            }
            (None, None) => {}
        }
        if self.time_is_over() {
            // What went unconfirmed is not put in force once more; where going back fails, the kernel keeps what it has.
            self.go_back_when_due(Instant::now());
            if !self.is_in_force() {
                self.note_kept();
            }
            self.publish_names();
            return Ok(());
        }
        let (document, revision) = (self.document.clone(), self.revision);
        let compiled = self.compile(&document, revision);
        if let Err(problem) = compiled.and_then(|compiled| self.enforce(&document, &compiled)) {
            let held = self.head().revision;
            self.note_kept();
            let fault = format!("revision {revision} is not in force, the kernel keeps {held}: {problem}");
            self.faults.note("policy", Err(fault));
            self.publish_names();
        }
        Ok(())
    }

    /// Looks up what the kernel keeps in place of the store's last policy. It may be of another store: then what the
    /// last policy says of sources is the best that is known.
    fn note_kept(&mut self) {
        self.kept = Some(self.document_of(self.head().revision).unwrap_or_else(|_| self.document.clone()));
    }

    /// Notes what opening the store found, until a policy is applied.
    pub fn note_store(&self, notes: &[Note]) {
        let notes: Vec<String> = notes.iter().map(ToString::to_string).collect();
        if !notes.is_empty() {
            self.faults.note("store", Err(notes.join("; ")));
        }
    }

    /// What the rest of the agent may watch.
    pub fn published(&self) -> &Published {
        &self.published
    }

    /// The kernel edge, for what is done once at the start.
    pub fn datapath(&mut self) -> &mut Datapath {
        &mut self.datapath
    }

    /// Where faults are told.
    pub fn faults(&self) -> Faults {
        self.faults.clone()
    }

    /// Notes which capabilities the process kept.
    pub fn keep_capabilities(&mut self, names: Vec<String>) {
        self.capabilities = names;
    }
}

fn refused(Diagnostics(diagnostics): Diagnostics) -> Problem {
    let detail = match diagnostics.len() {
        1 => diagnostics[0].to_string(),
        faults => format!("{faults} faults; the first: {}", diagnostics[0]),
    };
    Problem { diagnostics, ..Problem::new(ProblemKind::PolicyRefused, detail) }
}

fn kernel(error: &anyhow::Error) -> Problem {
    Problem::new(ProblemKind::Kernel, format!("{error:#}"))
}

fn stored(error: &StoreError) -> Problem {
    let kind = match error {
        StoreError::NoRevision(_) => ProblemKind::NotFound,
        StoreError::AwaitsConfirmation { .. } | StoreError::NothingPending(_) => ProblemKind::Conflict,
        _ => ProblemKind::Store,
    };
    Problem::new(kind, error.to_string())
}
