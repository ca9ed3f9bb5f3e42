//! What each algorithm admits of the same bursts: those on rates by the kernel program with a clock that is set, that on
//! open connections by its own arithmetic, where each connection stays for as long as makes it the same rate.

use super::{
    chart,
    report::{Effort, Section},
};
use anyhow::{Context, Result};
use std::{collections::VecDeque, fmt::Write as _};
use throttle_common::{
    connections::{PLACE, STANDING, depth},
    gcra,
};
use throttle_tests::{
    frames::Frame,
    program::{Program, SECOND, action},
};

/// Packets come evenly within a phase: until when, in milliseconds, how many, and what it is.
const PHASES: [(u64, u64, &str); 7] = [
    (1_000, 50, "half of the rate"),
    (1_950, 0, "nothing"),
    (2_050, 300, "a burst around a second's edge"),
    (3_000, 0, "nothing"),
    (5_000, 400, "twice the rate"),
    (6_000, 20, "a fifth of the rate"),
    (6_050, 150, "a burst"),
];
/// Each admits 100 a second on average; connections stay for 200 ms.
const RATES: [(&str, &str); 4] = [
    ("token bucket, burst 50", "algorithm = \"token-bucket\"\nburst = 50"),
    ("leaky bucket", "algorithm = \"leaky-bucket\""),
    ("fixed window", "algorithm = \"fixed-window\""),
    ("sliding window", "algorithm = \"sliding-window\""),
];
const CONCURRENT: u32 = 20;
const STAY: u64 = SECOND / 5;

/// Draws, and gives the table.
pub(super) fn measure(_: Effort) -> Result<Section> {
    let arrivals = arrivals();
    let mut columns = Vec::new();
    for (name, algorithm) in RATES {
        columns.push((name, of_kernel(algorithm, &arrivals).context(name)?));
    }
    columns.push(("concurrency of 20", of_connections(&arrivals)));
    let mut text = "Packets of one source, admitted at 100 a second by each algorithm; by the kernel program with a clock \
                    that is set, but for `concurrency`, which is its own arithmetic with connections that stay for 200 ms.\n\n\
                    | phase | offered |"
        .to_owned();
    for (name, _) in &columns {
        write!(text, " {name} |")?;
    }
    writeln!(text, "\n|---|---:|{}", "---:|".repeat(columns.len()))?;
    let mut start = 0;
    for (end, offered, what) in PHASES.into_iter().filter(|(end, offered, _)| *offered > 0 || *end == 0) {
        let within = |at: u64| at >= start * 1_000_000 && at < end * 1_000_000;
        write!(text, "| {what}, until {:.2} s | {offered} |", end as f64 / 1e3)?;
        for (_, admitted) in &columns {
            let count = arrivals.iter().zip(admitted).filter(|(at, admitted)| within(**at) && **admitted).count();
            write!(text, " {count} |")?;
        }
        writeln!(text)?;
        start = end;
    }
    let mut lines = vec![("offered", curve(&arrivals, &vec![true; arrivals.len()]))];
    lines.extend(columns.iter().map(|(name, admitted)| (*name, curve(&arrivals, admitted))));
    let mut section = Section::from(text);
    let title = "What each algorithm admits of the same bursts";
    section.draw("curves", title, chart::lines(title, ["seconds", "packets so far"], &lines));
    Ok(section)
}

/// When packets come, in nanoseconds from the start.
fn arrivals() -> Vec<u64> {
    let mut start = 0;
    let mut arrivals = Vec::new();
    for (end, count, _) in PHASES.map(|(end, count, what)| (end * 1_000_000, count, what)) {
        arrivals.extend((0..count).map(|packet| start + (end - start) * packet / count));
        start = end;
    }
    arrivals
}

/// Which of them the kernel program admits.
fn of_kernel(algorithm: &str, arrivals: &[u64]) -> Result<Vec<bool>> {
    let policy = format!(
        "mode = \"enforce\"\n[[limit]]\nname = \"l\"\nunit = \"packets\"\nrate = \"100/s\"\n{algorithm}\nsources = 300\n"
    );
    let mut program = Program::load(&policy, true, 1 << 10)?;
    let frame = Frame::v4([198, 51, 100, 7]).bytes();
    let mut now = 0;
    let judged = arrivals.iter().map(|&at| {
        program.wait(at - now)?;
        now = at;
        Ok(program.act(&frame)? == action::PASS)
    });
    judged.collect()
}

/// Which of them find a place, as connections.
fn of_connections(arrivals: &[u64]) -> Vec<bool> {
    let (mut bucket, mut open) = (STANDING, VecDeque::new());
    let judge = |&at: &u64| {
        while open.front().is_some_and(|close| *close <= at) {
            open.pop_front();
            bucket -= PLACE;
        }
        let admitted = gcra::admit(bucket, STANDING, PLACE, depth(CONCURRENT));
        if let Some(next) = admitted {
            bucket = next;
            open.push_back(at + STAY);
        }
        admitted.is_some()
    };
    arrivals.iter().map(judge).collect()
}

/// How many came through, over time.
fn curve(arrivals: &[u64], admitted: &[bool]) -> Vec<[f64; 2]> {
    let (mut count, mut points) = (0.0, vec![[0.0, 0.0]]);
    for (at, admitted) in arrivals.iter().zip(admitted) {
        count += f64::from(u8::from(*admitted));
        points.push([*at as f64 / SECOND as f64, count]);
    }
    points
}
