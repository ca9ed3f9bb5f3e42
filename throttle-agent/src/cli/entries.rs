//! What the policy names one by one: limits, services, backends and tenants, each listed, shown and taken out alike.

use serde::de::DeserializeOwned;
use throttle_agent::api::wire::Envelope;

use super::{
    Context,
    client::{query, under},
    failure::Failure,
    output::{self, Paint},
    writing::{self, Writing},
};

/// Lists those of a collection, or says that there are `none`.
pub(crate) fn list<Body: DeserializeOwned, Entry>(
    context: &Context,
    collection: &str,
    entries: impl FnOnce(Body) -> Vec<Entry>,
    none: &str,
    render: impl FnOnce(&[Entry], Paint) -> String,
) -> Result<(), Failure> {
    let answer = context.client()?.get(collection)?;
    if context.output.json {
        return output::data(&answer.text());
    }
    let entries = entries(answer.parse::<Envelope<Body>>()?.body);
    if entries.is_empty() {
        output::say(none);
        return Ok(());
    }
    output::data(&render(&entries, context.output.paint))
}

/// Shows everything about one.
pub(crate) fn show<Body: DeserializeOwned>(
    context: &Context,
    collection: &str,
    name: &str,
    describe: impl FnOnce(&Body) -> String,
) -> Result<(), Failure> {
    let answer = context.client()?.get(&under(collection, name))?;
    if context.output.json {
        return output::data(&answer.text());
    }
    output::data(&describe(&answer.parse::<Envelope<Body>>()?.body))
}

/// Takes one out.
pub(crate) fn remove(context: &Context, collection: &str, name: &str, writing: &Writing) -> Result<(), Failure> {
    let path = query(&under(collection, name), &writing.wire())?;
    writing::tell(context, &context.client()?.delete(&path)?)
}
