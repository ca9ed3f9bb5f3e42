//! The page of a service, as flags say it.

use std::collections::BTreeMap;

use clap::Args;
use throttle_agent::policy::HttpChange;

/// What no flag names stays as it is. Any of them has new connections that `reject` refuses answered with 429.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Plain HTTP")]
pub(crate) struct Paging {
    /// It speaks plain HTTP: answer new connections that `reject` refuses with 429 and Retry-After instead of a reset
    #[arg(long)]
    http: bool,
    /// Reset them again; the default
    #[arg(long, conflicts_with_all = ["http", "http_body", "http_content_type", "http_headers"])]
    no_http: bool,
    /// The body of the answer; empty for none
    #[arg(long, value_name = "TEXT")]
    http_body: Option<String>,
    /// What the body is; by default text/plain
    #[arg(long, value_name = "TYPE")]
    http_content_type: Option<String>,
    /// A further header, e.g. 'Cache-Control: no-store'; may be given several times, and is then all that it has
    #[arg(long = "http-header", value_name = "NAME: VALUE", value_parser = header)]
    http_headers: Vec<(String, String)>,
}

impl Paging {
    /// What the flags say; `None` where there is none.
    pub(crate) fn change(&self) -> Option<HttpChange> {
        let headers: BTreeMap<_, _> = self.http_headers.iter().cloned().collect();
        let change = HttpChange {
            body: self.http_body.clone(),
            content_type: self.http_content_type.clone(),
            headers: (!headers.is_empty()).then_some(headers),
        };
        (self.http || change != HttpChange::default()).then_some(change)
    }

    /// Whether it has none any more.
    pub(crate) fn ends(&self) -> bool {
        self.no_http
    }
}

fn header(text: &str) -> Result<(String, String), String> {
    let (name, value) =
        text.split_once(':').ok_or("write a name, a colon and a value, such as 'Cache-Control: no-store'")?;
    Ok((name.trim().to_owned(), value.trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_flag_gives_a_service_a_page_and_none_takes_nothing() {
        assert_eq!(Paging::default().change(), None);
        let plain = Paging { http: true, ..Paging::default() };
        assert_eq!(plain.change(), Some(HttpChange::default()));
        let told = Paging { http_headers: vec![header("X-Reason:  limit ").unwrap()], ..Paging::default() };
        let headers = BTreeMap::from([("X-Reason".to_owned(), "limit".to_owned())]);
        assert_eq!(told.change(), Some(HttpChange { headers: Some(headers), ..HttpChange::default() }));
        assert!(header("X-Reason").is_err());
    }
}
