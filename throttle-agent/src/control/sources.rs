//! Who is allowed, known and blocked: the policy's statements, the blocks of commands, and the sessions.

use std::collections::BTreeSet;

use ipnet::IpNet;
use jiff::{SignedDuration, Timestamp};

use super::{Author, Control, kernel, session::Session, stored};
use crate::{
    api::wire::{self, NewBlock, Problem, ProblemKind, SessionAllow, Write, Written},
    datapath::Entries,
    policy::{
        Document, Prefix, Tenants,
        sources::{FOR_EVER, Standing, resolve, stated},
    },
    store::{Block, StoreError},
};

/// Blocks that a request may add.
const MOST_AT_ONCE: usize = 100_000;
/// The longest block that ends, in seconds; a century.
const LONGEST: u64 = 100 * 366 * 86_400;

impl Control {
    /// Every block: the policy's, then those of commands.
    pub fn blocks(&self) -> Result<Vec<wire::Block>, Problem> {
        let permanent = self.in_force().sources.block.iter().map(|prefix| wire::Block {
            prefix: prefix.net(),
            until: None,
            reason: None,
            author: None,
            added: None,
            sentence: None,
        });
        let added = self.blocks.values().map(|block| wire::Block {
            prefix: block.prefix,
            until: block.until,
            reason: (!block.reason.is_empty()).then(|| block.reason.clone()),
            author: Some(block.author.clone()),
            added: Some(block.added),
            sentence: self.sentence_of(block),
        });
        Ok(permanent.chain(added).collect())
    }

    /// Adds blocks, all or none; a prefix that is blocked by command already takes the new end and reason.
    pub fn add_blocks(&mut self, new: &[NewBlock], write: &Write, author: &Author) -> Result<Written, Problem> {
        if new.len() > MOST_AT_ONCE {
            let detail = format!("{} blocks at once; send at most {MOST_AT_ONCE}", new.len());
            return Err(Problem::new(ProblemKind::TooLarge, detail));
        }
        if write.confirm_within_seconds.is_some() {
            let detail = "blocks wait for no confirmation; give them an end (`seconds`) instead";
            return Err(Problem::new(ProblemKind::Malformed, detail));
        }
        let now = Timestamp::now();
        let added = new.iter().map(|new| block(new, write, author, now)).collect::<Result<Vec<_>, _>>()?;
        let prefixes = self.blocks.keys().chain(added.iter().map(|block| &block.prefix));
        let dangers = Session::of(write).map_or_else(Vec::new, |session| session.dangers(self.in_force(), prefixes));
        let mut blocks = self.blocks.clone();
        blocks.extend(added.iter().map(|block| (block.prefix, block.clone())));
        let add = |control: &mut Self| control.replace_blocks(blocks, |control| control.store.add_blocks(&added));
        let ((), session_allow) = self.protecting(&dangers, write, author, add)?;
        tracing::info!(author = %author.name, blocks = added.len(), "blocked");
        let changes = summary("+ block", added.iter().map(|block| block.prefix));
        Ok(Written {
            revision: self.head().revision,
            mode: self.mode(),
            changes,
            warnings: dangers,
            session_allow,
            ..Written::default()
        })
    }

    /// Ends blocks of commands and of penalties, all or none; whom these were of is one that was never sentenced. So is, without
    /// a block, whoever was sentenced and has served its time.
    pub fn delete_blocks(&mut self, prefixes: &[IpNet], author: &Author) -> Result<Written, Problem> {
        let prefixes: BTreeSet<IpNet> = prefixes.iter().map(IpNet::trunc).collect();
        let is_there = |prefix: &IpNet| self.blocks.contains_key(prefix) || self.is_held_against(*prefix);
        if let Some(missing) = prefixes.iter().find(|prefix| !is_there(prefix)) {
            let permanent = self.in_force().sources.block.iter().any(|block| block.net() == *missing);
            let remedy =
                if permanent { "it stands in the policy: take it out there" } else { "see `throttle block list`" };
            return Err(Problem::new(ProblemKind::NotFound, format!("no command has blocked {missing}; {remedy}")));
        }
        let mut blocks = self.blocks.clone();
        blocks.retain(|prefix, _| !prefixes.contains(prefix));
        let list: Vec<IpNet> = prefixes.iter().copied().collect();
        self.replace_blocks(blocks, |control| control.store.remove_blocks(&list).map(|_| ()))?;
        self.forgive(&list)?;
        tracing::info!(author = %author.name, blocks = list.len(), "unblocked");
        let changes = summary("- block", list.into_iter());
        Ok(Written { revision: self.head().revision, mode: self.mode(), changes, ..Written::default() })
    }

