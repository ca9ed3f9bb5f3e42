//! Whether the kernel takes the program itself: it is loaded, with small maps of its own, and let go.

use super::{
    super::trial::{Trial, complaint},
    Finding, Level,
    kernel::USE_NEWER,
};

const SUBJECT: &str = "program";
/// Instructions that the verifier walks at most, over all paths (`BPF_COMPLEXITY_LIMIT_INSNS` of the kernel).
const MOST: u32 = 1_000_000;

pub(super) fn examine() -> Finding {
    let mut trial = match Trial::begin() {
        Ok(trial) => trial,
        Err(error) => {
            let remedy = "give this process more memory: the limit of its control group, or ulimit -l unlimited";
            return Finding::new(SUBJECT, Level::Fault, format!("cannot be tried out: {error:#}"), remedy);
        }
    };
    if let Err(error) = trial.leaving() {
        let text = format!("the one that sees packets leave is refused by the kernel: {}", complaint(&error));
        let remedy = "without it the limits on open connections of `forwarded` services count nothing, and no time to \
                      first byte is measured";
        return Finding::new(SUBJECT, Level::Warning, text, remedy);
    }
    if let Err(error) = trial.connects() {
        let text = format!("those that see connects are refused by the kernel: {}", complaint(&error));
        let remedy =
            "without them what this host dials meets no breaker (`--cgroup`). The kernel needs CONFIG_CGROUP_BPF=y";
        return Finding::new(SUBJECT, Level::Warning, text, remedy);
    }
    let walked = trial.interfaces().and_then(|program| Ok(program.info()?.verified_instruction_count()));
    match walked {
        Ok(Some(walked)) => Finding::ok(
            SUBJECT,
            format!("is taken by the kernel, which walked {walked} of at most {MOST} instructions"),
        ),
        Ok(None) => Finding::ok(SUBJECT, "is taken by the kernel"),
        Err(error) => {
            let text = format!("is refused by the kernel: {}", complaint(&error));
            Finding::new(SUBJECT, Level::Fault, text, format!("{USE_NEWER}, with the capabilities below"))
        }
    }
}
