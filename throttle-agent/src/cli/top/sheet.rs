//! Two looks in, tables of rates out.

use std::{cmp::Ordering, time::Duration};

use throttle_agent::{
    api::wire::{HealthLine, Talker, Tally, Top, TopLimit},
    policy::Mode,
};

use crate::cli::{
    health_line,
    limit_views::mode,
    quantity::{bytes, bytes_per_second, count, per_second, percent, span},
    speed::share,
};

/// What is shown at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum View {
    /// Sources that use their limits most.
    Talkers,
    /// What each limit does.
    Limits,
    /// Packets by reason.
    Reasons,
    /// Who was refused.
    Refused,
    /// Who has connections open, where a limit counts them.
    Connections,
    /// What the health of each service decides.
    Health,
}

impl View {
    /// In the order of their keys.
    pub(super) const ALL: [Self; 6] =
        [Self::Talkers, Self::Limits, Self::Reasons, Self::Refused, Self::Connections, Self::Health];

    /// A heading that begins with `>` is one of numbers.
    const fn headings(self) -> &'static [&'static str] {
        match self {
            Self::Talkers => &["SOURCE", "LIMIT", "UNIT", ">USED", ">ROOM", ">RATE", ">FULL IN", ">REFUSED (SAMPLED)"],
            Self::Limits => &[
                "LIMIT",
                "SERVICE",
                "UNIT",
                "ALLOWS",
                "MODE",
                ">ADMITTED",
                ">REFUSED",
                ">OBSERVED",
                ">OVERFLOWED",
                ">SOURCES",
                ">OCCUPIED",
            ],
            Self::Reasons => &["REASON", "OUTCOME", ">PACKETS", ">BYTES", ">IN ALL"],
            Self::Refused => &["SOURCE", "LIMIT", "REASON", "OUTCOME", ">SAMPLED", "LAST"],
            Self::Health => &[
                "SERVICE",
                "FOLLOWS",
                "MOVES",
                ">WINDOW",
                ">OPEN",
                ">SPEED",
                "BREAKER",
                "BACKENDS",
                "THE WORST",
                "WHY",
            ],
            Self::Connections => &["SOURCE", "LIMIT", ">OPEN", ">ROOM", ">USED", ">REFUSED (SAMPLED)"],
        }
    }

    /// How many columns it has.
    pub(super) const fn columns(self) -> usize {
        self.headings().len()
    }

    /// The column whose heading begins with these letters, in either case.
    pub(super) fn column(self, letters: &str) -> Option<usize> {
        let letters = letters.to_lowercase();
        let begins = |heading: &&str| heading.trim_start_matches('>').to_lowercase().starts_with(&letters);
        self.headings().iter().position(begins)
    }

    /// What its key shows.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Talkers => "talkers",
            Self::Limits => "limits",
            Self::Reasons => "reasons",
            Self::Refused => "refused",
            Self::Connections => "connections",
            Self::Health => "health",
        }
    }
}

/// The last look and the one before it.
#[derive(Clone, Debug)]
pub(super) struct Looks {
    before: Option<Top>,
    now: Top,
}

/// A table: a heading that begins with `>` is one of numbers.
#[derive(Clone, Debug)]
pub(super) struct Sheet {
    pub(super) title: &'static str,
    pub(super) headings: &'static [&'static str],
    pub(super) rows: Vec<Vec<Field>>,
    /// What stands there where there are no rows.
    pub(super) empty: &'static str,
}

/// A field of a table: what it shows, and what it sorts by.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Field {
    pub(super) text: String,
    number: Option<f64>,
}

impl Field {
    fn text(text: impl Into<String>) -> Self {
        Self { text: text.into(), number: None }
    }

    fn number(number: f64, show: impl FnOnce(f64) -> String) -> Self {
        Self { text: show(number), number: Some(number) }
    }

    fn counted(count: u64, show: impl FnOnce(u64) -> String) -> Self {
        Self { text: show(count), number: Some(count as f64) }
    }

    /// A rate, or nothing where there was no look before.
    fn rate(rate: Option<f64>, show: impl FnOnce(f64) -> String) -> Self {
        rate.map_or(Self { text: String::new(), number: Some(-1.0) }, |rate| Self::number(rate, show))
    }

    fn compare(&self, other: &Self) -> Ordering {
        match (self.number, other.number) {
            // The largest number comes first.
            (Some(one), Some(other)) => other.total_cmp(&one),
            _ => self.text.cmp(&other.text),
        }
    }
}

impl Sheet {
    /// Sorts by a column, or leaves the agent's order where there is none; turned round where `reversed`.
    pub(super) fn order(&mut self, column: Option<usize>, reversed: bool) {
        match column {
            Some(column) => self.sort(column, reversed),
            None if reversed => self.rows.reverse(),
            None => {}
        }
    }

