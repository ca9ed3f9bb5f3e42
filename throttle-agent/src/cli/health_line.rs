//! The health of a service in a line, in words, as `status`, `top` and `explain` have it.

use throttle_agent::{
    api::wire::{HealthLine, ServiceHealthView, WorstBackend},
    policy::{Mode, Word as _},
};

use super::{
    output::Paint,
    quantity::count,
    speed::share,
    table::{Cell, Table, Tone},
};

/// What limits follow, and how far, of each service: which signal and which actuator is live, and its worst backend.
pub(crate) fn overview(all: &[ServiceHealthView], paint: Paint) -> String {
    let headings =
        ["SERVICE", "FOLLOWS", "MOVES", "MODE", ">WINDOW", ">OPEN", ">SPEED", "BREAKER", "BACKENDS", "THE WORST"];
    let mut table = Table::new(&headings);
    for line in all.iter().map(HealthLine::from) {
        let breaker = line.breaker.as_deref().unwrap_or_default();
        table.row([
            line.service.as_str().into(),
            Cell::new(&*line.signal, if line.signal == "static" { Tone::Warning } else { Tone::Plain }),
            moves(&line).into(),
            Cell::new(line.mode.name(), if line.mode == Mode::Observe { Tone::Warning } else { Tone::Plain }),
            window(&line).into(),
            open(&line).into(),
            share(line.speed).into(),
            Cell::new(breaker, if breaker == "closed" { Tone::Plain } else { Tone::Fault }),
            Cell::new(well(&line), if line.backends_well < line.backends { Tone::Fault } else { Tone::Good }),
            line.worst.as_ref().map(worst).unwrap_or_default().into(),
        ]);
    }
    if table.is_empty() { String::new() } else { table.render(paint) }
}

/// What moves.
pub(crate) fn moves(line: &HealthLine) -> String {
    line.actuator.replace('+', ", ")
}

/// How many connections may be open, of how many by policy; of what is only shown, how many would be.
pub(crate) fn window(line: &HealthLine) -> String {
    line.window.map_or_else(String::new, |window| match (line.mode, window.in_force) {
        (Mode::Enforce, None) => window.policy.to_string(),
        _ => format!("{} of {}", window.in_force.unwrap_or(window.decided), window.policy),
    })
}

/// How many are.
pub(crate) fn open(line: &HealthLine) -> String {
    line.window.and_then(|window| window.open).map(|open| count(open.into())).unwrap_or_default()
}

/// How many of its backends are well.
pub(crate) fn well(line: &HealthLine) -> String {
    if line.backends == 0 { String::new() } else { format!("{} of {} well", line.backends_well, line.backends) }
}

/// How it stands with the worst of them.
pub(crate) fn worst(it: &WorstBackend) -> String {
    let breaker = match it.breaker.as_deref() {
        None | Some("closed") => String::new(),
        Some(state) => format!(", breaker {}", state.replace('-', " ")),
    };
    format!("{} {}, suspicion {:.1}{breaker}", it.backend, it.level, it.suspicion)
}

/// All of it, as an explanation has it: what decides, and the worst backend where one is not well.
pub(crate) fn sentences(line: &HealthLine) -> Vec<String> {
    let mut facts = vec![format!("follows {}", line.signal)];
    if line.window.is_some() {
        facts.push(format!("window {}", window(line)));
    }
    facts.push(format!("speed {}", share(line.speed)));
    facts.extend(line.breaker.as_ref().map(|state| format!("breaker {}", state.replace('-', " "))));
    let shown = if line.mode == Mode::Observe { " (only shown)" } else { "" };
    let mut lines = vec![format!("{}{shown}; {}", facts.join(", "), line.cause)];
    let bad = line.worst.as_ref().filter(|_| line.backends_well < line.backends);
    let bad = bad.map_or_else(String::new, |it| format!(", the worst {}", worst(it)));
    lines.extend((line.backends > 0).then(|| format!("backends: {}{bad}", well(line))));
    lines
}
