//! The document as a whole: what may be written, and what comes back.

use super::*;

/// A document that uses every field.
pub(super) const EXAMPLE: &str = r#"
mode = "enforce"

[[service]]
name = "web"
protocol = "tcp"
ports = [80, "8000-8080"]
destination = "10.0.0.0/8"
forwarded = true
idle-after = "1h"

[service.health]
mode = "enforce"
control = "aimd"
objective = "100ms"
speaks = "tls"
least = 4
most = 100
breaker = false

[[backend]]
name = "web-1"
service = "web"
address = "10.0.0.5:8080"
probe = "http:/healthz"
interval = "1s"
timeout = "500ms"

[[backend]]
name = "web-2"
service = "web"
address = "dns:web.internal:8080"

[[limit]]
name = "new-connections"
service = "web"
unit = "connections"
rate = "50/min"
burst = 50
action = "reject"
mode = "observe"
overflow = "refuse"
prefix = { ipv4 = 24, ipv6 = 56 }
aggregate = { ipv4 = 16, ipv6 = 40 }
sources = 3000

[[limit]]
name = "traffic"
unit = "bytes"
rate = "10Mbit/s"
burst = "256KiB"

[[limit]]
name = "open"
service = "web"
unit = "connections"
concurrent = 200
per = "service"

[sources]
allow = ["192.0.2.0/24"]
known = ["198.51.100.7", "2001:db8::/32"]
block = ["203.0.113.0/24"]

[shapes]
arp = "drop"
too-many-vlans = "pass"

[answers]
rate = "2000/s"

[events]
rate = "0/s"
"#;

#[test]
fn every_field_can_be_written_and_comes_back() {
    let document = parse(EXAMPLE).unwrap();
    assert_eq!(parse(&to_toml(&document)).unwrap(), document);
    let json = serde_json::to_string(&document).unwrap();
    assert_eq!(serde_json::from_str::<Document>(&json).unwrap(), document);
    let default = Document::default();
    assert_eq!(parse("").unwrap(), default);
    assert_eq!(parse(&to_toml(&default)).unwrap(), default);
}
