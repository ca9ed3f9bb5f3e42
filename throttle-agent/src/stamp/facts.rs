//! What a host says of itself: a few short words under fixed names. Hints only, and nobody's but its own.

use std::collections::BTreeMap;

/// What is said, by its name in the gossip.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fact {
    /// The kernel's name of its boot.
    Boot,
    /// The agent's version.
    Build,
    /// The kernel's hash of the XDP program, hexadecimal.
    Program,
    /// The number of the policy in force there.
    Revision,
    /// The digest of that policy, hexadecimal.
    Policy,
    /// `enforce` or `observe`.
    Mode,
    /// The load average of a minute, of each CPU.
    Load,
    /// Frames judged each second.
    Packets,
    /// Frames refused each second.
    Refused,
    /// The names of the keys that it has, the one that seals first, with spaces between.
    Keys,
    /// How it stands in the stamp's policy: a digest of the changes that it knows and their number, or [`OWN`].
    Shares,
    /// Says that it ends in good order.
    Leaving,
}

impl Fact {
    pub(super) const ALL: [Self; 12] = [
        Self::Boot,
        Self::Build,
        Self::Program,
        Self::Revision,
        Self::Policy,
        Self::Mode,
        Self::Load,
        Self::Packets,
        Self::Refused,
        Self::Keys,
        Self::Shares,
        Self::Leaving,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Boot => "boot",
            Self::Build => "build",
            Self::Program => "program",
            Self::Revision => "revision",
            Self::Policy => "policy",
            Self::Mode => "mode",
            Self::Load => "load",
            Self::Packets => "packets",
            Self::Refused => "refused",
            Self::Keys => "keys",
            Self::Shares => "shares",
            Self::Leaving => "leaving",
        }
    }
}

/// What one says of its shares that has not got the stamp's policy yet.
pub(super) const OWN: &str = "own";

/// Bytes of one, at most.
const LONGEST: usize = 64;

/// What a host says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Facts(BTreeMap<Fact, String>);

impl Facts {
    /// Takes what others say by its name: what is unknown, too long or not to be shown is left out.
    pub(super) fn read<'s>(said: impl Fn(&'static str) -> Option<&'s str>) -> Self {
        let fit = |text: &&str| text.len() <= LONGEST && text.bytes().all(|byte| (b' '..=b'~').contains(&byte));
        let all = Fact::ALL.into_iter();
        Self(all.filter_map(|fact| Some((fact, said(fact.name()).filter(fit)?.to_owned()))).collect())
    }

    pub(super) fn set(&mut self, fact: Fact, value: impl Into<String>) {
        self.0.insert(fact, value.into());
    }

    pub(super) fn get(&self, fact: Fact) -> Option<&str> {
        self.0.get(&fact).map(String::as_str)
    }

    /// The same as a number, where it is one that can be shown.
    pub(super) fn number(&self, fact: Fact) -> Option<f64> {
        self.get(fact)?.parse().ok().filter(|number: &f64| number.is_finite() && *number >= 0.0)
    }

    /// All of them by name.
    pub(super) fn said(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.0.iter().map(|(fact, value)| (fact.name(), value.as_str()))
    }
}

/// Whether something may be the name of a host or of a stamp: letters, digits, `.`, `-` and `_`, 1 to 64 of them.
pub fn is_name(text: &str) -> bool {
    (1..=LONGEST).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_read() {
        let mut facts = Facts::default();
        facts.set(Fact::Build, "0.1.0");
        facts.set(Fact::Load, "0.42");
        let said: BTreeMap<_, _> = facts.said().collect();
        let read = Facts::read(|name| said.get(name).copied());
        assert_eq!((&read, read.number(Fact::Load)), (&facts, Some(0.42)));
    }

    #[test]
    fn what_cannot_be_shown_is_left_out() {
        let long = "x".repeat(LONGEST + 1);
        for said in ["\x1b[2J", "tab\t", "ü", &long] {
            assert_eq!(Facts::read(|_| Some(said)), Facts::default(), "{said}");
        }
        let numbers = ["nan", "inf", "-1", "many"].map(|said| Facts::read(|_| Some(said)).number(Fact::Load));
        assert_eq!(numbers, [None; 4]);
    }

    #[test]
    fn a_name_is_a_short_word() {
        assert!(is_name("web-1.fra") && is_name(&"x".repeat(64)));
        assert!(["", "a b", "a/b", "ä", "a\n"].iter().all(|name| !is_name(name)) && !is_name(&"x".repeat(65)));
    }
}
