//! What processes of this host dial: the programs at a control group that refuse a connect to a backend whose breaker
//! refuses.
//!
//! They are there by links that are pinned, and so go on without an agent; one that starts anew replaces their programs.
//! Which control group it is the operator says, and without a word it is none.

use std::{
    fs::File,
    io,
    os::{
        fd::{AsFd as _, AsRawFd as _},
        unix::fs::MetadataExt as _,
    },
    path::Path,
    sync::OnceLock,
};

use anyhow::{Context, Result};
use aya::{
    Ebpf,
    programs::{CgroupSockAddr, ProgramFd, ProgramType},
    sys::{BpfHelper, is_helper_supported},
};

use super::{Datapath, bpf, pins::remove_link};

/// The programs, which are also the names of their pinned links, and where they hang: `BPF_CGROUP_INET4_CONNECT` and
/// `BPF_CGROUP_INET6_CONNECT`.
const PROGRAMS: [(&str, u32); 2] = [("connect4", 10), ("connect6", 11)];
/// `SO_NETNS_COOKIE` of include/uapi/asm-generic/socket.h (Linux 5.14).
const SO_NETNS_COOKIE: libc::c_int = 71;

impl Datapath {
    /// Has the processes of a control group, as far as they live in this network namespace, find a backend refused whose
    /// breaker refuses. Goes on when the agent ends.
    pub fn guard_connects(&mut self, cgroup: &Path) -> Result<()> {
        let shown = cgroup.display();
        let directory = File::open(cgroup).with_context(|| format!("open the control group {shown}"))?;
        let wanted = directory.metadata().with_context(|| format!("ask for the number of {shown}"))?.ino();
        for (name, kind) in PROGRAMS {
            let program = load(&mut self.ebpf, name)?;
            let pin = self.pins.root().join(name);
            if let Some((link, info)) = open_link(&pin)? {
                if info.cgroup() == wanted && bpf::link_update(link.as_fd(), program.as_fd()).is_ok() {
                    continue;
                }
                remove_link(link.as_fd(), &pin).context("cannot detach from another control group")?;
            }
            let link = bpf::link_create_cgroup(program.as_fd(), directory.as_fd(), kind).with_context(|| {
                format!("cannot attach to {shown}, which has to be a directory of cgroup2 (mount -t cgroup2)")
            })?;
            bpf::pin(link.as_fd(), &pin).context("cannot pin the link of a program that sees connects")?;
            self.undo.connects = true;
        }
        Ok(())
    }

    /// Ends that, also where an earlier agent began it.
    pub fn unguard_connects(&self) -> Result<()> {
        unguard(self.pins.root())
    }

    /// Whether connects are seen.
    pub fn guards_connects(&self) -> bool {
        are_seen(self.pins.root())
    }
}

/// Whether connects are seen, by this build or an earlier one.
pub(super) fn are_seen(root: &Path) -> bool {
    PROGRAMS.iter().all(|(name, _)| root.join(name).exists())
}

/// Has the kernel check and take a program.
pub(super) fn load(ebpf: &mut Ebpf, name: &str) -> Result<ProgramFd> {
    let program = ebpf.program_mut(name).with_context(|| format!("the object has no program {name}"))?;
    let program: &mut CgroupSockAddr = program.try_into()?;
    if program.fd().is_err() {
        program.load().context("the kernel refuses a program that sees connects")?;
    }
    Ok(program.fd()?.try_clone()?)
}

/// Has the kernel check and take both.
pub(super) fn load_all(ebpf: &mut Ebpf) -> Result<()> {
    PROGRAMS.iter().try_for_each(|(name, _)| load(ebpf, name).map(drop))
}

/// Ends it, whether or not an agent runs.
pub(super) fn unguard(root: &Path) -> Result<()> {
    for (name, _) in PROGRAMS {
        let pin = root.join(name);
        if let Some((link, _)) = open_link(&pin)? {
            remove_link(link.as_fd(), &pin).context("cannot detach a program that sees connects")?;
        }
    }
    Ok(())
}

fn open_link(pin: &Path) -> Result<Option<(std::os::fd::OwnedFd, bpf::LinkInfo)>> {
    match bpf::open(pin) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        opened => {
            let link = opened.with_context(|| format!("cannot open {}", pin.display()))?;
            let info = bpf::link_info(link.as_fd()).context("cannot ask a link what it is")?;
            Ok(Some((link, info)))
        }
    }
}

/// The cookie of the calling thread's network namespace, by which the programs know it.
pub(super) fn own_cookie() -> Result<u64> {
    let socket = std::net::UdpSocket::bind(("127.0.0.1", 0)).context("make a socket")?;
    let (mut cookie, mut length) = (0u64, size_of::<u64>() as libc::socklen_t);
    // SAFETY: the kernel writes at most `length` bytes to the number.
    let result = unsafe {
        let to = (&raw mut cookie).cast();
        libc::getsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, SO_NETNS_COOKIE, to, &raw mut length)
    };
    if result < 0 { Err(io::Error::last_os_error()).context("ask for the network namespace") } else { Ok(cookie) }
}

/// Whether a program can say with which error a connect fails.
pub(super) fn says_errors() -> bool {
    static SAYS: OnceLock<bool> = OnceLock::new();
    *SAYS.get_or_init(|| {
        is_helper_supported(ProgramType::CgroupSockAddr, BpfHelper::BPF_FUNC_set_retval).unwrap_or(false)
    })
}
