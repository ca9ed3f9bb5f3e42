//! The history: every change that this host knows, and what they come to together.

use std::{
    collections::{BTreeMap, HashSet},
    fmt,
    sync::OnceLock,
};

use automerge::transaction::Transaction;
use automerge::{ActorId, Automerge, AutomergeError, Change, ChangeHash, ROOT, ReadDoc, transaction::CommitOptions};
use jiff::Timestamp;
use serde_json::Map;
use sha2::{Digest as _, Sha256};

use super::{Conflict, Label, Standing, conflicts, tree};
use crate::{
    policy::{
        Document, SetAside,
        entries::{Entries, differing, entries},
        salvage,
    },
    stamp::hex,
};

/// With what seeds are made the same wherever they are made: to be changed with the version of automerge, which may write
/// them in another way.
const SEEDED: &str = "throttle seed, automerge 0.12.0";

/// How many changes of each maker are known, by the maker: each start of an agent is one.
pub type Versions = BTreeMap<String, u64>;

/// The policy with the history of its changes.
pub struct Replica {
    document: Automerge,
    host: String,
    actor: ActorId,
    log: Vec<Logged>,
    versions: Versions,
    known: HashSet<ChangeHash>,
    /// What they come to, once somebody has asked.
    merged: OnceLock<Result<Merged, String>>,
}

/// A change that is known, in the order in which they came here.
struct Logged {
    maker: String,
    number: u64,
    bytes: Vec<u8>,
}

/// What changes come to.
#[derive(Clone, Debug, PartialEq)]
pub struct Merged {
    /// The policy.
    pub document: Document,
    /// What of the entries is not in it, because together they are none.
    pub set_aside: Vec<SetAside>,
}

/// What came of changes of others.
#[derive(Debug, Default)]
pub struct Taken {
    /// Those that are new, to be kept in this order.
    pub changes: Vec<(Label, Vec<u8>)>,
    /// Those that are no changes.
    pub unfit: Vec<(Vec<u8>, Unfit)>,
    /// How many follow others that are not known yet; they come again.
    pub early: usize,
}

/// Why something is no change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unfit {
    /// It cannot be read.
    Malformed,
    /// Its maker has made another one in its place: a copy of a machine, or somebody who speaks for it.
    Forked,
}

impl fmt::Debug for Replica {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Replica({} of {} changes)", self.host, self.log.len())
    }
}

impl Replica {
    /// That of a host, with the changes that it has kept, in the order in which it did. The `actor` is random, another one for
    /// each start of the agent: no two changes are then called the same, also where a machine was copied.
    pub fn open(host: &str, actor: [u8; 16], kept: impl IntoIterator<Item = Vec<u8>>) -> Result<Self, AutomergeError> {
        let mut replica = Self {
            document: Automerge::new(),
            host: host.to_owned(),
            actor: ActorId::from(&actor[..]),
            log: Vec::new(),
            versions: Versions::new(),
            known: HashSet::new(),
            merged: OnceLock::new(),
        };
        let kept = kept.into_iter().map(|bytes| Ok(Change::from_bytes(bytes)?));
        replica.apply(&kept.collect::<Result<Vec<_>, AutomergeError>>()?)?;
        Ok(replica)
    }

    /// Whether there is any change.
    pub fn is_empty(&self) -> bool {
        self.log.is_empty()
    }

    /// In what two hosts that know the same changes agree, and the others do not.
    pub fn standing(&self) -> Standing {
        let mut digest = Sha256::new();
        for head in self.document.get_heads() {
            digest.update(head.0);
        }
        Standing { digest: hex(&digest.finalize()[..8]), changes: self.log.len() as u64 }
    }

    /// How many changes of each maker are known.
    pub fn versions(&self) -> &Versions {
        &self.versions
    }

