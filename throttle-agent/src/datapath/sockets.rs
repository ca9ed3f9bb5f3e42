//! Watching the host's own sockets: two programs at the tracepoint of their states, beside those on the interfaces.
//!
//! They do the same; what the kernel cannot show the one, because it interrupted it, it shows the other. They see who
//! completes a handshake. Where the kernel does not describe its types, or refuses the programs, nothing else is lost: only
//! policy says then who is proven.

use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use anyhow::{Context, Result};
use aya::{
    Btf, Ebpf, EbpfLoader,
    programs::{BtfTracePoint, ProgramType, links::FdLink},
    sys::{BpfHelper, is_helper_supported},
};

use super::{Datapath, btf::Types, connecting};
use crate::own_probes;

/// The programs, which are also the names of their pinned links, and the tracepoint that they hang on.
const PROGRAMS: [&str; 2] = ["sockets", "sockets_again"];
const TRACEPOINT: &str = "inet_sock_set_state";
/// The kernel's description of its own types.
const DESCRIPTION: &str = "/sys/kernel/btf/vmlinux";

/// What the programs are told at load: names of their globals, and of the fields whose offsets they hold.
const FIELDS: [(&str, &[&str]); 23] = [
    ("SOCKET_NET", &["sock", "__sk_common", "skc_net", "net"]),
    ("NET_NUMBER", &["net", "ns", "inum"]),
    ("SOCKET_FAMILY", &["sock", "__sk_common", "skc_family"]),
    ("SOCKET_PEER_V4", &["sock", "__sk_common", "skc_daddr"]),
    ("SOCKET_PEER_V6", &["sock", "__sk_common", "skc_v6_daddr"]),
    ("SOCKET_OWN_V4", &["sock", "__sk_common", "skc_rcv_saddr"]),
    ("SOCKET_OWN_V6", &["sock", "__sk_common", "skc_v6_rcv_saddr"]),
    ("SOCKET_PEER_PORT", &["sock", "__sk_common", "skc_dport"]),
    ("SOCKET_OWN_PORT", &["tcp_sock", "inet_conn", "icsk_inet", "inet_sport"]),
    ("SOCKET_EXPECTS", &["tcp_sock", "rcv_nxt"]),
    ("SOCKET_WINDOW_FROM", &["tcp_sock", "rcv_wup"]),
    ("SOCKET_WINDOW", &["tcp_sock", "rcv_wnd"]),
    ("REQUEST_SENT_ISN", &["tcp_request_sock", "snt_isn"]),
    ("REQUEST_RECEIVED_ISN", &["tcp_request_sock", "rcv_isn"]),
    ("REQUEST_LISTENER", &["tcp_request_sock", "req", "req", "__req_common", "skc_listener"]),
    ("REQUEST_RETRANSMITS", &["tcp_request_sock", "req", "req", "num_retrans"]),
    ("LISTENER_DEFERS", &["inet_connection_sock", "icsk_accept_queue", "rskq_defer_accept"]),
    ("LISTENER_FAST_OPENS", &["inet_connection_sock", "icsk_accept_queue", "fastopenq", "max_qlen"]),
    ("LISTENER_FAST_OPEN_KEYS", &["inet_connection_sock", "icsk_accept_queue", "fastopenq", "ctx"]),
    ("NET_FAST_OPEN", &["net", "ipv4", "sysctl_tcp_fastopen"]),
    ("NET_FAST_OPEN_KEYS", &["net", "ipv4", "tcp_fastopen_ctx"]),
    ("FAST_OPEN_KEY", &["tcp_fastopen_context", "key"]),
    ("FAST_OPEN_KEY_COUNT", &["tcp_fastopen_context", "num"]),
];

/// The values of the programs' globals.
pub(super) struct Told {
    offsets: Option<[u32; FIELDS.len()]>,
    described: u8,
    readable: u8,
    own_net: u32,
    own_net_cookie: u64,
    says_errors: u8,
    probe_priority: u32,
}

impl Told {
    /// As they are on this kernel, for the network namespace of the calling thread.
    pub(super) fn read() -> Self {
        static OFFSETS: OnceLock<Option<[u32; FIELDS.len()]>> = OnceLock::new();
        let offsets = *OFFSETS.get_or_init(|| {
            offsets().inspect_err(|error| tracing::debug!("the kernel's types cannot be read: {error:#}")).ok()
        });
        // The numbers of namespaces are inode numbers of 32 bits.
        let own_net = fs::metadata("/proc/thread-self/ns/net").map_or(0, |namespace| namespace.ino() as u32);
        Self {
            offsets,
            described: u8::from(offsets.is_some()),
            readable: u8::from(memory_is_readable()),
            own_net,
            // Without one nothing that a process dials is refused.
            own_net_cookie: connecting::own_cookie().unwrap_or(0),
            says_errors: u8::from(connecting::says_errors()),
            probe_priority: own_probes::priority(),
        }
    }

