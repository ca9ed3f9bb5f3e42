//! `cargo xtask test`: every suite in order, with its time, its counts and what it skipped.
//!
//! Suites are found, not listed: one for each package of the workspace, and in `tests`, which needs a kernel,
//! one more for each file. All are built in one go, so that what several are made of is compiled once. A test that cannot
//! run here writes a line `skipped TEST: WHY` to standard output itself (not with `println!`, which is kept back from a
//! test that passes).

use std::fmt;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use crate::workspace::{self, Agent, Executable, cargo};
use crate::{process, setup};

/// The package whose tests need root, namespaces and BPF.
const KERNEL_TESTS: &str = "throttle-tests";
/// So many of the tests that took longest are told.
const SLOWEST: usize = 10;

/// What `test` is told.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Leave out the suites that need root and a kernel to load programs into
    #[arg(long)]
    without_kernel: bool,
    /// Repeat at full size what is repeated: a million connections, ten seconds of each flood
    #[arg(long)]
    long: bool,
    /// Run only suites whose name contains this
    #[arg(value_name = "SUITE")]
    only: Option<String>,
}

/// Runs all suites, also after one has failed, and fails if any did.
pub(crate) fn run(args: &Args) -> Result<()> {
    if !args.without_kernel {
        setup::root("test", "for the suites that load kernel programs (`--without-kernel` leaves them out)")?;
        setup::Programs::All.install()?;
    }
    setup::kernel_toolchain()?;

    let mut suites = suites(&metadata()?)?;
    if let Some(only) = &args.only {
        suites.retain(|suite| suite.name().contains(only));
    }
    let (left_out, suites): (Vec<_>, Vec<_>) =
        suites.into_iter().partition(|suite| args.without_kernel && suite.needs_kernel());
    if suites.is_empty() {
        bail!("no suite is left to run: `cargo xtask test` without arguments runs them all");
    }
    let built = process::step("build the tests", || build(&suites))?;
    // After them: what tests make of it on their way has the features that they ask for.
    let agent = suites.iter().any(Suite::needs_kernel).then(|| Agent::Quick.build()).transpose()?;

    let mut reports = Vec::new();
    for suite in suites {
        eprintln!("==> test {}", suite.name());
        reports.push((suite.run(&built, agent.as_deref(), args.long)?, suite));
    }
    summarise(&reports, &left_out)
}

fn metadata() -> Result<Value> {
    let metadata = process::output(cargo().args(["metadata", "--no-deps", "--format-version", "1"]))?;
    Ok(serde_json::from_str(&metadata)?)
}

/// What is tested and reported at a time: a package, or one test target of it.
#[derive(Debug, PartialEq)]
struct Suite {
    package: String,
    /// The package's.
    manifest: PathBuf,
    target: Option<String>,
}

impl Suite {
    fn name(&self) -> String {
        match &self.target {
            Some(target) => format!("{} {target}", self.package),
            None => self.package.clone(),
        }
    }

    fn needs_kernel(&self) -> bool {
        self.package == KERNEL_TESTS
    }

    /// Whether the binary runs tests of this suite.
    fn has(&self, binary: &Executable) -> bool {
        let target = match &self.target {
            Some(target) => *target == binary.target,
            None => !self.needs_kernel() || binary.kind != "test",
        };
        binary.tests && binary.manifest == self.manifest && target
    }

    /// Passes on what the suite prints, and reads the counts and the skips out of it.
    fn run(&self, built: &[Executable], agent: Option<&Path>, long: bool) -> Result<Report> {
        let start = Instant::now();
        let mut report = Report::default();
        let binaries: Vec<_> = built.iter().filter(|binary| self.has(binary)).collect();
        ensure!(!binaries.is_empty(), "cargo built no tests of {}", self.name());
        for binary in binaries {
            let mut command = Command::new(&binary.path);
            let package = self.manifest.parent().context("a manifest lies in a folder")?;
            command.current_dir(package).env("CARGO_MANIFEST_DIR", package);
            command.envs(agent.map(|agent| ("THROTTLE_BIN", agent)));
            command.envs(long.then_some(("THROTTLE_TESTS_LONG", "1")));
            if self.needs_kernel() {
                // They share two things that cannot be divided: the CPUs' time, which some measure, and the console.
                command.arg("--test-threads=1");
            }
            report.failed_to_run |= !report.follow(&mut command)?;
        }
        report.time = start.elapsed();
        Ok(report)
    }
}

