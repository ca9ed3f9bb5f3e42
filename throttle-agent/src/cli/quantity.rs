//! Numbers as people read them. Exact values are what `--json` is for.

use std::time::Duration;

use jiff::Timestamp;

/// A count of packets or sources: in full up to 99 999, then three digits and a letter.
pub(crate) fn count(value: u64) -> String {
    if value < 100_000 { value.to_string() } else { scaled(value as f64, 1000.0, &["", "k", "M", "G", "T", "P", "E"]) }
}

/// A count a second.
pub(crate) fn per_second(value: f64) -> String {
    if value < 1000.0 {
        format!("{}/s", digits(value))
    } else {
        format!("{}/s", scaled(value, 1000.0, &["", "k", "M", "G", "T", "P", "E"]))
    }
}

/// An amount of bytes.
pub(crate) fn bytes(value: u64) -> String {
    scaled(value as f64, 1024.0, &[" B", " KiB", " MiB", " GiB", " TiB", " PiB", " EiB"])
}

/// An amount of bytes a second.
pub(crate) fn bytes_per_second(value: f64) -> String {
    format!("{}/s", scaled(value, 1024.0, &[" B", " KiB", " MiB", " GiB", " TiB", " PiB", " EiB"]))
}

/// How often, given in times a second: an hour where that is rare.
pub(crate) fn frequency(value: f64) -> String {
    if value < 1.0 { format!("{}/h", digits(value * 3600.0)) } else { per_second(value) }
}

/// A part of a whole.
pub(crate) fn percent(ratio: f64) -> String {
    match ratio * 100.0 {
        0.0 => "0 %".to_owned(),
        p if p < 0.01 => "<0.01 %".to_owned(),
        p => format!("{} %", digits(p)),
    }
}

/// A span: its two largest units; below ten seconds three digits.
pub(crate) fn span(value: Duration) -> String {
    const UNITS: [(u64, &str); 4] = [(86_400, "d"), (3600, "h"), (60, "min"), (1, "s")];
    let seconds = value.as_secs();
    if seconds == 0 && !value.is_zero() {
        return scaled(value.as_nanos() as f64, 1000.0, &[" ns", " us", " ms"]);
    }
    if seconds < 10 {
        return format!("{} s", digits(value.as_secs_f64()));
    }
    let first = UNITS.iter().position(|&(unit, _)| seconds >= unit).unwrap_or(UNITS.len() - 1);
    let mut rest = seconds;
    let mut words = Vec::new();
    for (unit, name) in UNITS.iter().skip(first).take(2) {
        if rest >= *unit {
            words.push(format!("{} {name}", rest / unit));
        }
        rest %= unit;
    }
    words.join(" ")
}

/// A moment, in UTC.
pub(crate) fn moment(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M:%SZ").to_string()
}

/// How long it is from `now` to `end`, to the second.
pub(crate) fn until(end: Timestamp, now: Timestamp) -> String {
    let millis = end.duration_since(now).as_millis().max(0).unsigned_abs();
    span(Duration::from_secs(u64::try_from((millis + 500) / 1000).unwrap_or(u64::MAX)))
}

fn scaled(mut value: f64, step: f64, letters: &[&str]) -> String {
    let mut place = 0;
    while value >= step && place + 1 < letters.len() {
        value /= step;
        place += 1;
    }
    format!("{}{}", digits(value), letters[place])
}

/// Three significant digits, without zeros that say nothing.
fn digits(value: f64) -> String {
    let places = match value {
        v if v >= 100.0 => 0,
        v if v >= 10.0 => 1,
        _ => 2,
    };
    let text = format!("{value:.places$}");
    if places == 0 { text } else { text.trim_end_matches('0').trim_end_matches('.').to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_three_digits() {
        assert_eq!(count(0), "0");
        assert_eq!(count(99_999), "99999");
        assert_eq!(count(1_234_567), "1.23M");
        assert_eq!(per_second(999.0), "999/s");
        assert_eq!(per_second(3_500_000.0), "3.5M/s");
        assert_eq!(frequency(1.0 / 1800.0), "2/h");
        assert_eq!(frequency(50.0), "50/s");
        assert_eq!(bytes_per_second(2048.0), "2 KiB/s");
        assert_eq!(bytes(512), "512 B");
        assert_eq!(bytes(64 << 10), "64 KiB");
        assert_eq!(percent(0.0), "0 %");
        assert_eq!(percent(0.000_01), "<0.01 %");
        assert_eq!(percent(0.034), "3.4 %");
    }

    #[test]
    fn spans_keep_two_units() {
        assert_eq!(span(Duration::from_secs(90)), "1 min 30 s");
        assert_eq!(span(Duration::from_mins(1443)), "1 d");
        assert_eq!(span(Duration::from_secs(2 * 86_400 + 5 * 3600 + 9)), "2 d 5 h");
        assert_eq!(span(Duration::from_millis(1200)), "1.2 s");
        assert_eq!(span(Duration::from_millis(250)), "250 ms");
        assert_eq!(span(Duration::ZERO), "0 s");
    }
}
