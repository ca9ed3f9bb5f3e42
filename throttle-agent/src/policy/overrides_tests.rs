//! What passes the check fits the kernel's map of overrides.

use super::{
    Document, Guarantee, Layout, Override, Tenant, arbitrary::documents, compile, compile::overridings, parse,
};
use proptest::prelude::*;
use throttle_common::records::MAX_OVERRIDES;

const SERVICES: usize = 31;
/// Of each service a limit and its guarantee, and the limit everywhere: of that, too, each tenant has its own share.
const TERMS_OF_A_TENANT: usize = 2 * SERVICES + 1;

fn limit(name: &str, says: &str) -> String {
    format!("[[limit]]\nname = \"{name}\"\nunit = \"connections\"\nper = \"tenant\"\n{says}\n")
}

/// A limit on each tenant's open connections, and narrower ones at services that guarantee each tenant more of these than
/// the limits say.
fn guaranteed_at_services(tenants: usize) -> Document {
    let at = |number: usize| {
        let service = format!("[[service]]\nname = \"s{number}\"\nprotocol = \"tcp\"\nports = [{}]\n", number + 1);
        let says = format!("concurrent = 1000\nguarantee = 1\nservice = \"s{number}\"");
        service + &limit(&format!("at-{number}"), &says)
    };
    let services: String = (0..SERVICES).map(at).collect();
    let mut document = parse(&(limit("everywhere", "concurrent = 10000") + &services)).unwrap();
    let tenant = |number: usize| {
        let source = format!("10.{}.{}.0/24", number >> 8, number & 255);
        Tenant { name: format!("t{number}"), sources: vec![source.parse().unwrap()] }
    };
    document.tenants = (0..tenants).map(tenant).collect::<Vec<_>>().into();
    let more = |number| Override {
        tenant: Some(format!("t{number}")),
        guarantee: Some(Guarantee::Connections(2)),
        ..Override::default()
    };
    for limit in document.limits.iter_mut().filter(|limit| limit.service.is_some()) {
        limit.overrides = (0..tenants).map(more).collect();
    }
    document
}

#[test]
fn overrides_that_make_more_terms_than_the_kernel_holds_are_refused() {
    let tenants = MAX_OVERRIDES as usize / TERMS_OF_A_TENANT + 1;
    let document = guaranteed_at_services(tenants);
    let compiled = compile(&document, 1, &Layout { sets: 1 << 20, ..Layout::default() });
    let refused = compiled.map(|it| it.overridden.len()).unwrap_err().0;
    assert_eq!(refused.iter().map(|it| it.path.as_str()).collect::<Vec<_>>(), ["limit"]);
    assert!(refused[0].to_string().contains(&format!("{tenants} kinds of sources")), "{refused:?}");
}

proptest! {
    #[test]
    fn the_check_counts_what_is_compiled(document in documents()) {
        if let Ok(compiled) = compile(&document, 1, &Layout { sets: 1 << 20, ..Layout::default() }) {
            prop_assert_eq!(overridings(&document), compiled.overridden.len());
        }
    }
}