    /// Writes other blocks to the kernel, then to the store; on an error nothing has changed.
    pub(super) fn replace_blocks(
        &mut self,
        blocks: super::Blocks,
        keep: impl FnOnce(&Self) -> Result<(), StoreError>,
    ) -> Result<(), Problem> {
        let before = std::mem::replace(&mut self.blocks, blocks);
        let written = self.write_sources().and_then(|()| keep(self).map_err(|error| stored(&error)));
        if written.is_err() {
            self.blocks = before;
            // What the kernel has is written anew at the next tick.
            self.stale = true;
        }
        written
    }

    /// Does something while the writer's session is allowed for a while where a rule would hit it, or is so no longer
    /// where that is asked for. Where it fails, the session is as it was.
    pub(super) fn protecting<T>(
        &mut self,
        dangers: &[String],
        write: &Write,
        author: &Author,
        act: impl FnOnce(&mut Self) -> Result<T, Problem>,
    ) -> Result<(T, Option<SessionAllow>), Problem> {
        let failed = |error| Problem::new(ProblemKind::Store, format!("note the allowed session: {error}"));
        let before = self.sessions.allows().to_vec();
        let allow = match write.session {
            Some(address) if write.lock_out => self.sessions.forget(address).map_err(failed).map(|_| None)?,
            Some(address) if !dangers.is_empty() => {
                self.sessions.allow(address, &author.name, Timestamp::now()).map_err(failed).map(Some)?
            }
            _ => None,
        };
        self.stale |= self.sessions.allows() != before;
        let done = act(self);
        if done.is_err() && self.sessions.allows() != before {
            let restored = self.sessions.replace(before);
            self.faults.note("sessions", restored.map_err(|error| format!("the allowed sessions: {error}")));
        }
        done.map(|done| (done, allow))
    }

    /// Writes to the kernel what the policy in force, the blocks and the sessions say of sources; on an error the kernel
    /// is as before.
    pub(super) fn write_sources(&mut self) -> Result<(), Problem> {
        let wanted = self.entries(self.in_force(), &self.datapath.layout().tenants);
        self.stale = true;
        self.datapath.set_sources(&wanted).map_err(|error| kernel(&error))?;
        self.stale = false;
        Ok(())
    }

    /// What a policy, whose tenants have these numbers, the blocks and the sessions say of sources.
    pub(super) fn entries(&self, document: &Document, tenants: &Tenants) -> Entries {
        let timed = self.blocks.values().map(|block| {
            let until = block.until.map_or(FOR_EVER, |until| self.clock.kernel(until));
            (block.prefix, Standing::Block { until })
        });
        let sessions = self.sessions.allows().iter().map(|allow| (allow.prefix, Standing::Allow));
        resolve(stated(document, tenants).chain(timed).chain(sessions))
    }
}

/// A block to keep, from a block that was asked for.
fn block(new: &NewBlock, write: &Write, author: &Author, now: Timestamp) -> Result<Block, Problem> {
    let prefix = new.prefix.trunc();
    let refused = |detail| Err(Problem::new(ProblemKind::Malformed, detail));
    if prefix.prefix_len() == 0 && !write.force {
        return refused(format!("{prefix} is everybody; if that is meant, say so with --force"));
    }
    let until = match new.seconds {
        None => None,
        Some(seconds @ 1..=LONGEST) => Some(now + SignedDuration::from_secs(seconds.cast_signed())),
        Some(seconds) => {
            return refused(format!("{prefix}: a block of {seconds} s; write 1 to {LONGEST}, or nothing for ever"));
        }
    };
    let reason = new.reason.clone().or_else(|| write.message.clone()).unwrap_or_default();
    Ok(Block { prefix, until, reason, author: author.name.clone(), added: now })
}

/// A line for each of a few prefixes, one line for many.
fn summary(what: &str, prefixes: impl ExactSizeIterator<Item = IpNet>) -> Vec<String> {
    match prefixes.len() {
        0..=8 => prefixes.map(|prefix| format!("{what} {}", Prefix::from(prefix))).collect(),
        many => vec![format!("{what} {many} prefixes")],
    }
}
