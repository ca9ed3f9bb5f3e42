//! Whether the kernel takes the program itself: it is loaded, with small maps of its own, and let go.

use anyhow::{Context, Result};
use aya::{Btf, Ebpf, EbpfLoader};
use throttle_common::records::maps;

use super::{
    super::{OBJECT, PROGRAMS, connecting, egress, load::load_program, sockets::Told},
    Finding, Level,
    kernel::USE_NEWER,
};

const SUBJECT: &str = "program";
/// Instructions that the verifier walks at most, over all paths (`BPF_COMPLEXITY_LIMIT_INSNS` of the kernel).
const MOST: u32 = 1_000_000;

pub(super) fn examine() -> Finding {
    let mut ebpf = match load() {
        Ok(ebpf) => ebpf,
        Err(error) => {
            let remedy = "give this process more memory: the limit of its control group, or ulimit -l unlimited";
            return Finding::new(SUBJECT, Level::Fault, format!("its maps cannot be made: {error:#}"), remedy);
        }
    };
    if let Err(error) = egress::load(&mut ebpf) {
        let text =
            format!("the one that sees packets leave is refused by the kernel: {}", complaint(&format!("{error:#}")));
        let remedy = "without it the limits on open connections of `forwarded` services count nothing, and no time to \
                      first byte is measured";
        return Finding::new(SUBJECT, Level::Warning, text, remedy);
    }
    if let Err(error) = connecting::load_all(&mut ebpf) {
        let text = format!("those that see connects are refused by the kernel: {}", complaint(&format!("{error:#}")));
        let remedy =
            "without them what this host dials meets no breaker (`--cgroup`). The kernel needs CONFIG_CGROUP_BPF=y";
        return Finding::new(SUBJECT, Level::Warning, text, remedy);
    }
    match walked(&mut ebpf) {
        Ok(Some(walked)) => Finding::ok(
            SUBJECT,
            format!("is taken by the kernel, which walked {walked} of at most {MOST} instructions"),
        ),
        Ok(None) => Finding::ok(SUBJECT, "is taken by the kernel"),
        Err(error) => {
            let text = format!("is refused by the kernel: {}", complaint(&format!("{error:#}")));
            Finding::new(SUBJECT, Level::Fault, text, format!("{USE_NEWER}, with the capabilities below"))
        }
    }
}

/// How many instructions the verifier walked until it took the program.
fn walked(ebpf: &mut Ebpf) -> Result<Option<u32>> {
    load_program(ebpf, PROGRAMS[0])?;
    Ok(ebpf.program(PROGRAMS[0]).context("it was there")?.info()?.verified_instruction_count())
}

fn load() -> Result<Ebpf> {
    let btf = Btf::from_sys_fs().ok();
    let told = Told::read();
    let mut loader = EbpfLoader::new();
    loader.btf(btf.as_ref()).map_max_entries(maps::BUCKETS, 1).map_max_entries(maps::AGGREGATES, 1);
    told.tell(&mut loader);
    Ok(loader.load(OBJECT)?)
}

/// What the verifier objects to, of all that it says: the last line before its statistics; else everything.
fn complaint(said: &str) -> &str {
    let statistics =
        |line: &&str| ["verification time ", "stack depth ", "processed "].iter().any(|it| line.starts_with(it));
    if said.lines().any(|line| statistics(&line)) {
        said.lines().rev().skip_while(|line| !statistics(line)).find(|line| !statistics(line)).unwrap_or(said)
    } else {
        said
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_the_verifiers_words_the_complaint_is_shown() {
        let said = "the verifier says:\n12: (07) r1 += 4\nR1 invalid mem access 'scalar'\nverification time 2614 usec\n\
                    stack depth 0+0\nprocessed 0 insns (limit 1000000): Invalid argument (os error 22)";
        assert_eq!(complaint(said), "R1 invalid mem access 'scalar'");
        assert_eq!(complaint("operation not permitted"), "operation not permitted");
    }
}
