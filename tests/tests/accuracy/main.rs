//! What a limit admits is what it promises: rate x time + burst, by the real clock, on one CPU and on two, offered up to
//! ten times as much. The figures are printed.

mod on_a_wire;
mod races;
mod test_runs;

use anyhow::{Result, ensure};
use throttle_tests::{frames::Frame, machine, program::SECOND, say};

const SOURCE: [u8; 4] = [198, 51, 100, 7];
const RATES: [u64; 4] = [10, 1_000, 100_000, 1_000_000];
/// Bytes of a frame where a limit counts bytes.
const LENGTH: u64 = 1_000;
/// How long each rate is offered.
const SPAN: u64 = 3 * SECOND;
/// What a bucket holds at the limit's rate, which is how long a sender may be kept from sending without loss.
const HELD: u64 = SECOND / 5;

/// A limit under test, in frames.
#[derive(Clone, Copy)]
struct Offer {
    rate: u64,
    bytes: bool,
    cpus: usize,
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

impl Offer {
    fn all() -> impl Iterator<Item = Self> {
        let cpus = 1..=machine::cpus().min(2);
        cpus.flat_map(|cpus| {
            RATES.into_iter().flat_map(move |rate| [false, true].map(|bytes| Self { rate, bytes, cpus }))
        })
    }

    fn burst(self) -> u64 {
        self.rate * HELD / SECOND
    }

    /// The CPUs to send from, the last ones: the first is everybody's.
    fn cpus(self) -> std::ops::Range<usize> {
        machine::cpus() - self.cpus..machine::cpus()
    }

    fn policy(self) -> String {
        let (unit, rate, burst) = if self.bytes {
            ("bytes", format!("{}B/s", self.rate * LENGTH), format!("\"{}B\"", self.burst() * LENGTH))
        } else {
            ("packets", format!("{}/s", self.rate), self.burst().to_string())
        };
        format!("mode = \"enforce\"\n[[limit]]\nname = \"l\"\nunit = \"{unit}\"\nrate = \"{rate}\"\nburst = {burst}\n")
    }

    fn frame(self) -> Vec<u8> {
        Frame::v4(SOURCE).length(if self.bytes { LENGTH as usize } else { 60 }).bytes()
    }

    /// Measures until no sender was kept from sending for so long that its bucket ran over, and compares what was
    /// admitted with what the window entitles to. Too much fails at once; too little is what a starved sender looks
    /// like as well, and fails when it is found every time.
    fn weigh(self, how: &str, mut measure: impl FnMut(Self) -> Result<Measured>) -> Result<()> {
        const ATTEMPTS: usize = 5;
        for _ in 0..ATTEMPTS {
            let measured = measure(self)?;
            if measured.pause < HELD * 3 / 4 && self.compare(how, &measured)? {
                return Ok(());
            }
            say!("{how}: a sender was paused for {} ms; once more", measured.pause / 1_000_000);
        }
        anyhow::bail!("other processes keep the senders from sending: measured {ATTEMPTS} times in vain")
    }

    /// Whether what was admitted is all that was due; an error where it is more.
    fn compare(self, how: &str, measured: &Measured) -> Result<bool> {
        let Measured { offered, admitted, window, .. } = *measured;
        let [least, most] = window.map(|nanos| self.burst() as f64 + self.rate as f64 * nanos as f64 / SECOND as f64);
        say!(
            "{how}, {} CPU{}: {:>7} {}/s offered {:>4.1}x: admitted {admitted} of {most:.1} ({:+.3} %)",
            self.cpus,
            if self.cpus == 1 { " " } else { "s" },
            self.rate,
            if self.bytes { "kB    " } else { "packets" },
            offered as f64 / (self.rate as f64 * window[1] as f64 / SECOND as f64),
            (admitted as f64 / most - 1.0) * 100.0,
        );
        ensure!(offered as f64 > most, "only {offered} frames were offered: too few to tell");
        // One cell, of which a part may lie beyond either end; each further CPU may be one charge ahead when the
        // source's slot is taken.
        let slack = (most / 100.0).max(self.cpus as f64 + 0.01);
        ensure!(admitted as f64 <= most + slack, "{admitted} admitted of {most:.1}");
        Ok(admitted as f64 >= least - slack)
    }
}
