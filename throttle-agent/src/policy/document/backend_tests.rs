//! What is shown of backends reads back, and what is wrong is told how to be right.

use super::*;
use proptest::prelude::*;

proptest! {
    #[test]
    fn an_address_shown_reads_back(address in any::<IpAddr>(), port in 1u16..) {
        let endpoint = Endpoint::Static(SocketAddr::new(address, port));
        prop_assume!(endpoint.to_string().parse::<Endpoint>().is_ok());
        prop_assert_eq!(endpoint.to_string().parse(), Ok(endpoint));
    }

    #[test]
    fn a_name_or_a_file_shown_reads_back(name in "[a-z0-9-]{1,20}(\\.[a-z_]{1,20}){1,3}\\.?", port in 1u16.., path in "(/[a-z .:-]{0,8}[a-z]){1,4}") {
        for endpoint in [Endpoint::Dns { name, port }, Endpoint::File(path.into())] {
            prop_assert_eq!(endpoint.to_string().parse(), Ok(endpoint.clone()));
        }
    }

    #[test]
    fn a_probe_shown_reads_back(path in "/[a-z?&=:]{0,20}", service in "[a-zA-Z.]{0,20}") {
        for probe in [Probe::Tcp, Probe::Push, Probe::Http { path }, Probe::Grpc { service }] {
            prop_assert_eq!(probe.to_string().parse(), Ok(probe.clone()));
        }
    }

    #[test]
    fn no_text_is_too_strange_to_be_refused(text in "(dns:|file:|http:|grpc:)?.{0,20}") {
        let _ = text.parse::<Endpoint>();
        let _ = text.parse::<Probe>();
    }
}

#[test]
fn each_wrong_address_is_named_with_its_remedy() {
    let fault = |text: &str| text.parse::<Endpoint>().unwrap_err().to_string();
    assert_eq!(fault("10.0.0.5"), "`10.0.0.5` names no port; write it with one, such as 10.0.0.5:80");
    assert_eq!(fault("2001:db8::5"), "`2001:db8::5` names no port; write it with one, such as [2001:db8::5]:80");
    assert_eq!(fault("10.0.0.5:0"), "`10.0.0.5:0` has no port; write 10.0.0.5:80");
    assert_eq!(fault("web.internal:80"), "`web.internal:80` is a name, not an address; write dns:web.internal:80");
    assert_eq!(fault("dns:web.internal"), "`dns:web.internal` names no port; write dns:web.internal:80");
    assert_eq!(fault("dns:10.0.0.5:80"), "`10.0.0.5` is an address, not a name; write 10.0.0.5:80");
    assert!(fault("dns:web.internal:http").contains("`http` is no port"));
    assert!(fault("dns:a..b:80").contains("is no name of a host"));
    assert!(fault("file:web.backends").contains("from the root on"));
    assert!(fault("0.0.0.0:80").contains("is nobody's address"));
    assert!(fault("[::ffff:10.0.0.5]:80").ends_with("write 10.0.0.5:80"));
    assert!(fault("[fe80::1%2]:80").contains("names an interface"));
    assert!(fault("nowhere").contains("dns:NAME:PORT or file:PATH"));
}

#[test]
fn each_wrong_probe_is_named_with_its_remedy() {
    let fault = |text: &str| text.parse::<Probe>().unwrap_err().to_string();
    assert_eq!(fault("icmp"), "`icmp` is no probe; write tcp, http:/healthz, grpc:SERVICE or push");
    for text in ["http", "http:healthz", "http://:80/healthz", "http:/a b"] {
        assert!(fault(text).contains("host and port are the backend's"), "{text}");
    }
}

#[test]
fn who_says_nothing_has_four_objectives_for_an_answer() {
    use crate::policy::{Health, Protocol};
    let backend = Backend::new("one", "web", "10.0.0.5:80".parse().unwrap());
    let at = |objective: u64| {
        let health = Health { objective: Span::of_millis(objective), ..Health::default() };
        let service = Service { health: Some(health), ..Service::new("web", Protocol::Tcp, Vec::new()) };
        backend.timeout_at(&service).millis()
    };
    assert_eq!([at(1), at(100), at(60_000)], [100, 400, 5_000]);
    assert_eq!(backend.timeout_at(&Service::new("web", Protocol::Tcp, Vec::new())).millis(), 1_000);
    let short = Backend { timeout: Some(Span::of_millis(70)), ..backend };
    assert_eq!(short.timeout_at(&Service::new("web", Protocol::Tcp, Vec::new())).millis(), 70);
}
