//! Verdict tables: a sentence, a policy, frames at times, and what the kernel program must make of each.

mod answers;
mod breakers;
mod compartments;
mod guarantees;
mod leases;
mod limits;
mod mutated;
mod overrides;
mod pages;
mod penalties;
mod refusals;
mod scopes;
mod shapes;
mod sources;
mod tenants;
mod uptime;
mod windows;

use anyhow::{Context, Result, ensure};
use throttle_common::words::{Outcome, Reason};
use throttle_tests::{
    frames::Frame,
    program::{Program, SECOND, action},
};

/// What is true, under which policy, and the frames that show it.
struct Case {
    sentence: &'static str,
    policy: &'static str,
    steps: Vec<Step>,
}

/// A frame, when it arrives after the one before, and what becomes of it.
#[derive(Clone)]
struct Step {
    after: u64,
    frame: Vec<u8>,
    reason: Reason,
    outcome: Outcome,
}

impl Step {
    /// At a later time than the step before.
    fn after(self, nanos: u64) -> Self {
        Self { after: nanos, ..self }
    }
}

fn step(frame: &Frame, reason: Reason, outcome: Outcome) -> Step {
    Step { after: 0, frame: frame.bytes(), reason, outcome }
}

fn passes(frame: &Frame) -> Step {
    step(frame, Reason::Admitted, Outcome::Pass)
}

fn refused(frame: &Frame) -> Step {
    step(frame, Reason::SourceLimit, Outcome::Drop)
}

/// The same frame so often, all passing.
fn pass_times(frame: &Frame, times: usize) -> Vec<Step> {
    (0..times).map(|_| passes(frame)).collect()
}

/// Shows every case on one program, with all buckets full at the start of each.
fn show(cases: Vec<Case>) -> Result<()> {
    let mut program = Program::timed("")?;
    for Case { sentence, policy, steps } in cases {
        program.rest()?;
        program.apply(policy).with_context(|| sentence)?;
        for (number, step) in steps.into_iter().enumerate() {
            program.wait(step.after)?;
            let judged = program.judge(&step.frame).with_context(|| format!("{sentence}: frame {number}"))?;
            ensure!(
                (judged.reason, judged.outcome) == (step.reason, step.outcome),
                "{sentence}: frame {number} met {:?} {:?} instead of {:?} {:?}",
                judged.outcome,
                judged.reason,
                step.outcome,
                step.reason,
            );
            let told = match step.outcome {
                Outcome::Pass | Outcome::Observe => action::PASS,
                Outcome::Drop => action::DROP,
                Outcome::Reject => action::TX,
            };
            ensure!(judged.action == told, "{sentence}: frame {number}: the driver was told {}", judged.action);
            ensure!(
                judged.outcome == Outcome::Reject || judged.frame == step.frame,
                "{sentence}: the frame was changed"
            );
        }
    }
    Ok(())
}

/// One packet a minute for each source.
const ONE_A_MINUTE: &str = r#"
mode = "enforce"
[[limit]]
name = "packets"
unit = "packets"
rate = "1/min"
"#;

const MINUTE: u64 = 60 * SECOND;
