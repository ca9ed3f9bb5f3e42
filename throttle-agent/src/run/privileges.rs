//! The capabilities that the agent needs, and the loss of all others.
//!
//! Called before any thread is started, because capabilities belong to threads.

use anyhow::{Context as _, bail};
use caps::{CapSet, Capability, CapsHashSet};

/// Each capability that the agent needs, with what it needs it for.
pub const NEEDED: [(Capability, &str); 3] = [
    (Capability::CAP_BPF, "load programs and use their maps"),
    (Capability::CAP_NET_ADMIN, "attach to interfaces"),
    (Capability::CAP_PERFMON, "have the verifier accept pointer arithmetic of the program"),
];

/// Refuses to start without what is needed, naming it.
pub fn require() -> anyhow::Result<()> {
    let have = caps::read(None, CapSet::Effective).context("read the capabilities of this process")?;
    let missing: Vec<String> = NEEDED
        .iter()
        .filter(|(capability, _)| !have.contains(capability))
        .map(|(capability, purpose)| format!("{capability} (to {purpose})"))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    bail!("missing {}; run as root, or under the systemd unit that grants them", missing.join(", "))
}

/// Drops every capability but those needed, for good, and gives the names of those that stay.
pub fn drop_others() -> anyhow::Result<Vec<String>> {
    let keep: CapsHashSet = NEEDED.iter().map(|(capability, _)| *capability).collect();
    let have = caps::read(None, CapSet::Effective).context("read the capabilities of this process")?;
    if have.contains(&Capability::CAP_SETPCAP) {
        for capability in caps::all().difference(&keep) {
            // A capability that this kernel does not know cannot be dropped and need not be.
            if caps::has_cap(None, CapSet::Bounding, *capability).unwrap_or(false) {
                caps::drop(None, CapSet::Bounding, *capability)
                    .with_context(|| format!("drop {capability} from the bounding set"))?;
            }
        }
    }
    caps::clear(None, CapSet::Ambient).context("clear the ambient capabilities")?;
    let kept: CapsHashSet = have.intersection(&keep).copied().collect();
    // Effective before permitted: what is in force must be a part of what is permitted.
    for (set, value) in
        [(CapSet::Effective, &kept), (CapSet::Permitted, &kept), (CapSet::Inheritable, &CapsHashSet::new())]
    {
        caps::set(None, set, value).with_context(|| format!("drop the other capabilities from the {set:?} set"))?;
    }
    rustix::thread::set_no_new_privs(true).context("renounce new privileges")?;
    Ok(names(&kept))
}

/// The names of the capabilities in force.
pub fn held() -> Vec<String> {
    caps::read(None, CapSet::Effective).map(|have| names(&have)).unwrap_or_default()
}

fn names(set: &CapsHashSet) -> Vec<String> {
    let mut names: Vec<String> = set.iter().map(ToString::to_string).collect();
    names.sort();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_needed_stays() {
        if require().is_err() {
            crate::skip::skipped("needs the agent's capabilities");
            return;
        }
        // A thread of its own: capabilities belong to threads, and this one must not lame the other tests.
        std::thread::spawn(|| {
            assert_eq!(drop_others().unwrap(), ["CAP_BPF", "CAP_NET_ADMIN", "CAP_PERFMON"]);
            assert_eq!(held().len(), NEEDED.len());
            assert!(!caps::has_cap(None, CapSet::Bounding, Capability::CAP_SYS_ADMIN).unwrap());
            require().unwrap();
            assert!(std::fs::File::open("/proc/1/mem").is_err());
        })
        .join()
        .unwrap();
    }
}
