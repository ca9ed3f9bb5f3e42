//! How arguments are read: closed lists by name, prefixes, rates; each mistake is named before anything is sent.

use clap::builder::{PossibleValuesParser, TypedValueParser};
use std::{fmt::Display, net::IpAddr, str::FromStr};
use throttle_agent::policy::Word;

/// Reads a word of a closed list; a mistyped one is told the list.
pub(crate) fn word<W: Word + Send + Sync>() -> impl TypedValueParser<Value = W> {
    PossibleValuesParser::new(W::all().into_iter().map(Word::name))
        .try_map(|name| W::named(&name).map_err(|fault| fault.to_string()))
}

/// Reads an address.
pub(crate) fn address(text: &str) -> Result<IpAddr, String> {
    text.parse().map_err(|_| format!("`{text}` is no IP address; write one such as 192.0.2.7 or 2001:db8::7"))
}

/// Reads a whole number between two bounds, both included.
pub(crate) fn whole<N>(least: N, most: N) -> impl Fn(&str) -> Result<N, String> + Clone
where
    N: FromStr + PartialOrd + Display + Copy,
{
    move |text| {
        let number = text.parse().ok().filter(|number| (least..=most).contains(number));
        number.ok_or_else(|| {
            let wrong = if text.starts_with('-') { "it cannot be negative; " } else { "" };
            format!("{wrong}write a whole number from {least} to {most}")
        })
    }
}