    /// The changes that one who knows these lacks, each after those that it follows.
    pub fn missing<'r>(&'r self, versions: &'r Versions) -> impl Iterator<Item = &'r [u8]> {
        let lacks = |it: &&Logged| versions.get(&it.maker).is_none_or(|known| *known < it.number);
        self.log.iter().filter(lacks).map(|it| &it.bytes[..])
    }

    /// Makes this policy the first one: the same change on every host that does so with the same policy. None where it is empty.
    pub fn seed(&mut self, policy: &Document) -> Result<Option<Vec<u8>>, AutomergeError> {
        let entries: Map<_, _> = entries(policy).into_iter().collect();
        let mut digest = Sha256::new();
        digest.update(SEEDED);
        digest.update(serde_json::to_vec(&entries).expect("a policy is plain data"));
        let label = Label {
            host: String::new(),
            author: String::new(),
            message: "the first policy of the stamp".to_owned(),
            at: Timestamp::UNIX_EPOCH,
        };
        let maker = ActorId::from(&digest.finalize()[..16]);
        self.commit(maker, &label, |to| tree::change(to, &ROOT, &Map::new(), &entries))
    }

    /// Changes what is not the same in two policies: gives the change, or none where all is.
    pub fn change(
        &mut self,
        old: &Document,
        new: &Document,
        author: &str,
        message: &str,
        at: Timestamp,
    ) -> Result<Option<Vec<u8>>, AutomergeError> {
        let (old, new) = differing(old, new);
        let (old, new): (Map<_, _>, Map<_, _>) = (old.into_iter().collect(), new.into_iter().collect());
        let label = self.label(author, message, at);
        self.commit(self.actor.clone(), &label, |to| tree::change(to, &ROOT, &old, &new))
    }

    fn label(&self, author: &str, message: &str, at: Timestamp) -> Label {
        Label { host: self.host.clone(), author: author.to_owned(), message: message.to_owned(), at }
    }

