//! What a limit admits is what it promises: by the real clock, on one CPU and on two, offered several times as much; and
//! by a clock that the test sets, for every level, algorithm and unit. The figures are printed.

mod by_the_clock;
mod levels;
mod on_a_wire;
mod races;
mod replaced;
mod test_runs;

use anyhow::{Result, ensure};
use levels::{ALGORITHMS, Algorithm, LEVELS, Limit, Unit};
use std::fmt;
use throttle_tests::{machine, program::SECOND, say};

const SOURCE: [u8; 4] = [198, 51, 100, 7];
const RATES: [u64; 4] = [10, 1_000, 100_000, 1_000_000];
/// Bytes of a frame where a limit counts bytes.
const LENGTH: u64 = 1_000;
/// What a bucket holds at the limit's rate, which is how long a sender may be kept from sending without loss.
const HELD: u64 = SECOND / 5;

/// A limit under test, and how frames come.
#[derive(Clone, Copy)]
struct Offer {
    limit: Limit,
    cpus: usize,
    /// Queues of the wire: where they are fewer than the CPUs that send, packets of all meet in one.
    queues: usize,
    /// For how long.
    span: u64,
}

/// What became of an offer.
struct Measured {
    offered: u64,
    admitted: u64,
    /// The time between the first frame and the last: at least and at most.
    window: [u64; 2],
    /// The longest time for which a sender was kept from sending.
    pause: u64,
}

/// What was admitted of an offer, beside what was due.
#[derive(Debug, PartialEq)]
enum Found {
    AllDue,
    TooLittle,
    /// No more was offered than was due, so that it tells nothing.
    FewOffered,
}

impl Offer {
    /// One source, at every rate.
    fn rates() -> impl Iterator<Item = Self> {
        Self::cpus_and_queues().filter(|[cpus, queues]| cpus <= queues).flat_map(|[cpus, queues]| {
            RATES.into_iter().flat_map(move |rate| {
                // Of ten a second there must be some.
                let span = if rate < 100 { 3 } else { 1 } * SECOND;
                [Unit::Packets, Unit::Bytes].map(|unit| {
                    let limit = Limit { level: &LEVELS[0], algorithm: Algorithm::TokenBucket, unit, rate };
                    Self { limit, cpus, queues, span }
                })
            })
        })
    }

    /// Every level, and of one level every algorithm.
    fn levels() -> impl Iterator<Item = Self> {
        let (unit, span) = (Unit::Packets, SECOND / 2);
        let levels =
            LEVELS.iter().map(move |level| Limit { level, algorithm: Algorithm::TokenBucket, unit, rate: 200_000 });
        let algorithms = ALGORITHMS[1..].iter().map(move |&algorithm| {
            // A leaky bucket is due the next packet that comes once it is empty, which must then be near.
            let rate = if algorithm == Algorithm::LeakyBucket { 1_000 } else { 100_000 };
            Limit { level: &LEVELS[2], algorithm, unit, rate }
        });
        let limits: Vec<_> = levels.chain(algorithms).collect();
        Self::cpus_and_queues().flat_map(move |[cpus, queues]| {
            let offer = move |limit: Limit| {
                let span = if limit.algorithm.counts_windows() { 2 * SECOND } else { span };
                Self { limit, cpus, queues, span }
            };
            limits.clone().into_iter().map(offer)
        })
    }

    /// One CPU; two whose packets meet in one queue; two with a queue each.
    fn cpus_and_queues() -> impl Iterator<Item = [usize; 2]> {
        [[1, 2], [2, 1], [2, 2]].into_iter().filter(|[cpus, _]| *cpus <= machine::cpus())
    }

    /// The CPUs to send from, the last ones: the first is everybody's.
    fn cpus(self) -> std::ops::Range<usize> {
        machine::cpus() - self.cpus..machine::cpus()
    }

    /// Measures until no sender was kept from sending for so long that its bucket ran over, and compares what was
    /// admitted with what the window entitles to. Too much fails at once; too little is what a starved sender looks
    /// like as well, and fails when it is found every time. A machine that never offers more than is due at the greatest
    /// rate is too slow for it, which is said aloud.
    fn weigh(self, how: &str, mut measure: impl FnMut(Self) -> Result<Measured>) -> Result<()> {
        const ATTEMPTS: usize = 5;
        let mut all_found = Vec::new();
        for _ in 0..ATTEMPTS {
            let measured = measure(self)?;
            let found = self.compare(how, &measured)?;
            if measured.pause < HELD * 3 / 4 && found == Found::AllDue {
                return Ok(());
            }
            say!("{how}: {found:?}, and a sender was paused for {} ms; once more", measured.pause / 1_000_000);
            all_found.push(found);
        }
        if all_found.iter().all(|found| *found == Found::FewOffered) && RATES.last() == Some(&self.limit.rate) {
            say!("skipped {how}, {self}: this machine does not offer as much");
            return Ok(());
        }
        anyhow::bail!(
            "{how}, {self}: measured in vain, or other processes keep the senders from sending: {all_found:?}"
        )
    }

    /// Whether what was admitted is all that was due; an error where it is more.
    fn compare(self, how: &str, measured: &Measured) -> Result<Found> {
        let Measured { offered, admitted, window, .. } = *measured;
        let [least, most] = window.map(|nanos| self.limit.due(nanos as f64));
        say!(
            "{how}, {self}: offered {:.1}x, admitted {admitted} of {most:.1} ({:+.3} %)",
            offered as f64 / (self.limit.rate as f64 * window[1] as f64 / SECOND as f64),
            (admitted as f64 / most - 1.0) * 100.0,
        );
        // One cell, of which a part may lie beyond either end; each further CPU may be one charge ahead when the
        // source's slot is taken.
        let slack = (most / 100.0).max(self.cpus as f64 + 0.01);
        ensure!(admitted as f64 <= most + slack, "{admitted} admitted of {most:.1}");
        Ok(match admitted as f64 >= least - slack {
            _ if offered as f64 <= most => Found::FewOffered,
            true => Found::AllDue,
            false => Found::TooLittle,
        })
    }
}

impl fmt::Display for Offer {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Limit { level, algorithm, unit, rate } = self.limit;
        let cpus = if self.cpus == 1 { "1 CPU".to_owned() } else { format!("{} CPUs", self.cpus) };
        let queues = if self.queues < self.cpus { "one queue" } else { "spread" };
        let unit = if unit == Unit::Bytes { "kB" } else { unit.name() };
        write!(out, "{cpus}, {queues}: {}, {}: {rate} {unit}/s", level.name, algorithm.name())
    }
}
