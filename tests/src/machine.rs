//! The machine that the tests run on: who runs them, its CPUs, its clock, its lines of output.

use anyhow::{Context, Result, ensure};
use aya::programs::{SchedClassifier, TcAttachType};
use rustix::process::{Pid, Signal, kill_process};
use std::{fs::File, io::Write as _, path::Path, process::Command};
use throttle_agent::datapath::Egress;

/// Prints a line that the test harness does not capture.
pub fn print(line: &str) {
    // Nobody reads the figures where standard output is closed; the test goes on.
    let _ = writeln!(std::io::stdout().lock(), "{line}");
}

/// Whether this process may load kernel programs and make namespaces.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Holds back every other test that wants the machine for itself, of this process and of others, until it is dropped;
/// and lets this thread wake in time though its senders use all CPUs.
pub fn alone() -> Result<File> {
    let path = Path::new("/run/throttle-tests.lock");
    let failed = || format!("lock {}", path.display());
    // Opened anew each time: the lock is the open file's, so that threads of one process exclude each other too.
    let machine = File::options().create(true).append(true).open(path).with_context(failed)?;
    machine.lock().with_context(failed)?;
    go_first(2)?;
    Ok(machine)
}

/// Puts this thread ahead of ordinary ones, whatever session they belong to. What it starts is ordinary again.
pub fn go_first(priority: i32) -> Result<()> {
    schedule(libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK, priority)
}

fn schedule(policy: i32, priority: i32) -> Result<()> {
    let parameters = libc::sched_param { sched_priority: priority };
    // SAFETY: the parameters live through the call, which concerns this thread alone.
    let done = unsafe { libc::sched_setscheduler(0, policy, &raw const parameters) };
    ensure!(done == 0, "set a thread's priority: {}", std::io::Error::last_os_error());
    Ok(())
}

/// The CPUs that threads can be pinned to.
pub fn cpus() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Whether the CPUs are emulated ones that take turns, as those of `cargo xtask vm-test` do: no two are ever at work at once.
pub fn takes_turns() -> Result<bool> {
    let processors = std::fs::read_to_string("/proc/cpuinfo").context("read which processors there are")?;
    Ok(processors.contains("QEMU Virtual CPU"))
}

/// How much of something a test does: usually, and at full size, which is `cargo xtask test --long`.
pub fn amount<T>(usual: T, long: T) -> T {
    if std::env::var_os("THROTTLE_TESTS_LONG").is_some() { long } else { usual }
}

/// Gives this thread one CPU.
pub fn pin_to(cpu: usize) -> Result<()> {
    let mut set = rustix::thread::CpuSet::new();
    set.set(cpu);
    rustix::thread::sched_setaffinity(None, &set).with_context(|| format!("pin a thread to CPU {cpu}"))
}

/// Gives this thread one CPU, and it alone where that is not the first: a measurement does not wait for a compiler.
///
/// The first CPU stays everybody's, the kernel's own threads' above all: without them not even a program can be loaded.
/// On the others such a thread holds up RCU while it runs, and with it whoever attaches, detaches or makes a namespace:
/// it is for seconds in which nothing else is to happen.
pub fn seize(cpu: usize) -> Result<()> {
    pin_to(cpu)?;
    if cpu > 0 { go_first(1) } else { schedule(libc::SCHED_OTHER, 0) }
}

/// Whether this kernel takes the CPU from a reader of RCU that is inside it for long, as kernels do that are set to
/// `full` or `lazy` preemption. Such a reader is not asked to come out any more, and RCU waits for it. Where the kernel
/// does not say, it is taken not to.
pub fn preempts_readers() -> bool {
    // All that it can do, and what it does in parentheses: `none voluntary full (lazy)`.
    let modes = std::fs::read_to_string("/sys/kernel/debug/sched/preempt").unwrap_or_default();
    ["(full)", "(lazy)"].iter().any(|mode| modes.contains(mode))
}

/// By what a program can see what leaves by an interface on this kernel: a filter, and from Linux 6.6 on a link.
pub fn egresses() -> Vec<Egress> {
    match SchedClassifier::query_tcx("lo", TcAttachType::Egress) {
        Ok(_) => vec![Egress::Tcx, Egress::Clsact],
        Err(why) => {
            print(&format!("only by clsact: no links on what leaves, tcx, which Linux 6.6 has ({why})"));
            vec![Egress::Clsact]
        }
    }
}

/// CLOCK_MONOTONIC in nanoseconds: the clock of `bpf_ktime_get_ns`.
pub fn monotonic() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec.cast_unsigned() * 1_000_000_000 + now.tv_nsec.cast_unsigned()
}

/// Sends a signal to a process that we started.
pub fn signal(process: u32, signal: Signal) -> Result<()> {
    let process = Pid::from_raw(process.cast_signed()).context("a process has a number")?;
    kill_process(process, signal).context("send a signal to a process")
}

/// Runs a command to its end, and fails with what it said if it does.
pub fn run(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("run {command:?}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?}: {}: {}", output.status, said.trim());
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
