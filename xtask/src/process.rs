//! Child processes: run to their end, or held in the background until dropped.
//!
//! SIGINT, SIGTERM and SIGHUP are recorded instead of ending this program: whoever waits passes the signal on
//! to the child and then returns, so that every guard on the way out undoes what it did.

use std::ffi::c_int;
use std::fmt::Write as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicI32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal};

/// How often a wait looks whether the child has ended or a signal has come.
const TICK: Duration = Duration::from_millis(20);
/// How long a background process may take to end by itself before it is killed.
const GRACE: Duration = Duration::from_secs(5);

/// The last signal that asked this program to stop; 0 is none.
static SIGNAL: AtomicI32 = AtomicI32::new(0);

extern "C" fn record(signal: c_int) {
    SIGNAL.store(signal, Ordering::Relaxed);
}

/// Records the signals that ask for an end, from now on.
pub(crate) fn catch_signals() {
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
        // SAFETY: `record` only stores to an atomic, which is allowed in a signal handler.
        unsafe { libc::signal(signal, record as *const () as libc::sighandler_t) };
    }
}

/// Refuses to go on once a signal has asked for an end.
pub(crate) fn ensure_wanted() -> Result<()> {
    match SIGNAL.load(Ordering::Relaxed) {
        0 => Ok(()),
        signal => bail!("stopped by signal {signal}"),
    }
}

/// Announces a step, does it, and says how long it took.
pub(crate) fn step<T>(what: &str, act: impl FnOnce() -> Result<T>) -> Result<T> {
    ensure_wanted()?;
    eprintln!("==> {what}");
    let start = Instant::now();
    let result = act();
    let end = if result.is_ok() { "done" } else { "failed" };
    eprintln!("    {end} in {}", seconds(start.elapsed()));
    result
}

/// A duration as people read it: `0.4 s`, `12.3 s`, `3 min 05 s`.
pub(crate) fn seconds(duration: Duration) -> String {
    match duration.as_secs() {
        0..100 => format!("{:.1} s", duration.as_secs_f64()),
        long => format!("{} min {:02} s", long / 60, long % 60),
    }
}

/// A command as it would be typed.
pub(crate) fn words(command: &Command) -> String {
    let mut words = command.get_program().to_string_lossy().into_owned();
    for arg in command.get_args() {
        let arg = arg.to_string_lossy();
        let quote = if arg.contains(' ') { "'" } else { "" };
        let _ = write!(words, " {quote}{arg}{quote}");
    }
    words
}

/// Runs a command to its end with the terminal's output; a non-zero exit is an error.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = status(command)?;
    ensure_wanted()?;
    if !status.success() {
        bail!("`{}` failed: {status}", words(command));
    }
    Ok(())
}

/// Runs a command to its end with the terminal's output and returns how it ended.
pub(crate) fn status(command: &mut Command) -> Result<ExitStatus> {
    wait(&mut spawn(command)?)
}

/// Runs a command to its end and returns what it printed; a non-zero exit is an error with what it said.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    ensure_wanted()?;
    let output = command.stdin(Stdio::null()).output().with_context(|| cannot_start(command))?;
    ensure_wanted()?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("`{}` failed: {}: {}", words(command), output.status, said.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Starts a command.
pub(crate) fn spawn(command: &mut Command) -> Result<Child> {
    ensure_wanted()?;
    command.spawn().with_context(|| cannot_start(command))
}

/// Waits for a child's end; a signal to this program is passed on to it once.
pub(crate) fn wait(child: &mut Child) -> Result<ExitStatus> {
    let mut passed_on = false;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        let signal = Signal::from_named_raw(SIGNAL.load(Ordering::Relaxed));
        if let (Some(signal), false) = (signal, passed_on) {
            send(child, signal);
            passed_on = true;
        }
        thread::sleep(TICK);
    }
}

/// Polls until `ready` says yes; an error once `patience` is over or a signal has come.
pub(crate) fn wait_until(what: &str, patience: Duration, mut ready: impl FnMut() -> bool) -> Result<()> {
    let deadline = Instant::now() + patience;
    while !ready() {
        ensure_wanted()?;
        if Instant::now() > deadline {
            bail!("{what} is not ready after {}", seconds(patience));
        }
        thread::sleep(TICK);
    }
    Ok(())
}

/// A child that is asked to end, and after [`GRACE`] made to, when this is dropped.
pub(crate) struct Background(pub(crate) Child);

impl Drop for Background {
    fn drop(&mut self) {
        send(&mut self.0, Signal::TERM);
        let deadline = Instant::now() + GRACE;
        while matches!(self.0.try_wait(), Ok(None)) {
            if Instant::now() > deadline {
                let _ = self.0.kill();
                let _ = self.0.wait();
                return;
            }
            thread::sleep(TICK);
        }
    }
}

/// Signals a child that has not been waited for: only then its id is certainly still its own.
fn send(child: &mut Child, signal: Signal) {
    if matches!(child.try_wait(), Ok(None)) {
        let _ = rustix::process::kill_process(Pid::from_child(child), signal);
    }
}

fn cannot_start(command: &Command) -> String {
    format!("start `{}`: is it installed? `cargo xtask setup` installs what is missing", words(command))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_people_write_them() {
        assert_eq!(seconds(Duration::from_millis(420)), "0.4 s");
        assert_eq!(seconds(Duration::from_secs(99)), "99.0 s");
        assert_eq!(seconds(Duration::from_secs(185)), "3 min 05 s");
    }

    #[test]
    fn a_failing_command_is_named_with_what_it_said() {
        let error = output(Command::new("sh").args(["-c", "echo no such luck >&2; exit 3"])).unwrap_err();
        let error = format!("{error:#}");
        assert!(error.contains("sh -c 'echo no such luck >&2; exit 3'"), "{error}");
        assert!(error.contains("exit status: 3"), "{error}");
        assert!(error.ends_with("no such luck"), "{error}");
    }

    #[test]
    fn a_background_process_ends_with_its_guard() {
        let child = spawn(Command::new("sleep").arg("60")).unwrap();
        let pid = Pid::from_child(&child);
        drop(Background(child));
        assert!(rustix::process::test_kill_process(pid).is_err());
    }
}