    fn commit(
        &mut self,
        maker: ActorId,
        label: &Label,
        work: impl FnOnce(&mut Transaction<'_>) -> Result<(), AutomergeError>,
    ) -> Result<Option<Vec<u8>>, AutomergeError> {
        self.document.set_actor(maker);
        let mut transaction = self.document.transaction();
        if let Err(error) = work(&mut transaction) {
            transaction.rollback();
            return Err(error);
        }
        let options = CommitOptions::default().with_message(label.to_message()).with_time(label.at.as_millisecond());
        let Some(hash) = transaction.commit_with(options).0 else { return Ok(None) };
        let change = self.document.get_change_by_hash(&hash).ok_or(AutomergeError::MissingHash(hash))?;
        self.note(&change);
        Ok(Some(change.raw_bytes().to_vec()))
    }

    /// Takes back the last change, which nobody has been told.
    pub fn take_back(&mut self) -> Result<(), AutomergeError> {
        let kept = self.log.iter().take(self.log.len().saturating_sub(1)).map(|it| it.bytes.clone());
        *self = self.again(kept)?;
        Ok(())
    }

    /// The same host's with these changes and no others.
    pub fn again(&self, kept: impl IntoIterator<Item = Vec<u8>>) -> Result<Self, AutomergeError> {
        Self::open(&self.host, self.actor.to_bytes().try_into().unwrap_or_default(), kept)
    }

    /// Takes in what others have changed, in whatever order it came and however often.
    pub fn take_in(&mut self, changes: impl IntoIterator<Item = Vec<u8>>) -> Taken {
        let mut taken = Taken::default();
        let mut waiting = Vec::new();
        for bytes in changes {
            match Change::from_bytes(bytes.clone()) {
                Ok(change) => waiting.push(change),
                Err(_) => taken.unfit.push((bytes, Unfit::Malformed)),
            }
        }
        let mut next = Vec::new();
        let (mut versions, mut known) = (self.versions.clone(), HashSet::new());
        loop {
            let before = waiting.len();
            for change in std::mem::take(&mut waiting) {
                if self.known.contains(&change.hash()) || known.contains(&change.hash()) {
                    continue;
                }
                let maker = change.actor_id().to_hex_string();
                let held = versions.get(&maker).copied().unwrap_or_default();
                if change.seq() <= held {
                    taken.unfit.push((change.raw_bytes().to_vec(), Unfit::Forked));
                } else if change.seq() == held + 1
                    && change.deps().iter().all(|it| self.known.contains(it) || known.contains(it))
                {
                    versions.insert(maker, change.seq());
                    known.insert(change.hash());
                    next.push(change);
                } else {
                    waiting.push(change);
                }
            }
            if waiting.len() == before || waiting.is_empty() {
                break;
            }
        }
        taken.early = waiting.len();
        self.apply_each(next, &mut taken);
        taken
    }

    /// Applies them together, or where one of them cannot be, one after the other.
    fn apply_each(&mut self, changes: Vec<Change>, taken: &mut Taken) {
        let fit = |change: &Change| (Label::of(change), change.raw_bytes().to_vec());
        let whole = self.document.clone();
        if self.apply(&changes).is_ok() {
            taken.changes.extend(changes.iter().map(fit));
            return;
        }
        self.document = whole;
        for change in changes {
            let before = self.document.clone();
            if self.apply(std::slice::from_ref(&change)).is_ok() {
                taken.changes.push(fit(&change));
            } else {
                self.document = before;
                taken.unfit.push((change.raw_bytes().to_vec(), Unfit::Malformed));
            }
        }
    }

    fn apply(&mut self, changes: &[Change]) -> Result<(), AutomergeError> {
        self.document.apply_changes(changes.to_vec())?;
        // One whose predecessor is missing would be held back without a word.
        if let Some(lost) = changes.iter().find(|it| self.document.get_change_by_hash(&it.hash()).is_none()) {
            return Err(AutomergeError::MissingHash(lost.hash()));
        }
        for change in changes {
            self.note(change);
        }
        Ok(())
    }

    fn note(&mut self, change: &Change) {
        let (maker, number) = (change.actor_id().to_hex_string(), change.seq());
        self.known.insert(change.hash());
        self.versions.insert(maker.clone(), number);
        self.log.push(Logged { maker, number, bytes: change.raw_bytes().to_vec() });
        self.merged = OnceLock::new();
    }

    /// What all changes come to; an error where no policy can be made of it.
    pub fn merged(&self) -> Result<&Merged, &String> {
        let merge = || {
            let entries: Entries = tree::read(&self.document).into_iter().collect();
            salvage(&entries).map(|(document, set_aside)| Merged { document, set_aside })
        };
        self.merged.get_or_init(merge).as_ref()
    }

    /// What hosts have said differently at the same time, and nobody since.
    pub fn conflicts(&self) -> Vec<Conflict> {
        conflicts::all(&self.document)
    }

    /// Settles a conflict, for all: what this host said of it stands. None where there is no such conflict.
    pub fn resolve(
        &mut self,
        place: &str,
        host: &str,
        author: &str,
        at: Timestamp,
    ) -> Result<Option<Vec<u8>>, AutomergeError> {
        let Some((object, key, value)) = conflicts::said(&self.document, place, host) else { return Ok(None) };
        let label = self.label(author, &format!("conflict at {place}: as {host} has it"), at);
        self.commit(self.actor.clone(), &label, |to| tree::put(to, &object, &key, &value))
    }

    /// Removes an entry for all, also one that is set aside. None where there is none.
    pub fn remove(&mut self, entry: &str, author: &str, at: Timestamp) -> Result<Option<Vec<u8>>, AutomergeError> {
        let held = tree::read(&self.document);
        let Some(value) = held.get(entry) else { return Ok(None) };
        let old = Map::from_iter([(entry.to_owned(), value.clone())]);
        let label = self.label(author, &format!("{entry} removed"), at);
        self.commit(self.actor.clone(), &label, |to| tree::change(to, &ROOT, &old, &Map::new()))
    }
}
