//! The revisions of the policy: the last one is in force, and may wait for a confirmation.

use super::{
    Moment, Pending, Store,
    changes::{self, Changes},
    documents::{self, Last},
    error::StoreError,
    file::STATE,
    record,
};
use crate::policy::Document;
use jiff::Timestamp;
use redb::{ReadTransaction, ReadableTable, ReadableTableMetadata, TableDefinition, WriteTransaction};
use serde::{Deserialize, Serialize};
use std::time::Duration;

const INFO_NAME: &str = "revisions";
/// Apart from the documents, so that the history is quick to list.
const INFOS: TableDefinition<u64, &[u8]> = TableDefinition::new(INFO_NAME);
const PENDING_KEY: &str = "pending";

/// How many revisions are kept.
pub const KEPT: u64 = 1000;
/// How many bytes of documents are kept, if that is less; the last two revisions always are.
pub const KEPT_BYTES: u64 = 64 << 20;

/// Who changed the policy, when and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevisionInfo {
    /// From 1, growing by one.
    pub revision: u64,
    /// Who wrote it.
    pub author: String,
    /// Why.
    pub message: String,
    /// When.
    pub at: Timestamp,
    /// How much its document takes in the store, where that may be only what it changes.
    pub bytes: u64,
    /// Where it is a step back, to which revision: its document is that one's, or the empty one for 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub back_to: Option<u64>,
}

impl RevisionInfo {
    /// The revision that a step back from here leads to; none before the first. Where this one is a step back itself, the
    /// next leads further: nothing that was taken back is in force again unless somebody names it.
    pub fn before(&self) -> Option<u64> {
        self.back_to.unwrap_or(self.revision).checked_sub(1)
    }
}

/// What a revision is to say.
#[derive(Clone, Copy, Debug)]
pub struct Policy<'d> {
    document: &'d Document,
    /// Where it is a step back, to which revision.
    back_to: Option<u64>,
    /// The changes to the stamp's policy that make it, which are kept with it.
    changes: Changes<'d>,
}

impl<'d> Policy<'d> {
    /// A step back to an earlier revision, whose document it is; one forward where there is none.
    pub const fn back_to(document: &'d Document, revision: Option<u64>) -> Self {
        Self { document, back_to: revision, changes: Changes { stamp: "", changes: &[], own: false } }
    }

    /// The same with the changes to the stamp's policy that make it, to be kept with it.
    #[must_use]
    pub const fn with(self, changes: Changes<'d>) -> Self {
        Self { changes, ..self }
    }
}

impl<'d> From<&'d Document> for Policy<'d> {
    fn from(document: &'d Document) -> Self {
        Self::back_to(document, None)
    }
}

/// A policy that is or was in force.
#[derive(Clone, Debug, PartialEq)]
pub struct Revision {
    /// Its history.
    pub info: RevisionInfo,
    /// The policy.
    pub document: Document,
}

impl Store {
    /// The revision in force; none before the first.
    pub fn current(&self) -> Result<Option<Revision>, StoreError> {
        self.read(|transaction| match last(&transaction.open_table(INFOS)?)? {
            0 => Ok(None),
            last => read(transaction, last).map(Some),
        })
    }

    /// Any revision that is kept.
    pub fn revision(&self, number: u64) -> Result<Revision, StoreError> {
        self.read(|transaction| read(transaction, number))
    }

    /// The history of a revision.
    pub fn info(&self, number: u64) -> Result<RevisionInfo, StoreError> {
        self.read(|transaction| info(&transaction.open_table(INFOS)?, number))
    }

    /// The history, the newest first.
    pub fn revisions(&self) -> Result<Vec<RevisionInfo>, StoreError> {
        self.read(|transaction| {
            let table = transaction.open_table(INFOS)?;
            let mut infos = Vec::new();
            for entry in table.iter()?.rev() {
                let (key, sealed) = entry?;
                infos.push(record::open(INFO_NAME, &key.value().to_be_bytes(), sealed.value())?);
            }
            Ok(infos)
        })
    }

