//! How long.

use crate::policy::{fault::Fault, text::written_as_text};
use std::{fmt, str::FromStr, time::Duration};

/// A time of whole seconds, such as `30s`, `5m`, `2h`, `1d` or `1h30m`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span {
    seconds: u64,
}

/// Every unit, the longest first.
const UNITS: [(&str, u64); 4] = [("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)];

impl Span {
    /// The longest, about 100 years.
    pub const MAX: Self = Self::of_seconds(36_500 * 86_400);

    /// A number of seconds.
    pub const fn of_seconds(seconds: u64) -> Self {
        Self { seconds }
    }

    /// How many seconds it is.
    pub const fn seconds(self) -> u64 {
        self.seconds
    }
}

impl From<Span> for Duration {
    fn from(span: Span) -> Self {
        Self::from_secs(span.seconds)
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.seconds;
        if rest == 0 {
            return f.write_str("0s");
        }
        for (name, seconds) in UNITS {
            if rest >= seconds {
                write!(f, "{}{name}", rest / seconds)?;
                rest %= seconds;
            }
        }
        Ok(())
    }
}

impl FromStr for Span {
    type Err = Fault;

    fn from_str(text: &str) -> Result<Self, Fault> {
        let wrong = || {
            let no = if text.starts_with('-') { "negative" } else { "no time" };
            Fault::new(format!("`{text}` is {no}"), "write it as in 30s, 5m, 2h, 1d or 1h30m")
        };
        let (mut rest, mut sum) = (text, 0u64);
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
            let (number, unit) = rest.split_at(digits);
            let number: u64 = number.parse().map_err(|_| wrong())?;
            let letters = unit.find(|c: char| c.is_ascii_digit()).unwrap_or(unit.len());
            let (unit, after) = unit.split_at(letters);
            let seconds = UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(wrong)?.1;
            sum = number.checked_mul(seconds).and_then(|part| sum.checked_add(part)).ok_or_else(wrong)?;
            rest = after;
        }
        if text.is_empty() || sum > Self::MAX.seconds {
            return Err(wrong());
        }
        Ok(Self { seconds: sum })
    }
}

written_as_text!(Span, "5m");
