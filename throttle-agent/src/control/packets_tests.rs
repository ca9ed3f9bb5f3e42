//! Which address stands for a service.

use throttle_common::records::{NONE, port_slot};

use super::*;
use crate::policy::{self, Layout};

/// Of a service that no packet reaches.
const NOWHERE: &str = "nowhere";

/// The services of one TCP port with these destinations, each with where a packet of a source to it goes.
fn chosen(source: &str, to: Option<&str>, destinations: &[&str]) -> Vec<String> {
    let service = |(number, destination): (usize, &&str)| {
        let to = if destination.is_empty() { String::new() } else { format!("destination = \"{destination}\"\n") };
        format!("[[service]]\nname = \"s{number}\"\nprotocol = \"tcp\"\nports = [80]\n{to}")
    };
    let text: String = destinations.iter().enumerate().map(service).collect();
    let compiled = policy::compile(&policy::parse(&text).unwrap(), 1, &Layout::default()).unwrap();
    assert_eq!(compiled.ports, [(port_slot(0, 80), 1)]);
    let service = |number: u16| compiled.services[usize::from(number) - 1];
    let sharing: Vec<u16> = compiled.candidates[0].into_iter().take_while(|&number| number != NONE).collect();
    let query = ExplainQuery {
        address: source.parse().unwrap(),
        port: None,
        protocol: None,
        to: to.map(|to| to.parse().unwrap()),
        length: None,
        established: false,
    };
    let of = |number: u16| {
        let place = sharing.iter().position(|&it| it == number).unwrap();
        let before: Vec<_> = sharing[..place].iter().map(|&it| service(it)).collect();
        let Some(to) = address_of(&service(number), &before, &query) else { return NOWHERE.to_owned() };
        // By the kernel's rule it is this service's indeed.
        let found = packet(query.address, Some(to), protocol::TCP, 80, true);
        assert_eq!(sharing.iter().find(|&&it| reaches(&service(it), &found)), Some(&number));
        to.to_string()
    };
    (1..=destinations.len() as u16).map(of).collect()
}

#[test]
fn a_service_is_asked_at_its_first_address_that_no_narrower_one_claims() {
    let nested = ["10.0.0.0/8", "10.0.0.0/16", "10.1.0.0/24", "10.0.0.0/32"];
    assert_eq!(chosen("203.0.113.7", None, &nested), ["10.1.1.0", "10.0.0.1", "10.1.0.0", "10.0.0.0"]);
    // Any address stands for a service without a destination, also where the narrower ones claim the first.
    assert_eq!(chosen("203.0.113.7", None, &["", "192.0.2.0/24"]), ["0.0.0.0", "192.0.2.0"]);
    assert_eq!(chosen("203.0.113.7", None, &["", "0.0.0.0/1"]), ["128.0.0.0", "0.0.0.0"]);
    let six = ["2001:db8::/32", "2001:db8::/64"];
    assert_eq!(chosen("2001:db8:9::1", None, &six), ["2001:db8:0:1::", "2001:db8::"]);
}

#[test]
fn a_service_that_no_packet_reaches_is_not_asked_about() {
    let halves = ["10.0.0.0/8", "10.0.0.0/9", "10.128.0.0/9"];
    assert_eq!(chosen("203.0.113.7", None, &halves), [NOWHERE, "10.0.0.0", "10.128.0.0"]);
    assert_eq!(chosen("203.0.113.7", None, &["", "0.0.0.0/0"]), [NOWHERE, "0.0.0.0"]);
    assert_eq!(chosen("2001:db8::1", None, &["::/0", "2001:db8::/32", ""]), ["::", "2001:db8::", NOWHERE]);
    assert_eq!(chosen("203.0.113.7", None, &["255.255.255.254/31", "255.255.255.255/32"])[0], "255.255.255.254");
    assert_eq!(chosen("2001:db8::1", None, &["10.0.0.0/8"]), [NOWHERE], "of the other family");
}

#[test]
fn who_names_an_address_asks_about_the_service_that_is_there() {
    let nested = ["10.0.0.0/8", "10.0.0.0/16", ""];
    assert_eq!(chosen("203.0.113.7", Some("10.0.3.4"), &nested), [NOWHERE, "10.0.3.4", NOWHERE]);
    assert_eq!(chosen("203.0.113.7", Some("192.0.2.1"), &nested), [NOWHERE, NOWHERE, "192.0.2.1"]);
}