/// Builds what the suites are made of, and little more.
fn build(suites: &[Suite]) -> Result<Vec<Executable>> {
    let mut build = cargo();
    build.args(["test", "--workspace", "--no-run"]);
    let targets: Option<Vec<&String>> = suites.iter().map(|suite| suite.target.as_ref()).collect();
    for target in targets.iter().flatten() {
        build.args(["--test", target]);
    }
    if !suites.iter().any(Suite::needs_kernel) {
        build.args(["--exclude", KERNEL_TESTS]);
    }
    workspace::executables(&mut build)
}

/// All suites: those of packages first, then those of the kernel, each in the order of its name.
fn suites(metadata: &Value) -> Result<Vec<Suite>> {
    let mut suites = Vec::new();
    for package in metadata["packages"].as_array().context("cargo metadata names no packages")? {
        let name = package["name"].as_str().context("a package has no name")?.to_owned();
        let manifest = PathBuf::from(package["manifest_path"].as_str().context("a package has no manifest")?);
        let suite = |target| Suite { package: name.clone(), manifest: manifest.clone(), target };
        suites.push(suite(None));
        if name != KERNEL_TESTS {
            continue;
        }
        for target in package["targets"].as_array().context("a package has no targets")? {
            if target["kind"][0] == "test" {
                let target = target["name"].as_str().context("a target has no name")?.to_owned();
                suites.push(suite(Some(target)));
            }
        }
    }
    suites.sort_by_key(|suite| (suite.needs_kernel(), suite.name()));
    Ok(suites)
}

/// What a suite came to.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Report {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    ignored: u64,
    pub(crate) skipped: Vec<String>,
    failed_to_run: bool,
    time: Duration,
    /// The tests, in the order in which they ended, with their times where one ran after the other.
    tests: Vec<Test>,
    /// The one that has written something and not ended yet.
    begun: Option<String>,
}

/// A test that has ended.
#[derive(Debug, PartialEq)]
struct Test {
    name: String,
    passed: bool,
    time: Duration,
}

impl Report {
    /// Runs tests, passes on what they print and reads it; whether all passed.
    fn follow(&mut self, tests: &mut Command) -> Result<bool> {
        let mut child = process::spawn(tests.stdout(Stdio::piped()))?;
        let stdout = BufReader::new(child.stdout.take().expect("stdout is piped"));
        let mut last = Instant::now();
        let status = thread::scope(|scope| {
            scope.spawn(|| {
                for line in stdout.lines().map_while(Result::ok) {
                    println!("{line}");
                    self.read(&line);
                    if self.read_end(&line, last.elapsed()) {
                        last = Instant::now();
                    }
                }
            });
            process::wait(&mut child)
        })?;
        process::ensure_wanted()?;
        Ok(status.success())
    }

    /// Reads of a line whether a test has ended, which took so long.
    fn read_end(&mut self, line: &str, time: Duration) -> bool {
        let (begun, rest) = match line.strip_prefix("test ").and_then(|line| line.split_once(" ... ")) {
            Some((name, rest)) => (Some(name.to_owned()), rest),
            None => (self.begun.take(), line),
        };
        match (begun, rest) {
            (Some(name), "ok" | "FAILED") => self.tests.push(Test { name, passed: rest == "ok", time }),
            (begun, _) => {
                self.begun = begun;
                return false;
            }
        }
        true
    }

