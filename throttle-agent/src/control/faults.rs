//! What is wrong beside the interfaces, by subject: told in the status for as long as it lasts, logged when it changes.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

/// The faults of the agent; whoever clones this tells the same status.
#[derive(Clone, Debug, Default)]
pub struct Faults(Arc<Mutex<BTreeMap<Cow<'static, str>, String>>>);

impl Faults {
    /// Notes how something went: a fault with its remedy, or that all is well.
    pub fn note(&self, subject: impl Into<Cow<'static, str>>, outcome: Result<(), String>) {
        let subject = subject.into();
        let mut faults = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match outcome {
            Ok(()) => {
                if faults.remove(&subject).is_some() {
                    tracing::info!(%subject, "well again");
                }
            }
            Err(fault) => {
                if faults.get(&subject) != Some(&fault) {
                    tracing::error!(%subject, "{fault}");
                }
                faults.insert(subject, fault);
            }
        }
    }

    /// All of them, by subject.
    pub fn all(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_is_told_until_all_is_well() {
        let (faults, told) = {
            let faults = Faults::default();
            (faults.clone(), faults)
        };
        faults.note("disk", Err("it is full".to_owned()));
        faults.note("disk", Err("it is gone".to_owned()));
        faults.note("clock", Ok(()));
        assert_eq!(told.all(), ["it is gone"]);
        faults.note("disk", Ok(()));
        assert!(told.all().is_empty());
    }
}
