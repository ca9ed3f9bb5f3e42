//! Where changes are told.

use std::{fmt, str::FromStr};

use rustls::pki_types::ServerName;

/// Where changes are told: `http://HOST[:PORT][/PATH]`, or `https` for `http`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Webhook {
    /// Whom its certificate must name, where it is encrypted.
    name: Option<ServerName<'static>>,
    /// The host, and the port if it is not the usual one.
    authority: String,
    path: String,
}

impl FromStr for Webhook {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |what: &str| format!("`{text}` {what}; write https://HOST:PORT/PATH, or http");
        let secure = text.strip_prefix("https://");
        let rest = secure.or_else(|| text.strip_prefix("http://")).ok_or_else(|| wrong("is no URL of HTTP"))?;
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let plain = |text: &str| text.chars().all(|c| c.is_ascii_graphic());
        if authority.is_empty() || authority.contains('@') || !plain(rest) || rest.contains('#') {
            return Err(wrong("names no host, or more than that"));
        }
        let port = authority.rsplit_once(':').filter(|(host, _)| !host.starts_with('[') || host.ends_with(']'));
        if port.is_some_and(|(host, port)| host.is_empty() || port.parse::<u16>().is_err()) {
            return Err(wrong("has a port that is none"));
        }
        let host = port.map_or(authority, |(host, _)| host).trim_start_matches('[').trim_end_matches(']');
        let name = secure.map(|_| ServerName::try_from(host.to_owned()));
        let name = name.transpose().map_err(|_| wrong("names a host that no certificate can name"))?;
        let path = if path.is_empty() { "/" } else { path };
        Ok(Self { name, authority: authority.to_owned(), path: path.to_owned() })
    }
}

impl fmt::Display for Webhook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_encrypted() { "https" } else { "http" };
        write!(f, "{scheme}://{}{}", self.authority, self.path)
    }
}

impl Webhook {
    /// Whether it is told over TLS.
    pub fn is_encrypted(&self) -> bool {
        self.name.is_some()
    }

    /// Whom its certificate must name, where it is encrypted.
    pub(super) fn name(&self) -> Option<ServerName<'static>> {
        self.name.clone()
    }

    /// Where to connect: the host and its port.
    pub(super) fn address(&self) -> String {
        let usual = if self.is_encrypted() { 443 } else { 80 };
        let has_port = self.authority.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        if has_port { self.authority.clone() } else { format!("{}:{usual}", self.authority) }
    }

    /// The host as the URL has it.
    pub(super) fn authority(&self) -> &str {
        &self.authority
    }

    /// The path, with what is asked there.
    pub(super) fn path(&self) -> &str {
        &self.path
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_of_http_is_read_and_any_other_told_why_not() {
        let read = |text: &str| text.parse::<Webhook>().map(|hook| (hook.to_string(), hook.address()));
        let of = |url: &str, address: &str| Ok((url.to_owned(), address.to_owned()));
        assert_eq!(read("http://oncall"), of("http://oncall/", "oncall:80"));
        assert_eq!(read("http://10.0.0.1:8080/a?b=c"), of("http://10.0.0.1:8080/a?b=c", "10.0.0.1:8080"));
        assert_eq!(read("http://[::1]:80/x"), of("http://[::1]:80/x", "[::1]:80"));
        assert_eq!(read("http://[::1]/x"), of("http://[::1]/x", "[::1]:80"));
        assert_eq!(read("https://oncall"), of("https://oncall/", "oncall:443"));
        for wrong in
            ["ftp://a", "http://", "http:///x", "http://a:b/", "http://u@a/", "http://a/ b", "a", "https://a-/"]
        {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_certificate_must_name_the_host_without_its_port() {
        let name = |text: &str| text.parse::<Webhook>().unwrap().name().map(|name| name.to_str().into_owned());
        assert_eq!(name("https://oncall.internal:8443/x").as_deref(), Some("oncall.internal"));
        assert_eq!(name("https://[::1]:8443/x").as_deref(), Some("::1"));
        assert_eq!(name("https://[::1]/x").as_deref(), Some("::1"));
        assert_eq!(name("https://10.0.0.1").as_deref(), Some("10.0.0.1"));
        assert_eq!(name("http://oncall.internal"), None);
    }
}
