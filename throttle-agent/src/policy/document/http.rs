//! What a refused client of a plain HTTP service is told.

use serde::Serialize;
use std::collections::BTreeMap;
use throttle_common::records::Page;
use utoipa::ToSchema;

/// The page by which `reject` refuses a new connection to a service that speaks plain HTTP: `429 Too Many Requests` with
/// `Retry-After`. All that is said here takes up to 158 bytes of it, less where the body is longer than 9 bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Http {
    /// The body. Default: none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub body: String,
    /// What the body is. Default `text/plain` where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// Further headers, by name. Not those that every page has by itself.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
}

impl Http {
    /// Headers that a page has by itself, or that say how its body is sent: nobody else may write them.
    pub const OWN: [&str; 10] = [
        "Connection",
        "Content-Encoding",
        "Content-Length",
        "Content-Type",
        "Keep-Alive",
        "Retry-After",
        "TE",
        "Trailer",
        "Transfer-Encoding",
        "Upgrade",
    ];

    /// What stands in the page behind its head, which ends with the seconds of `Retry-After`.
    pub fn text(&self) -> String {
        let Self { body, content_type, headers } = self;
        let mut text = format!("\r\nConnection: close\r\nContent-Length: {}\r\n", body.len());
        if !body.is_empty() || content_type.is_some() {
            text += "Content-Type: ";
            text += content_type.as_deref().unwrap_or("text/plain");
            text += "\r\n";
        }
        for (name, value) in headers {
            text.extend([name, ": ", value, "\r\n"]);
        }
        text + "\r\n" + body
    }

    /// The page; `None` where it is too long, which no policy's is.
    pub fn page(&self) -> Option<Page> {
        Page::of(self.text().as_bytes())
    }
}
