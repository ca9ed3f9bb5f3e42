//! Offered ten times over, through `BPF_PROG_TEST_RUN`.

use crate::{Measured, Offer};
use anyhow::{Context, Result};
use std::{sync::Barrier, thread, time::Duration};
use throttle_tests::{
    machine, needs_root,
    program::{Program, SECOND},
    wire::Wire,
};

#[test]
fn ten_times_the_rate_admits_the_rate() -> Result<()> {
    needs_root!();
    let _machine = machine::alone()?;
    let wire = Wire::silent()?;
    let mut program = Program::live("")?;
    // A program that is attached somewhere is called directly, and a test run need not arrange for that each time.
    program.attach(&wire)?;
    for offer in Offer::rates() {
        offer.weigh("test run", |offer| measure(&mut program, offer))?;
    }
    Ok(())
}

/// Makes the offer to a limit whose buckets are full.
fn measure(program: &mut Program, offer: Offer) -> Result<Measured> {
    program.apply(&offer.limit.policy())?;
    let before = program.limit("l")?;
    let Sent { first, last, pause } = run(program, offer)?;
    let after = program.limit("l")?;
    program.apply("")?;
    let admitted = after.admitted.packets - before.admitted.packets;
    let offered = admitted + after.refused.packets - before.refused.packets;
    // The first frame was judged within the first run, the last within the last.
    Ok(Measured { offered, admitted, window: [last.0 - first.1, last.1 - first.0], pause })
}

/// When the first and the last run of one frame began and ended, and the longest pause between two runs.
struct Sent {
    first: (u64, u64),
    last: (u64, u64),
    pause: u64,
}

/// Offers ten times the rate, each CPU its share.
fn run(program: &Program, offer: Offer) -> Result<Sent> {
    let frame = offer.limit.frame();
    let barrier = Barrier::new(offer.cpus);
    let sent = thread::scope(|scope| {
        let senders: Vec<_> = offer
            .cpus()
            .map(|cpu| {
                let (barrier, frame) = (&barrier, &frame);
                scope.spawn(move || -> Result<Sent> {
                    machine::seize(cpu)?;
                    barrier.wait();
                    pace(offer.limit.rate * 10 / offer.cpus as u64, offer.span, |frames| {
                        program.datapath.test_run(frame, frames).map(drop)
                    })
                })
            })
            .collect();
        senders.into_iter().map(|sender| sender.join().expect("no sender panics")).collect::<Result<Vec<_>>>()
    })?;
    let together = |one: Sent, other: Sent| Sent {
        first: one.first.min(other.first),
        last: one.last.max(other.last),
        pause: one.pause.max(other.pause),
    };
    sent.into_iter().reduce(together).context("a sender ran")
}

/// Calls `send` with as many frames as are due, for so many nanoseconds.
fn pace(per_second: u64, span: u64, mut send: impl FnMut(u32) -> Result<()>) -> Result<Sent> {
    let start = machine::monotonic();
    // What is due beyond this is given up, so that a pace that cannot be kept does not turn into ever longer runs.
    let most = (per_second / 50).max(1);
    let mut runs: Option<Sent> = None;
    let mut done = 0;
    loop {
        let elapsed = machine::monotonic() - start;
        // The window ends with a run of one frame, which says most exactly when.
        let over = elapsed > span;
        let due =
            if over { 1 } else { (u128::from(per_second) * u128::from(elapsed) / 1_000_000_000) as u64 + 1 - done };
        if due == 0 {
            let next = u128::from(SECOND) * u128::from(done) / u128::from(per_second);
            let wait = (next as u64).saturating_sub(elapsed);
            // Sleeping is for waits that are longer than what it costs to wake up.
            if wait > 200_000 {
                thread::sleep(Duration::from_nanos(wait - 100_000));
            }
            continue;
        }
        let began = machine::monotonic();
        send(due.min(most) as u32)?;
        let run = (began, machine::monotonic());
        let before = runs.unwrap_or(Sent { first: run, last: run, pause: 0 });
        let pause = before.pause.max(run.1 - before.last.1);
        runs = Some(Sent { last: run, pause, ..before });
        done += due;
        if over {
            return runs.context("the last run was just noted");
        }
    }
}
