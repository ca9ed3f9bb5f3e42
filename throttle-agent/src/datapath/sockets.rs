//! Watching the host's own sockets: a program at the tracepoint of their states, beside those on the interfaces.
//!
//! It sees who completes a handshake. Where the kernel does not describe its types, or refuses the program, nothing else
//! is lost: only policy says then who is proven.

use std::{fs, io, os::unix::fs::MetadataExt as _, path::Path, sync::OnceLock};

use anyhow::{Context, Result};
use aya::{
    Btf, Ebpf, EbpfLoader,
    programs::{BtfTracePoint, links::FdLink},
};

use super::{Datapath, btf::Types};

/// The program, and the tracepoint that it hangs on.
const PROGRAM: &str = "sockets";
const TRACEPOINT: &str = "inet_sock_set_state";
/// The kernel's description of its own types.
const DESCRIPTION: &str = "/sys/kernel/btf/vmlinux";

/// What the program is told at load: names of its globals, and of the fields whose offsets they hold.
const FIELDS: [(&str, &[&str]); 10] = [
    ("SOCKET_NET", &["sock", "__sk_common", "skc_net", "net"]),
    ("NET_NUMBER", &["net", "ns", "inum"]),
    ("SOCKET_FAMILY", &["sock", "__sk_common", "skc_family"]),
    ("SOCKET_PEER_V4", &["sock", "__sk_common", "skc_daddr"]),
    ("SOCKET_PEER_V6", &["sock", "__sk_common", "skc_v6_daddr"]),
    ("SOCKET_OWN_V4", &["sock", "__sk_common", "skc_rcv_saddr"]),
    ("SOCKET_OWN_V6", &["sock", "__sk_common", "skc_v6_rcv_saddr"]),
    ("SOCKET_PEER_PORT", &["sock", "__sk_common", "skc_dport"]),
    ("SOCKET_OWN_PORT", &["tcp_sock", "inet_conn", "icsk_inet", "inet_sport"]),
    ("REQUEST_SENT_ISN", &["tcp_request_sock", "snt_isn"]),
];

/// The values of the program's globals.
pub(super) struct Told {
    offsets: Option<[u32; FIELDS.len()]>,
    described: u8,
    own_net: u32,
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
        Self { offsets, described: u8::from(offsets.is_some()), own_net }
    }

    /// Hands them to the loader.
    pub(super) fn tell<'l>(&'l self, loader: &mut EbpfLoader<'l>) {
        loader.override_global("OWN_NET", &self.own_net, true);
        loader.override_global("SOCKETS_DESCRIBED", &self.described, true);
        for ((global, _), offset) in FIELDS.iter().zip(self.offsets.iter().flatten()) {
            loader.override_global(global, offset, true);
        }
    }
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
        let program = load_watcher(&mut self.ebpf)?;
        let link = program.attach().context("cannot attach to the tracepoint of socket states")?;
        let link: FdLink = program.take_link(link)?.into();
        let (place, beside) = (place(self.pins.root()), self.pins.root().join("sockets-new"));
        remove(&beside)?;
        link.pin(&beside).context("cannot pin the link of the program that watches sockets")?;
        let fresh = !place.exists();
        // The last that holds the old link is its pin.
        fs::rename(&beside, &place).context("cannot name the link of the program that watches sockets")?;
        self.undo.sockets |= fresh;
        Ok(())
    }
}

/// Has the kernel check and take the program that watches sockets.
pub(super) fn load_watcher(ebpf: &mut Ebpf) -> Result<&mut BtfTracePoint> {
    offsets()?;
    let btf = Btf::from_sys_fs().context("read the kernel's types")?;
    let program = ebpf.program_mut(PROGRAM).with_context(|| format!("the object has no program {PROGRAM}"))?;
    let program: &mut BtfTracePoint = program.try_into()?;
    if program.fd().is_err() {
        program.load(TRACEPOINT, &btf).context("the kernel refuses the program that watches sockets")?;
    }
    Ok(program)
}

/// Where the link is pinned.
pub(super) fn place(root: &Path) -> std::path::PathBuf {
    root.join(PROGRAM)
}

/// Ends the watching, whether or not an agent runs.
pub(super) fn unwatch(root: &Path) -> Result<()> {
    remove(&place(root)).context("cannot remove the pin of the program that watches sockets")
}

fn remove(pin: &Path) -> io::Result<()> {
    match fs::remove_file(pin) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
