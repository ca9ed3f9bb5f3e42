use std::time::Duration;

use super::*;
use crate::policy::{Probe, Protocol};

fn target(backend: &str, endpoint: Endpoint) -> Target {
    Target {
        service: "web".into(),
        backend: backend.into(),
        protocol: Protocol::Tcp,
        endpoint,
        probe: Probe::Tcp,
        interval: Duration::from_millis(200),
        timeout: Duration::from_secs(1),
    }
}

fn name() -> Endpoint {
    Endpoint::Dns { name: "web.internal".to_owned(), port: 80 }
}

fn file() -> Endpoint {
    Endpoint::File("/etc/web.backends".into())
}

fn addresses(texts: &[&str]) -> Vec<SocketAddr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn known(book: &Book) -> Vec<String> {
    book.members().iter().map(|member| format!("{} {}", member.instance.backend, member.instance.address)).collect()
}

fn signature(inode: u64) -> Signature {
    Signature::for_test(inode)
}

#[test]
fn a_name_is_looked_up_at_once_and_then_every_five_seconds() {
    let mut book = Book::default();
    book.want(&[target("a", name()), target("b", name())]);
    assert_eq!(book.due(0).len(), 1, "once, however many want it");
    book.asked(&name(), 0);
    assert!(book.due(SECOND).is_empty(), "not while it is looked up");
    assert!(book.found(
        &name(),
        Found::Addresses(Ok(addresses(&["10.0.0.6:80", "10.0.0.5:80", "10.0.0.5:80"]))),
        SECOND
    ));
    assert_eq!(known(&book), ["a 10.0.0.5:80", "a 10.0.0.6:80", "b 10.0.0.5:80", "b 10.0.0.6:80"]);
    assert!(book.due(6 * SECOND - 1).is_empty());
    assert_eq!(book.due(6 * SECOND).len(), 1);
    assert_eq!(&*book.members()[0].host, "web.internal:80");
}

#[test]
fn what_cannot_be_found_changes_nothing_and_is_told() {
    let mut book = Book::default();
    book.want(&[target("a", name())]);
    book.found(&name(), Found::Addresses(Err("no such host".to_owned())), 0);
    assert_eq!(book.fault(0).unwrap_err(), "the name web.internal: no such host; no address of it is known");
    book.found(&name(), Found::Addresses(Ok(addresses(&["10.0.0.5:80"]))), 0);
    assert_eq!(book.fault(0), Ok(()));
    for nothing in [Ok(vec![]), Err("no such host".to_owned())] {
        assert!(!book.found(&name(), Found::Addresses(nothing), 0));
        assert_eq!(known(&book), ["a 10.0.0.5:80"]);
        assert!(book.fault(0).unwrap_err().ends_with("; its 1 addresses of before stay"));
    }
}

#[test]
fn a_resolver_that_is_silent_is_told_with_one_text() {
    let mut book = Book::default();
    book.want(&[target("a", name())]);
    book.asked(&name(), 0);
    assert_eq!(book.fault(LONG - 1), Ok(()));
    assert!(book.fault(LONG).unwrap_err().contains("no answer for 10 s"));
    assert_eq!(book.fault(LONG), book.fault(3 * LONG), "so that the log has it once");
}

#[test]
fn a_file_that_is_being_written_waits_until_it_rests() {
    let mut book = Book::default();
    book.want(&[target("a", file())]);
    assert!(book.found(&file(), Found::Listed(signature(1), Ok(addresses(&["10.0.0.5:80"]))), 0));
    assert!(!book.found(&file(), Found::Changing(signature(2)), 0));
    let Due::File { known, .. } = &book.due(0)[0].1 else { panic!("no file") };
    assert_eq!((known.read, known.resting), (Some(signature(1)), Some(signature(2))));
    assert!(book.found(&file(), Found::Listed(signature(2), Ok(addresses(&["10.0.0.6:80"]))), 0));
    assert!(!book.found(&file(), Found::Listed(signature(3), Err("line 1: nonsense".to_owned())), 0));
    assert_eq!(known_addresses(&book), ["10.0.0.6:80"]);
    assert!(book.fault(0).unwrap_err().contains("/etc/web.backends: line 1: nonsense"));
    assert!(!book.found(&file(), Found::Same, 0));
    assert!(book.fault(0).is_err(), "it is told for as long as the file is so");
}

fn known_addresses(book: &Book) -> Vec<String> {
    book.members().iter().map(|member| member.instance.address.to_string()).collect()
}

#[test]
fn who_is_not_wanted_any_more_is_forgotten() {
    let mut book = Book::default();
    book.want(&[target("a", name()), target("b", file())]);
    book.found(&name(), Found::Addresses(Ok(addresses(&["10.0.0.5:80"]))), 0);
    book.want(&[target("a", name()), target("c", Endpoint::Static("10.0.0.7:80".parse().unwrap()))]);
    assert_eq!(known(&book), ["a 10.0.0.5:80", "c 10.0.0.7:80"], "who stays is known as before");
    assert!(!book.found(&file(), Found::Same, 0), "what comes late is of nobody");
    book.want(&[]);
    assert!(book.members().is_empty() && book.due(u64::MAX).is_empty());
}

#[test]
fn only_so_many_are_watched() {
    let mut book = Book::default();
    let targets: Vec<_> = (0..5).map(|number| target(&number.to_string(), name())).collect();
    book.want(&targets);
    let many = (0..4_000u16).map(|number| SocketAddr::from(([10, 0, 0, 1], number + 1))).collect();
    book.found(&name(), Found::Addresses(Ok(many)), 0);
    assert_eq!(book.members().len(), MOST);
    assert!(book.fault(0).unwrap_err().starts_with("backends come to 20000 addresses"));
}
