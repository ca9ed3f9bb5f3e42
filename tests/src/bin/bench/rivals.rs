//! Others that refuse packets on the interface `far` of a namespace, each where it is cheapest: nftables at the device's
//! ingress, iptables in the raw table. They admit a packet of each source in an hour, or they have throttle's full policy
//! ([`policies::full`]), whose last limit admits a packet of all in an hour.

use super::beside::nft;
use anyhow::{Context, Result};
use throttle_tests::{machine, netns::Namespace, policies};

/// Faster than packets come here, and as fast as nftables' limits go.
const GENEROUS: &str = "100000000/second burst 1000000 packets";

/// nftables.
pub(super) fn nftables(far: &Namespace, full: bool) -> Result<()> {
    let (sets, rules) = if full { (sets(), full_rules()) } else { (SOURCES.to_owned(), ONE_RULE.to_owned()) };
    let chain = format!(
        "chain ingress {{
            type filter hook ingress device \"far\" priority 0; policy accept;
            {rules}
        }}"
    );
    nft(far, &format!("table netdev rival {{\n{sets}\n{chain}\n}}\n"))
}

const SOURCES: &str = "set sources { type ipv4_addr; size 1048576; flags dynamic; }";
const ONE_RULE: &str = "update @sources { ip saddr limit rate over 1/hour burst 1 packets } drop";

/// Look-ups by longest match for blocks and tenants, by hash for the rest: what nftables is good at.
fn sets() -> String {
    let blocked: Vec<_> = policies::blocked_by_full().collect();
    let tenants: Vec<_> = policies::tenants().map(|(prefix, number)| format!("{prefix} : {}", number + 1)).collect();
    let others: Vec<_> = policies::ports().skip(1).map(|port| format!("{port} : continue")).collect();
    format!(
        "{SOURCES}
        set blocked {{ type ipv4_addr; flags interval; elements = {{ {} }} }}
        map tenant {{ type ipv4_addr : mark; flags interval; elements = {{ {} }} }}
        set tenants {{ type mark; size 1024; flags dynamic; }}
        chain service {{ limit rate over {GENEROUS} drop; }}
        map services {{ type inet_service : verdict; elements = {{ {} : jump service, {} }} }}",
        blocked.join(", "),
        tenants.join(", "),
        policies::PORT,
        others.join(", "),
    )
}

fn full_rules() -> String {
    format!(
        "ip saddr @blocked drop
            update @sources {{ ip saddr limit rate over {GENEROUS} }} drop
            meta mark set ip saddr map @tenant
            update @tenants {{ meta mark limit rate over {GENEROUS} }} drop
            tcp dport vmap @services
            limit rate over 1/hour burst 1 packets drop"
    )
}

/// iptables. It has no look-up by longest match: of the full policy only the limits, by source, by the /7 that is a
/// tenant's, by port and of all.
pub(super) fn iptables(far: &Namespace, full: bool) -> Result<()> {
    const BY_SOURCE: [&str; 2] = ["--hashlimit-mode", "srcip"];
    if !full {
        return hashlimit(far, "one", &BY_SOURCE, false);
    }
    hashlimit(far, "source", &BY_SOURCE, true)?;
    hashlimit(far, "tenant", &["--hashlimit-mode", "srcip", "--hashlimit-srcmask", "7"], true)?;
    hashlimit(far, "service", &["--hashlimit-mode", "dstport"], true)?;
    hashlimit(far, "host", &[], false)
}

fn hashlimit(far: &Namespace, name: &str, mode: &[&str], generous: bool) -> Result<()> {
    let (rate, burst) = if generous { ("1000000/second", "1000000") } else { ("1/hour", "1") };
    let mut command = far.command("iptables");
    command.args(["-t", "raw", "-A", "PREROUTING", "-p", "tcp", "-m", "hashlimit", "--hashlimit-name", name]);
    command.args(["--hashlimit-above", rate, "--hashlimit-burst", burst]).args(mode);
    command.args(["--hashlimit-htable-size", "262144", "--hashlimit-htable-max", "1048576", "-j", "DROP"]);
    machine::run(&mut command).context("is iptables installed, and does this kernel have xt_hashlimit?").map(drop)
}
