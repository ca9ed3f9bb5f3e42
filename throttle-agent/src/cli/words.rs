//! How arguments are read: closed lists by name, prefixes, rates; each mistake is named before anything is sent.

use clap::builder::{PossibleValuesParser, TypedValueParser};
use throttle_agent::policy::Word;

/// Reads a word of a closed list; a mistyped one is told the list.
pub(crate) fn word<W: Word + Send + Sync>() -> impl TypedValueParser<Value = W> {
    PossibleValuesParser::new(W::all().into_iter().map(Word::name))
        .try_map(|name| W::named(&name).map_err(|fault| fault.to_string()))
}
