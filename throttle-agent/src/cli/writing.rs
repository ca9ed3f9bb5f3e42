//! What every change of the policy understands, and how its outcome is told.

use std::fmt::Write as _;

use clap::Args;
use jiff::Timestamp;
use throttle_agent::{
    api::wire::{Envelope, LONGEST_WAIT, Pending, Write, Written},
    policy::{Mode, units::Span},
};

use super::{
    Context,
    alike::grouped,
    client::Answer,
    failure::Failure,
    output::{self, Paint},
    quantity::{moment, until},
    session::{self, Session},
    words::at_most,
};

/// How a change is made.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct Writing {
    /// Why, for the history
    #[arg(long, short, value_name = "TEXT")]
    message: Option<String>,
    /// Go back by itself unless `throttle policy confirm` follows within this time, e.g. 60s; at most 1d
    #[arg(long, value_name = "TIME", value_parser = at_most(LONGEST_WAIT), allow_hyphen_values = true)]
    confirm_within: Option<Span>,
    /// Do not keep the SSH session that this comes from allowed where it would be hit
    #[arg(long)]
    lock_me_out: bool,
}

impl Writing {
    /// As the API takes it, with the session that must not be locked out.
    pub(crate) fn wire(&self) -> Write {
        Write {
            message: self.message.clone(),
            lock_out: self.lock_me_out,
            confirm_within_seconds: self.confirm_within.map(Span::seconds),
            ..Session::writing(session::own())
        }
    }
}

/// Changes that are told one by one; the rest are counted.
const TOLD: usize = 20;

/// What a change was of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Subject {
    /// The policy, whose revisions count.
    Policy,
    /// The blocks beside it.
    Blocks,
}

/// Tells what a change of the policy did.
pub(crate) fn tell(context: &Context, answer: &Answer) -> Result<(), Failure> {
    tell_of(context, answer, Subject::Policy)
}

/// Tells what a change of the blocks did.
pub(crate) fn tell_blocks(context: &Context, answer: &Answer) -> Result<(), Failure> {
    tell_of(context, answer, Subject::Blocks)
}

fn tell_of(context: &Context, answer: &Answer, subject: Subject) -> Result<(), Failure> {
    if context.output.json {
        return output::data(&answer.text());
    }
    let written = answer.parse::<Envelope<Written>>()?.body;
    for warning in grouped(written.warnings.iter().map(|warning| (warning.as_str(), warning.clone()))) {
        context.output.warn(&warning);
    }
    output::data(&render(&written, subject, Timestamp::now(), context.output.paint))
}

fn render(written: &Written, subject: Subject, now: Timestamp, paint: Paint) -> String {
    let (told, untold) = written.changes.split_at(written.changes.len().min(TOLD));
    let mut text = changes(told, paint);
    if !untold.is_empty() {
        _ = writeln!(text, "and {} more", untold.len());
    }
    let revision = written.revision;
    let observed = if written.mode == Mode::Observe { ", and the host only observes" } else { "" };
    _ = match (subject, written.changes.is_empty()) {
        (Subject::Policy, false) => writeln!(text, "revision {revision} is in force{observed}"),
        (Subject::Policy, true) => writeln!(text, "nothing to change: revision {revision} is in force{observed}"),
        (Subject::Blocks, true) => writeln!(text, "nothing to change"),
        (Subject::Blocks, false) if observed.is_empty() => Ok(()),
        (Subject::Blocks, false) => writeln!(text, "the host only observes: nothing is refused yet"),
    };
    if let Some(pending) = &written.pending {
        _ = writeln!(text, "{}", paint.warning(&waiting(pending, now)));
    }
    if let Some(session) = &written.session_allow {
        let end = until(session.until, now);
        _ = writeln!(text, "your session from {} stays allowed for {end}", session.prefix.addr());
    }
    text
}

/// That a revision waits to be confirmed, and what happens otherwise.
pub(crate) fn waiting(pending: &Pending, now: Timestamp) -> String {
    let Pending { revision, back_to, deadline } = pending;
    format!(
        "revision {revision} goes back to {back_to} in {} (at {}) unless `throttle policy confirm` follows",
        until(*deadline, now),
        moment(*deadline),
    )
}

/// Changes as the policy tells them, one a line, in their colours.
pub(crate) fn changes(lines: &[String], paint: Paint) -> String {
    let mut text = String::new();
    for line in lines {
        let painted = match line.as_bytes().first() {
            Some(b'+') => paint.good(line),
            Some(b'-') => paint.fault(line),
            _ => line.clone(),
        };
        _ = writeln!(text, "{painted}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use throttle_agent::api::wire::SessionAllow;

    #[test]
    fn a_change_says_what_changed_and_when_it_goes_back() {
        let now: Timestamp = "2026-11-23T19:00:00Z".parse().unwrap();
        let written = Written {
            revision: 8,
            mode: Mode::Enforce,
            changes: vec!["~ limit \"web\": rate 50/min -> 100/min".to_owned()],
            warnings: Vec::new(),
            pending: Some(Pending { revision: 8, back_to: 7, deadline: "2026-11-23T19:01:00Z".parse().unwrap() }),
            session_allow: Some(SessionAllow {
                prefix: "192.0.2.7/32".parse().unwrap(),
                until: "2026-11-23T20:00:00Z".parse().unwrap(),
                author: "root".to_owned(),
            }),
        };
        let expected = "\
~ limit \"web\": rate 50/min -> 100/min
revision 8 is in force
revision 8 goes back to 7 in 1 min (at 2026-11-23 19:01:00Z) unless `throttle policy confirm` follows
your session from 192.0.2.7 stays allowed for 1 h
";
        assert_eq!(render(&written, Subject::Policy, now, Paint::PLAIN), expected);
    }

    #[test]
    fn a_change_that_changes_nothing_says_so() {
        let written = Written { revision: 8, mode: Mode::Enforce, ..Written::default() };
        let text = render(&written, Subject::Policy, Timestamp::UNIX_EPOCH, Paint::PLAIN);
        assert_eq!(text, "nothing to change: revision 8 is in force\n");
    }

    #[test]
    fn a_change_on_a_host_that_observes_says_so_in_passing() {
        let written = Written { revision: 8, changes: vec!["+ block 192.0.2.7".to_owned()], ..Written::default() };
        let text = |subject| render(&written, subject, Timestamp::UNIX_EPOCH, Paint::PLAIN);
        assert!(text(Subject::Policy).ends_with("revision 8 is in force, and the host only observes\n"));
        assert!(text(Subject::Blocks).ends_with("the host only observes: nothing is refused yet\n"));
    }

    #[test]
    fn a_hundred_thousand_changes_are_counted_not_told() {
        let changes = vec!["+ block 192.0.2.7".to_owned(); 100_000];
        let written = Written { changes, mode: Mode::Enforce, ..Written::default() };
        let text = render(&written, Subject::Blocks, Timestamp::UNIX_EPOCH, Paint::PLAIN);
        assert_eq!(text.lines().count(), TOLD + 1);
        assert!(text.ends_with("and 99980 more\n"));
    }
}
