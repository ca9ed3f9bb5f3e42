//! Which hosts differ from most of their stamp: by build, by program, by policy, by the key that seals. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// In what hosts may differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Subject {
    Build,
    Program,
    Policy,
    Key,
}

impl Subject {
    pub(super) const ALL: [Self; 4] = [Self::Build, Self::Program, Self::Policy, Self::Key];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Build => "build",
            Self::Program => "program",
            Self::Policy => "policy",
            Self::Key => "key",
        }
    }
}

/// How long a difference must last before it is told as a change: a policy is applied on one host after the other.
const SETTLED: Duration = Duration::from_secs(2);

/// A host that differs from most, or, where there is no most, one of those that differ from each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Odd {
    pub(super) subject: Subject,
    pub(super) host: String,
    /// What it has.
    pub(super) has: String,
    /// What more than half of the hosts have; none where no value has so many.
    pub(super) most: Option<String>,
    pub(super) since: Duration,
}

/// What begins and ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    Differs(Odd),
    Agrees { subject: Subject, host: String },
}

/// Who differs, from one look to the next.
#[derive(Debug, Default)]
pub(super) struct Skew {
    odd: BTreeMap<(Subject, String), (Odd, bool)>,
}

impl Skew {
    /// One look at what the hosts that live say of themselves. Where one has nothing to say it differs from nobody.
    pub(super) fn look<'h>(
        &mut self,
        now: Duration,
        hosts: impl Iterator<Item = (&'h str, Subject, &'h str)>,
    ) -> Vec<Turn> {
        let mut said: BTreeMap<Subject, Vec<(&str, &str)>> = BTreeMap::new();
        for (host, subject, value) in hosts {
            said.entry(subject).or_default().push((host, value));
        }
        let (mut now_odd, mut turns) = (BTreeSet::new(), Vec::new());
        for (subject, said) in said {
            let most = most(&said);
            if said.iter().all(|(_, value)| *value == said[0].1) {
                continue;
            }
            for (host, has) in said.iter().filter(|(_, value)| Some(*value) != most) {
                let key = (subject, (*host).to_owned());
                let odd = Odd {
                    subject,
                    host: (*host).to_owned(),
                    has: (*has).to_owned(),
                    most: most.map(str::to_owned),
                    since: self.odd.get(&key).map_or(now, |(odd, _)| odd.since),
                };
                let mut told = self.odd.get(&key).is_some_and(|(_, told)| *told);
                if !told && now.saturating_sub(odd.since) >= SETTLED {
                    told = true;
                    turns.push(Turn::Differs(odd.clone()));
                }
                now_odd.insert(key.clone());
                self.odd.insert(key, (odd, told));
            }
        }
        self.odd.retain(|key, (odd, told)| {
            let stays = now_odd.contains(key);
            if !stays && *told {
                turns.push(Turn::Agrees { subject: odd.subject, host: odd.host.clone() });
            }
            stays
        });
        turns
    }

    /// Who differs now.
    pub(super) fn all(&self) -> impl Iterator<Item = &Odd> {
        self.odd.values().map(|(odd, _)| odd)
    }
}

/// What more than half have.
fn most<'v>(said: &[(&str, &'v str)]) -> Option<&'v str> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for (_, value) in said {
        *counts.entry(value).or_default() += 1;
    }
    counts.into_iter().find(|(_, count)| 2 * count > said.len()).map(|(value, _)| value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(skew: &mut Skew, seconds: u64, policies: [&str; 3]) -> Vec<Turn> {
        let hosts = ["a", "b", "c"].into_iter().zip(policies).map(|(host, has)| (host, Subject::Policy, has));
        skew.look(Duration::from_secs(seconds), hosts.filter(|(_, _, has)| !has.is_empty()))
    }

    #[test]
    fn one_that_differs_from_most_is_named_with_since_when() {
        let mut skew = Skew::default();
        assert_eq!(look(&mut skew, 0, ["1", "1", "1"]), []);
        assert_eq!(look(&mut skew, 5, ["1", "1", "2"]), []);
        let turns = look(&mut skew, 8, ["1", "1", "3"]);
        let odd = Odd {
            subject: Subject::Policy,
            host: "c".to_owned(),
            has: "3".to_owned(),
            most: Some("1".to_owned()),
            since: Duration::from_secs(5),
        };
        assert_eq!(turns, [Turn::Differs(odd.clone())]);
        assert_eq!(look(&mut skew, 9, ["1", "1", "3"]), [], "it is told once");
        assert_eq!(skew.all().collect::<Vec<_>>(), [&odd]);
        assert_eq!(
            look(&mut skew, 10, ["1", "1", "1"]),
            [Turn::Agrees { subject: Subject::Policy, host: "c".to_owned() }]
        );
        assert_eq!(skew.all().count(), 0);
    }

    #[test]
    fn where_no_half_agrees_all_are_named() {
        let mut skew = Skew::default();
        look(&mut skew, 0, ["1", "2", ""]);
        assert!(skew.all().map(|odd| (&*odd.host, &odd.most)).eq([("a", &None), ("b", &None)]));
        look(&mut skew, 1, ["1", "2", "3"]);
        assert_eq!(skew.all().count(), 3);
    }

    #[test]
    fn a_change_that_goes_from_host_to_host_is_no_turn() {
        let mut skew = Skew::default();
        for (second, policies) in (0..).zip([["2", "1", "1"], ["2", "2", "1"], ["2", "2", "2"]]) {
            assert_eq!(look(&mut skew, second, policies), []);
        }
    }
}