    /// Sorts by a column: numbers from the largest down, words from `a` on.
    fn sort(&mut self, column: usize, reversed: bool) {
        self.rows.sort_by(|one, other| {
            let order = one[column].compare(&other[column]);
            if reversed { order.reverse() } else { order }
        });
    }

    /// Leaves the rows of which a field contains these letters, in either case.
    pub(super) fn filter(&mut self, letters: &str) {
        let (letters, unfiltered) = (letters.to_lowercase(), self.rows.len());
        self.rows.retain(|row| row.iter().any(|field| field.text.to_lowercase().contains(&letters)));
        if self.rows.len() < unfiltered {
            // What stands for an empty table is not so.
            self.empty = "nothing here contains what the filter says";
        }
    }
}

impl Looks {
    /// The first look: it has no rates.
    pub(super) fn of(now: Top) -> Self {
        Self { before: None, now }
    }

    /// Another look; the last one is what it is compared with.
    pub(super) fn add(&mut self, look: Top) {
        self.before = Some(std::mem::replace(&mut self.now, look));
    }

    /// Everything in one line.
    pub(super) fn headline(&self) -> String {
        let mode = if self.now.mode == Mode::Enforce { "enforcing" } else { "observing" };
        let of = |outcomes: &'static [&'static str]| {
            self.rate(|top| {
                top.reasons
                    .iter()
                    .filter(|it| outcomes.contains(&it.outcome.as_str()))
                    .map(|it| it.packets as f64)
                    .sum()
            })
        };
        let rate = |outcomes| of(outcomes).map_or("-".to_owned(), per_second);
        format!(
            "throttle {mode}, revision {}, {}: {} passed, {} refused, {} observed",
            self.now.revision,
            self.now.at.strftime("%H:%M:%SZ"),
            rate(&["pass"]),
            rate(&["drop", "reject"]),
            rate(&["observe"]),
        )
    }

    /// What one view shows, in the order in which the agent gave it.
    pub(super) fn sheet(&self, view: View) -> Sheet {
        match view {
            View::Talkers => self.talkers(),
            View::Limits => self.limits(),
            View::Reasons => self.reasons(),
            View::Refused => self.refused(),
            View::Connections => self.connections(),
            View::Health => self.health(),
        }
    }

    fn talkers(&self) -> Sheet {
        let row = |it: &Talker| {
            let before = self
                .before
                .as_ref()
                .and_then(|top| top.talkers.iter().find(|held| held.source == it.source && held.limit == it.limit));
            // What has become less was begun anew, with a window.
            let grown = |held: &Talker| if it.charged < held.charged { it.charged } else { it.charged - held.charged };
            let rate = before.and_then(|held| Some(grown(held) / self.seconds()?));
            let show: fn(f64) -> String = if it.unit == "bytes" { bytes_per_second } else { per_second };
            // What is open was not charged at a rate, and is given back when it closes.
            let rate = rate.filter(|_| it.open.is_none());
            let debt = if it.open.is_some() { String::new() } else { span(Duration::from_secs_f64(it.debt_seconds)) };
            vec![
                Field::text(&it.source),
                Field::text(&it.limit),
                Field::text(if it.open.is_some() { "open connections" } else { &it.unit }),
                Field::number(it.used, percent),
                if it.unit == "bytes" { Field::counted(it.room, bytes) } else { Field::counted(it.room, count) },
                Field::rate(rate, show),
                Field::number(it.debt_seconds, |_| debt),
                Field::counted(it.refused, count),
            ]
        };
        Sheet {
            title: "Talkers: sources that use their limits most (a rate is at most; it is exact where a source never paused)",
            headings: View::Talkers.headings(),
            rows: self.now.talkers.iter().map(row).collect(),
            empty: "no source owes anything to a limit",
        }
    }

    fn limits(&self) -> Sheet {
        let row = |it: &TopLimit| {
            let rate = |of: fn(&TopLimit) -> Tally| {
                let rate = self.rate_of(|top| {
                    top.limits.iter().find(|held| held.limit == it.limit).map(|held| of(held).packets as f64)
                });
                Field::rate(rate, per_second)
            };
            // Whoever shares a bucket needs no place of its own.
            let occupied = match it.slots {
                0 => Field::text(""),
                slots => Field::number(it.busy as f64 / slots as f64, percent),
            };
            vec![
                Field::text(&it.limit),
                Field::text(it.service.clone().unwrap_or_default()),
                Field::text(&it.unit),
                Field::text(it.window.map_or(it.rate.clone(), |window| format!("{} (now {window})", it.rate))),
                Field::text(mode(it.mode, self.now.mode == Mode::Observe)),
                rate(|it| it.tallies.admitted),
                rate(|it| it.tallies.refused),
                rate(|it| it.tallies.observed),
                rate(|it| it.tallies.overflowed),
                Field::counted(it.busy, count),
                occupied,
            ]
        };
        Sheet {
            title: "Limits: packets each second",
            headings: View::Limits.headings(),
            rows: self.now.limits.iter().map(row).collect(),
            empty: "there is no limit; `throttle limit set` makes one",
        }
    }

    fn reasons(&self) -> Sheet {
        let rows = self.now.reasons.iter().map(|it| {
            let rate = |of: fn(&throttle_agent::api::wire::ReasonCount) -> u64| {
                self.rate_of(|top| {
                    let mut held = top.reasons.iter();
                    let held = held.find(|held| held.reason == it.reason && held.outcome == it.outcome);
                    Some(held.map_or(0.0, |held| of(held) as f64))
                })
            };
            vec![
                Field::text(&it.reason),
                Field::text(&it.outcome),
                Field::rate(rate(|it| it.packets), per_second),
                Field::rate(rate(|it| it.bytes), bytes_per_second),
                Field::counted(it.packets, count),
            ]
        });
        Sheet {
            title: "Reasons: every frame has one",
            headings: View::Reasons.headings(),
            rows: rows.collect(),
            empty: "no frame has been seen yet",
        }
    }

    fn refused(&self) -> Sheet {
        let rows = self.now.refused.iter().map(|it| {
            vec![
                Field::text(it.source.map_or("no address".to_owned(), |source| source.to_string())),
                Field::text(it.limit.clone().unwrap_or_default()),
                Field::text(&it.reason),
                Field::text(&it.outcome),
                Field::counted(it.sampled, count),
                Field::text(it.last.strftime("%H:%M:%S%.3fZ").to_string()),
            ]
        });
        Sheet {
            title: "Refused: sampled, within the last minute",
            headings: View::Refused.headings(),
            rows: rows.collect(),
            empty: "no refusal was sampled within the last minute",
        }
    }

    fn connections(&self) -> Sheet {
        let rows = self.now.talkers.iter().filter_map(|it| {
            Some(vec![
                Field::text(&it.source),
                Field::text(&it.limit),
                Field::counted(it.open?, count),
                Field::counted(it.room, count),
                Field::number(it.used, percent),
                Field::counted(it.refused, count),
            ])
        });
        // Whose these are is not kept.
        let shared = self.now.limits.iter().filter(|it| it.in_aggregates > 0).map(|it| {
            let (whose, nothing) = ("(in aggregates)", || Field::text(""));
            let open = Field::counted(it.in_aggregates, count);
            vec![Field::text(whose), Field::text(&it.limit), open, nothing(), nothing(), nothing()]
        });
        Sheet {
            title: "Connections: sources that have most open, where a limit counts them",
            headings: View::Connections.headings(),
            rows: rows.chain(shared).collect(),
            empty: "no connection is open that a limit counts",
        }
    }

    fn health(&self) -> Sheet {
        let row = |it: &HealthLine| {
            let open = it.window.and_then(|window| window.open).map_or(-1.0, f64::from);
            let shown = if it.mode == Mode::Observe { " (only shown)" } else { "" };
            vec![
                Field::text(&it.service),
                Field::text(&it.signal),
                Field::text(health_line::moves(it) + shown),
                Field::number(it.window.map_or(-1.0, |window| window.decided.into()), |_| health_line::window(it)),
                Field::number(open, |_| health_line::open(it)),
                Field::number(it.speed, share),
                Field::text(it.breaker.clone().unwrap_or_default()),
                Field::text(health_line::well(it)),
                Field::number(it.worst.as_ref().map_or(-1.0, |worst| worst.suspicion), |_| {
                    it.worst.as_ref().map(health_line::worst).unwrap_or_default()
                }),
                Field::text(&it.cause),
            ]
        };
        Sheet {
            title: "Health: what limits follow, how far, and the worst backend of each service",
            headings: View::Health.headings(),
            rows: self.now.health.iter().map(row).collect(),
            empty: "no service follows its health; `throttle service set NAME --health enforce` has one do so",
        }
    }

    /// Seconds between the two looks; none where there is one look, or the host restarted.
    fn seconds(&self) -> Option<f64> {
        let seconds = self.now.clock_seconds - self.before.as_ref()?.clock_seconds;
        (seconds > 0.0).then_some(seconds)
    }

    fn rate(&self, of: impl Fn(&Top) -> f64) -> Option<f64> {
        self.rate_of(|top| Some(of(top)))
    }

    /// How fast a count grows; a count that began anew starts from zero.
    fn rate_of(&self, of: impl Fn(&Top) -> Option<f64>) -> Option<f64> {
        let (seconds, now) = (self.seconds()?, of(&self.now)?);
        let before = of(self.before.as_ref()?).filter(|&before| before <= now).unwrap_or(0.0);
        Some((now - before) / seconds)
    }
}
