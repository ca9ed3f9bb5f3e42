//! That the benchmark runs. A suite of its own, because machines that are only for kernels have no such binary.

use anyhow::{Result, ensure};
use std::{fs, process::Command};
use throttle_tests::{machine, needs_root};

#[test]
fn the_benchmark_measures_and_writes_its_page() -> Result<()> {
    needs_root!();
    let pages = tempfile::tempdir()?;
    let mut bench = Command::new(env!("CARGO_BIN_EXE_bench"));
    machine::run(bench.arg("--short").arg("--into").arg(pages.path()).arg("packets"))?;
    let page = fs::read_to_string(pages.path().join("packets.md"))?;
    ensure!(page.contains("| throttle: one limit, refused |") && page.contains("(goal: "), "{page}");
    ensure!(fs::read_to_string(pages.path().join("packets.svg"))?.trim_end().ends_with("</svg>"), "a chart is whole");
    Ok(())
}
