//! What the demo counted, whether it agrees with what was configured, and how it looks in a terminal.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Result, ensure};

/// The part by which a figure may be off.
const TOLERANCE: f64 = 0.01;
/// The share of a round that a source must have been served in for its figures to mean something.
const SHARE_OF_ROUND: f64 = 0.9;
/// The length of the longest bar, in characters.
const WIDTH: usize = 32;

/// A per-source limit, as it is told to the agent.
pub(super) struct Limit {
    pub(super) name: &'static str,
    pub(super) per_second: u32,
    pub(super) burst: u32,
}

impl Limit {
    /// What a source that always wants more gets in this time.
    fn entitled(&self, time: Duration) -> f64 {
        f64::from(self.burst) + f64::from(self.per_second) * time.as_secs_f64()
    }
}

/// What became of one source in one round.
pub(super) struct Account {
    pub(super) source: String,
    /// What it sent: counted where it was sent.
    pub(super) offered: u64,
    /// What arrived: counted by the server.
    pub(super) admitted: u64,
    /// From the first to the last arrival.
    pub(super) time: Duration,
}

impl Account {
    /// Whether the source got what the limit entitles it to: within one, or one in a hundred.
    pub(super) fn agrees(&self, limit: &Limit, round: Duration) -> Result<()> {
        let Self { source, offered, admitted, time } = self;
        let entitled = limit.entitled(*time);
        let name = limit.name;
        ensure!(
            time.as_secs_f64() >= SHARE_OF_ROUND * round.as_secs_f64(),
            "{source} was served for {time:.1?} of {round:.1?} only: {name} cannot be judged by that"
        );
        ensure!(
            float(*offered) > entitled,
            "{source} offered {offered} only, no more than the {entitled:.0} that {name} admits"
        );
        ensure!(
            close(float(*admitted), entitled),
            "{source} got {admitted}, but {name} entitles it to {entitled:.1} in {time:.2?}"
        );
        Ok(())
    }
}

/// What the kernel counted for one limit, over all sources.
#[derive(Debug, PartialEq)]
pub(super) struct Counters {
    pub(super) admitted: u64,
    pub(super) refused: u64,
}

impl Counters {
    /// Whether the kernel judged everything that was sent, and let through what arrived.
    pub(super) fn agree(&self, limit: &Limit, accounts: &[&Account]) -> Result<()> {
        let name = limit.name;
        let offered: u64 = accounts.iter().map(|account| account.offered).sum();
        let arrived: u64 = accounts.iter().map(|account| account.admitted).sum();
        let judged = self.admitted + self.refused;
        ensure!(close(float(judged), float(offered)), "{name} judged {judged}, but its sources sent {offered}");
        ensure!(
            close(float(self.admitted), float(arrived)),
            "{name} admitted {}, but {arrived} arrived",
            self.admitted
        );
        Ok(())
    }
}

fn close(figure: f64, reference: f64) -> bool {
    (figure - reference).abs() <= (TOLERANCE * reference).max(1.0)
}

/// Counts are far below 2^53, where a float still holds every one.
#[expect(clippy::cast_precision_loss, reason = "see above")]
fn float(count: u64) -> f64 {
    count as f64
}

/// One line a source; with its limit where one is set.
pub(super) fn table(rows: &[(&Account, Option<&Limit>)]) -> String {
    let most = rows.iter().map(|(account, _)| account.offered).max().unwrap_or_default();
    let mut table = format!(
        "{:<12} {:>13} {:>9} {:>9} {:>9} {:>9} {:>8}\n",
        "source", "configured", "offered", "admitted", "refused", "entitled", "off by"
    );
    for (account, limit) in rows {
        let Account { source, offered, admitted, time } = account;
        let [configured, refused, entitled, off_by] = match limit {
            None => ["-"; 4].map(str::to_owned),
            Some(limit) => {
                let refused = offered.saturating_sub(*admitted).to_string();
                let entitled = limit.entitled(*time);
                let off_by = 100.0 * (float(*admitted) - entitled) / entitled;
                let configured = format!("{}/s + {}", limit.per_second, limit.burst);
                [configured, refused, format!("{entitled:.1}"), format!("{off_by:+.2} %")]
            }
        };
        let _ = writeln!(
            table,
            "{source:<12} {configured:>13} {offered:>9} {admitted:>9} {refused:>9} {entitled:>9} {off_by:>8}  {}",
            bar(*admitted, *offered, most)
        );
    }
    table
}

