//! What an agent leaves behind, what it says of that, and who may take it away.

use super::{RUN, is_attached};
use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use std::process::{Child, Command, Stdio};
use throttle_tests::{
    agent::{Site, binary},
    needs_root,
    wire::{FAR, Wire},
};

/// An agent that does not outlive its test.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn detach_right_after_a_kill_waits_for_the_kernel_to_put_the_agent_away() -> Result<()> {
    needs_root!();
    let wire = Wire::silent()?;
    let site = Site::on(&wire.far)?;
    for round in 1..=5 {
        let agent = site.start(&RUN)?;
        let process = Pid::from_raw(agent.process().cast_signed()).context("a process")?;
        kill_process(process, Signal::KILL)?;
        // Nobody waits for it: it may still be on its way out.
        site.ask(&["detach"]).with_context(|| format!("in round {round}"))?;
        ensure!(!is_attached(&wire)?, "no program is left");
    }
    Ok(())
}

#[test]
fn the_last_word_says_what_goes_on() -> Result<()> {
    needs_root!();
    let wire = Wire::silent()?;
    let site = Site::on(&wire.far)?;
    let said = |before_the_end: &dyn Fn() -> Result<()>| -> Result<String> {
        let agent = site.start(&RUN)?;
        before_the_end()?;
        let log = agent.log_path();
        ensure!(agent.stop()?.success(), "the agent ends when it is asked to");
        let log = std::fs::read_to_string(log)?;
        Ok(log.lines().last().context("it says nothing")?.to_owned())
    };
    let word = said(&|| Ok(()))?;
    ensure!(word.contains("go on counting and refuse nothing"), "it only observes: {word}");
    let word = said(&|| site.apply("mode = \"enforce\"\n"))?;
    ensure!(word.contains(&format!("enforcement on {FAR} goes on from the pins")), "{word}");
    let word = said(&|| site.ask(&["detach", "--force"]).map(drop))?;
    ensure!(word.contains("no interface is throttled"), "{word}");
    Ok(())
}

#[test]
fn pins_that_nobody_else_sees_are_said_to_end_with_the_agent() -> Result<()> {
    needs_root!();
    let wire = Wire::silent()?;
    let site = Site::on(&wire.far)?;
    let shared = site.start(&RUN)?;
    ensure!(!site.status()?.ends_with_agent, "the host sees the pins of this site");
    shared.stop()?;
    site.ask(&["detach"])?;

    // As under `ip netns exec`, where /sys is another one: a BPF file system in a mount namespace of the agent's own.
    let script = "mount -t bpf bpf \"$1\" && exec \"$0\" run --interface far --mode=native --pin-dir \"$1/throttle\"";
    let (log, place) = (site.file("private.log"), site.file("private"));
    std::fs::create_dir(&place)?;
    let command = site.command([""])?;
    let environment = command.get_envs().filter_map(|(name, value)| Some((name, value?)));
    let agent = Command::new("ip")
        .args(["netns", "exec", wire.far.name(), "unshare", "--mount", "sh", "-c", script])
        .arg(binary()?)
        .arg(&place)
        .envs(environment)
        .stdin(Stdio::null())
        .stderr(std::fs::File::create(&log)?)
        .spawn()?;
    let mut agent = Ended(agent);
    site.ask(&["status", "--wait"])?;
    ensure!(site.status()?.ends_with_agent && site.ask(&["status"])?.contains("throttling ends with the agent"));
    ensure!(is_attached(&wire)?, "it is throttled while the agent runs");
    kill_process(Pid::from_child(&agent.0), Signal::TERM)?;
    ensure!(agent.0.wait()?.success(), "the agent ends when it is asked to");
    let log = std::fs::read_to_string(log)?;
    ensure!(log.matches("choose a --pin-dir").count() == 2, "at the start and at the end: {log}");
    ensure!(!is_attached(&wire)?, "and it is as it says");
    Ok(())
}
