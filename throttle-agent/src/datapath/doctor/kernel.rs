//! What the kernel can do, asked by doing it.

use std::{fs, io, os::fd::AsFd, path::Path, thread};

use anyhow::{Context, Result, anyhow};

use super::{
    super::{
        bpf::{self, MapShape},
        clsact,
        connecting::says_errors,
    },
    Finding, Level,
};

const SUBJECT: &str = "kernel";
/// The oldest kernel that this is tested on.
const OLDEST: [u32; 2] = [6, 1];
/// What to do about one that lacks something.
pub(super) const USE_NEWER: &str = "use Linux 6.1 or newer";
/// `BPF_PROG_TYPE_XDP`, and `BPF_PROG_TYPE_SCHED_CLS`.
const XDP: u32 = 6;
const CLASSIFIER: u32 = 3;
/// `BPF_F_XDP_HAS_FRAGS`.
const HAS_FRAGS: u32 = 1 << 5;
/// `enum bpf_map_type`, and `BPF_F_MMAPABLE`.
const HASH: u32 = 1;
const ARRAY: u32 = 2;
const RING_BUFFER: u32 = 27;
const MMAPABLE: u32 = 1 << 10;
/// The loopback has this number in every network namespace.
const LOOPBACK: u32 = 1;

/// `r0 = XDP_PASS; exit`.
const PASS: [u64; 2] = [0x0000_0002_0000_00b7, 0x95];
/// `r0 = TC_ACT_UNSPEC; exit`.
const NEXT: [u64; 2] = [0xffff_ffff_0000_00b7, 0x95];
/// `r0 = 0; *(u64 *)(r10 - 8) = r0; r1 = 0; cmpxchg(r10 - 8, r0, r1); r0 = XDP_PASS; exit`.
const COMPARE_AND_SWAP: [u64; 6] =
    [0xb7, 0x0000_0000_fff8_0a7b, 0x01b7, 0x0000_00f1_fff8_1adb, 0x0000_0002_0000_00b7, 0x95];

pub(super) fn examine() -> Vec<Finding> {
    let mut findings = vec![version()];
    if let Err(error) = bpf::program_load(XDP, 0, &PASS) {
        findings.push(no_programs(&error));
        return findings;
    }
    findings.push(Finding::ok(SUBJECT, "takes XDP programs"));
    findings.extend(needs());
    findings.extend([
        want(
            bpf::program_load(XDP, HAS_FRAGS, &PASS).map(drop),
            "frames of several buffers",
            "without it a large MTU allows only --mode generic; use Linux 5.18 or newer",
        ),
        want(
            batch(),
            "batches of map elements",
            "without them adding 100 000 blocks takes seconds; use Linux 5.6 or newer",
        ),
    ]);
    findings.push(egress());
    findings.push(connects());
    findings.push(btf());
    findings.extend(compiler());
    findings
}

/// Why nothing can be throttled on this kernel, and the remedy.
pub(super) fn obstacle() -> Option<String> {
    if let Err(error) = bpf::program_load(XDP, 0, &PASS) {
        let Finding { text, remedy, .. } = no_programs(&error);
        return Some(format!("{text}: {remedy}"));
    }
    let lacking = needs().into_iter().find(|finding| finding.level == Level::Fault);
    lacking.map(|Finding { text, remedy, .. }| format!("{} {text}: {remedy}", name()))
}

fn name() -> String {
    let name = rustix::system::uname();
    format!("{} {}", name.sysname().to_string_lossy(), name.release().to_string_lossy())
}

/// A vendor's older kernel may have all that is needed: what it lacks is probed, its age is only said.
fn version() -> Finding {
    if is_older(&rustix::system::uname().release().to_string_lossy(), OLDEST) {
        return Finding::new(
            SUBJECT,
            Level::Warning,
            format!("{} is older than any that is tested", name()),
            USE_NEWER,
        );
    }
    Finding::ok(SUBJECT, name())
}

/// Whether a release, as `uname -r` prints it, comes before a version. One that does not begin with numbers is not.
fn is_older(release: &str, version: [u32; 2]) -> bool {
    let mut numbers = release.split(|letter: char| !letter.is_ascii_digit()).map(str::parse);
    matches!([numbers.next(), numbers.next()], [Some(Ok(major)), Some(Ok(minor))] if [major, minor] < version)
}

/// What the programs cannot do without.
fn needs() -> [Finding; 3] {
    [
        need(bpf::program_load(XDP, 0, &COMPARE_AND_SWAP).map(drop), "atomic compare-and-swap in programs"),
        need(map(ARRAY, 4, 4096, MMAPABLE), "arrays that are mapped into memory"),
        need(map(RING_BUFFER, 0, 4096, 0), "ring buffers"),
    ]
}

fn no_programs(error: &io::Error) -> Finding {
    let (text, remedy) = match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => (
            "this process may not load XDP programs",
            "run as root, or with CAP_BPF and CAP_NET_ADMIN; in a container also allow the bpf system call",
        ),
        Some(libc::ENOSYS) => ("no bpf system call", "the kernel needs CONFIG_BPF_SYSCALL=y"),
        _ => ("no XDP programs", "the kernel needs CONFIG_BPF_SYSCALL=y and CONFIG_NET=y"),
    };
    Finding::new(SUBJECT, Level::Fault, format!("{text} ({error})"), remedy)
}

fn map(kind: u32, key_size: u32, entries: u32, flags: u32) -> io::Result<()> {
    let value_size = if kind == RING_BUFFER { 0 } else { 8 };
    bpf::map_create(MapShape { kind, key_size, value_size, entries, flags, inner: 0 }).map(drop)
}

