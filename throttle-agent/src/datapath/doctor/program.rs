//! Whether the kernel takes the programs themselves: they are loaded, with small maps of their own, and let go.

use super::{
    super::{
        sockets::memory_is_readable,
        trial::{Trial, complaint},
    },
    Finding, Level,
    kernel::USE_NEWER,
};
use anyhow::{Error, Result};

const SUBJECT: &str = "program";
/// Instructions that the verifier walks at most, over all paths (`BPF_COMPLEXITY_LIMIT_INSNS` of the kernel).
const MOST: u32 = 1_000_000;

/// What throttle does without: the program in words, how it is tried, and the remedy where the kernel refuses it.
type Dispensable = (&'static str, fn(&mut Trial) -> Result<()>, &'static str);

const DISPENSABLE: [Dispensable; 3] = [
    (
        "the one that sees packets leave is",
        Trial::leaving,
        "without it the limits on open connections of `forwarded` services count nothing, and no time to first byte is measured",
    ),
    (
        "those that see connects are",
        Trial::connects,
        "without them what this host dials meets no breaker (`--cgroup`). The kernel needs CONFIG_CGROUP_BPF=y",
    ),
    (
        "those that watch sockets are",
        Trial::sockets,
        "without them a completed handshake proves nobody, and how many connections are open is known only once a second. The \
         kernel needs CONFIG_DEBUG_INFO_BTF=y, and must not be locked down",
    ),
];

pub(super) fn examine() -> Vec<Finding> {
    let mut trial = match Trial::begin() {
        Ok(trial) => trial,
        Err(error) => {
            let remedy = "give this process more memory: the limit of its control group, or ulimit -l unlimited";
            return vec![Finding::new(SUBJECT, Level::Fault, format!("cannot be tried out: {error:#}"), remedy)];
        }
    };
    let mut findings = vec![interfaces(&mut trial)];
    findings.extend(DISPENSABLE.iter().filter_map(|(which, take, remedy)| {
        take(&mut trial).err().map(|error| Finding::new(SUBJECT, Level::Warning, refused(which, &error), *remedy))
    }));
    // Where programs are refused for want of a capability nothing can be told of the memory.
    if findings.iter().all(|finding| finding.level < Level::Warning) && !memory_is_readable() {
        let text = "cannot read the kernel's memory, which is locked down for confidentiality";
        let remedy = "boot without lockdown=confidentiality; else fast-open cookies are not checked, and neither listeners of \
                      MPTCP nor servers that wait for data are told";
        findings.push(Finding::new(SUBJECT, Level::Warning, text, remedy));
    }
    findings
}

/// The one that does the work.
fn interfaces(trial: &mut Trial) -> Finding {
    let walked = trial.interfaces().and_then(|program| Ok(program.info()?.verified_instruction_count()));
    match walked {
        Ok(Some(walked)) => Finding::ok(
            SUBJECT,
            format!("is taken by the kernel, which walked {walked} of at most {MOST} instructions"),
        ),
        Ok(None) => Finding::ok(SUBJECT, "is taken by the kernel"),
        Err(error) => {
            let remedy = format!("{USE_NEWER}, with the capabilities below");
            Finding::new(SUBJECT, Level::Fault, refused("is", &error), remedy)
        }
    }
}

fn refused(which: &str, error: &Error) -> String {
    format!("{which} refused by the kernel: {}", complaint(error))
}