    /// Reads a line of what a test binary prints.
    pub(crate) fn read(&mut self, line: &str) {
        if let Some((_, skip)) = line.split_once("skipped ").filter(|(_, skip)| skip.contains(": ")) {
            self.skipped.push(skip.to_owned());
        }
        let Some(counts) = line.strip_prefix("test result: ") else {
            return;
        };
        for count in counts.split(['.', ';']) {
            let mut words = count.split_whitespace();
            if let (Some(Ok(number)), Some(what)) = (words.next().map(str::parse::<u64>), words.next()) {
                match what {
                    "passed" => self.passed += number,
                    "failed" => self.failed += number,
                    "ignored" => self.ignored += number,
                    _ => {}
                }
            }
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = if self.failed_to_run { "FAILED" } else { "ok" };
        let Self { passed, failed, ignored, .. } = self;
        let time = process::seconds(self.time);
        write!(out, "{verdict:>6}  {time:>12}  {passed:>4} passed  {failed} failed  {ignored} ignored")
    }
}

fn summarise(reports: &[(Report, Suite)], left_out: &[Suite]) -> Result<()> {
    println!("\nsuites:");
    for (report, suite) in reports {
        println!("{report}  {}", suite.name());
    }
    let tests = reports.iter().filter(|(_, suite)| suite.needs_kernel()).flat_map(|(report, suite)| {
        let target = suite.target.as_deref().unwrap_or_default();
        report.tests.iter().map(move |test| (test.time, target, &test.name))
    });
    let mut slowest: Vec<_> = tests.collect();
    slowest.sort_by_key(|(time, ..)| std::cmp::Reverse(*time));
    if !slowest.is_empty() {
        println!("\nslowest:");
    }
    for (time, target, name) in slowest.into_iter().take(SLOWEST) {
        println!("{:>14}  {target} {name}", process::seconds(time));
    }
    println!("\nskipped:");
    let skips = reports.iter().flat_map(|(report, _)| &report.skipped);
    let left_out = left_out.iter().map(|suite| format!("{}: --without-kernel", suite.name()));
    let skips: Vec<String> = skips.cloned().chain(left_out).collect();
    for skip in &skips {
        println!("  {skip}");
    }
    if skips.is_empty() {
        println!("  nothing");
    }
    let failed: Vec<String> = reports.iter().filter(|(report, _)| report.failed_to_run).map(failed).collect();
    if !failed.is_empty() {
        bail!("test: {} failed", failed.join(", "));
    }
    Ok(())
}

/// A suite that failed, with the tests of it that did.
fn failed((report, suite): &(Report, Suite)) -> String {
    let tests: Vec<_> = report.tests.iter().filter(|test| !test.passed).map(|test| test.name.as_str()).collect();
    if tests.is_empty() { suite.name() } else { format!("{} ({})", suite.name(), tests.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_that_end_are_read_also_where_they_write_between() {
        let mut report = Report::default();
        let lines = [
            "running 3 tests",
            "test a::b ... ok",
            "test c ... 5 seen",
            "more",
            "ok",
            "test d ... skipped d: no",
            "FAILED",
        ];
        let ended: Vec<bool> = lines.iter().map(|line| report.read_end(line, Duration::from_secs(1))).collect();
        assert_eq!(ended, [false, true, false, false, true, false, true]);
        let tests: Vec<_> = report.tests.iter().map(|test| (test.name.as_str(), test.passed)).collect();
        assert_eq!(tests, [("a::b", true), ("c", true), ("d", false)]);
    }

    #[test]
    fn suites_are_packages_and_the_files_of_the_kernel_tests() {
        let metadata = serde_json::json!({ "packages": [
            { "name": "throttle-tests", "manifest_path": "tests/Cargo.toml", "targets": [
                { "name": "throttle_tests", "kind": ["lib"] },
                { "name": "verdicts", "kind": ["test"] },
                { "name": "bench", "kind": ["bin"] },
                { "name": "floods", "kind": ["test"] },
            ] },
            { "name": "throttle-common", "manifest_path": "throttle-common/Cargo.toml", "targets": [
                { "name": "throttle_common", "kind": ["lib"] },
            ] },
        ] });
        let names: Vec<String> = suites(&metadata).unwrap().iter().map(Suite::name).collect();
        assert_eq!(names, ["throttle-common", "throttle-tests", "throttle-tests floods", "throttle-tests verdicts"]);
    }

    #[test]
    fn this_package_is_among_the_suites() {
        let suites = suites(&metadata().unwrap()).unwrap();
        let manifest = workspace::root().join("xtask/Cargo.toml");
        assert!(suites.contains(&Suite { package: "xtask".to_owned(), manifest, target: None }), "{suites:?}");
    }

    #[test]
    fn counts_of_several_binaries_add_up_and_skips_are_kept() {
        let mut report = Report::default();
        report.read("running 3 tests");
        report.read("test counts_what_is_skipped ... ok");
        report.read("test passes_one_tag ... skipped passes_one_tag: the kernel has no CONFIG_VLAN_8021Q");
        report.read("test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s");
        report
            .read("test result: FAILED. 2 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.02s");
        assert_eq!((report.passed, report.failed, report.ignored), (5, 1, 1));
        assert_eq!(report.skipped, ["passes_one_tag: the kernel has no CONFIG_VLAN_8021Q"]);
    }
}
