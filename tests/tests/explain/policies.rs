//! The policies that questions are asked under: drawn so that what a packet may meet is met, and places run out.

use std::fmt::Write as _;

use throttle_tests::frames::Dice;

/// Tenants, whose sources are drawn; and what is there beside the services whose connections are counted or kept away.
const OTHERS: &str = r#"
[[tenant]]
name = "acme"
sources = ["203.0.113.0/26"]
[[tenant]]
name = "globex"
sources = ["203.0.113.64/26"]
[[service]]
name = "web-there"
protocol = "tcp"
ports = [80]
destination = "2001:db8:1::/48"
[[service]]
name = "dns"
protocol = "udp"
ports = [53]
[[service]]
name = "ping"
protocol = "icmp"
"#;

pub(crate) fn pick<'a>(dice: &mut Dice, words: &[&'a str]) -> &'a str {
    words[dice.below(words.len())]
}

/// Services that overlap, told apart by destination, and of every protocol. Some are counted by their packets, some have
/// breakers.
fn services(dice: &mut Dice) -> String {
    let mut text = OTHERS.to_owned();
    for (name, ports) in [("web", "80, \"8000-8003\""), ("web-here", "80")] {
        _ = writeln!(text, "[[service]]\nname = \"{name}\"\nprotocol = \"tcp\"\nports = [{ports}]");
        if name == "web-here" {
            text += "destination = \"192.0.2.1\"\n";
        }
        text += pick(dice, &["", "forwarded = true\n"]);
        text += pick(dice, &["", "[service.health]\ncontrol = \"fixed\"\n"]);
    }
    text
}

/// A policy with up to eight limits, as many as a packet may meet, on few sources, so that places run out, or on so many that
/// tenants divide the table.
pub(crate) fn policy(dice: &mut Dice) -> String {
    let mut text = format!("mode = \"{}\"\n", pick(dice, &["enforce", "enforce", "enforce", "observe"]));
    _ = writeln!(text, "[answers]\nrate = \"{}\"", pick(dice, &["1000/s", "3/s", "0/s"]));
    text += &services(dice);
    for number in 0..=dice.below(4) {
        let service = pick(dice, &["", "", "", "", "web", "web-here", "web-there", "dns", "ping"]);
        let unit = match service {
            "dns" | "ping" => pick(dice, &["packets", "bytes"]),
            _ => pick(dice, &["packets", "packets", "bytes", "connections"]),
        };
        let algorithm = pick(dice, &["token-bucket", "token-bucket", "leaky-bucket", "fixed-window", "sliding-window"]);
        let (rate, burst) = match unit {
            "bytes" if algorithm.ends_with("window") => (pick(dice, &["1522B/s", "5000B/min", "100KB/s"]), ""),
            "bytes" => (pick(dice, &["777B/s", "100KB/s"]), pick(dice, &["burst = 1522\n", "burst = 4000\n"])),
            _ => (pick(dice, &["1/min", "3/s", "977/s"]), pick(dice, &["burst = 1\n", "burst = 2\n", "burst = 5\n"])),
        };
        let burst = if algorithm == "token-bucket" { burst } else { "" };
        let (sources, prefix) = (pick(dice, &["3", "6", "24", "800"]), pick(dice, &["32", "30"]));
        let v6 = pick(dice, &["64", "56", "128"]);
        _ = write!(
            text,
            "[[limit]]\nname = \"l{number}\"\nunit = \"{unit}\"\nrate = \"{rate}\"\n\
             algorithm = \"{algorithm}\"\n{burst}sources = {sources}\n\
             prefix = {{ ipv4 = {prefix}, ipv6 = {v6} }}\noverflow = \"{}\"\naction = \"{}\"\nmode = \"{}\"\n",
            pick(dice, &["aggregate", "refuse", "admit"]),
            pick(dice, &["drop", "reject"]),
            pick(dice, &["enforce", "enforce", "observe"]),
        );
        if !service.is_empty() {
            _ = writeln!(text, "service = \"{service}\"");
        }
        if algorithm == "token-bucket" && dice.below(2) == 0 {
            let whose = pick(dice, &["tenant = \"acme\"", "sources = [\"198.51.100.8/29\", \"2001:db8::/56\"]"]);
            let burst = if unit == "bytes" { "5000" } else { pick(dice, &["2", "7"]) };
            _ = writeln!(text, "[[limit.override]]\n{whose}\nburst = {burst}");
        }
    }
    let guarantees = dice.below(3) > 0;
    for number in 0..=dice.below(2) {
        let whose =
            ["tenant", "tenant\"\nservice = \"web", "service\"\nservice = \"web", "service\"\nservice = \"dns", "host"];
        let shared = pick(dice, &whose);
        let tenants = shared.starts_with("tenant");
        let rate = match shared {
            "host" => "20/s",
            _ if tenants => pick(dice, &["1/s", "4/min"]),
            _ => pick(dice, &["1/s", "20/min"]),
        };
        let mode = pick(dice, &["enforce", "enforce", "observe"]);
        // Of windows that slide nothing is guaranteed.
        let algorithms = ["token-bucket", "leaky-bucket", "fixed-window", "sliding-window"];
        let algorithm = pick(dice, if guarantees { &algorithms[..3] } else { &algorithms });
        // Of each width one, so that no two guarantee the same.
        let first = guarantees && shared != "host" && !text.contains(&format!("per = \"{shared}\""));
        let guarantee = if first {
            pick(dice, &["", "guarantee = \"1/min\"\n", "guarantee = \"2/min\"\nguarantee-burst = 1\n"])
        } else {
            ""
        };
        let overridden = if first && tenants && algorithm == "token-bucket" && dice.below(2) == 0 {
            "[[limit.override]]\ntenant = \"globex\"\nrate = \"2/s\"\nguarantee = \"3/min\"\n"
        } else {
            ""
        };
        _ = write!(
            text,
            "[[limit]]\nalgorithm = \"{algorithm}\"\nname = \"s{number}\"\nunit = \"packets\"\nrate = \"{rate}\"\n\
             mode = \"{mode}\"\nper = \"{shared}\"\n{guarantee}{overridden}",
        );
    }
    for number in 0..=dice.below(2) {
        let connections = pick(dice, &["2", "3", "5"]);
        _ = write!(
            text,
            "[[limit]]\nname = \"c{number}\"\nunit = \"connections\"\nconcurrent = {connections}\n\
             action = \"{}\"\nmode = \"{}\"\n",
            pick(dice, &["drop", "reject"]),
            pick(dice, &["enforce", "enforce", "observe"]),
        );
        let overflow = pick(dice, &["", "overflow = \"refuse\"\n", "overflow = \"admit\"\n"]);
        let whose = [
            &format!("sources = 3\n{overflow}"),
            &format!("sources = 24\nservice = \"web\"\n{overflow}"),
            "service = \"web\"\nper = \"service\"\n",
            "per = \"tenant\"\n",
            "per = \"tenant\"\nguarantee = 1\n",
        ];
        let whose = pick(dice, &whose);
        if !(whose.contains("guarantee") && text.contains("guarantee = 1\n")) {
            text += whose;
        }
    }
    text
}
