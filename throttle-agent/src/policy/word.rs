//! Closed lists of words as policy writes them: by name, and with the nearest name where one is mistyped.

use super::fault::Fault;
use serde::{Deserializer, Serializer, de::Error as _};
use std::borrow::Cow;
use throttle_common::words::{Action, Algorithm, Fate, Overflow, Per, Reason, Speaks, Unit};
use utoipa::openapi::schema::{ObjectBuilder, Schema, Type};

/// A word of a closed list.
pub trait Word: Copy + PartialEq + 'static {
    /// What the list is of, for messages: "unit".
    const WHAT: &'static str;

    /// Every word that policy may use.
    fn all() -> Vec<Self>;

    /// The word's name.
    fn name(self) -> &'static str;

    /// The word with this name.
    fn named(name: &str) -> Result<Self, Fault> {
        Self::all().into_iter().find(|word| word.name() == name).ok_or_else(|| {
            let names: Vec<_> = Self::all().into_iter().map(Self::name).collect();
            Fault::new(format!("`{name}` is no {}", Self::WHAT), one_of(name, &names))
        })
    }
}

macro_rules! common_words {
    ($($word:ident, $what:literal, $filter:expr;)+) => {$(
        impl Word for $word {
            const WHAT: &'static str = $what;
            fn all() -> Vec<Self> {
                Self::ALL.iter().copied().filter($filter).collect()
            }
            fn name(self) -> &'static str {
                Self::name(self)
            }
        }
    )+};
}

common_words! {
    Unit, "unit", |_| true;
    Action, "action", |_| true;
    Algorithm, "algorithm", |_| true;
    Overflow, "overflow rule", |_| true;
    Per, "sharing", |_| true;
    Speaks, "language", |_| true;
    Fate, "fate", |_| true;
    Reason, "shape", |reason: &Reason| reason.is_shape();
}

/// Gives a word of ours the serde and OpenAPI forms of its name.
macro_rules! written_by_name {
    ($($word:ty),+) => {$(
        impl serde::Serialize for $word {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                $crate::policy::word::serialize(self, serializer)
            }
        }

        impl<'de> serde::Deserialize<'de> for $word {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                $crate::policy::word::deserialize(deserializer)
            }
        }

        impl utoipa::PartialSchema for $word {
            fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::Schema> {
                $crate::policy::word::schema::<Self>().into()
            }
        }

        impl utoipa::ToSchema for $word {}
    )+};
}

pub(super) use written_by_name;

/// The remedy for a word that is not among `names`: the nearest of them, or all.
pub fn one_of(word: &str, names: &[&str]) -> String {
    match nearest(word, names) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("write one of {}", quoted(names)),
    }
}

/// The one of `names` that `word` most likely stands for, if it is near enough to be a slip of the hand.
pub(super) fn nearest<'n>(word: &str, names: &[&'n str]) -> Option<&'n str> {
    let distance = |name: &&str| strsim::osa_distance(&word.to_lowercase(), name);
    let near = names.iter().copied().min_by_key(distance)?;
    (distance(&near) <= 1 + near.chars().count() / 4).then_some(near)
}

fn quoted(names: &[&str]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

/// Writes a word by its name; for `#[serde(with = "word")]`.
pub fn serialize<W: Word, S: Serializer>(word: &W, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(word.name())
}

/// Reads a word by its name; for `#[serde(with = "word")]`.
pub fn deserialize<'de, W: Word, D: Deserializer<'de>>(deserializer: D) -> Result<W, D::Error> {
    let name: Cow<'de, str> = serde::Deserialize::deserialize(deserializer)?;
    W::named(&name).map_err(D::Error::custom)
}

/// The same for words that may be absent; for `#[serde(with = "word::optional")]`.
pub mod optional {
    use super::{Cow, Deserializer, Serializer, Word};
    use serde::de::Error as _;

    /// Writes a word by its name, and nothing for none.
    pub fn serialize<W: Word, S: Serializer>(word: &Option<W>, serializer: S) -> Result<S::Ok, S::Error> {
        serde::Serialize::serialize(&word.map(W::name), serializer)
    }

    /// Reads a word by its name, if there is one.
    pub fn deserialize<'de, W: Word, D: Deserializer<'de>>(deserializer: D) -> Result<Option<W>, D::Error> {
        let name: Option<Cow<'de, str>> = serde::Deserialize::deserialize(deserializer)?;
        name.map(|name| W::named(&name).map_err(D::Error::custom)).transpose()
    }
}

/// The list as an OpenAPI schema.
pub fn schema<W: Word>() -> Schema {
    let names = W::all().into_iter().map(W::name);
    ObjectBuilder::new().schema_type(Type::String).enum_values(Some(names)).build().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_hand_is_told_the_word_it_meant() {
        assert_eq!(Unit::named("packtes").unwrap_err().to_string(), "`packtes` is no unit; did you mean `packets`?");
        assert_eq!(Fate::named("Drop").unwrap_err().remedy, "did you mean `drop`?");
    }

    #[test]
    fn anything_else_is_told_the_whole_list() {
        assert_eq!(Unit::named("requests").unwrap_err().remedy, "write one of `packets`, `bytes`, `connections`");
    }

    #[test]
    fn only_shapes_have_fates() {
        assert!(Reason::named("blocked").is_err());
        assert_eq!(Reason::named("too-many-vlans"), Ok(Reason::TooManyVlans));
    }
}
