//! What the agent decides: one owner of the kernel's maps, the store and the policy in force.
//!
//! Requests come in through [`Handle`], one after the other; each is done wholly or not at all. A policy is checked and
//! compiled before anything is written, then stored, then put in force; where the kernel refuses, the store takes it
//! back. A crash between the two is mended at the next start, which puts what is stored in force again. Time comes in
//! through [`Control::tick`]: blocks and sessions end, and what nobody confirmed goes back.

mod clock;
mod due;
mod handle;
mod session;
mod sessions;
mod sources;
mod views;
mod writes;

use std::{collections::BTreeMap, path::Path, sync::Arc, time::Instant};

use anyhow::Context as _;
pub use clock::Clock;
pub use handle::Handle;
use ipnet::IpNet;
use jiff::Timestamp;
use sessions::Sessions;
use throttle_common::records;
use tokio::sync::watch;
pub use writes::{Author, read_document};

use crate::{
    api::wire::{Build, LossCounts, Problem, ProblemKind},
    datapath::Datapath,
    events::Names,
    policy::{self, Diagnostics, Document},
    store::{Block, Pending, Store, StoreError},
};

/// The author of what the agent writes by itself.
const AGENT: &str = "throttle";

/// Blocks by prefix.
type Blocks = BTreeMap<IpNet, Block>;

/// The owner of everything that changes.
pub struct Control {
    datapath: Datapath,
    store: Store,
    sessions: Sessions,
    clock: Clock,
    /// The policy in force, and its number: the default one and 0 before the first.
    document: Document,
    revision: u64,
    /// Set where the policy in force goes back by itself, and when on a clock that nobody sets.
    pending: Option<(Pending, Instant)>,
    /// Blocks beside the document.
    blocks: Blocks,
    /// Whether the kernel's sources have to be written anew.
    stale: bool,
    /// What is wrong beside the interfaces, by subject, with its remedy.
    faults: BTreeMap<&'static str, String>,
    started: Timestamp,
    build: Build,
    capabilities: Vec<String>,
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
}

impl Default for Published {
    fn default() -> Self {
        Self {
            names: watch::Sender::new(Arc::default()),
            losses: watch::Sender::new(LossCounts::default()),
            summary: watch::Sender::new(String::new()),
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
        let mut control = Self {
            sessions: Sessions::open(state_dir),
            clock: Clock::new(),
            document: Document::default(),
            revision: 0,
            pending: None,
            blocks: BTreeMap::new(),
            stale: false,
            faults: BTreeMap::new(),
            started: Timestamp::now(),
            build,
            capabilities: Vec::new(),
            published: Published::default(),
            datapath,
            store,
        };
        control.resume(seed)?;
        Ok(control)
    }

    fn resume(&mut self, seed: Option<Document>) -> anyhow::Result<()> {
        let now = Timestamp::now();
        let blocks = self.store.blocks().context("read the blocks of the store")?;
        self.blocks = blocks.into_iter().map(|block| (block.prefix, block)).collect();
        match self.store.pending().context("read what waits for confirmation")? {
            Some(pending) if pending.deadline <= now => {
                let revision = self.store.go_back(AGENT, now).context("take back what was not confirmed")?;
                tracing::warn!(from = pending.revision, ?revision, "went back: the policy was not confirmed in time");
            }
            pending => self.pending = pending.map(|pending| (pending, due::instant(pending.deadline, now))),
        }
        match (self.store.current().context("read the policy of the store")?, seed) {
            (Some(held), _) => (self.document, self.revision) = (held.document, held.info.revision),
            (None, Some(document)) => {
                policy::check(&document)?;
                policy::compile(&document, 1, &self.datapath.layout())?;
                self.revision = self.store.append(&document, AGENT, "the policy given at the start", now)?;
                self.document = document;
            }
            (None, None) if self.datapath.policy().revision > 0 => {
                let held = self.datapath.policy().revision;
                let fault = format!(
                    "the store has no policy, so the kernel keeps revision {held}; \
                     apply your policy file again, or start with the right --state-dir"
                );
                tracing::error!("{fault}");
                self.faults.insert("policy", fault);
                self.publish_names();
                return Ok(());
            }
            (None, None) => {}
        }
        let (document, revision) = (self.document.clone(), self.revision);
        if let Err(problem) = self.enforce(&document, revision) {
            let held = self.datapath.policy().revision;
            let fault = format!("revision {revision} is not in force, the kernel keeps {held}: {problem}");
            tracing::error!("{fault}");
            self.faults.insert("policy", fault);
            self.publish_names();
        }
        Ok(())
    }

    /// Compiles a policy and puts it in force; on an error the kernel is as before.
    fn enforce(&mut self, document: &Document, revision: u64) -> Result<(), Problem> {
        let compiled = policy::compile(document, revision, &self.datapath.layout()).map_err(refused)?;
        // Sources first: an allow of the new policy must be there before its limits are.
        self.write_sources(Some(document))?;
        if let Err(error) = self.datapath.apply(&compiled) {
            self.stale = true;
            return Err(kernel(&error));
        }
        self.faults.remove("policy");
        self.publish_names();
        Ok(())
    }

    fn publish_names(&self) {
        let name = |bytes| records::name_str(bytes).to_owned();
        let attachments = self.datapath.attachments().unwrap_or_default().into_iter();
        self.published.names.send_replace(Arc::new(Names {
            limits: self.datapath.limits().iter().map(|held| (held.number, name(&held.record.name))).collect(),
            services: self.datapath.services().iter().map(|(number, held)| (*number, name(&held.name))).collect(),
            interfaces: attachments.map(|it| (it.index, it.interface)).collect(),
            clock: self.clock,
        }));
    }

    /// What the rest of the agent may watch.
    pub fn published(&self) -> &Published {
        &self.published
    }

    /// The kernel edge, for what is done once at the start.
    pub fn datapath(&mut self) -> &mut Datapath {
        &mut self.datapath
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
