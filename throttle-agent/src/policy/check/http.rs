//! Pages: they are of TCP services, fit their frames, and nothing in them ends a header before it says so.

use crate::policy::{
    document::{Document, Http, Protocol, Service},
    fault::{Diagnostic, Fault},
    read::Unread,
    word::Word as _,
};
use throttle_common::pages::REST_MAX;

pub(super) fn check(document: &Document, unread: &Unread, found: &mut Vec<Diagnostic>) {
    for (index, service) in document.services.iter().enumerate() {
        let path = format!("service[{index}].http");
        if let Some(http) = &service.http
            && unread.spares(&path)
            && unread.spares(&format!("service[{index}].protocol"))
        {
            page(service, http, &path, found);
        }
    }
}

fn page(service: &Service, http: &Http, path: &str, found: &mut Vec<Diagnostic>) {
    if service.protocol != Protocol::Tcp {
        let reason = format!("a {} service does not speak plain HTTP", service.protocol.name());
        found.push(Fault::new(reason, "leave it out, or write protocol = \"tcp\"").at(path));
        return;
    }
    let before = found.len();
    if let Some(content_type) = &http.content_type {
        value(content_type, &format!("{path}.content-type"), found);
    }
    for (name, text) in &http.headers {
        let path = format!("{path}.headers.{name}");
        if name.is_empty() || !name.bytes().all(is_of_name) {
            let reason = format!("`{}` is no name of a header", name.escape_debug());
            found.push(Fault::new(reason, "write letters, digits and hyphens, such as \"X-Reason\"").at(path));
        } else if Http::OWN.iter().any(|own| own.eq_ignore_ascii_case(name)) {
            let remedy =
                if name.eq_ignore_ascii_case("content-type") { "write `content-type`" } else { "leave it out" };
            found.push(Fault::new(format!("a page says {name} by itself"), remedy).at(path));
        } else {
            value(text, &path, found);
        }
    }
    let length = http.text().len();
    if found.len() == before && length > REST_MAX {
        let reason = format!("the page is {} bytes too long", length - REST_MAX);
        let remedy = format!(
            "shorten its body or headers: with what every page has they may take {REST_MAX} bytes, because a frame has no \
             room for more"
        );
        found.push(Fault::new(reason, remedy).at(path));
    }
}

/// A header's value is of visible ASCII, and blanks within it (RFC 9110, section 5.5).
fn value(text: &str, path: &str, found: &mut Vec<Diagnostic>) {
    let is_text = |byte: u8| byte.is_ascii_graphic() || byte == b' ';
    if text.is_empty() || text.trim() != text || !text.bytes().all(is_text) {
        let reason = format!("\"{}\" is no value of a header", text.escape_debug());
        found.push(Fault::new(reason, "write visible ASCII without line breaks, and no blanks around it").at(path));
    }
}

/// RFC 9110, section 5.6.2.
fn is_of_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use crate::policy::parse;

    fn faults(http: &str) -> String {
        let text = format!("[[service]]\nname = \"web\"\nprotocol = \"tcp\"\nports = [80]\n[service.http]\n{http}\n");
        parse(&text).map_or_else(|faults| faults.to_string(), |_| String::new())
    }

    #[test]
    fn a_page_says_what_policy_has_it_say() {
        for http in [
            "",
            "body = \"Come back later.\\n\"",
            "body = '{\"error\":\"busy\"}'\ncontent-type = \"application/json\"\nheaders = { X-Reason = \"limit\" }",
            "headers = { Cache-Control = \"no-store\", Access-Control-Allow-Origin = \"*\" }",
        ] {
            assert_eq!(faults(http), "", "{http}");
        }
    }

    #[test]
    fn nothing_in_a_header_begins_another() {
        for (http, reason) in [
            ("headers = { X-Reason = \"a\\r\\nSet-Cookie: b\" }", r#""a\r\nSet-Cookie: b" is no value"#),
            ("headers = { X-Reason = \"a\\nb\" }", "is no value"),
            ("headers = { \"X\\r\\nY\" = \"a\" }", r"`X\r\nY` is no name"),
            ("headers = { \"X Y\" = \"a\" }", "is no name"),
            ("headers = { \"X:\" = \"a\" }", "is no name"),
            ("headers = { X = \"\" }", "is no value"),
            ("headers = { X = \" a\" }", "is no value"),
            ("headers = { X = \"ä\" }", "is no value"),
            ("content-type = \"text/plain\\r\\nX: y\"", "is no value"),
        ] {
            let faults = faults(http);
            assert!(faults.contains(reason), "{http}: {faults}");
        }
    }

    #[test]
    fn what_a_page_says_by_itself_nobody_else_does() {
        for name in ["Retry-After", "retry-after", "Content-Length", "Transfer-Encoding", "Connection", "Content-Type"]
        {
            let faults = faults(&format!("headers = {{ {name} = \"1\" }}"));
            assert!(faults.contains(&format!("a page says {name} by itself")), "{faults}");
        }
    }

    #[test]
    fn a_page_fits_its_frame() {
        // What every page has, with a length of three digits and a type: 42 + 2 + 26 bytes.
        let body = |length: usize| faults(&format!("body = \"{}\"", "x".repeat(length)));
        assert_eq!(body(130), "");
        assert!(body(131).contains("the page is 1 bytes too long"), "{}", body(131));
    }

    #[test]
    fn only_tcp_has_pages() {
        let udp = "[[service]]\nname = \"dns\"\nprotocol = \"udp\"\nports = [53]\n[service.http]\n";
        let faults = parse(udp).unwrap_err().to_string();
        assert!(faults.contains("a udp service does not speak plain HTTP"), "{faults}");
    }
}