    /// Puts a policy in force for good, and gives its number. Refused while another waits for its confirmation.
    pub fn append<'d>(
        &self,
        policy: impl Into<Policy<'d>>,
        author: &str,
        message: &str,
        at: Timestamp,
    ) -> Result<u64, StoreError> {
        self.write_last(|transaction, held| {
            no_pending(transaction)?;
            append(transaction, held, policy.into(), author, message, at)
        })
    }

    /// Puts a policy in force for a while. Unless [`Store::confirm`] is called, the agent puts the one before in force
    /// when that is over, and then calls [`Store::go_back`]; until then the revision waits, whatever happens.
    pub fn append_pending<'d>(
        &self,
        policy: impl Into<Policy<'d>>,
        author: &str,
        message: &str,
        at: Timestamp,
        since: Moment,
        window: Duration,
    ) -> Result<Pending, StoreError> {
        self.write_last(|transaction, held| {
            no_pending(transaction)?;
            let back_to = last(&transaction.open_table(INFOS)?)?;
            let revision = append(transaction, held, policy.into(), author, message, at)?;
            let pending = Pending { revision, back_to, since, window };
            let sealed = record::seal("state", PENDING_KEY.as_bytes(), &pending);
            transaction.open_table(STATE)?.insert(PENDING_KEY, sealed.as_slice())?;
            Ok(pending)
        })
    }

    /// The revision that waits for its confirmation.
    pub fn pending(&self) -> Result<Option<Pending>, StoreError> {
        self.read(|transaction| pending(&transaction.open_table(STATE)?))
    }

    /// Keeps the revision that waits, and with it what it changes in the stamp's policy.
    pub fn confirm(&self, revision: u64, changes: Changes<'_>) -> Result<(), StoreError> {
        self.write(|transaction| {
            let mut state = transaction.open_table(STATE)?;
            if pending(&state)?.is_none_or(|pending| pending.revision != revision) {
                return Err(StoreError::NothingPending(revision));
            }
            state.remove(PENDING_KEY)?;
            drop(state);
            changes::append(transaction, 0, changes)
        })
    }

    /// Takes the last revision back, as if it had never been: for one that could not be put in force.
    pub fn withdraw(&self, revision: u64) -> Result<(), StoreError> {
        self.write_last(|transaction, held| {
            *held = None;
            let mut infos = transaction.open_table(INFOS)?;
            if revision == 0 || last(&infos)? != revision {
                return Err(StoreError::NoRevision(revision));
            }
            infos.remove(revision)?;
            documents::withdraw(transaction, revision)?;
            changes::withdraw(transaction, revision)?;
            let mut state = transaction.open_table(STATE)?;
            if pending(&state)?.is_some_and(|pending| pending.revision == revision) {
                state.remove(PENDING_KEY)?;
            }
            Ok(())
        })
    }

    /// Notes that the document from before the waiting revision is in force again, as a revision of its own: the one
    /// after that which waited. None where nothing waits.
    pub fn go_back(&self, author: &str, at: Timestamp) -> Result<Option<u64>, StoreError> {
        self.write_last(|transaction, held| {
            let Some(Pending { revision, back_to, .. }) = pending(&transaction.open_table(STATE)?)? else {
                return Ok(None);
            };
            let document = match back_to {
                0 => Document::default(),
                number => documents::of(transaction, number)?,
            };
            transaction.open_table(STATE)?.remove(PENDING_KEY)?;
            let message = format!("back to revision {back_to}: {revision} was not confirmed");
            // Which may have been a step back itself.
            let infos = transaction.open_table(INFOS)?;
            let origin = if back_to == 0 { None } else { info(&infos, back_to)?.back_to };
            drop(infos);
            let policy = Policy::back_to(&document, origin.or(Some(back_to)));
            append(transaction, held, policy, author, &message, at).map(Some)
        })
    }
}

pub(super) fn prepare(transaction: &WriteTransaction) -> Result<(), StoreError> {
    transaction.open_table(INFOS)?;
    documents::prepare(transaction)
}

