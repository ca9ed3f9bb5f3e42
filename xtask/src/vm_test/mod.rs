//! `cargo xtask vm-test`: the kernel tests on other kernels than this machine's, each in a virtual machine.
//!
//! [`series`] picks Debian's newest kernel of a series, [`apt`] downloads it and [`kernels`] unpacks it; [`guest`] packs
//! the tests into a root file system, which [`newc`] writes; [`qemu`] boots both, and [`transcript`] judges what was
//! said, for the [`table`]. No root is needed once the packages are there, nothing of this machine's network or kernel is
//! touched, and what is fetched or written lies under `target/vm`. Emulation shows what a kernel takes and what it then
//! does; it shows nothing of speed.

mod apt;
mod guest;
mod kernels;
mod newc;
mod qemu;
mod series;
mod table;
mod transcript;

use std::fs;
use std::path::Path;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use self::apt::Apt;
use self::guest::{Binary, Step};
use self::kernels::Kernel;
use self::series::Series;
use self::table::{Row, Verdict};
use self::transcript::{ALL_PASSED, DOCTOR};
use crate::setup::Programs;
use crate::workspace::{self, Agent, cargo};
use crate::{process, setup};

/// The oldest kernel that the throttle is for; older ones must be refused by the agent itself, in these words.
const FLOOR: ([u32; 2], &str) = ([6, 1], "Linux 6.1 or newer");
/// The suites that need no more than a kernel: no web server, no clients, no measured speed.
const SUITES: [&str; 9] =
    ["harness", "verdicts", "calls", "differential", "explain", "observe", "lifecycle", "connects", "connections"];

/// What `vm-test` is told.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The series of kernels, of each the newest that Debian has; `7` is the newest 7.x
    #[arg(long, value_name = "SERIES", value_delimiter = ',', default_value = "5.10,6.1,6.12,6.18,7")]
    kernel: Vec<Series>,
    /// How long one machine may take, from its start to its end
    #[arg(long, value_name = "SECONDS", default_value_t = 5400)]
    timeout: u64,
    /// Run only suites whose name contains this
    #[arg(value_name = "SUITE")]
    only: Option<String>,
    /// What else to tell the suites, a part of a test's name for one
    #[arg(last = true, value_name = "TEST ARGS")]
    told: Vec<String>,
}

/// Runs all kernels, also after one has failed, prints the table, and fails if any failed or none was run.
pub(crate) fn run(args: &Args) -> Result<()> {
    if !cfg!(target_arch = "x86_64") {
        bail!("vm-test is for x86-64: it boots Debian's kernels for that with the programs of this machine");
    }
    Programs::Only(&["busybox", "ip", "mount", "nft", "qemu-system-x86_64", "strip", "xz"]).install()?;
    setup::kernel_toolchain()?;
    let suites: Vec<&str> =
        SUITES.into_iter().filter(|suite| args.only.as_ref().is_none_or(|only| suite.contains(only))).collect();
    if suites.is_empty() {
        bail!("no suite is left to run: there are {}", SUITES.join(", "));
    }
    let folder = workspace::target().join("vm");
    let apt = Apt::new(folder.join("apt"))?;
    if let Err(error) = process::step("read the lists of Debian's kernels", || apt.update()) {
        process::ensure_wanted()?;
        eprintln!("    what was read before is used: {error:#}");
    }
    let packages = apt.kernel_packages()?;
    let kernels: Vec<_> = args
        .kernel
        .iter()
        .map(|series| (series, kernels::fetch(series, &apt, &packages, &folder.join("kernels"))))
        .collect();
    if kernels.iter().all(|(_, kernel)| kernel.is_err()) {
        return summarise(
            &kernels
                .into_iter()
                .filter_map(|(series, kernel)| Some(skipped(series, &kernel.err()?)))
                .collect::<Vec<_>>(),
        );
    }
    let machines = Machines::prepare(&folder, &suites, args)?;
    summarise(&machines.test_all(&kernels)?)
}

/// What all machines share.
struct Machines<'a> {
    folder: &'a Path,
    suites: &'a [&'a str],
    told: &'a [String],
    common: Vec<u8>,
    patience: Duration,
}