fn batch() -> io::Result<()> {
    let hash = bpf::map_create(MapShape { kind: HASH, key_size: 4, value_size: 4, entries: 1, flags: 0, inner: 0 })?;
    bpf::map_update_batch(hash.as_fd(), &[0; 4], &[0; 4], 1)
}

fn need(result: io::Result<()>, what: &str) -> Finding {
    probe(result, what, USE_NEWER, Level::Fault)
}

fn want(result: io::Result<()>, what: &str, remedy: &str) -> Finding {
    probe(result, what, remedy, Level::Warning)
}

fn probe(result: io::Result<()>, what: &str, remedy: &str, level: Level) -> Finding {
    match result {
        Ok(()) => Finding::ok(SUBJECT, format!("has {what}")),
        Err(error) => Finding::new(SUBJECT, level, format!("has no {what} ({error})"), remedy),
    }
}

/// Whether what leaves can be seen, without which a service cannot be counted by its packets.
fn egress() -> Finding {
    let Err(lacks) = bpf::has_egress_links(LOOPBACK) else {
        return Finding::ok(
            SUBJECT,
            "has links on what leaves (tcx): `forwarded` services are counted by their packets, and the time to first byte \
             is measured",
        );
    };
    match filter() {
        Ok(()) => Finding::ok(
            SUBJECT,
            "has filters on what leaves (clsact): `forwarded` services are counted by their packets, and the time to first \
             byte is measured",
        ),
        Err(error) => {
            let remedy = "without them no time to first byte is measured, and health goes by heartbeats and backlog alone; \
                          the limits on open connections of `forwarded` services count nothing, and refuse nothing; \
                          those of this host's own sockets do. Use Linux 6.6 or newer, or one with \
                          CONFIG_NET_SCH_INGRESS and CONFIG_NET_CLS_BPF; root learns here whether it has them";
            let text = format!("has no links on what leaves, tcx ({lacks}), nor filters, clsact ({error:#})");
            Finding::new(SUBJECT, Level::Note, text, remedy)
        }
    }
}

/// Puts a filter on the loopback of a network namespace that ends with the thread.
fn filter() -> Result<()> {
    let attempt = thread::spawn(|| {
        // SAFETY: this moves the thread alone to a namespace that nobody else knows.
        if unsafe { libc::unshare(libc::CLONE_NEWNET) } < 0 {
            return Err(io::Error::last_os_error()).context("only root may try it");
        }
        let program = bpf::program_load(CLASSIFIER, 0, &NEXT).context("no classifiers")?;
        clsact::see(program.as_fd(), LOOPBACK, Path::new(SUBJECT))
    });
    attempt.join().map_err(|_| anyhow!("the attempt ended early"))?
}

/// Whether what processes dial can be refused, and how.
fn connects() -> Finding {
    if says_errors() {
        return Finding::ok(
            SUBJECT,
            "can refuse what processes dial: breakers of backends hold there too (`--cgroup`)",
        );
    }
    let remedy = "what processes dial to a backend whose breaker is open then fails with EPERM instead of ECONNREFUSED, if \
                  at all, and not every proxy tries the next. Use Linux 5.18 or newer with CONFIG_CGROUP_BPF";
    Finding::new(SUBJECT, Level::Note, "cannot say why a connect fails", remedy)
}

fn btf() -> Finding {
    if fs::exists("/sys/kernel/btf/vmlinux").unwrap_or(false) {
        return Finding::ok(SUBJECT, "describes its types (BTF)");
    }
    let remedy = "without it a completed handshake proves nobody, only the known sources of the policy keep a place in a \
                  flood, and limits on open connections hold only as well as the agent counts sockets, once a second. \
                  CONFIG_DEBUG_INFO_BTF=y brings it";
    Finding::new(SUBJECT, Level::Warning, "does not describe its types (no BTF)", remedy)
}

/// The just-in-time compiler and its hardening, as far as they may be read.
fn compiler() -> Vec<Finding> {
    let read = |name| fs::read_to_string(format!("/proc/sys/net/core/{name}")).map(|text| text.trim().to_owned());
    let mut findings = Vec::new();
    match read("bpf_jit_enable").as_deref() {
        Ok("0") => findings.push(Finding::new(
            SUBJECT,
            Level::Warning,
            "interprets programs, which takes several times as long",
            "sysctl -w net.core.bpf_jit_enable=1",
        )),
        Ok(_) => findings.push(Finding::ok(SUBJECT, "compiles programs (JIT)")),
        Err(error) => findings.push(Finding::new(
            SUBJECT,
            Level::Note,
            format!("does not say whether it compiles programs ({error})"),
            "as root in the host's own network namespace: sysctl net.core.bpf_jit_enable",
        )),
    }
    if read("bpf_jit_harden").is_ok_and(|level| level == "2") {
        findings.push(Finding::new(
            SUBJECT,
            Level::Note,
            "hardens compiled programs for root too, which makes them slower",
            "where nobody untrusted may load programs: sysctl -w net.core.bpf_jit_harden=1",
        ));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_older_by_their_first_two_numbers() {
        let old = |release| is_older(release, OLDEST);
        assert!(old("5.10.0-46-cloud-amd64") && old("5.14.0-503.el9") && old("6.0.19") && old("4.19"));
        assert!(!old("6.1.0-56-cloud-amd64") && !old("6.12.118+deb13") && !old("10.0") && !old("unknown"));
    }
}
