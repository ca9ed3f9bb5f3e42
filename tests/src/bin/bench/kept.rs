//! Clients that keep their connections, twice as many as the server behind nginx bears, in the clear and by TLS.

use super::report::{Effort, Section};
use anyhow::{Context, Result};
use std::{fmt::Write as _, time::Duration};
use throttle_agent::health::MILLISECOND;
use throttle_tests::{
    kept::{GUARDS, Guard, Served, run},
    simulator::scenario::{CAPACITY, OBJECTIVE, WORKERS},
};

/// The first seconds of overload, and those after them.
const SPANS: [Duration; 2] = [Duration::from_secs(5), Duration::from_secs(20)];
const SPEECH: [(&str, bool); 2] = [("in the clear", false), ("TLS", true)];

/// Measures, and gives the table.
pub(super) fn measure(effort: Effort) -> Result<Section> {
    let spans = SPANS.map(|span| effort.span(span));
    let binary = std::env::current_exe()?;
    let mut rows = Vec::new();
    for (speech, tls) in SPEECH {
        for guard in GUARDS {
            eprintln!("{}, {speech}", guard.name());
            rows.push((guard, speech, run(guard, tls, spans, &binary).with_context(|| guard.name())?));
        }
    }
    report(&rows, spans)
}

fn report(rows: &[(Guard, &str, Served)], [first, then]: [Duration; 2]) -> Result<Section> {
    let objective = OBJECTIVE / MILLISECOND;
    let mut text = format!(
        "wrk keeps {:.0} connections to an nginx that passes each request on to a server of {WORKERS} workers and {CAPACITY:.0} \
         requests a second: twice as many as are answered within {objective} ms. Goodput is answers within that, by nginx's own \
         log, of what the server can give: in the first {} s, and in the {} s after them. The window is `control = \
         \"latency\"`, the rate `control = \"rate\"` on new connections, both with `close-oldest`.\n\n\
         | before nginx | connections | goodput at first | goodput then | 99 % within, ms | closed |\n\
         |---|---|---:|---:|---:|---:|\n",
        2.0 * CAPACITY * objective as f64 / 1e3,
        first.as_secs(),
        then.as_secs(),
    );
    for (guard, speech, Served { goodput: [first, then], p99, closed }) in rows {
        let name = guard.name();
        writeln!(text, "| {name} | {speech} | {first:.3} | {then:.3} | {:.0} | {closed} |", p99.as_secs_f64() * 1e3)?;
    }
    let of = |wanted: Guard, tls: &str| {
        rows.iter().find(|(guard, speech, _)| *guard == wanted && *speech == tls).map_or(0.0, |row| row.2.goodput[1])
    };
    writeln!(
        text,
        "\nBy the window {:.3} in the clear and {:.3} with TLS, by the rate with TLS {:.3} (goal: 0.85).",
        of(Guard::Window, SPEECH[0].0),
        of(Guard::Window, SPEECH[1].0),
        of(Guard::Rate, SPEECH[1].0),
    )?;
    Ok(Section::from(text))
}
