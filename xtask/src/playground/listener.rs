//! An XDP program at the client's end of a veth pair that passes everything.
//!
//! A veth takes what XDP sends it (`XDP_TX`, as the answers of `reject` go) only where it has a program of its own;
//! generic receive offload starts its polling too, but nothing then wakes it for such frames (measured on Linux 6.18).
//! Two instructions need no compiler and no library.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};

use anyhow::{Context as _, Result};

use super::Namespace;

/// `r0 = XDP_PASS; exit`.
const PASS: [u64; 2] = [0x0000_0002_0000_00b7, 0x95];

/// Commands and constants of include/uapi/linux/bpf.h.
const PROGRAM_LOAD: libc::c_int = 5;
const LINK_CREATE: libc::c_int = 28;
const PROGRAM_TYPE_XDP: u32 = 6;
const ATTACH_XDP: u32 = 37;

/// The head of `union bpf_attr` for [`PROGRAM_LOAD`].
#[repr(C)]
struct Program {
    kind: u32,
    instructions: u32,
    code: u64,
    licence: u64,
}

/// The head of `union bpf_attr` for [`LINK_CREATE`].
#[repr(C)]
struct Link {
    program: RawFd,
    interface: u32,
    attach_type: u32,
    flags: u32,
}

/// Attaches it to an interface of a namespace, for as long as what this returns is held.
pub(super) fn listen(namespace: &Namespace, interface: &str) -> Result<OwnedFd> {
    namespace.enter(|| {
        let name = CString::new(interface)?;
        // SAFETY: the name is a C string that lives through the call.
        let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
        let licence = c"GPL";
        let instructions = u32::try_from(PASS.len())?;
        let code = PASS.as_ptr() as u64;
        let program = Program { kind: PROGRAM_TYPE_XDP, instructions, code, licence: licence.as_ptr() as u64 };
        let program = bpf(PROGRAM_LOAD, &program).context("load an XDP program that passes everything")?;
        let link = Link { program: program.as_raw_fd(), interface: index, attach_type: ATTACH_XDP, flags: 0 };
        bpf(LINK_CREATE, &link).with_context(|| format!("attach an XDP program to {interface}"))
    })
}

/// The system call, for commands that give a descriptor; what lies beyond the head of the attributes reads as zero.
fn bpf<T>(command: libc::c_int, head: &T) -> io::Result<OwnedFd> {
    // SAFETY: the kernel reads `size_of::<T>()` bytes of `head`, and the memory that `head` points to outlives the call.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(head), size_of::<T>()) };
    let fd = RawFd::try_from(fd).ok().filter(|&fd| fd >= 0).ok_or_else(io::Error::last_os_error)?;
    // SAFETY: the kernel has just given this descriptor to us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
