//! This build's programs on trial: with small maps that nobody else sees, and let go of again.
//!
//! `doctor` asks so what this kernel takes, `upgrade --check` what the next start would find.

use anyhow::{Context, Result};
use aya::{Btf, Ebpf, EbpfLoader, programs::Xdp};
use throttle_common::records::maps;

use super::{OBJECT, PROGRAMS, connecting, egress, load::load_program, mend, sockets};

/// Programs that have their maps, and that the kernel has yet to take.
pub(super) struct Trial(Ebpf);

impl Trial {
    /// Makes their maps.
    pub(super) fn begin() -> Result<Self> {
        let btf = Btf::from_sys_fs().ok();
        let told = sockets::Told::read();
        let mut loader = EbpfLoader::new();
        loader.btf(btf.as_ref()).map_max_entries(maps::BUCKETS, 1).map_max_entries(maps::AGGREGATES, 1);
        told.tell(&mut loader);
        Ok(Self(loader.load(OBJECT).context("cannot make their maps")?))
    }

    /// Has the kernel take those of interfaces, and what every agent loads beside; gives the one that does the work.
    pub(super) fn interfaces(&mut self) -> Result<&Xdp> {
        for program in PROGRAMS.into_iter().chain([mend::PROGRAM]) {
            load_program(&mut self.0, program)?;
        }
        Ok(self.0.program(PROGRAMS[0]).context("the object has no program")?.try_into()?)
    }

    /// The one that sees packets leave.
    pub(super) fn leaving(&mut self) -> Result<()> {
        egress::load(&mut self.0).map(drop)
    }

    /// Those that see what processes dial.
    pub(super) fn connects(&mut self) -> Result<()> {
        connecting::load_all(&mut self.0)
    }

    /// Those that watch sockets.
    pub(super) fn sockets(&mut self) -> Result<()> {
        sockets::load_watchers(&mut self.0)
    }
}

/// What the verifier objects to, of all that an error says: the last line before its statistics; else everything.
pub(super) fn complaint(error: &anyhow::Error) -> String {
    of_verifier(&format!("{error:#}")).to_owned()
}

fn of_verifier(said: &str) -> &str {
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
        assert_eq!(of_verifier(said), "R1 invalid mem access 'scalar'");
        assert_eq!(of_verifier("operation not permitted"), "operation not permitted");
    }
}
