//! `cargo xtask test`: every suite in order, with its time, its counts and what it skipped.
//!
//! Suites are found, not listed: one for each package of the workspace, and in `tests`, which needs a kernel,
//! one more for each file. A test that cannot run here writes a line `skipped TEST: WHY` to standard output
//! itself (not with `println!`, which cargo keeps back from a test that passes).

use std::fmt;
use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::workspace::cargo;
use crate::{process, setup};

/// The package whose tests need root, namespaces and BPF.
const KERNEL_TESTS: &str = "throttle-tests";

/// What `test` is told.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Leave out the suites that need root and a kernel to load programs into
    #[arg(long)]
    without_kernel: bool,
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
    process::step("build the agent and the tests", || {
        if suites.iter().any(Suite::needs_kernel) {
            process::run(cargo().args(["build", "--package", "throttle-agent"]))?;
        }
        // Each as it is run: the features of a package depend on what is built beside it.
        suites.iter().try_for_each(|suite| process::run(suite.cargo_test().args(["--no-run", "--quiet"])))
    })?;

    let mut reports = Vec::new();
    for suite in suites {
        eprintln!("==> test {}", suite.name());
        reports.push((suite.run()?, suite));
    }
    summarise(&reports, &left_out)
}

fn metadata() -> Result<Value> {
    let metadata = process::output(cargo().args(["metadata", "--no-deps", "--format-version", "1"]))?;
    Ok(serde_json::from_str(&metadata)?)
}

/// What `cargo test` is called for once: a package, or one test target of it.
#[derive(Debug, PartialEq)]
struct Suite {
    package: String,
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

    fn cargo_test(&self) -> Command {
        let mut command = cargo();
        command.args(["test", "--no-fail-fast", "--package", &self.package]);
        if let Some(target) = &self.target {
            command.args(["--test", target]);
        } else if self.needs_kernel() {
            command.args(["--lib", "--bins"]);
        }
        command
    }

    /// Passes on what the suite prints, and reads the counts and the skips out of it.
    fn run(&self) -> Result<Report> {
        let mut command = self.cargo_test();
        if self.needs_kernel() {
            // They share two things that cannot be divided: the CPUs' time, which some measure, and the console.
            command.args(["--", "--test-threads=1"]);
        }
        let start = Instant::now();
        let mut child = process::spawn(command.stdout(Stdio::piped()))?;
        let stdout = BufReader::new(child.stdout.take().expect("stdout is piped"));
        let reader = thread::spawn(move || {
            let mut report = Report::default();
            for line in stdout.lines().map_while(Result::ok) {
                println!("{line}");
                report.read(&line);
            }
            report
        });
        let status = process::wait(&mut child)?;
        process::ensure_wanted()?;
        let mut report = reader.join().expect("reading lines does not panic");
        report.failed_to_run = !status.success();
        report.time = start.elapsed();
        Ok(report)
    }
}

/// All suites: those of packages first, then those of the kernel, each in the order of its name.
fn suites(metadata: &Value) -> Result<Vec<Suite>> {
    let mut suites = Vec::new();
    for package in metadata["packages"].as_array().context("cargo metadata names no packages")? {
        let name = package["name"].as_str().context("a package has no name")?.to_owned();
        suites.push(Suite { package: name.clone(), target: None });
        if name != KERNEL_TESTS {
            continue;
        }
        for target in package["targets"].as_array().context("a package has no targets")? {
            if target["kind"][0] == "test" {
                let target = target["name"].as_str().context("a target has no name")?.to_owned();
                suites.push(Suite { package: name.clone(), target: Some(target) });
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
}

impl Report {
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
    let failed: Vec<String> =
        reports.iter().filter(|(report, _)| report.failed_to_run).map(|(_, suite)| suite.name()).collect();
    if !failed.is_empty() {
        bail!("test: {} failed", failed.join(", "));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suites_are_packages_and_the_files_of_the_kernel_tests() {
        let metadata = serde_json::json!({ "packages": [
            { "name": "throttle-tests", "targets": [
                { "name": "throttle_tests", "kind": ["lib"] },
                { "name": "verdicts", "kind": ["test"] },
                { "name": "bench", "kind": ["bin"] },
                { "name": "floods", "kind": ["test"] },
            ] },
            { "name": "throttle-common", "targets": [{ "name": "throttle_common", "kind": ["lib"] }] },
        ] });
        let names: Vec<String> = suites(&metadata).unwrap().iter().map(Suite::name).collect();
        assert_eq!(names, ["throttle-common", "throttle-tests", "throttle-tests floods", "throttle-tests verdicts"]);
    }

    #[test]
    fn this_package_is_among_the_suites() {
        let suites = suites(&metadata().unwrap()).unwrap();
        assert!(suites.contains(&Suite { package: "xtask".to_owned(), target: None }), "{suites:?}");
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
