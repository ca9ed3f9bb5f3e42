//! What a document may not say although every field of it can be read, and what it should think twice about.

mod limits;
mod names;
mod services;
mod sources;
mod warnings;

use super::{
    document::{Document, Mode},
    fault::{Diagnostic, Diagnostics, Fault, Warning},
    units::{Rate, Scale},
};

/// Checks the meaning of a document that was read from text, came as JSON or was edited.
pub fn check(document: &Document) -> Result<Vec<Warning>, Diagnostics> {
    let mut found = Vec::new();
    names::check(document, &mut found);
    services::check(document, &mut found);
    limits::check(document, &mut found);
    sources::check(document, &mut found);
    budget("answers.rate", document.answers.rate, &mut found);
    budget("events.rate", document.events.rate, &mut found);
    if found.is_empty() { Ok(warnings::warnings(document)) } else { Err(Diagnostics(found)) }
}

/// Whether refusals of a limit are carried out: neither it nor the host only observes.
fn enforces(document: &Document, limit: &super::Limit) -> bool {
    document.mode == Mode::Enforce && limit.mode == Mode::Enforce
}

fn budget(path: &str, rate: Rate, found: &mut Vec<Diagnostic>) {
    if rate.quantity.scale() != Scale::One {
        found.push(Fault::new(format!("`{rate}` counts no messages"), "write a bare number, such as 100/s").at(path));
    } else if rate.quantity.amount() > 10_000_000 {
        let remedy = "write at most 10000000 in each period; 0/s for none";
        found.push(Fault::new(format!("`{rate}` is more than a host can send"), remedy).at(path));
    }
}

#[cfg(test)]
mod tests;
