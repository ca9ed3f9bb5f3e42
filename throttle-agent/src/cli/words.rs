//! How arguments are read: closed lists by name, prefixes, rates; each mistake is named before anything is sent.

use clap::builder::{PossibleValuesParser, TypedValueParser};
use std::{fmt::Display, net::IpAddr, str::FromStr};
use throttle_agent::policy::{Fault, Word, units::Span};

/// Reads a word of a closed list; a mistyped one is told the list.
pub(crate) fn word<W: Word + Send + Sync>() -> impl TypedValueParser<Value = W> {
    PossibleValuesParser::new(W::all().into_iter().map(Word::name))
        .try_map(|name| W::named(&name).map_err(|fault| fault.to_string()))
}

/// Reads an address.
pub(crate) fn address(text: &str) -> Result<IpAddr, String> {
    text.parse().map_err(|_| format!("`{text}` is no IP address; write one such as 192.0.2.7 or 2001:db8::7"))
}

/// Reads a time of a second at least, and at most another.
pub(crate) fn at_most(most: Span) -> impl Fn(&str) -> Result<Span, String> + Clone {
    move |text| {
        let span: Span = text.parse().map_err(|fault: Fault| fault.to_string())?;
        let bounds = (Span::of_seconds(1)..=most).contains(&span);
        bounds.then_some(span).ok_or_else(|| format!("write a time from 1s to {most}"))
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_beyond_the_longest_is_told_it_as_times_are_written() {
        let read = at_most(Span::of_seconds(30 * 86_400));
        assert_eq!(read("90d"), Err("write a time from 1s to 30d".to_owned()));
        assert_eq!(read("0s"), read("90d"));
        assert_eq!(read("30d").map(Span::seconds), Ok(2_592_000));
        assert!(read("-5m").unwrap_err().contains("negative"));
    }
}
