//! Changing over from the maps of an earlier layout, while packets are judged.
//!
//! [`Datapath::open`] makes maps of this layout beside the old ones, in `maps-new`, and tells them the secret of the
//! table and the limits that are in force, so that a policy compiles to the same numbers and regions. The caller puts
//! its policy in force there, as always ([`Datapath::switch`]). Then [`Datapath::take_over`] takes the [`Step`]s.
//!
//! An agent that dies at any of them leaves the old programs or the new ones on each interface, with their maps. Until
//! the names are changed the next agent begins anew; from then on it goes on where this one ended. Steps that were taken
//! may be taken again. What is lost is at most what sources were charged twice: in the old table after it was read for
//! the last time before the programs were replaced, and in the new one before it was read again, some hundredths of a
//! second later. Counters lose nothing.

mod counters;
mod earlier;
pub mod forecast;
mod layouts;
mod names;

use std::os::fd::AsFd as _;

use anyhow::{Context, Result, ensure};

pub(super) use self::earlier::{Earlier, layout_of};
use super::{
    Datapath, bpf, interfaces,
    pins::{Draft, linked},
    rename::open_link,
    tables::map,
};
/// What changing over is made of, in its order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// What sources owe, and who is proven, are written into the new table.
    Copy,
    /// The old maps get another name.
    SetAside,
    /// The new maps get theirs. From here on there is no way back.
    Name,
    /// The program that watches sockets is replaced: first, so that it sees every connection that the others let in.
    Watch,
    /// The program of an interface is replaced, through its link: once for each.
    Replace,
    /// What sources were charged meanwhile is carried over too.
    Carry,
    /// Counters are moved.
    Count,
    /// The old maps are removed.
    Forget,
}

impl Step {
    /// All of them, in their order.
    pub const ALL: [Self; 8] =
        [Self::Copy, Self::SetAside, Self::Name, Self::Watch, Self::Replace, Self::Carry, Self::Count, Self::Forget];
}

/// What changing over came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TakenOver {
    /// The layout that the maps had.
    pub from: u64,
    /// Packets that limits admitted while their buckets were carried over: at most so many may be admitted once more.
    pub admitted_meanwhile: u64,
    /// Sources that owed something and found no place: they begin with a full bucket.
    pub forgotten: u64,
}

/// A change of layout that is under way.
pub(super) struct Handover {
    /// The new maps, until they have their name.
    pub(super) draft: Option<Draft>,
    pub(super) earlier: Earlier,
}

impl Datapath {
    /// Where an earlier agent began to change over and did not end it, this one goes on.
    pub(super) fn go_on_changing_over(&mut self) {
        let Some(directory) = self.pins.old() else { return };
        match Earlier::open(&directory) {
            Ok(Some(earlier)) => self.handover = Some(Handover { draft: None, earlier }),
            Ok(None) => tracing::warn!("{} has maps that this build cannot read; they are left", directory.display()),
            Err(error) => tracing::warn!("nothing is carried over from {}: {error:#}", directory.display()),
        }
    }

    /// Whether the maps are still those of an earlier layout, or not yet wholly of this one.
    pub fn changes_over(&self) -> bool {
        self.handover.is_some()
    }

    /// Ends a change of layout, where one is under way: puts the programs of this build, with its maps, in the place of
    /// the old ones on every interface. `before` is told of each step before it is taken. On an error before
    /// [`Step::Watch`] nothing has changed; after it, the next agent goes on.
    pub fn take_over(&mut self, mut before: impl FnMut(Step)) -> Result<Option<TakenOver>> {
        let Some(handover) = self.handover.take() else { return Ok(None) };
        let earlier = handover.earlier;
        before(Step::Copy);
        earlier.carry_buckets(self);
        earlier.carry_proven(self)?;
        if let Some(draft) = handover.draft {
            ensure!(
                earlier.revision == 0 || self.policy().revision > 0,
                "the policy that the earlier build enforces, revision {}, is not to be had: the store has none that \
                 this build can put in force. The earlier build's programs go on enforcing it. Start with the right \
                 --state-dir, or the earlier build once more",
                earlier.revision
            );
            before(Step::SetAside);
            draft.supersede(&self.pins, || before(Step::Name))?;
        }
        before(Step::Watch);
        // Where it fails the status says so, as ever.
        let _ = self.watch_sockets();
        // Once more, in less time: the fewer packets come between this and the replacement, the better.
        let admitted = earlier.admitted().context(UNFINISHED)?;
        earlier.carry_buckets(self);
        self.replace_programs(|| before(Step::Replace)).context(UNFINISHED)?;
        self.grace.wait().context("cannot wait for what is under the old programs").context(UNFINISHED)?;
        before(Step::Carry);
        let forgotten = earlier.carry_buckets(self);
        let admitted_meanwhile = earlier.admitted().context(UNFINISHED)? - admitted;
        earlier.carry_proven(self).context(UNFINISHED)?;
        before(Step::Count);
        earlier.move_counters(self).context("cannot carry the counters over").context(UNFINISHED)?;
        before(Step::Forget);
        self.pins.forget_old().context("cannot remove the old maps").context(UNFINISHED)?;
        Ok(Some(TakenOver { from: earlier.layout, admitted_meanwhile, forgotten }))
    }

    /// Puts our program on every interface that has one of ours already, whether or not this agent was asked for it.
    fn replace_programs(&mut self, mut before: impl FnMut()) -> Result<()> {
        for device in interfaces().context("list the interfaces")? {
            if open_link(self.pins.root(), &device.name)?.is_some() {
                self.see_leaving(&device);
            }
        }
        for name in linked(self.pins.root()).context("list the links")? {
            let Some((link, info)) = open_link(self.pins.root(), &name)? else { continue };
            // The link of an interface that is gone has nothing to replace.
            if info.kind == bpf::XDP_LINK && info.interface != 0 {
                before();
                self.first_that_works(|program| bpf::link_update(link.as_fd(), program)).with_context(|| {
                    format!("cannot replace the program on {name}, which goes on with the old maps")
                })?;
            }
        }
        Ok(())
    }
}

const UNFINISHED: &str = "the change of layout is not finished; the next start goes on with it";