/// Solid for what was admitted, shaded for what was refused; the source that offered `most` fills the width.
fn bar(admitted: u64, offered: u64, most: u64) -> String {
    let cells = |count: u64| {
        let cells = u128::from(count) * WIDTH as u128;
        usize::try_from(cells.div_ceil(u128::from(most.max(1)))).unwrap_or(WIDTH).min(WIDTH)
    };
    let (solid, all) = (cells(admitted), cells(offered));
    "█".repeat(solid) + &"░".repeat(all.saturating_sub(solid))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Limit = Limit { name: "connections", per_second: 50, burst: 100 };
    const ROUND: Duration = Duration::from_secs(10);

    fn account(offered: u64, admitted: u64) -> Account {
        Account { source: "10.77.0.11".to_owned(), offered, admitted, time: ROUND }
    }

    fn objection(result: Result<()>) -> String {
        result.unwrap_err().to_string()
    }

    #[test]
    fn a_source_agrees_within_one_in_a_hundred_of_rate_times_time_plus_burst() {
        for admitted in [594, 600, 606] {
            account(9_000, admitted).agrees(&LIMIT, ROUND).unwrap();
        }
        for admitted in [593, 607] {
            let said = objection(account(9_000, admitted).agrees(&LIMIT, ROUND));
            assert!(said.contains("entitles it to 600.0"), "{said}");
        }
    }

    #[test]
    fn a_small_figure_may_be_off_by_one() {
        let slow = Limit { name: "slow", per_second: 1, burst: 10 };
        account(9_000, 19).agrees(&slow, ROUND).unwrap();
        assert!(account(9_000, 18).agrees(&slow, ROUND).is_err());
    }

    #[test]
    fn a_source_that_asked_for_too_little_or_too_briefly_proves_nothing() {
        let said = objection(account(600, 600).agrees(&LIMIT, ROUND));
        assert!(said.contains("offered 600 only"), "{said}");
        let said = objection(account(9_000, 600).agrees(&LIMIT, 2 * ROUND));
        assert!(said.contains("cannot be judged"), "{said}");
    }

    #[test]
    fn the_kernel_agrees_when_it_judged_all_and_let_through_what_arrived() {
        let (one, two) = (account(9_000, 600), account(5_000, 601));
        let accounts = [&one, &two];
        Counters { admitted: 1_203, refused: 12_797 }.agree(&LIMIT, &accounts).unwrap();
        let said = objection(Counters { admitted: 1_203, refused: 2_797 }.agree(&LIMIT, &accounts));
        assert!(said.contains("judged 4000"), "{said}");
        let said = objection(Counters { admitted: 2_203, refused: 11_797 }.agree(&LIMIT, &accounts));
        assert!(said.contains("admitted 2203, but 1201 arrived"), "{said}");
    }

    #[test]
    fn bars_show_the_share_that_was_admitted() {
        assert_eq!(bar(100, 100, 100), "█".repeat(WIDTH));
        assert_eq!(bar(50, 100, 100), "█".repeat(WIDTH / 2) + &"░".repeat(WIDTH / 2));
        assert_eq!(bar(1, 50, 100), "█".to_owned() + &"░".repeat(WIDTH / 2 - 1));
        assert_eq!(bar(0, 0, 0), "");
    }

    #[test]
    fn the_table_has_a_line_for_each_source() {
        let (limited, free) = (account(9_000, 600), account(4_500, 4_500));
        let table = table(&[(&limited, Some(&LIMIT)), (&free, None)]);
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(lines.len(), 3);
        assert!(lines[1].contains("50/s + 100") && lines[1].contains("8400"), "{}", lines[1]);
        assert!(lines[2].ends_with(&"█".repeat(WIDTH / 2)), "{}", lines[2]);
    }
}
