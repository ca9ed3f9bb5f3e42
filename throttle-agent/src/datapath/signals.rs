//! A system call that gives up when a signal is pending, kept from having to.
//!
//! The verifier asks `signal_pending()` at every instruction that it walks and ends with EAGAIN when there is one. It
//! takes a third of a second for our programs, longer on a machine that is busy, so a few signals in a row are enough to
//! defeat any number of tries. What is blocked is not pending in that sense: it is delivered after the call. What cannot
//! be blocked (SIGSTOP, the freezer of a control group) passes, and is waited for.

use std::{
    io,
    mem::MaybeUninit,
    thread::sleep,
    time::{Duration, Instant},
};

/// The longest time for all tries.
const PATIENCE: Duration = Duration::from_secs(20);
/// The pause between two tries.
const PAUSE: Duration = Duration::from_millis(20);

/// Makes the call with signals blocked, again as long as `interrupted` says that one came in between.
pub(super) fn uninterrupted<T>(mut call: impl FnMut() -> T, interrupted: impl Fn(&T) -> bool) -> io::Result<T> {
    let _blocked = Blocked::all()?;
    let start = Instant::now();
    loop {
        let result = call();
        if !interrupted(&result) || start.elapsed() >= PATIENCE {
            return Ok(result);
        }
        sleep(PAUSE);
    }
}

/// Every signal of this thread blocked, until it is dropped.
struct Blocked {
    before: libc::sigset_t,
}

impl Blocked {
    fn all() -> io::Result<Self> {
        let (mut all, mut before) = (MaybeUninit::uninit(), MaybeUninit::uninit());
        // SAFETY: the sets are our own; the first is filled before it is read, the second by a call that succeeds.
        unsafe {
            libc::sigfillset(all.as_mut_ptr());
            match libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr()) {
                0 => Ok(Self { before: before.assume_init() }),
                error => Err(io::Error::from_raw_os_error(error)),
            }
        }
    }
}

impl Drop for Blocked {
    fn drop(&mut self) {
        // SAFETY: the mask that this thread had; setting one fails for an unknown way of doing so only.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.before, std::ptr::null_mut()) };
    }
}
