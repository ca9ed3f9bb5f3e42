//! Events as lines of JSON: the last ones, and those to come for as long as the reader stays.

use std::convert::Infallible;

use axum::{
    body::{Body, Bytes},
    extract::State,
    http::header,
    response::{IntoResponse, Response},
};
use futures_util::{StreamExt as _, stream};

use super::{
    Api,
    extract::Queried,
    wire::{Envelope, EventFilter, Gap, Problem, StreamItem},
};
use crate::events::{Filter, Next, Subscription};

/// Sampled refusals: of the past as many as asked for, then those to come, and every gap among them.
#[utoipa::path(
    get, path = "/v1/events", tag = "events", params(EventFilter),
    responses(
        (status = 200, description = "One JSON object a line", body = Envelope<StreamItem>,
            content_type = "application/x-ndjson"),
        (status = "4XX", description = "Refused", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn events(State(api): State<Api>, Queried(query): Queried<EventFilter>) -> Result<Response, Problem> {
    let filter = Filter::read(&query, &api.events.named())?;
    let (kept, subscription) = api.events.subscribe();
    let mut past: Vec<Result<Bytes, Infallible>> = kept
        .iter()
        .rev()
        .filter(|event| filter.pass(event))
        .take(query.last)
        .map(|event| Ok(line(StreamItem::Event((**event).clone()))))
        .collect();
    past.reverse();
    let missed = Some(subscription.missed()).filter(|gap| query.past_only && *gap != Gap::default());
    past.extend(missed.map(|gap| Ok(line(StreamItem::Gap(gap)))));
    let coming = stream::unfold((subscription, filter), |(mut subscription, filter)| async move {
        let line = next_line(&mut subscription, &filter).await?;
        Some((Ok(line), (subscription, filter)))
    });
    let past = stream::iter(past);
    let body = if query.past_only { Body::from_stream(past) } else { Body::from_stream(past.chain(coming)) };
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], body).into_response())
}

async fn next_line(subscription: &mut Subscription, filter: &Filter) -> Option<Bytes> {
    loop {
        let item = match subscription.next().await? {
            Next::Event(event) if filter.pass(&event) => StreamItem::Event((*event).clone()),
            Next::Event(_) => continue,
            Next::Gap(gap) => StreamItem::Gap(gap),
        };
        return Some(line(item));
    }
}

fn line(item: StreamItem) -> Bytes {
    let mut line = serde_json::to_vec(&Envelope::new(item)).expect("an event is plain data");
    line.push(b'\n');
    line.into()
}