/// Checks every record, and that the tables agree with each other.
pub(super) fn verify(transaction: &ReadTransaction) -> Result<(), StoreError> {
    let infos = transaction.open_table(INFOS)?;
    for entry in infos.iter()? {
        let (key, sealed) = entry?;
        record::verify(INFO_NAME, &key.value().to_be_bytes(), sealed.value())?;
    }
    let (first, last) = (infos.first()?.map_or(0, |(first, _)| first.value()), last(&infos)?);
    if last != 0 && infos.len()? != last - first + 1 {
        return Err(StoreError::Damaged { record: "the list of revisions".to_owned() });
    }
    documents::verify(transaction, first, last)?;
    pending(&transaction.open_table(STATE)?).map(|_| ())
}

/// Writes a revision; `held` is the last one, where it is known.
fn append(
    transaction: &WriteTransaction,
    held: &mut Option<Last>,
    Policy { document, back_to, changes }: Policy<'_>,
    author: &str,
    message: &str,
    at: Timestamp,
) -> Result<u64, StoreError> {
    let mut infos = transaction.open_table(INFOS)?;
    let number = last(&infos)?;
    let before = match held.take() {
        Some(held) if held.revision == number => held,
        _ => Last::read(transaction, number, kept(&infos)?)?,
    };
    let mut last = documents::append(transaction, &before, document)?;
    let (revision, bytes) = (last.revision, last.bytes);
    let info = RevisionInfo { revision, author: author.to_owned(), message: message.to_owned(), at, bytes, back_to };
    infos.insert(revision, record::seal(INFO_NAME, &revision.to_be_bytes(), &info).as_slice())?;
    changes::append(transaction, revision, changes)?;
    while let Some(oldest) = surplus(&infos, last.kept)? {
        infos.remove(oldest.revision)?;
        last.kept -= oldest.bytes;
        documents::forget_before(transaction, oldest.revision + 1)?;
    }
    *held = Some(last);
    Ok(revision)
}

/// The oldest revision, where there are too many to be kept, or too large ones: `kept` is what all of them take.
fn surplus(infos: &impl ReadableTable<u64, &'static [u8]>, kept: u64) -> Result<Option<RevisionInfo>, StoreError> {
    let count = infos.len()?;
    if count <= KEPT && (kept <= KEPT_BYTES || count <= 2) {
        return Ok(None);
    }
    let oldest = infos.first()?;
    oldest.map(|(key, sealed)| record::open(INFO_NAME, &key.value().to_be_bytes(), sealed.value())).transpose()
}

/// What all revisions take.
fn kept(infos: &impl ReadableTable<u64, &'static [u8]>) -> Result<u64, StoreError> {
    let mut kept = 0;
    for entry in infos.iter()? {
        let (key, sealed) = entry?;
        let info: RevisionInfo = record::open(INFO_NAME, &key.value().to_be_bytes(), sealed.value())?;
        kept += info.bytes;
    }
    Ok(kept)
}

/// The number of the last revision, 0 before the first.
fn last(infos: &impl ReadableTable<u64, &'static [u8]>) -> Result<u64, StoreError> {
    Ok(infos.last()?.map_or(0, |(number, _)| number.value()))
}

fn read(transaction: &ReadTransaction, number: u64) -> Result<Revision, StoreError> {
    let infos = transaction.open_table(INFOS)?;
    Ok(Revision { info: info(&infos, number)?, document: documents::read(transaction, number)?.with_units() })
}

fn info(infos: &impl ReadableTable<u64, &'static [u8]>, number: u64) -> Result<RevisionInfo, StoreError> {
    let sealed = infos.get(number)?.ok_or(StoreError::NoRevision(number))?;
    record::open(INFO_NAME, &number.to_be_bytes(), sealed.value())
}

fn pending(state: &impl ReadableTable<&'static str, &'static [u8]>) -> Result<Option<Pending>, StoreError> {
    let sealed = state.get(PENDING_KEY)?;
    sealed.map(|sealed| record::open("state", PENDING_KEY.as_bytes(), sealed.value())).transpose()
}

fn no_pending(transaction: &WriteTransaction) -> Result<(), StoreError> {
    match pending(&transaction.open_table(STATE)?)? {
        None => Ok(()),
        Some(Pending { revision, .. }) => Err(StoreError::AwaitsConfirmation(revision)),
    }
}
