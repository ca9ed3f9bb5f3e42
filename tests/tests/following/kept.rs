//! Connections that clients keep, more than the server bears.

use anyhow::{Result, ensure};
use std::{path::Path, time::Duration};
use throttle_tests::{
    kept::{Guard, run},
    machine, needs_root, say,
};

const FIRST: Duration = Duration::from_secs(4);
const THEN: Duration = Duration::from_secs(5);

#[test]
fn the_oldest_are_closed_until_those_that_are_left_are_answered_in_time() -> Result<()> {
    needs_root!();
    let _machine = machine::alone()?;
    let run = |guard: Guard, tls: bool| -> Result<_> {
        let served = run(guard, tls, [FIRST, THEN], Path::new(env!("CARGO_BIN_EXE_bench")))?;
        say!("{}, TLS: {tls}: {served:?}", guard.name());
        Ok(served)
    };
    let unguarded = run(Guard::Nothing, false)?;
    ensure!(unguarded.goodput[1] < 0.3, "twice as many as it bears left the unguarded server standing");
    for (guard, tls) in [(Guard::Window, false), (Guard::Rate, true)] {
        let served = run(guard, tls)?;
        ensure!(served.closed > 0, "nothing was closed");
        ensure!(served.goodput[1] >= 0.7, "{served:?}");
    }
    Ok(())
}
