//! `cargo xtask COMMAND`: everything that this repository can do, one file a command.
//!
//! Each command first installs what it lacks, after saying so (`setup`), and announces every long step
//! before it starts. What they share: `workspace` (paths and cargo), `process` (children and signals),
//! `playground` (namespaces with a web server, clients and an agent).

mod bench;
mod ci;
mod demo;
mod doctor;
mod lint;
mod playground;
mod process;
mod readme;
mod run;
mod setup;
mod test;
mod vm_test;
mod workspace;

use std::process::ExitCode;

use clap::Parser;

#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", about)]
enum Command {
    /// Install what building and testing need and what is missing, saying so first
    Setup,
    /// Start the agent in the foreground: on given interfaces, or in a playground of its own
    Run(run::Args),
    /// Watch wrk and a packet source being throttled: half a minute, in namespaces of its own
    Demo,
    /// Run every suite: unit, property, kernel verdicts, real traffic
    Test(test::Args),
    /// Run the kernel tests on other kernels, from Debian, each in a virtual machine
    VmTest(vm_test::Args),
    /// Check formatting, clippy, documentation, licences and advisories, warnings being errors
    Lint,
    /// Measure against baselines in the same run
    Bench(bench::Args),
    /// Say whether this machine can build and run the throttle, and what to do where it cannot
    Doctor,
    /// Do what CI does: lint, then the commands of the README but `run` and `bench`
    Ci,
}

fn main() -> ExitCode {
    process::catch_signals();
    let done = |()| ExitCode::SUCCESS;
    let end = match Command::parse() {
        Command::Setup => setup::everything().map(done),
        Command::Run(args) => run::run(&args),
        Command::Demo => demo::run().map(done),
        Command::Test(args) => test::run(&args).map(done),
        Command::VmTest(args) => vm_test::run(&args).map(done),
        Command::Lint => lint::run().map(done),
        Command::Bench(args) => bench::run(&args).map(done),
        Command::Doctor => doctor::run(),
        Command::Ci => ci::run().map(done),
    };
    match end {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