    /// Hands them to the loader.
    pub(super) fn tell<'l>(&'l self, loader: &mut EbpfLoader<'l>) {
        loader.override_global("OWN_NET", &self.own_net, true);
        loader.override_global("OWN_NET_COOKIE", &self.own_net_cookie, true);
        loader.override_global("SAYS_ERRORS", &self.says_errors, true);
        loader.override_global("PROBE_PRIORITY", &self.probe_priority, true);
        loader.override_global("SOCKETS_DESCRIBED", &self.described, true);
        loader.override_global("MEMORY_READ", &self.readable, true);
        for ((global, _), offset) in FIELDS.iter().zip(self.offsets.iter().flatten()) {
            loader.override_global(global, offset, true);
        }
    }
}

/// Whether programs on interfaces may read the kernel's memory: not where it is locked down for confidentiality
/// (`kernel_lockdown(7)`).
pub(super) fn memory_is_readable() -> bool {
    static READABLE: OnceLock<bool> = OnceLock::new();
    let ask = || is_helper_supported(ProgramType::Xdp, BpfHelper::BPF_FUNC_probe_read_kernel);
    *READABLE.get_or_init(|| {
        ask().unwrap_or_else(|error| {
            tracing::debug!("whether the kernel's memory can be read is unknown: {error}");
            false
        })
    })
}

fn offsets() -> Result<[u32; FIELDS.len()]> {
    let bytes = fs::read(DESCRIPTION).with_context(|| format!("read {DESCRIPTION}"))?;
    let types = Types::parse(&bytes).with_context(|| format!("read {DESCRIPTION}"))?;
    let mut offsets = [0; FIELDS.len()];
    for (offset, (_, path)) in offsets.iter_mut().zip(FIELDS) {
        *offset = types.offset(path)?;
    }
    Ok(offsets)
}

impl Datapath {
    /// Begins to watch the sockets of this network namespace, or has this build go on where an earlier one did: for a
    /// moment both watch, which changes nothing, because what they note is the same. Goes on when the agent ends.
    ///
    /// Where the maps are changed over, the earlier build watches until they have been.
    pub fn watch_sockets(&mut self) -> Result<()> {
        if self.changes_over() {
            return Ok(());
        }
        let watching = self.begin_to_watch();
        self.unwatched = watching.as_ref().err().map(|error| format!("{error:#}"));
        watching
    }

    /// Why sockets are not watched, where they should be and are not.
    pub fn unwatched(&self) -> Option<&str> {
        self.unwatched.as_deref()
    }

    fn begin_to_watch(&mut self) -> Result<()> {
        for name in PROGRAMS {
            let program = load_watcher(&mut self.ebpf, name)?;
            let link = program.attach().context("cannot attach to the tracepoint of socket states")?;
            let link: FdLink = program.take_link(link)?.into();
            let root = self.pins.root();
            let [place, beside] = names(root, name);
            remove(&beside)?;
            link.pin(&beside).context("cannot pin the link of a program that watches sockets")?;
            let fresh = !place.exists();
            // The last that holds the old link is its pin.
            fs::rename(&beside, &place).context("cannot name the link of a program that watches sockets")?;
            self.undo.sockets |= fresh;
        }
        Ok(())
    }
}

/// Has the kernel check and take the programs that watch sockets.
pub(super) fn load_watchers(ebpf: &mut Ebpf) -> Result<()> {
    PROGRAMS.iter().try_for_each(|name| load_watcher(ebpf, name).map(drop))
}

fn load_watcher<'e>(ebpf: &'e mut Ebpf, name: &str) -> Result<&'e mut BtfTracePoint> {
    offsets()?;
    let btf = Btf::from_sys_fs().context("read the kernel's types")?;
    let program = ebpf.program_mut(name).with_context(|| format!("the object has no program {name}"))?;
    let program: &mut BtfTracePoint = program.try_into()?;
    if program.fd().is_err() {
        program.load(TRACEPOINT, &btf).context("the kernel refuses a program that watches sockets")?;
    }
    Ok(program)
}

/// Whether sockets are watched, by this build or an earlier one.
pub(super) fn are_watched(root: &Path) -> bool {
    root.join(PROGRAMS[0]).exists()
}

/// Ends the watching, whether or not an agent runs.
pub(super) fn unwatch(root: &Path) -> Result<()> {
    PROGRAMS
        .iter()
        .flat_map(|name| names(root, name))
        .try_for_each(|name| remove(&name))
        .context("cannot remove the pins of the programs that watch sockets")
}

/// What the pin of a program is called, and what until it takes the place of another.
fn names(root: &Path, program: &str) -> [PathBuf; 2] {
    [root.join(program), root.join(format!("{program}-new"))]
}

fn remove(pin: &Path) -> io::Result<()> {
    match fs::remove_file(pin) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
