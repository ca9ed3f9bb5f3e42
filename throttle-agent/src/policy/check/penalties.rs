//! Penalties: of whom they make sense, and that nobody is blocked in another's name by mistake.

use crate::policy::{
    document::{Document, Limit, Penalty, Protocol, Service},
    fault::{Diagnostic, Fault},
    read::Unread,
    word::Word as _,
};
use throttle_common::{penalties, words::Per};

/// Sources as large as these are many people's.
const WIDE: [u8; 2] = [23, 47];

pub(super) fn check(document: &Document, unread: &Unread, found: &mut Vec<Diagnostic>) {
    for (index, limit) in document.limits.iter().enumerate() {
        let Some(penalty) = &limit.penalty else { continue };
        let path = format!("limit[{index}].penalty");
        if unread.spares(&path) {
            let mut wrong = |field: &str, fault: Fault| found.push(fault.at(format!("{path}{field}")));
            if unread.spares(&format!("limit[{index}].per")) {
                shared(limit, &mut wrong);
            }
            bounds(penalty, &mut wrong);
        }
    }
}

/// It is a source that is blocked.
fn shared(limit: &Limit, wrong: &mut impl FnMut(&str, Fault)) {
    let sharers = match limit.per {
        Per::Source => return,
        Per::Tenant => "the sources of a tenant",
        Per::Service => "all who use a service",
        Per::Host => "all who use this host",
    };
    let reason = format!("{sharers} share this limit, so that a refusal says nothing of the one who is refused");
    wrong("", Fault::new(reason, "leave the penalty out, or give one to a limit with per = \"source\""));
}

fn bounds(penalty: &Penalty, wrong: &mut impl FnMut(&str, Fault)) {
    let Penalty { after, within, block, at_most, .. } = *penalty;
    if after == 0 || after > penalties::MOST {
        let reason = format!("after {after} refusals");
        let remedy = format!("write 1 to {}; to refuse sources altogether, block them", penalties::MOST);
        wrong(".after", Fault::new(reason, remedy));
    }
    let [least, most] = Penalty::WITHIN;
    if within < least || within > most {
        let reason = format!("{within} is not between {least} and {most}");
        wrong(".within", Fault::new(reason, "write how long refusals count together, such as \"10s\""));
    } else if block < within {
        let reason = format!("a block of {block} is over before the refusals that led to it are forgotten");
        wrong(".block", Fault::new(reason, format!("write at least \"{within}\", which is `within`")));
    }
    if at_most < block {
        let reason = format!("the first block, of {block}, would be longer than the longest, {at_most}");
        wrong(".at-most", Fault::new(reason, format!("write at-most = \"{block}\" or more, or a shorter `block`")));
    } else if at_most > Penalty::LONGEST {
        let reason = format!("{at_most} is longer than {}", Penalty::LONGEST);
        wrong(".at-most", Fault::new(reason, "to keep somebody out for good, block it"));
    }
}

pub(super) fn warn(document: &Document, warn: &mut impl FnMut(String, String, &str)) {
    for (index, limit) in document.limits.iter().enumerate() {
        let Some(penalty) = &limit.penalty else { continue };
        let path = |field: &str| format!("limit[{index}].penalty{field}");
        let service = limit.service.as_ref();
        let service = service.and_then(|name| document.services.iter().find(|service| service.name == *name));
        if penalty.unproven {
            let reason = "whoever sends in the name of others can have them blocked";
            let remedy =
                "leave it out, unless no forged addresses reach this host; and allow whom you cannot do without";
            warn(path(".unproven"), reason.to_owned(), remedy);
        } else if let Some(reason) = service.and_then(unprovable) {
            let remedy = "write unproven = true where no forged addresses reach this host, or name whom you trust to be \
                          genuine in `known`";
            warn(path(""), reason, remedy);
        }
        let lengths = [limit.prefix.ipv4, limit.prefix.ipv6];
        if let Some((length, _)) = lengths.into_iter().zip(WIDE).find(|(length, wide)| length <= wide) {
            let reason = format!("it blocks all of a /{length} for what one of it does");
            warn(path(""), reason, "make sources smaller with `prefix`, or leave the penalty out");
        }
    }
}

