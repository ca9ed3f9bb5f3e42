//! What the kernel can do, asked by doing it.

use std::{fs, io, os::fd::AsFd};

use super::{
    super::bpf::{self, MapShape},
    Finding, Level,
};

const SUBJECT: &str = "kernel";
/// `BPF_PROG_TYPE_XDP`.
const XDP: u32 = 6;
/// `BPF_F_XDP_HAS_FRAGS`.
const HAS_FRAGS: u32 = 1 << 5;
/// `enum bpf_map_type`, and `BPF_F_MMAPABLE`.
const HASH: u32 = 1;
const ARRAY: u32 = 2;
const RING_BUFFER: u32 = 27;
const MMAPABLE: u32 = 1 << 10;

/// `r0 = XDP_PASS; exit`.
const PASS: [u64; 2] = [0x0000_0002_0000_00b7, 0x95];
/// `r0 = 0; *(u64 *)(r10 - 8) = r0; r1 = 0; cmpxchg(r10 - 8, r0, r1); r0 = XDP_PASS; exit`.
const COMPARE_AND_SWAP: [u64; 6] =
    [0xb7, 0x0000_0000_fff8_0a7b, 0x01b7, 0x0000_00f1_fff8_1adb, 0x0000_0002_0000_00b7, 0x95];

pub(super) fn examine() -> Vec<Finding> {
    let name = rustix::system::uname();
    let version = format!("{} {}", name.sysname().to_string_lossy(), name.release().to_string_lossy());
    let mut findings = vec![Finding::ok(SUBJECT, version)];
    if let Err(error) = bpf::program_load(XDP, 0, &PASS) {
        findings.push(no_programs(&error));
        return findings;
    }
    findings.push(Finding::ok(SUBJECT, "takes XDP programs"));
    let probes = [
        need(
            bpf::program_load(XDP, 0, &COMPARE_AND_SWAP).map(drop),
            "atomic compare-and-swap in programs",
            "it came with Linux 5.12 (x86, arm64 5.18); use a newer kernel",
        ),
        need(map(ARRAY, 4, 4096, MMAPABLE), "arrays that are mapped into memory", "use Linux 5.5 or newer"),
        need(map(RING_BUFFER, 0, 4096, 0), "ring buffers", "use Linux 5.8 or newer"),
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
    ];
    findings.extend(probes);
    findings.push(btf());
    findings.extend(compiler());
    findings
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

fn need(result: io::Result<()>, what: &str, remedy: &str) -> Finding {
    probe(result, what, remedy, Level::Fault)
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

fn btf() -> Finding {
    if fs::exists("/sys/kernel/btf/vmlinux").unwrap_or(false) {
        return Finding::ok(SUBJECT, "describes its types (BTF)");
    }
    let remedy = "without it a completed handshake proves nobody, and only the known sources of the policy keep a place \
                  in a flood. CONFIG_DEBUG_INFO_BTF=y brings it";
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
