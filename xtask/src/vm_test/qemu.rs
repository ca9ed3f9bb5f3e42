//! One machine from its start to its end, under emulation: KVM is not asked for, because where it is itself emulated it
//! can be there and not work.
//!
//! Its two CPUs take turns on one thread of this machine. With a thread each, QEMU 7.2 lets one of them go on with
//! instructions that the other is patching: Linux 6.12 met the breakpoint of a patch that was done, in the call of an XDP
//! program, did not know it any more, and panicked.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::transcript::{End, Transcript, is_panic};
use crate::process;

/// Memory: the root file system, and the tables of buckets that tests make.
const MEBIBYTES: &str = "2048";
/// How often the wait for a line looks for a signal or the deadline.
const TICK: Duration = Duration::from_millis(100);
/// How long a kernel that has panicked may go on saying why.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Boots a kernel, writes what it says to a file as it comes, and returns when it is off, has panicked, or the time is
/// up; qemu's own exit code says nothing of what happened inside.
pub(super) fn boot(image: &Path, initramfs: &Path, log: &Path, patience: Duration) -> Result<Transcript> {
    let mut log = File::create(log).with_context(|| format!("write {}", log.display()))?;
    let mut qemu = Command::new("qemu-system-x86_64");
    // The plainest processor is the quickest to emulate: that with everything takes 1.6 times as long.
    qemu.args(["-accel", "tcg,thread=single", "-cpu", "qemu64", "-machine", "q35", "-smp", "2", "-m", MEBIBYTES])
        .args(["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-nic", "none", "-serial", "stdio"])
        .arg("-kernel")
        .arg(image)
        .arg("-initrd")
        .arg(initramfs)
        // Warnings are shown: a kernel that complains of us has failed the test. What processors
        // need against speculation costs an emulated one time, and it does not speculate.
        .args(["-append", "console=ttyS0 panic=-1 loglevel=5 mitigations=off"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    let mut machine = process::Background(process::spawn(&mut qemu)?);
    let serial = machine.0.stdout.take().expect("stdout is piped");
    let (say, said) = mpsc::channel();
    let reader = thread::spawn(move || {
        for line in BufReader::new(serial).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line).trim_end().to_owned();
            let _ = writeln!(log, "{line}");
            if say.send(line).is_err() {
                break;
            }
        }
    });

    let mut lines = Vec::new();
    let mut deadline = Instant::now() + patience;
    let mut end = End::TimedOut;
    loop {
        process::ensure_wanted()?;
        match said.recv_timeout(TICK) {
            Ok(line) => {
                if is_panic(&line) {
                    end = End::Panicked;
                    deadline = deadline.min(Instant::now() + LAST_WORDS);
                }
                lines.push(line);
            }
            Err(RecvTimeoutError::Disconnected) => {
                // A panic is one also where the machine then switches itself off.
                if !matches!(end, End::Panicked) {
                    end = End::Off;
                }
                break;
            }
            Err(RecvTimeoutError::Timeout) => {}
        }
        if Instant::now() > deadline {
            break;
        }
    }
    drop(machine);
    drop(said);
    reader.join().expect("reading lines does not panic");
    Ok(Transcript { lines, end })
}
