//! `throttle policy conflicts` and `throttle policy dead-letters`: where hosts of a stamp disagree, and what they sent that is
//! no change.

use std::fmt::Write as _;

use clap::Subcommand;
use throttle_agent::api::wire::{
    Conflicts, DeadLetters, Envelope, LettersDone, LettersRequest, RemoveRequest, ResolveRequest, Settled, paths,
};

use super::{
    Context,
    client::Answer,
    failure::Failure,
    output::{self, Paint},
    quantity::moment,
    table::{Cell, Table, Tone},
    writing::changes,
};

/// What to do about them.
#[derive(Debug, Subcommand)]
pub(crate) enum ConflictsCommand {
    /// Settle a conflict for all hosts of the stamp
    Resolve {
        /// The place, as `throttle policy conflicts` names it, e.g. 'limit web: rate'
        place: String,
        /// The host whose value is to stand
        #[arg(long)]
        host: String,
    },
    /// Remove an entry for all hosts of the stamp, also one that is not in force
    Remove {
        /// The entry, e.g. 'limit web'
        entry: String,
    },
}

/// What to do with them.
#[derive(Debug, Subcommand)]
pub(crate) enum LettersCommand {
    /// Look at them as if they came now: those that are changes by now are taken in
    Replay {
        /// Which; by default all
        ids: Vec<String>,
    },
    /// Forget them
    Drop {
        /// Which
        #[arg(required_unless_present = "all")]
        ids: Vec<String>,
        /// All of them
        #[arg(long, conflicts_with = "ids")]
        all: bool,
    },
}

/// Shows conflicts, or does something about one.
pub(crate) fn conflicts(command: Option<ConflictsCommand>, context: &Context) -> Result<(), Failure> {
    let client = context.client()?;
    match command {
        None => {
            let answer = client.get(paths::POLICY_CONFLICTS)?;
            if context.output.json {
                return output::data(&answer.text());
            }
            let told = answer.parse::<Envelope<Conflicts>>()?.body;
            output::data(&render(&told, context.output.paint))
        }
        Some(ConflictsCommand::Resolve { place, host }) => {
            settled(context, &client.post(paths::POLICY_RESOLVE, &ResolveRequest { place, host })?)
        }
        Some(ConflictsCommand::Remove { entry }) => {
            settled(context, &client.post(paths::POLICY_REMOVE, &RemoveRequest { entry })?)
        }
    }
}

fn settled(context: &Context, answer: &Answer) -> Result<(), Failure> {
    if context.output.json {
        return output::data(&answer.text());
    }
    let settled = answer.parse::<Envelope<Settled>>()?.body;
    if settled.changes.is_empty() {
        output::say("settled; nothing changes in force");
    }
    output::data(&changes(&settled.changes, context.output.paint))
}

/// Shows dead letters, or does something with some.
pub(crate) fn letters(command: Option<LettersCommand>, context: &Context) -> Result<(), Failure> {
    let client = context.client()?;
    let (path, ids, replays) = match command {
        None => {
            let answer = client.get(paths::DEAD_LETTERS)?;
            if context.output.json {
                return output::data(&answer.text());
            }
            let told = answer.parse::<Envelope<DeadLetters>>()?.body;
            return output::data(&listed(&told, context.output.paint));
        }
        Some(LettersCommand::Replay { ids }) => (paths::DEAD_LETTERS_REPLAY, ids, true),
        Some(LettersCommand::Drop { ids, .. }) => (paths::DEAD_LETTERS_DROP, ids, false),
    };
    let answer = client.post(path, &LettersRequest { ids })?;
    if context.output.json {
        return output::data(&answer.text());
    }
    let LettersDone { gone, changes } = answer.parse::<Envelope<LettersDone>>()?.body;
    if replays {
        output::say(&format!("{gone} are dead letters no more, and {changes} changes came of them"));
    } else {
        output::say(&format!("{gone} forgotten"));
    }
    Ok(())
}

fn render(told: &Conflicts, paint: Paint) -> String {
    let mut text = String::new();
    if told.conflicts.is_empty() && told.set_aside.is_empty() {
        return "hosts of the stamp agree\n".to_owned();
    }
    if !told.conflicts.is_empty() {
        let mut table = Table::new(&["PLACE", "VALUE", "HOST", "BY", "AT", "STATE"]);
        for conflict in &told.conflicts {
            for (number, said) in conflict.values.iter().enumerate() {
                let value = said.value.as_str().map_or_else(|| said.value.to_string(), str::to_owned);
                let state = if number == 0 { Cell::new("in force", Tone::Good) } else { "".into() };
                table.row([
                    if number == 0 { conflict.place.clone() } else { String::new() }.into(),
                    value.into(),
                    said.host.as_str().into(),
                    said.author.as_str().into(),
                    moment(said.at).into(),
                    state,
                ]);
            }
        }
        text += &table.render(paint);
    }
    for aside in &told.set_aside {
        let what = aside.part.as_ref().map_or_else(|| aside.entry.clone(), |part| format!("{part} of {}", aside.entry));
        _ = writeln!(text, "  {} {what} is not in force: {}", paint.warning("*"), aside.why);
    }
    text
}

fn listed(told: &DeadLetters, paint: Paint) -> String {
    if told.letters.is_empty() {
        return "no dead letters\n".to_owned();
    }
    let mut table = Table::new(&["ID", "REASON", "FROM", "LAST", ">TIMES", ">BYTES"]);
    for letter in &told.letters {
        table.row([
            letter.id.as_str().into(),
            letter.reason.as_str().into(),
            letter.from.as_str().into(),
            moment(letter.last).into(),
            letter.times.to_string().into(),
            letter.bytes.to_string().into(),
        ]);
    }
    table.render(paint)
}