/// Why no handshake proves a source of a service.
fn unprovable(service: &Service) -> Option<String> {
    if service.protocol != Protocol::Tcp {
        let protocol = service.protocol.name();
        Some(format!("nothing proves whom {protocol} comes from, so that it blocks `known` sources alone"))
    } else if service.forwarded {
        Some(
            "its handshakes are with other hosts, and prove nobody here, so that it blocks `known` sources alone"
                .into(),
        )
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::parse_with_warnings;

    fn told(service: &str, limit: &str, penalty: &str) -> String {
        let service = format!("[[service]]\nname = \"web\"\n{service}\n");
        let limit =
            format!("[[limit]]\nname = \"opens\"\nservice = \"web\"\nunit = \"packets\"\nrate = \"9/s\"\n{limit}\n");
        let text = format!("mode = \"enforce\"\n{service}{limit}[limit.penalty]\n{penalty}\n");
        match parse_with_warnings(&text) {
            Err(faults) => faults.to_string(),
            Ok((_, warnings)) => warnings.iter().map(Diagnostic::text).filter(|it| it.contains("penalty")).collect(),
        }
    }

    const TCP: &str = "protocol = \"tcp\"\nports = [80]";
    const PLAIN: &str = "after = 100\nwithin = \"10s\"";

    #[test]
    fn a_penalty_of_a_source_is_right_and_nothing_is_said_of_it() {
        for penalty in [
            PLAIN,
            "after = 1\nwithin = \"1s\"\nblock = \"1s\"\nat-most = \"1s\"",
            "after = 9\nwithin = \"1d\"\nblock = \"1d\"\nat-most = \"30d\"",
        ] {
            assert_eq!(told(TCP, "", penalty), "", "{penalty}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_the_reason() {
        for (limit, penalty, reason) in [
            ("per = \"service\"", PLAIN, "all who use a service share this limit"),
            ("per = \"tenant\"", PLAIN, "the sources of a tenant share this limit"),
            ("", "after = 0\nwithin = \"10s\"", "after 0 refusals"),
            ("", "after = 1000001\nwithin = \"10s\"", "after 1000001 refusals"),
            ("", "after = 3\nwithin = \"0s\"", "0s is not between 1s and 1d"),
            ("", "after = 3\nwithin = \"2d\"", "2d is not between 1s and 1d"),
            ("", "after = 3\nwithin = \"2m\"", "a block of 1m is over before"),
            ("", "after = 3\nwithin = \"2s\"\nblock = \"2h\"", "would be longer than the longest, 1h"),
            ("", "after = 3\nwithin = \"2s\"\nat-most = \"31d\"", "31d is longer than 30d"),
            ("", "within = \"2s\"", "`after` is missing"),
            ("", "after = 3", "`within` is missing"),
            ("", "after = 3\nwithin = \"2s\"\nfor = \"1m\"", "`for`"),
        ] {
            let told = told(TCP, limit, penalty);
            assert!(told.contains(reason), "{penalty}: {told}");
        }
    }

    #[test]
    fn it_is_warned_where_anybody_could_be_blocked_or_nobody_ever_is() {
        let udp = "protocol = \"udp\"\nports = [53]";
        for (service, limit, penalty, reason) in [
            (TCP, "", "after = 3\nwithin = \"2s\"\nunproven = true", "in the name of others can have them blocked"),
            (udp, "", PLAIN, "nothing proves whom udp comes from"),
            ("protocol = \"icmp\"", "", PLAIN, "nothing proves whom icmp comes from"),
            ("protocol = \"tcp\"\nports = [80]\nforwarded = true", "", PLAIN, "with other hosts"),
            (TCP, "prefix = { ipv4 = 16 }\naggregate = { ipv4 = 8 }", PLAIN, "it blocks all of a /16"),
        ] {
            let told = told(service, limit, penalty);
            assert!(told.contains(reason), "{penalty}: {told}");
        }
    }
}
