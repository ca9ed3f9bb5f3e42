//! What a host lacks, or has too much of, for throttling; each finding with its remedy.
//!
//! Features are probed by using them, never guessed from the kernel's version: distributions move both ways. The last
//! probe is the program itself. Nothing is changed, nothing is attached, and no agent is asked.

mod interface;
mod kernel;
mod privilege;
mod program;

use std::path::Path;

use super::{interfaces, pins::on_bpffs};

/// How much a finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// As it should be.
    Ok,
    /// Worth knowing.
    Note,
    /// Works, but worse than it could.
    Warning,
    /// Does not work.
    Fault,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What was looked at: `kernel`, `bpffs`, `capabilities`, an interface's name.
    pub subject: String,
    /// How much it matters.
    pub level: Level,
    /// What was found.
    pub text: String,
    /// What to do about it; empty where nothing is to be done.
    pub remedy: String,
}

impl Finding {
    fn new(subject: &str, level: Level, text: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { subject: subject.to_owned(), level, text: text.into(), remedy: remedy.into() }
    }

    fn ok(subject: &str, text: impl Into<String>) -> Self {
        Self::new(subject, Level::Ok, text, "")
    }
}

/// Looks at the kernel, at what this process may do, at the BPF file system of the pin directory, and at the interfaces
/// named: without a name at all that are up but the loopback.
pub fn examine(names: &[String], pin_dir: &Path) -> Vec<Finding> {
    let mut findings = kernel::examine();
    let takes_programs = findings.iter().all(|finding| finding.level < Level::Fault);
    findings.extend(takes_programs.then(program::examine).into_iter().flatten());
    findings.extend(privilege::examine());
    findings.push(bpffs(pin_dir));
    let all = match interfaces() {
        Ok(all) => all,
        Err(error) => {
            let text = format!("cannot list the interfaces: {error}");
            findings.push(Finding::new("interfaces", Level::Fault, text, "allow netlink sockets (AF_NETLINK)"));
            return findings;
        }
    };
    if names.is_empty() {
        for device in all.iter().filter(|device| device.up && device.name != "lo") {
            findings.extend(interface::examine(device, &all, pin_dir));
        }
    }
    for name in names {
        let Some(device) = all.iter().find(|device| device.name == *name) else {
            let there: Vec<_> = all.iter().map(|device| device.name.as_str()).collect();
            let remedy = format!("there are: {}; the agent waits for one that is to come", there.join(", "));
            findings.push(Finding::new(name, Level::Fault, "there is no such interface", remedy));
            continue;
        };
        findings.extend(interface::examine(device, &all, pin_dir));
    }
    findings
}

/// Refuses a kernel that lacks what throttling cannot do without, before anything is made.
pub fn require_kernel() -> anyhow::Result<()> {
    match kernel::obstacle() {
        Some(obstacle) => anyhow::bail!("{obstacle}; `throttle doctor` says all that is missing"),
        None => Ok(()),
    }
}

fn bpffs(pin_dir: &Path) -> Finding {
    const SUBJECT: &str = "bpffs";
    let shown = pin_dir.display();
    if on_bpffs(pin_dir) {
        Finding::ok(SUBJECT, format!("{shown} lies in a BPF file system"))
    } else if pin_dir.starts_with("/sys/fs/bpf") {
        let text = "no BPF file system is mounted at /sys/fs/bpf";
        let remedy = "the agent mounts it when it runs as root; or: mount -t bpf bpf /sys/fs/bpf";
        Finding::new(SUBJECT, Level::Note, text, remedy)
    } else {
        let text = format!("{shown} is not in a BPF file system");
        let remedy = "choose a directory under /sys/fs/bpf with --pin-dir, or: mount -t bpf bpf DIRECTORY";
        Finding::new(SUBJECT, Level::Fault, text, remedy)
    }
}
