//! The policies that are measured: the full one, and its parts.

use std::net::Ipv4Addr;

/// Blocks, tenants and services of the full policy.
const BLOCKS: u32 = 1_000;
const TENANTS: u32 = 100;
const SERVICES: u16 = 10;
/// The TCP port of its first service; the others follow. The measured packets are for this one.
pub const PORT: u16 = 8_000;
/// Faster than any packets come here.
pub const GENEROUS: &str = "rate = \"100000000/s\"\nburst = 1000000";
/// Slower than any.
pub const STRICT: &str = "rate = \"1/h\"";

/// What is different from one path to the next.
#[derive(Clone, Copy)]
pub struct Difference {
    /// Whether every source is allowed.
    pub allow_all: bool,
    /// Whether every source is blocked.
    pub block_all: bool,
    /// Whose limit admits hardly anything.
    pub strict: Option<Level>,
}

/// Whose limit.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// That of each source.
    Source,
    /// That of the host.
    Host,
}

/// 1 000 blocks, 100 tenants to whom all IPv4 addresses belong, 10 services, and limits on four levels.
pub fn full(difference: Difference) -> String {
    let rate = |level| if difference.strict == Some(level) { STRICT } else { GENEROUS };
    let mut text = "mode = \"enforce\"\n".to_owned();
    let overflow = "overflow = \"refuse\"\nsources = 786432";
    text += &limit("source", "source", rate(Level::Source), overflow);
    text += &limit("tenants", "tenant", GENEROUS, "");
    text += &limit("service", "service", GENEROUS, "service = \"service-0\"");
    text += &limit("host", "host", rate(Level::Host), "");
    for (number, port) in (0..).zip(ports()) {
        text += &service(number, port.into());
    }
    for number in 0..TENANTS {
        let own: Vec<_> =
            tenants().filter(|(_, whose)| *whose == number).map(|(prefix, _)| format!("\"{prefix}\"")).collect();
        text += &tenant(number, &own.join(", "));
    }
    let all = |wanted| if wanted { "\"0.0.0.0/1\", \"128.0.0.0/1\", " } else { "" };
    let (allow, block) = (all(difference.allow_all), all(difference.block_all));
    text + &format!("[sources]\nallow = [{allow}]\nblock = [{block}{}]\n", blocks(BLOCKS))
}

/// The prefixes of the full policy's tenants with their numbers: 128 of a /7 each, so that the first tenants have two.
pub fn tenants() -> impl Iterator<Item = (String, u32)> {
    (0..128).map(|number| (format!("{}/7", Ipv4Addr::from_bits(number << 25)), number % TENANTS))
}

/// So many blocks, as a policy lists them.
pub fn blocks(count: u32) -> String {
    blocked_prefixes(count).flat_map(|prefix| ["\"".to_owned(), prefix, "\", ".to_owned()]).collect()
}

/// The blocks of the full policy.
pub fn blocked_by_full() -> impl Iterator<Item = String> {
    blocked_prefixes(BLOCKS)
}

/// So many prefixes out of 11.0.0.0/8 and what follows, three addresses to one network of 256.
fn blocked_prefixes(count: u32) -> impl Iterator<Item = String> {
    (0..count).map(|number| format!("{}/{}", blocked(number), if number % 4 == 3 { 24 } else { 32 }))
}

/// The TCP ports of the full policy's services.
pub const fn ports() -> std::ops::Range<u16> {
    PORT..PORT + SERVICES
}

/// A source that is blocked by one of them.
pub fn blocked(number: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits((11 << 24) + (number << 8))
}

/// One limit of packets.
pub fn limit(name: &str, per: &str, rate: &str, rest: &str) -> String {
    format!("[[limit]]\nname = \"{name}\"\nunit = \"packets\"\nper = \"{per}\"\n{rate}\n{rest}\n")
}

/// The service of a number, at a TCP port.
pub fn service(number: u32, port: u32) -> String {
    format!("[[service]]\nname = \"service-{number}\"\nprotocol = \"tcp\"\nports = [{port}]\n")
}

/// The tenant of a number, with its sources in quotation marks.
pub fn tenant(number: u32, sources: &str) -> String {
    format!("[[tenant]]\nname = \"tenant-{number}\"\nsources = [{sources}]\n")
}
