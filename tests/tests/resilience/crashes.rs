//! An agent that dies while it changes over from an earlier layout, at any of its steps: either build's programs judge
//! every packet, and the next agent ends what was begun, or begins anew.

use super::{POLICY, RUN, Traffic, is_attached, load, upgrades::throttled_by};
use anyhow::{Context, Result, anyhow, bail, ensure};
use rustix::process::{Signal, getpid, kill_process};
use std::{
    env,
    os::unix::process::ExitStatusExt as _,
    path::{Path, PathBuf},
    process::Stdio,
    thread::sleep,
    time::Duration,
};
use throttle_agent::{
    datapath::{Datapath, Options, TakeOverStep},
    policy,
};
use throttle_tests::{
    agent::Site,
    machine, needs_root,
    previous::{self, previous},
    program::DEFAULT_SETS,
    say,
    wire::Wire,
};

/// Tells this test, run once more as a process of its own, where to die, and where the pins are.
const DIE_AT: &str = "THROTTLE_TESTS_DIE_AT";
const PINS: &str = "THROTTLE_TESTS_PINS";

#[test]
fn an_agent_killed_at_any_step_of_a_change_of_layout_harms_nothing() -> Result<()> {
    needs_root!();
    if let (Some(step), Some(pins)) = (env::var_os(DIE_AT), env::var_os(PINS)) {
        return die(step.to_str().context("a number")?.parse()?, pins.into());
    }
    let Some(before) = previous()? else { return Ok(()) };
    let _machine = machine::alone()?;
    for (number, step) in TakeOverStep::ALL.into_iter().enumerate() {
        let wire = Wire::silent()?;
        let site = Site::on(&wire.far)?;
        let agent = throttled_by(&site, &before, &RUN, POLICY)?;
        let traffic = Traffic::on(&wire, load())?;
        sleep(Duration::from_millis(200));
        agent.kill()?;
        change_over_until(&wire, &site, number).with_context(|| format!("before {step:?}"))?;
        sleep(Duration::from_millis(200));
        ensure!(is_attached(&wire)?, "{step:?}: a program is attached");
        let begun = !matches!(step, TakeOverStep::Copy | TakeOverStep::SetAside);
        let (check, code) = site.check_upgrade()?;
        let plan = if begun { "finish" } else { "migrate" };
        ensure!(check["plan"] == plan && check["from"] == previous::LAYOUT && code == Some(0), "{step:?}: {check}");
        after_the_crash(&site, &before, step)?;
        let agent = site.start(&RUN).with_context(|| format!("after a death before {step:?}"))?;
        let said = traffic.unharmed(&site).with_context(|| format!("after a death before {step:?}"))?;
        say!("killed before {step:?}: {said}");
        ensure!(site.status()?.problems.is_empty(), "{step:?}: nothing is wrong");
        ensure!(
            std::fs::read_dir(site.pin_dir())?.count() == 5,
            "{step:?}: egress, links, maps and both programs at the sockets are pinned"
        );
        drop(agent);
        site.ask(&["detach"])?;
        ensure!(!site.pin_dir().exists(), "{step:?}: nothing is left");
    }
    Ok(())
}

#[test]
fn a_change_of_layout_that_was_interrupted_is_undone_by_detach() -> Result<()> {
    needs_root!();
    let Some(before) = previous()? else { return Ok(()) };
    let wire = Wire::silent()?;
    let site = Site::on(&wire.far)?;
    throttled_by(&site, &before, &RUN, POLICY)?.kill()?;
    let count = TakeOverStep::ALL.iter().position(|&step| step == TakeOverStep::Count).context("a step")?;
    change_over_until(&wire, &site, count)?;
    ensure!(site.pin_dir().join("maps-old").is_dir(), "there is something to be carried over");
    site.ask(&["detach"])?;
    ensure!(!is_attached(&wire)? && !site.pin_dir().exists(), "no program and no pin is left");
    Ok(())
}

/// What the earlier build does then: it goes on where nothing has been named yet, and refuses afterwards.
fn after_the_crash(site: &Site<'_>, before: &Path, step: TakeOverStep) -> Result<()> {
    match step {
        TakeOverStep::Copy | TakeOverStep::SetAside => site.start_build(before, &RUN)?.kill(),
        // For some microseconds the maps have no name that it knows.
        TakeOverStep::Name => Ok(()),
        _ => {
            let refused = site.refusal_of(before, &RUN)?;
            ensure!(refused.contains("throttle detach"), "{step:?}: {refused}");
            Ok(())
        }
    }
}

/// Runs this test as a process on the far host that changes over, and kills itself at a step.
fn change_over_until(wire: &Wire, site: &Site<'_>, step: usize) -> Result<()> {
    let mut command = wire.far.command(env::current_exe()?);
    command.args(["--exact", "--nocapture", "--test-threads=1"]);
    command.arg("crashes::an_agent_killed_at_any_step_of_a_change_of_layout_harms_nothing");
    command.env(DIE_AT, step.to_string()).env(PINS, site.pin_dir()).stdin(Stdio::null());
    let output = command.output()?;
    let said = || String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.signal() == Some(libc::SIGKILL), "it did not die there: {}\n{}", output.status, said());
    Ok(())
}

fn die(step: usize, pin_dir: PathBuf) -> Result<()> {
    let options = Options { pin_dir, table_sets: DEFAULT_SETS, debug: false, test_clock: false, adopt: true };
    let mut datapath = Datapath::open(&options)?;
    let document = policy::parse(POLICY).map_err(|wrong| anyhow!("{wrong}"))?;
    let compiled = policy::compile(&document, 1, &datapath.layout()).map_err(|wrong| anyhow!("{wrong}"))?;
    datapath.apply(&compiled)?;
    let taken = datapath.take_over(|at| {
        if at == TakeOverStep::ALL[step] {
            let _ = kill_process(getpid(), Signal::KILL);
        }
    })?;
    bail!("it came through: {taken:?}")
}
