//! How long.

use crate::policy::{fault::Fault, text::written_as_text};
use std::{fmt, str::FromStr, time::Duration};

/// A time of whole milliseconds, such as `250ms`, `30s`, `5m`, `2h`, `1d` or `1h30m`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span {
    millis: u64,
}

/// Every unit, the longest first, in milliseconds.
const UNITS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

impl Span {
    /// The longest, about 100 years.
    pub const MAX: Self = Self::of_seconds(36_500 * 86_400);

    /// A number of seconds.
    pub const fn of_seconds(seconds: u64) -> Self {
        Self { millis: 1_000 * seconds }
    }

    /// A number of milliseconds.
    pub const fn of_millis(millis: u64) -> Self {
        Self { millis }
    }

    /// How many milliseconds it is.
    pub const fn millis(self) -> u64 {
        self.millis
    }

    /// How many seconds it is; a part of one counts as one, so that nothing ends before its time.
    pub const fn seconds(self) -> u64 {
        self.millis.div_ceil(1_000)
    }
}

impl From<Span> for Duration {
    fn from(span: Span) -> Self {
        Self::from_millis(span.millis)
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.millis;
        if rest == 0 {
            return f.write_str("0s");
        }
        for (name, millis) in UNITS {
            if rest >= millis {
                write!(f, "{}{name}", rest / millis)?;
                rest %= millis;
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
            Fault::new(format!("`{text}` is {no}"), "write it as in 250ms, 30s, 5m, 2h, 1d or 1h30m")
        };
        let (mut rest, mut sum) = (text, 0u64);
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
            let (number, unit) = rest.split_at(digits);
            let number: u64 = number.parse().map_err(|_| wrong())?;
            let letters = unit.find(|c: char| c.is_ascii_digit()).unwrap_or(unit.len());
            let (unit, after) = unit.split_at(letters);
            let millis = UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(wrong)?.1;
            sum = number.checked_mul(millis).and_then(|part| sum.checked_add(part)).ok_or_else(wrong)?;
            rest = after;
        }
        if text.is_empty() || sum > Self::MAX.millis {
            return Err(wrong());
        }
        Ok(Self { millis: sum })
    }
}

written_as_text!(Span, "5m");