impl<'a> Machines<'a> {
    /// Builds the agent and the suites, and packs them.
    fn prepare(folder: &'a Path, suites: &'a [&'a str], args: &'a Args) -> Result<Self> {
        for part in ["binaries", "initramfs", "kernels", "logs"] {
            fs::create_dir_all(folder.join(part)).with_context(|| format!("make {}", folder.display()))?;
        }
        let agent = Agent::Release.build()?;
        let built = process::step("build the tests (release: emulation is slow)", || build(suites))?;
        let mut binaries = vec![Binary { name: "throttle".to_owned(), path: agent }];
        binaries.extend(built);
        for Binary { name, path } in &mut binaries {
            let stripped = folder.join("binaries").join(name);
            guest::strip(path, &stripped)?;
            *path = stripped;
        }
        let common = guest::common(&binaries)?;
        Ok(Self { folder, suites, told: &args.told, common, patience: Duration::from_secs(args.timeout) })
    }

    /// Boots as many kernels at once as there are processors, which each machine has one of; the rows are as the kernels.
    fn test_all(&self, kernels: &[(&Series, Result<Kernel>)]) -> Result<Vec<Row>> {
        let queue = Mutex::new(kernels.iter().enumerate());
        let work = || {
            let mut rows = Vec::new();
            loop {
                let next = queue.lock().expect("no worker panics").next();
                let Some((place, (series, kernel))) = next else { return Ok(rows) };
                process::ensure_wanted()?;
                let row = match kernel {
                    Ok(kernel) => self.test(kernel, series)?,
                    Err(error) => skipped(series, error),
                };
                rows.push((place, row));
            }
        };
        let processors = thread::available_parallelism().map_or(1, usize::from).min(kernels.len());
        let rows = thread::scope(|scope| {
            let workers: Vec<_> = (0..processors).map(|_| scope.spawn(work)).collect();
            let rows = workers.into_iter().map(|worker| worker.join().expect("no worker panics"));
            rows.collect::<Result<Vec<_>>>()
        })?;
        let mut rows: Vec<_> = rows.into_iter().flatten().collect();
        rows.sort_by_key(|(place, _)| *place);
        Ok(rows.into_iter().map(|(_, row)| row).collect())
    }

    /// Boots a kernel and judges it.
    fn test(&self, kernel: &Kernel, series: &Series) -> Result<Row> {
        let steps = if series.is_before(FLOOR.0) { refusals() } else { tests(self.suites, self.told) };
        let file = |folder: &str, ending: &str| {
            let mut name = kernel.file_name().to_owned();
            name.push(ending);
            self.folder.join(folder).join(name)
        };
        let (initramfs, log) = (file("initramfs", ".cpio"), file("logs", ".log"));
        guest::write(&initramfs, &self.common, kernel, &steps)?;
        eprintln!("==> boot Linux {}, which writes to {}", kernel.name(), log.display());
        let start = Instant::now();
        let transcript = qemu::boot(&kernel.image()?, &initramfs, &log, self.patience)?;
        let row = transcript.judge(kernel.name(), kernel.release(), &steps);
        eprintln!(
            "    Linux {}: {} in {}: {}",
            kernel.name(),
            row.verdict,
            process::seconds(start.elapsed()),
            row.tests
        );
        Ok(row)
    }
}

/// The row of a series of which no kernel can be had.
fn skipped(series: &Series, why: &anyhow::Error) -> Row {
    Row::skipped(format!("series {series}"), why)
}

/// What a kernel must do.
fn tests(suites: &[&str], told: &[String]) -> Vec<Step> {
    let doctor = Step { name: DOCTOR.to_owned(), command: throttle("doctor"), code: 0, prints: "" };
    let suites = suites.iter().map(|suite| Step {
        name: (*suite).to_owned(),
        command: format!("{} --test-threads=2 {}", guest::place(suite), told.join(" ")),
        code: 0,
        prints: ALL_PASSED,
    });
    [doctor].into_iter().chain(suites).collect()
}

/// What must happen on a kernel below the floor: a refusal that says so, and nothing left behind.
fn refusals() -> Vec<Step> {
    let step = |name: &str, command: String, code, prints| Step { name: name.to_owned(), command, code, prints };
    vec![
        step(DOCTOR, throttle("doctor"), 1, FLOOR.1),
        step("run", throttle("run --interface lo"), 1, FLOOR.1),
        step("left behind", "find /sys/fs/bpf /var/lib/throttle -mindepth 1".to_owned(), 1, ""),
    ]
}

fn throttle(arguments: &str) -> String {
    format!("{} {arguments} 2>&1", guest::place("throttle"))
}

/// Builds the suites and gives their binaries.
fn build(suites: &[&str]) -> Result<Vec<Binary>> {
    let mut cargo_test = cargo();
    cargo_test.args(["test", "--release", "--no-run", "--package", "throttle-tests"]);
    for suite in suites {
        cargo_test.args(["--test", suite]);
    }
    let built = workspace::executables(&mut cargo_test)?;
    let binary = |suite: &&str| {
        let binary = built.iter().rfind(|binary| binary.target == **suite);
        let path = binary.with_context(|| format!("cargo built no suite {suite}"))?.path.clone();
        Ok(Binary { name: (*suite).to_owned(), path })
    };
    suites.iter().map(binary).collect()
}

fn summarise(rows: &[Row]) -> Result<()> {
    table::print(rows);
    let with = |verdict| rows.iter().filter(move |row| row.verdict == verdict);
    let failed: Vec<&str> = with(Verdict::Failed).map(|row| row.kernel.as_str()).collect();
    if !failed.is_empty() {
        bail!(
            "vm-test: {} failed; the logs are in {}",
            failed.join(", "),
            workspace::target().join("vm/logs").display()
        );
    }
    if nothing_was_tested(rows) {
        bail!("vm-test: no kernel was tested of those that the throttle is for");
    }
    Ok(())
}

/// Whether kernels were skipped, and those that were not only had to refuse.
fn nothing_was_tested(rows: &[Row]) -> bool {
    let is = |verdict| rows.iter().any(|row| row.verdict == verdict);
    is(Verdict::Skipped) && !is(Verdict::Passed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_no_test_of_the_kernels_that_were_skipped() {
        let row = |verdict| Row { verdict, ..Row::skipped("6.1".to_owned(), &anyhow::anyhow!("no network")) };
        let untested =
            |verdicts: &[Verdict]| nothing_was_tested(&verdicts.iter().copied().map(row).collect::<Vec<_>>());
        assert!(untested(&[Verdict::Skipped]) && untested(&[Verdict::Refused, Verdict::Skipped, Verdict::Skipped]));
        assert!(!untested(&[Verdict::Refused, Verdict::Passed, Verdict::Skipped]));
        assert!(!untested(&[Verdict::Refused]), "nothing else was asked for");
    }
}
