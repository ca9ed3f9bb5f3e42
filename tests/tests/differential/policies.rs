//! The policies that random arrivals meet.
//!
//! Small regions, so that sources meet in sets; every unit and every rule; limits that observe among those that refuse;
//! guarantees under parents of every kind, and overrides of both; limits of a service, which go by its clock, beside the
//! host's.

/// All of them, each with what CPUs take ahead: units of every bucket that sources share, where they do.
pub(crate) fn policies() -> Vec<(String, Option<u32>)> {
    let charged = PLAIN.into_iter().chain(SERVED).map(str::to_owned).chain(GUARANTEED.iter().map(guaranteed));
    let leased = LEASED.into_iter().map(|(policy, units)| (policy.to_owned(), Some(units)));
    charged.map(|policy| (policy, None)).chain(leased).collect()
}

/// Limits that sources share, alone and beside others, and units of a batch.
const LEASED: [(&str, u32); 3] = [
    (
        r#"
mode = "enforce"
[[limit]]
name = "s"
unit = "packets"
rate = "20/s"
burst = 12
per = "host"
"#,
        3,
    ),
    (
        r#"
mode = "enforce"
[[limit]]
name = "t"
unit = "packets"
rate = "9/s"
burst = 4
sources = 12
[[limit]]
name = "u"
unit = "bytes"
rate = "20000B/s"
burst = "20000B"
per = "host"
"#,
        2_000,
    ),
    (
        r#"
mode = "enforce"
[[tenant]]
name = "acme"
sources = ["192.0.0.0/28", "2001:db8::/62"]
[[tenant]]
name = "globex"
sources = ["192.0.1.0/24", "2001:db8:0:8::/61"]
[[limit]]
name = "v"
unit = "packets"
rate = "15/s"
burst = 9
per = "tenant"
[[limit]]
name = "w"
unit = "connections"
rate = "10/s"
burst = 8
per = "host"
mode = "observe"
[[limit]]
name = "x"
unit = "packets"
rate = "25/s"
burst = 20
per = "host"
"#,
        4,
    ),
];

/// Limits without guarantees.
const PLAIN: [&str; 8] = [
    r#"
mode = "enforce"
[[limit]]
name = "a"
unit = "packets"
rate = "20/s"
burst = 5
sources = 24
"#,
    r#"
mode = "enforce"
[sources]
known = ["192.0.2.0/30", "2001:db8:0:1::/64"]
[[limit]]
name = "b"
unit = "bytes"
rate = "7777B/s"
burst = "3000B"
sources = 9
overflow = "refuse"
[[limit]]
name = "c"
unit = "packets"
rate = "13/s"
burst = 3
sources = 6
"#,
    r#"
mode = "enforce"
[[limit]]
name = "d"
unit = "packets"
rate = "30/s"
burst = 4
mode = "observe"
sources = 12
[[limit]]
name = "e"
unit = "connections"
rate = "11/s"
burst = 2
sources = 3
overflow = "admit"
[[limit]]
name = "f"
unit = "packets"
rate = "17/s"
burst = 6
sources = 12
prefix = { ipv4 = 30, ipv6 = 72 }
aggregate = { ipv4 = 20, ipv6 = 40 }
"#,
    r#"
[[limit]]
name = "g"
unit = "packets"
rate = "1000000/s"
burst = 7
sources = 12
[[limit]]
name = "h"
unit = "bytes"
rate = "100Mbit/s"
sources = 12
"#,
    r#"
mode = "enforce"
[[limit]]
name = "i"
unit = "packets"
rate = "20/s"
algorithm = "sliding-window"
sources = 12
"#,
    r#"
mode = "enforce"
[sources]
known = ["192.0.2.0/30", "2001:db8:0:1::/64"]
[[limit]]
name = "j"
unit = "bytes"
rate = "40000B/s"
algorithm = "sliding-window"
sources = 9
overflow = "admit"
[[limit]]
name = "k"
unit = "packets"
rate = "13/s"
algorithm = "fixed-window"
sources = 6
[[limit]]
name = "l"
unit = "packets"
rate = "25/s"
algorithm = "sliding-window"
sources = 18
prefix = { ipv4 = 30, ipv6 = 72 }
aggregate = { ipv4 = 20, ipv6 = 40 }
"#,
    r#"
mode = "enforce"
[[limit]]
name = "m"
unit = "packets"
rate = "40/s"
algorithm = "leaky-bucket"
mode = "observe"
sources = 12
[[limit]]
name = "n"
unit = "bytes"
rate = "30000B/s"
algorithm = "fixed-window"
sources = 12
overflow = "refuse"
[[limit]]
name = "o"
unit = "connections"
rate = "5/s"
algorithm = "sliding-window"
sources = 6
mode = "observe"
"#,
    r#"
mode = "enforce"
[[tenant]]
name = "acme"
sources = ["192.0.0.0/28", "2001:db8::/62"]
[[limit]]
name = "s"
unit = "packets"
rate = "20/s"
burst = 5
sources = 800
[[limit]]
name = "t"
unit = "bytes"
rate = "7777B/s"
burst = "3000B"
per = "tenant"
[[limit]]
name = "u"
unit = "packets"
rate = "30/s"
algorithm = "leaky-bucket"
per = "host"
"#,
];

