//! `cargo xtask bench`: builds the benchmark and runs it with the given arguments.

use anyhow::Result;

use crate::workspace::{self, Agent};
use crate::{process, setup};

/// What the benchmark is told.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Arguments of the benchmark; `cargo xtask bench -- --help` lists them
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGS")]
    bench: Vec<String>,
}

/// Runs the benchmark to its end.
pub(crate) fn run(args: &Args) -> Result<()> {
    setup::root("bench", "to load kernel programs")?;
    setup::kernel_toolchain()?;
    setup::Programs::Only(&["ip", "iptables", "nft", "nginx", "openssl", "wrk"]).install()?;
    let agent = Agent::Release.build()?;
    let bench = ["--release", "--package", "throttle-tests", "--bin", "bench"];
    process::step("build the benchmark", || process::run(workspace::cargo().arg("build").args(bench)))?;
    process::run(
        workspace::cargo().args(["run", "--quiet"]).args(bench).arg("--").args(&args.bench).env("THROTTLE_BIN", agent),
    )
}
