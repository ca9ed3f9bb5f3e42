//! What this process may do.

use caps::{CapSet, Capability};
use rustix::process::{Resource, getrlimit};

use super::{Finding, Level};

const SUBJECT: &str = "capabilities";

/// Each capability, whether the agent works without it, and what it is for.
const WANTED: [(Capability, Level, &str); 4] = [
    (Capability::CAP_BPF, Level::Fault, "to load programs and to make, pin and open maps"),
    (Capability::CAP_NET_ADMIN, Level::Fault, "to load XDP programs and to attach them to interfaces"),
    (
        Capability::CAP_PERFMON,
        Level::Fault,
        "to load programs that compute with packet pointers, and the one that watches sockets",
    ),
    (
        Capability::CAP_SYS_ADMIN,
        Level::Note,
        "only to mount the BPF file system and to name a foreign program; the agent needs it at no other time",
    ),
];

pub(super) fn examine() -> Vec<Finding> {
    let held = match caps::read(None, CapSet::Effective) {
        Ok(held) => held,
        Err(error) => {
            let text = format!("cannot read them: {error}");
            return vec![Finding::new(SUBJECT, Level::Warning, text, "mount /proc")];
        }
    };
    let mut findings: Vec<_> = WANTED
        .into_iter()
        .map(|(capability, level, purpose)| {
            // The kernel takes CAP_SYS_ADMIN for the two that were split from it (Linux 5.8).
            let split = matches!(capability, Capability::CAP_BPF | Capability::CAP_PERFMON);
            if held.contains(&capability) || split && held.contains(&Capability::CAP_SYS_ADMIN) {
                Finding::ok(SUBJECT, format!("{capability}, {purpose}"))
            } else {
                let remedy = format!("run as root, or add {capability} to the unit's AmbientCapabilities");
                let remedy = if level == Level::Note { String::new() } else { remedy };
                Finding::new(SUBJECT, level, format!("{capability} is missing: {purpose}"), remedy)
            }
        })
        .collect();
    findings.push(locked_memory(held.contains(&Capability::CAP_SYS_RESOURCE)));
    findings
}

/// Before Linux 5.11 maps counted as locked memory. Later kernels count them to the control group instead.
fn locked_memory(may_raise: bool) -> Finding {
    /// The table of default size, and the rest.
    const NEEDED: u64 = 160 << 20;
    match getrlimit(Resource::Memlock).current {
        Some(limit) if limit < NEEDED && !may_raise => Finding::new(
            "memory",
            Level::Note,
            format!("at most {} KiB may be locked, which matters before Linux 5.11", limit >> 10),
            "where loading fails with `Operation not permitted`: ulimit -l unlimited, or LimitMEMLOCK=infinity",
        ),
        _ => Finding::ok("memory", "the limit of locked memory is no obstacle"),
    }
}
