//! What has to be done when interfaces come and go.

use std::{collections::BTreeMap, time::Instant};

use anyhow::{Context, Result};

use super::{Attachment, Datapath, Interface, Mode, Standing, interfaces, rename::links};
use crate::run::retry::Retry;

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// It is there, and our program is not on it.
    Attach(String),
    /// It is gone, and has left the pin of a link that is on nothing.
    Forget(String),
}

/// Compares what is ours with what is there. `links` says for every pinned link the number of the interface that it is
/// on, 0 for none.
pub fn reconcile(asked: &BTreeMap<String, Mode>, links: &BTreeMap<String, u32>, present: &[Interface]) -> Vec<Step> {
    let index = |name: &String| present.iter().find(|interface| interface.name == *name).map(|found| found.index);
    let attach = asked.keys().filter(|name| index(name).is_some_and(|index| links.get(*name) != Some(&index)));
    let forget = links.iter().filter(|&(name, &on)| on == 0 && !(asked.contains_key(name) && index(name).is_some()));
    forget.map(|(name, _)| Step::Forget(name.clone())).chain(attach.map(|name| Step::Attach(name.clone()))).collect()
}

/// What [`Datapath::reattach`] did.
#[derive(Debug)]
pub enum Change {
    /// An interface is throttled again.
    Attached(Attachment),
    /// An interface is there, but could not be attached to; said once until the reason changes.
    Refused {
        /// Its name.
        interface: String,
        /// Why, with the remedy.
        error: anyhow::Error,
    },
    /// An interface that was throttled is gone. It is waited for.
    Gone(String),
}

/// Why an interface that is there could not be attached to.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) reason: String,
    /// The interface as it was then: another state is worth a try at once.
    seen: Option<Interface>,
    retry: Retry,
}

impl Datapath {
    /// Attaches to what has come, follows what was renamed and forgets what has gone. To be called when
    /// [`super::Watch`] says that something changed, and when [`Datapath::retry_due`] does. What was refused is tried
    /// again when it has changed, else ever more seldom.
    pub fn reattach(&mut self, now: Instant) -> Result<Vec<Change>> {
        let present = interfaces().context("cannot list the interfaces")?;
        self.follow_names(&present)?;
        let links = links(self.pins.root(), &present)?;
        let mut changes = Vec::new();
        for step in reconcile(&self.asked, &links, &present) {
            match step {
                Step::Forget(interface) => {
                    std::fs::remove_file(self.pins.link(&interface))
                        .with_context(|| format!("cannot remove the stale link of {interface}"))?;
                    self.forget_leaving(&interface)?;
                    self.renamed.remove(&interface);
                    changes.push(Change::Gone(interface));
                }
                Step::Attach(interface) => {
                    let seen = present.iter().find(|device| device.name == interface).cloned();
                    changes.extend(self.try_again(interface, seen, now));
                }
            }
        }
        for device in present.iter().filter(|device| links.get(&device.name) == Some(&device.index)) {
            self.see_leaving_again(device)?;
            self.know_station(device)?;
        }
        Ok(changes)
    }

    /// Whether an interface that was refused is worth another try.
    pub fn retry_due(&self, now: Instant) -> bool {
        self.refused.values().any(|refused| refused.retry.due(now))
    }

    fn try_again(&mut self, interface: String, seen: Option<Interface>, now: Instant) -> Option<Change> {
        if self.refused.get(&interface).is_some_and(|before| before.seen == seen && !before.retry.due(now)) {
            return None;
        }
        let mode = self.asked.get(&interface).copied().unwrap_or_default();
        let error = match self.attach(&interface, mode) {
            Ok(attachment) => return Some(Change::Attached(attachment)),
            Err(error) => error,
        };
        let (reason, before) = (format!("{error:#}"), self.refused.remove(&interface));
        let known = before.as_ref().is_some_and(|before| before.reason == reason);
        let mut retry = before.filter(|before| before.seen == seen).map_or_else(Retry::default, |before| before.retry);
        retry.failed(now);
        self.refused.insert(interface.clone(), Refused { reason, seen, retry });
        (!known).then_some(Change::Refused { interface, error })
    }
}

impl Attachment {
    /// Whether packets of the interface are judged.
    pub fn attached(&self) -> bool {
        matches!(self.standing, Standing::Attached(_))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn present(name: &str, index: u32) -> Interface {
        Interface { name: name.to_owned(), index, ..Interface::default() }
    }

    fn asked(names: &[&str]) -> BTreeMap<String, Mode> {
        names.iter().map(|&name| (name.to_owned(), Mode::Auto)).collect()
    }

    fn links(list: &[(&str, u32)]) -> BTreeMap<String, u32> {
        list.iter().map(|&(name, index)| (name.to_owned(), index)).collect()
    }

    #[test]
    fn leaves_what_is_attached() {
        assert_eq!(reconcile(&asked(&["a"]), &links(&[("a", 3)]), &[present("a", 3)]), []);
    }

    #[test]
    fn attaches_to_what_is_new_or_was_made_anew() {
        assert_eq!(reconcile(&asked(&["a"]), &links(&[]), &[present("a", 3)]), [Step::Attach("a".into())]);
        assert_eq!(reconcile(&asked(&["a"]), &links(&[("a", 0)]), &[present("a", 4)]), [Step::Attach("a".into())]);
    }

    #[test]
    fn forgets_links_of_interfaces_that_are_gone_once() {
        assert_eq!(reconcile(&asked(&["a"]), &links(&[("a", 0)]), &[]), [Step::Forget("a".into())]);
        assert_eq!(reconcile(&asked(&["a"]), &links(&[]), &[]), []);
        assert_eq!(reconcile(&asked(&[]), &links(&[("b", 0)]), &[present("b", 2)]), [Step::Forget("b".into())]);
    }
}
