//! Going back where it does not succeed at once.

use super::RUN;
use anyhow::{Context, Result, ensure};
use std::{
    fs::{self, File},
    io::{ErrorKind, Write as _},
    path::PathBuf,
    process::Command,
};
use throttle_agent::{api::wire::Status, policy::Mode};
use throttle_tests::{
    agent::{Site, path},
    machine, needs_root,
    wire::Wire,
};

/// A small disk for what the agent keeps, while this lives.
pub(super) struct Disk(PathBuf);

impl Disk {
    pub(super) fn mount(place: PathBuf) -> Result<Self> {
        fs::create_dir(&place)?;
        machine::run(Command::new("mount").args(["-t", "tmpfs", "-o", "size=16m", "tmpfs"]).arg(&place))?;
        Ok(Self(place))
    }

    fn ballast(&self) -> PathBuf {
        self.0.join("ballast")
    }

    /// Leaves no room.
    pub(super) fn fill(&self) -> Result<()> {
        let mut ballast = File::create(self.ballast())?;
        let full = loop {
            if let Err(error) = ballast.write_all(&[1; 4096]) {
                break error;
            }
        };
        ensure!(full.kind() == ErrorKind::StorageFull, "fill the disk: {full}");
        Ok(())
    }

    pub(super) fn empty(&self) -> Result<()> {
        Ok(fs::remove_file(self.ballast())?)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if let Err(error) = machine::run(Command::new("umount").arg("--lazy").arg(&self.0)) {
            machine::print(&format!("left behind: {error:#}"));
        }
    }
}

#[test]
fn a_policy_that_cannot_go_back_goes_on_trying_until_it_does() -> Result<()> {
    needs_root!();
    let wire = Wire::silent()?;
    let site = Site::on(&wire.far)?;
    let disk = Disk::mount(site.file("state"))?;
    let agent = site.start(&RUN)?;
    // So large that the store needs room to note it once more.
    let blocks: Vec<_> = (0..30_000).map(|number| format!("\"10.{}.{}.7\"", number / 256, number % 256)).collect();
    site.apply(&format!("[sources]\nblock = [{}]\n", blocks.join(", ")))?;
    let file = site.file("next.toml");
    fs::write(&file, "mode = \"enforce\"\n")?;
    let stuck = |seconds: &str| -> Result<()> {
        site.ask(&["policy", "apply", &path(&file), "--confirm-within", seconds])?;
        disk.fill()?;
        let fault = |it: &String| it.contains("cannot go back");
        let status = site.until("going back fails", |status| status.problems.iter().any(fault))?;
        ensure!(status.pending.is_some(), "it goes on waiting: {status:?}");
        ensure!(status.mode == Mode::Observe, "the kernel has gone back: {status:?}");
        ensure!(site.run(&["status"])?.status.code() == Some(4), "status says that it is degraded");
        let refused = site.run(&["mode", "enforce"])?;
        ensure!(refused.status.code() == Some(1), "nothing is written meanwhile");
        Ok(())
    };
    stuck("1s")?;
    disk.empty()?;
    let back = |status: &Status| status.pending.is_none() && status.problems.is_empty();
    ensure!(site.until("it went back", back)?.revision == 3, "as a revision of its own");
    ensure!(site.ask(&["policy", "export"])?.contains("10.0.9.7"), "the policy is the one from before");

    stuck("1s")?;
    agent.kill()?;
    disk.empty()?;
    let _agent = site.start(&RUN)?;
    ensure!(site.until("it went back", back)?.revision == 5, "the next agent goes on trying");
    Ok(())
}

#[test]
fn a_policy_goes_back_at_the_start_of_the_next_agent_and_counts_its_time_by_the_machines_clock() -> Result<()> {
    needs_root!();
    let wire = Wire::silent()?;
    let site = Site::on(&wire.far)?;
    let agent = site.start(&RUN)?;
    site.apply("mode = \"observe\"\n")?;
    let file = site.file("next.toml");
    fs::write(&file, "mode = \"enforce\"\n")?;
    site.ask(&["policy", "apply", &path(&file), "--confirm-within", "1h"])?;
    agent.kill()?;
    let agent = site.start(&RUN)?;
    let status = site.status()?;
    let pending = status.pending.context("the window goes on")?;
    let rest = pending.deadline.duration_since(status.started).as_secs();
    ensure!((3_500..=3_600).contains(&rest) && status.revision == 2, "{rest} s are left");
    site.ask(&["policy", "rollback"])?;
    site.ask(&["policy", "apply", &path(&file), "--confirm-within", "1s"])?;
    agent.kill()?;
    std::thread::sleep(std::time::Duration::from_millis(1_100));
    let _agent = site.start(&RUN)?;
    let status = site.status()?;
    ensure!(status.revision == 5 && status.pending.is_none(), "{status:?}");
    Ok(())
}
