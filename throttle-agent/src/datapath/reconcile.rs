//! What has to be done when interfaces come and go.

use std::collections::BTreeMap;

use anyhow::{Context, Result};

use super::{Attachment, Datapath, Interface, Mode, Standing, interfaces};

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

impl Datapath {
    /// Attaches to what has come and forgets what has gone. To be called when [`super::Watch`] says that something
    /// changed.
    pub fn reattach(&mut self) -> Result<Vec<Change>> {
        let present = interfaces().context("cannot list the interfaces")?;
        let mut links = BTreeMap::new();
        for name in self.pins.linked().context("cannot list the pinned links")? {
            if let Some((_, info)) = self.link(&name)? {
                links.insert(name, info.interface);
            }
        }
        let mut changes = Vec::new();
        for step in reconcile(&self.asked, &links, &present) {
            match step {
                Step::Forget(interface) => {
                    std::fs::remove_file(self.pins.link(&interface))
                        .with_context(|| format!("cannot remove the stale link of {interface}"))?;
                    changes.push(Change::Gone(interface));
                }
                Step::Attach(interface) => {
                    let mode = self.asked.get(&interface).copied().unwrap_or_default();
                    match self.attach(&interface, mode) {
                        Ok(attachment) => changes.push(Change::Attached(attachment)),
                        Err(error) => {
                            let reason = format!("{error:#}");
                            if self.refused.insert(interface.clone(), reason.clone()) != Some(reason) {
                                changes.push(Change::Refused { interface, error });
                            }
                        }
                    }
                }
            }
        }
        Ok(changes)
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
