//! Health clocks in the kernel program: what they read, whatever is published, expires or is left half-written
//! ([`readings`]), and what limits admit by them ([`rates`]).

mod rates;
mod readings;

use throttle_common::speed::Speed;

fn speed(sixteenths: usize) -> Speed {
    Speed::of_parts((sixteenths as u64) << 12).expect("from a sixteenth to one")
}

/// One host-wide limit per source, deep enough that no frame here is refused by it.
const PROBE: &str = "mode = \"enforce\"\n[[limit]]\nname = \"probe\"\nunit = \"packets\"\nrate = \"1000/s\"\n";

/// Two services, and a limit of each.
const WEB_AND_DNS: &str = r#"
mode = "enforce"
[[service]]
name = "web"
protocol = "udp"
ports = [80]
[[service]]
name = "dns"
protocol = "udp"
ports = [53]
[[limit]]
name = "web"
service = "web"
unit = "packets"
rate = "1000/s"
burst = 10
[[limit]]
name = "dns"
service = "dns"
unit = "packets"
rate = "1000/s"
burst = 10
"#;
