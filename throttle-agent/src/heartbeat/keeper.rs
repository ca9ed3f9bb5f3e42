//! The thread of heartbeats: it has a task for each instance that is watched, and finds out where they are.

use std::{collections::HashMap, io, sync::Arc, thread, time::Duration};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::{
    runtime,
    sync::watch,
    task::{AbortHandle, JoinSet},
    time::{MissedTickBehavior, interval},
};

use super::{
    Instance, Member, Target,
    discovery::{self, Discovery},
    roll::{Roll, Sink},
    watching,
};
use crate::control::Faults;

/// How often it looks whether names and files are due, and every task runs.
const LOOK: Duration = Duration::from_secs(1);

/// What the thread works with.
pub(super) struct Keeper {
    wanted: watch::Receiver<Arc<[Target]>>,
    publish: watch::Sender<Arc<[Member]>>,
    roll: Roll,
    sink: Sink,
    faults: Faults,
    discovery: Discovery,
    running: HashMap<Arc<Instance>, (Member, AbortHandle)>,
    tasks: JoinSet<()>,
}

/// Starts the thread, which ends when nobody can want anything of it any more.
pub(super) fn spawn(mut keeper: Keeper) -> io::Result<()> {
    raise_descriptors();
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(discovery::AT_ONCE)
        .thread_name("discovery")
        .build()?;
    let work = move || {
        runtime.block_on(keeper.work());
        // A resolver that does not answer holds up nobody's end.
        runtime.shutdown_background();
    };
    thread::Builder::new().name("heartbeats".to_owned()).spawn(work).map(drop)
}

/// A probe needs a file descriptor, and the usual bound of 1024 is only what programs with `select` can bear.
fn raise_descriptors() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        tracing::warn!(%error, "the number of file descriptors cannot be raised");
    }
}

impl Keeper {
    pub(super) fn new(
        wanted: watch::Receiver<Arc<[Target]>>,
        publish: watch::Sender<Arc<[Member]>>,
        roll: Roll,
        sink: Sink,
        faults: Faults,
    ) -> Self {
        let (discovery, running, tasks) = (Discovery::default(), HashMap::new(), JoinSet::new());
        Self { wanted, publish, roll, sink, faults, discovery, running, tasks }
    }

    async fn work(&mut self) {
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut lacks = false;
        loop {
            let differs = tokio::select! {
                changed = self.wanted.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let targets = self.wanted.borrow_and_update().clone();
                    self.discovery.want(&targets);
                    true
                }
                differs = self.discovery.found() => differs,
                Some(ended) = self.tasks.join_next() => {
                    if let Err(error) = ended && error.is_panic() {
                        tracing::error!("a task of heartbeats panicked, and is started anew: {error}");
                        lacks = true;
                    }
                    continue;
                }
                _ = looks.tick() => {
                    self.discovery.look();
                    std::mem::take(&mut lacks)
                }
            };
            self.faults.note("discovery", self.discovery.fault());
            if differs {
                self.settle();
            }
        }
    }

    /// Has everybody watched who is a member, and nobody else.
    fn settle(&mut self) {
        let members = self.discovery.members();
        self.roll.set(&members);
        let roll = &self.roll;
        self.running.retain(|instance, (member, task)| {
            let stays = !task.is_finished() && roll.find(instance).is_some_and(|watched| watched.member == *member);
            if !stays {
                task.abort();
            }
            stays
        });
        for member in &*members {
            if self.running.contains_key(&member.instance) {
                continue;
            }
            let Some(watched) = self.roll.find(&member.instance) else { continue };
            let task = self.tasks.spawn(watching::watch(watched, self.sink.clone(), seed()));
            self.running.insert(Arc::clone(&member.instance), (member.clone(), task));
        }
        self.publish.send_if_modified(|held| {
            let differs = **held != *members;
            if differs {
                *held = members.into();
            }
            differs
        });
    }
}

/// A number for the dice of a pace.
fn seed() -> u64 {
    let mut seed = [0; 8];
    // Where there is no randomness yet, instances that are told apart by nothing are spread by when they were made.
    if rustix::rand::getrandom(&mut seed, rustix::rand::GetRandomFlags::NONBLOCK).is_err() {
        return super::now();
    }
    u64::from_ne_bytes(seed)
}
