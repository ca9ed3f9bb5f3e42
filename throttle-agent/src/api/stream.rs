//! Events as lines of JSON, for as long as the reader stays.

use std::convert::Infallible;

use axum::{
    body::{Body, Bytes},
    extract::State,
    http::header,
    response::{IntoResponse, Response},
};
use futures_util::stream;

use super::{
    Api,
    extract::Queried,
    wire::{Envelope, EventFilter, Problem, StreamItem},
};
use crate::events::{Filter, Next, Subscription};

/// The sampled refusals from now on, and every gap among them.
#[utoipa::path(
    get, path = "/v1/events", tag = "events", params(EventFilter),
    responses(
        (status = 200, description = "One JSON object a line", body = Envelope<StreamItem>,
            content_type = "application/x-ndjson"),
        (status = "4XX", description = "Refused", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn events(State(api): State<Api>, Queried(query): Queried<EventFilter>) -> Result<Response, Problem> {
    let filter = Filter::read(&query)?;
    let lines = stream::unfold((api.events.subscribe(), filter), |(mut subscription, filter)| async move {
        let line = next_line(&mut subscription, &filter).await?;
        Some((Ok::<_, Infallible>(line), (subscription, filter)))
    });
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(lines)).into_response())
}

async fn next_line(subscription: &mut Subscription, filter: &Filter) -> Option<Bytes> {
    loop {
        let item = match subscription.next().await? {
            Next::Event(event) if filter.pass(&event) => StreamItem::Event((*event).clone()),
            Next::Event(_) => continue,
            Next::Gap(gap) => StreamItem::Gap(gap),
        };
        let mut line = serde_json::to_vec(&Envelope::new(item)).expect("an event is plain data");
        line.push(b'\n');
        return Some(line.into());
    }
}
