//! A kernel that refuses one kind of call, to see what becomes of what was begun.

use std::panic::resume_unwind;

use anyhow::{Context, Result, ensure};

/// Calls of bpf(2) that can be refused, by their numbers in `enum bpf_cmd` of include/uapi/linux/bpf.h.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denied {
    /// Writing one element of a map.
    UpdateElement = 2,
    /// Asking what is attached to an interface.
    Query = 16,
    /// Writing many.
    UpdateBatch = 26,
}

/// Runs `act` on a thread to which the kernel refuses these calls with EPERM; other threads are not concerned.
pub fn denied<T: Send>(what: Denied, act: impl FnOnce() -> T + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| deny(what).map(|()| act()));
        thread.join().unwrap_or_else(|panic| resume_unwind(panic))
    })
}

/// Installs a seccomp filter for the calling thread, which stays until it ends.
fn deny(what: Denied) -> Result<()> {
    const LOAD_WORD: u16 = 0x20;
    const JUMP_IF_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    const ALLOW: u32 = 0x7fff_0000;
    const ERRNO: u32 = 0x0005_0000;
    /// `struct seccomp_data`: the number of the call, and the low half of its first argument.
    const NUMBER: u32 = 0;
    const FIRST_ARGUMENT: u32 = 16;
    let step = |code, k, jt, jf| libc::sock_filter { code, jt, jf, k };
    let mut steps = [
        step(LOAD_WORD, NUMBER, 0, 0),
        step(JUMP_IF_EQUAL, u32::try_from(libc::SYS_bpf)?, 0, 3),
        step(LOAD_WORD, FIRST_ARGUMENT, 0, 0),
        step(JUMP_IF_EQUAL, what as u32, 0, 1),
        step(RETURN, ERRNO | libc::EPERM.cast_unsigned(), 0, 0),
        step(RETURN, ALLOW, 0, 0),
    ];
    let program = libc::sock_fprog { len: u16::try_from(steps.len())?, filter: steps.as_mut_ptr() };
    rustix::thread::set_no_new_privs(true).context("renounce new privileges")?;
    // SAFETY: the filter is of the length given and lives through the call, which copies it.
    let done = unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) };
    ensure!(done == 0, "install a seccomp filter: {}", std::io::Error::last_os_error());
    Ok(())
}