/// A service and a tenant, with what is written of their limits.
macro_rules! served {
    ($limits:literal) => {
        concat!(
            r#"
mode = "enforce"
[[service]]
name = "web"
protocol = "tcp"
ports = [80]
[[tenant]]
name = "acme"
sources = ["192.0.0.0/28", "2001:db8::/62"]
"#,
            $limits
        )
    };
}

/// Limits of a service, of its sources, of tenants at it, and of all that it serves.
const SERVED: [&str; 2] = [
    served!(
        r#"[[limit]]
name = "a"
service = "web"
unit = "packets"
rate = "20/s"
burst = 5
sources = 24
[[limit]]
name = "b"
service = "web"
unit = "bytes"
rate = "15000B/s"
burst = "6000B"
per = "tenant"
[[limit]]
name = "c"
service = "web"
unit = "connections"
rate = "9/s"
burst = 4
per = "service"
[[limit]]
name = "d"
unit = "packets"
rate = "30/s"
burst = 12
per = "host"
"#
    ),
    served!(
        r#"[[tenant]]
name = "globex"
sources = ["192.0.1.0/24", "2001:db8:0:8::/61"]
[[limit]]
name = "e"
service = "web"
unit = "packets"
rate = "15/s"
algorithm = "sliding-window"
sources = 800
[[limit.override]]
sources = ["192.0.0.0/29", "2001:db8::/63"]
rate = "40/s"
[[limit]]
name = "f"
service = "web"
unit = "packets"
rate = "20/s"
burst = 8
per = "tenant"
guarantee = "4/s"
guarantee-burst = 2
[[limit]]
name = "g"
service = "web"
unit = "packets"
rate = "30/s"
burst = 9
per = "service"
guarantee = "10/s"
guarantee-burst = 3
[[limit]]
name = "h"
unit = "packets"
rate = "40/s"
algorithm = "fixed-window"
per = "host"
"#
    ),
];

/// A tenant's ceiling and what an override makes of it, and what all share: rates, and how each decides.
struct Ceiling {
    rate: &'static str,
    decides: &'static str,
    overridden: &'static str,
    shared: &'static str,
    shared_decides: &'static str,
}

const GUARANTEED: [Ceiling; 4] = [
    Ceiling { rate: "30/s", decides: "burst = 10", overridden: "15/s", shared: "40/s", shared_decides: "token-bucket" },
    Ceiling { rate: "30/s", decides: "", overridden: "15/s", shared: "16/s", shared_decides: "fixed-window" },
    Ceiling {
        rate: "20/s",
        decides: "algorithm = \"fixed-window\"",
        overridden: "9/s",
        shared: "25/s",
        shared_decides: "fixed-window",
    },
    Ceiling {
        rate: "25/s",
        decides: "algorithm = \"fixed-window\"",
        overridden: "12/s",
        shared: "15/s",
        shared_decides: "leaky-bucket",
    },
];

/// The limits of two tenants and of their sources under such a ceiling.
fn guaranteed(ceiling: &Ceiling) -> String {
    let Ceiling { rate, decides, overridden, shared, shared_decides } = ceiling;
    format!(
        r#"
mode = "enforce"
[[tenant]]
name = "acme"
sources = ["192.0.0.0/28", "2001:db8::/62"]
[[tenant]]
name = "globex"
sources = ["192.0.1.0/24", "2001:db8:0:8::/61", "192.0.0.8/30"]
[[limit]]
name = "p"
unit = "packets"
rate = "20/s"
burst = 5
sources = 24
[[limit.override]]
sources = ["192.0.0.0/29", "2001:db8::/63"]
rate = "90/s"
burst = 9
[[limit.override]]
tenant = "globex"
rate = "7/s"
[[limit.override]]
sources = ["192.0.0.4"]
burst = 1
[[limit]]
name = "q"
unit = "packets"
rate = "{rate}"
per = "tenant"
{decides}
guarantee = "10/s"
guarantee-burst = 3
[[limit.override]]
tenant = "globex"
rate = "{overridden}"
guarantee = "4/s"
[[limit]]
name = "r"
unit = "packets"
rate = "{shared}"
algorithm = "{shared_decides}"
per = "host"
"#
    )
}
