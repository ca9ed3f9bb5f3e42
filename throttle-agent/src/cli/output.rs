//! The way out: data to stdout, talk to stderr, colour only where a person looks.

use std::io::{self, IsTerminal as _, Write as _};

use clap::ValueEnum;
use serde::Serialize;

use super::failure::Failure;

/// When to use colour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Color {
    /// On a terminal, unless `NO_COLOR` is set.
    #[default]
    Auto,
    /// Even into a pipe.
    Always,
    /// Not at all.
    Never,
}

/// Paints words, or leaves them as they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Paint(bool);

impl Paint {
    /// Without colour.
    #[cfg(test)]
    pub(crate) const PLAIN: Self = Self(false);

    fn choose(color: Color, terminal: bool) -> Self {
        let wanted = |name| std::env::var_os(name).is_some_and(|value: std::ffi::OsString| !value.is_empty());
        Self(match color {
            Color::Always => true,
            Color::Never => false,
            Color::Auto => terminal && !wanted("NO_COLOR") && std::env::var_os("TERM").is_none_or(|t| t != "dumb"),
        })
    }

    /// For what is written to stderr.
    pub(crate) fn of_stderr(color: Color) -> Self {
        Self::choose(color, io::stderr().is_terminal())
    }

    /// Something is broken.
    pub(crate) fn fault(self, text: &str) -> String {
        self.wrap("1;31", text)
    }

    /// Something deserves a look.
    pub(crate) fn warning(self, text: &str) -> String {
        self.wrap("33", text)
    }

    /// All is well.
    pub(crate) fn good(self, text: &str) -> String {
        self.wrap("32", text)
    }

    /// A heading.
    pub(crate) fn strong(self, text: &str) -> String {
        self.wrap("1", text)
    }

    /// An aside.
    pub(crate) fn faint(self, text: &str) -> String {
        self.wrap("2", text)
    }

    fn wrap(self, code: &str, text: &str) -> String {
        if self.0 { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// Where a command's data and talk go.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    /// Whether the reader is a program: the API's JSON as it came.
    pub(crate) json: bool,
    /// For stdout.
    pub(crate) paint: Paint,
    /// For stderr.
    talk: Paint,
}

impl Output {
    pub(crate) fn new(json: bool, color: Color) -> Self {
        Self { json, paint: Paint::choose(color, io::stdout().is_terminal()), talk: Paint::of_stderr(color) }
    }

    /// Says something that deserves a look; to a program as a line of JSON.
    pub(crate) fn warn(self, text: &str) {
        if self.json {
            say(&serde_json::json!({ "warning": text.trim_end() }).to_string());
        } else {
            say(&format!("{} {}", self.talk.warning("warning:"), text.trim_end()));
        }
    }

    /// Says why the command fails: to a person as text, to a program as a line of JSON.
    pub(crate) fn fail(self, text: &str, told: &impl Serialize) {
        match serde_json::to_string(told) {
            Ok(told) if self.json => say(&told),
            _ => say(&format!("{} {text}", self.talk.fault("error:"))),
        }
    }
}

/// Writes data.
pub(crate) fn data(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    if !text.ends_with('\n') && !text.is_empty() {
        out.write_all(b"\n")?;
    }
    Ok(out.flush()?)
}

/// Writes data as JSON.
pub(crate) fn json(answer: &impl Serialize) -> Result<(), Failure> {
    data(&serde_json::to_string(answer).map_err(anyhow::Error::from)?)
}

/// Says something to the person at the terminal.
pub(crate) fn say(text: &str) {
    // Talk that nobody hears is no failure.
    let _ = writeln!(io::stderr(), "{}", text.trim_end());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pipe_gets_no_colour_unless_it_is_asked_for() {
        assert_eq!(Paint::choose(Color::Auto, false), Paint::PLAIN);
        assert_eq!(Paint::choose(Color::Never, true), Paint::PLAIN);
        assert_eq!(Paint::choose(Color::Always, false).good("ok"), "\x1b[32mok\x1b[0m");
        assert_eq!(Paint::PLAIN.fault("broken"), "broken");
    }
}
