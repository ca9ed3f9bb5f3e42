//! What is wrong with the health of services, each with its remedy, as `status` has it.

use super::{Control, Followed};
use crate::health::{controller::Rung, life::Level, names::state, service::Control as Moves};

impl Control {
    /// What is wrong with services, each with its remedy.
    pub(in crate::control) fn health_problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        for (name, followed) in &self.health.services {
            let health = &followed.health;
            problems.extend(self.complaints(name, followed));
            if followed.breaker.is_some() && health.breaker().is_away() && self.acts(name, None) {
                problems.push(format!(
                    "the breaker of {name} is {}: new connections are refused, but for a few that try; look at the service, \
                     or let all in with `throttle breaker close {name}`",
                    state(health.breaker().state())
                ));
            }
            let lost = health.adjustment().is_some_and(|it| it.rung == Rung::Static);
            if lost && followed.is_blind() && health.terms().enforces {
                problems.push(format!(
                    "limits of {name} follow nothing, and stay what policy says: no latency is measured of what it speaks; \
                     write control = \"aimd\" or \"fixed\" in its health, with a [[backend]]"
                ));
            }
            if health.wants_more() {
                problems.push(format!(
                    "{name} needs more workers: it is asked for more than it may bear; add some, or raise `most` if it may"
                ));
            }
        }
        problems
    }

    /// What is wrong with the backends of a service: who is so, by what it is.
    fn complaints(&self, name: &str, followed: &Followed) -> Vec<String> {
        let now = self.datapath.now();
        let all: Vec<_> = followed.health.backends(now).zip(&followed.breakers).collect();
        let is = |what: &str| {
            let so = all.iter().filter(|((it, detector, _), number)| {
                let breaker = number.filter(|_| it.breaker().is_away()).map(|_| self.acts(name, Some(it.place())));
                complaint(detector.level(), breaker, it.is_unasked()) == Some(what)
            });
            so.map(|((it, ..), _)| format!("{} ({})", it.place().backend, it.place().address)).collect::<Vec<_>>()
        };
        let whos = ALL.into_iter().map(|what| (what, is(what))).filter(|(_, who)| !who.is_empty());
        whos.map(|(what, who)| {
            let (few, many, who) = (who.len(), all.len(), who.join(", "));
            format!(
                "{few} of {many} backends of {name} {what}: {who}; `throttle health {name}` says since when and why"
            )
        })
        .collect()
    }

    /// What an operator holds, and should not forget.
    pub(in crate::control) fn held_breakers(&self) -> Vec<String> {
        let note = |it: &crate::store::HeldBreaker| {
            let whose = it.backend.as_ref().map_or(it.service.clone(), |backend| format!("{}/{backend}", it.service));
            let state = if it.open { "open: nothing new passes" } else { "closed: all passes, whatever fails" };
            format!("{} holds the breaker of {whose} {state}; `throttle breaker auto {whose}` ends that", it.author)
        };
        self.health.held.iter().map(note).collect()
    }
}

const DEAD: &str = "are dead";
const HELD: &str = "are back, but held out because they have come and gone too often";
const FAILING: &str = "fail, and their breakers keep new connections away";
const SHOWN: &str = "fail; their breakers would keep new connections away, but only observe";
const UNASKED: &str = "cannot be asked, for a fault of this host";
const ALL: [&str; 5] = [DEAD, HELD, FAILING, SHOWN, UNASKED];

/// What is wrong with a backend: what is held of it, whether its breaker acts where that is open, and whether it cannot be asked.
const fn complaint(level: Level, open: Option<bool>, unasked: bool) -> Option<&'static str> {
    match (level, open) {
        (Level::Dead, _) => Some(DEAD),
        (Level::Held, _) => Some(HELD),
        (_, Some(true)) => Some(FAILING),
        (_, Some(false)) => Some(SHOWN),
        (_, None) if unasked => Some(UNASKED),
        _ => None,
    }
}

impl Followed {
    /// Whether it is to follow a latency, and none is measured of what it speaks.
    pub(super) const fn is_blind(&self) -> bool {
        !self.measured && matches!(self.health.terms().control, Moves::Latency | Moves::Rate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_fails_is_kept_away_only_where_its_breaker_acts() {
        assert_eq!(complaint(Level::Healthy, Some(true), false), Some(FAILING));
        assert_eq!(complaint(Level::Healthy, Some(false), true), Some(SHOWN));
        assert_eq!(complaint(Level::Dead, Some(false), false), Some(DEAD));
        assert_eq!(complaint(Level::Healthy, None, true), Some(UNASKED));
        assert_eq!(complaint(Level::Suspect, None, false), None);
    }

    #[test]
    fn who_is_held_out_answers_and_is_not_called_dead() {
        assert_eq!(complaint(Level::Held, Some(true), false), Some(HELD));
    }
}
