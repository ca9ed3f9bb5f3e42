//! What statements about addresses and prefixes amount to together.

use super::{Document, Prefix, Tenants, classes::Classes};
use ipnet::IpNet;
use std::collections::BTreeMap;
use throttle_common::records::{GENERATIONS, NONE, SourceEntry, SourceFlags};

/// A block without end, as [`SourceEntry::blocked_until`] writes it.
pub const FOR_EVER: u64 = u64::MAX;

/// What one statement says of a prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// No block and no limit touches it.
    Allow,
    /// It is known not to be spoofed.
    Known,
    /// It is a source of the tenant of this number.
    Tenant(u16),
    /// It is in the class of this number.
    Class(u16),
    /// It is refused.
    Block {
        /// When that ends, in nanoseconds of the kernel's monotonic clock; [`FOR_EVER`] for never.
        until: u64,
    },
}

/// What a policy states of sources, its tenants having these numbers.
pub fn stated<'d>(document: &'d Document, tenants: &Tenants) -> impl Iterator<Item = (IpNet, Standing)> + use<'d> {
    let sources = &document.sources;
    let numbered = document.tenants.iter().map(|tenant| (tenant, tenants.get(&tenant.name).copied().unwrap_or(NONE)));
    let numbered: Vec<_> = numbered.collect();
    let of_tenants = numbered
        .into_iter()
        .flat_map(|(tenant, number)| tenant.sources.iter().map(move |prefix| (prefix.net(), Standing::Tenant(number))));
    let lists = [
        (&sources.allow, Standing::Allow),
        (&sources.known, Standing::Known),
        (&sources.block, Standing::Block { until: FOR_EVER }),
    ];
    let listed = lists.into_iter().flat_map(|(list, standing)| list.iter().map(move |prefix| (prefix.net(), standing)));
    let classes = Classes::of(document).prefixes.into_iter().map(|(net, class)| (net, Standing::Class(class)));
    listed.chain(of_tenants).chain(classes)
}

/// Whether two documents state the same of sources.
pub fn state_the_same(one: &Document, other: &Document) -> bool {
    fn whose(document: &Document) -> impl Iterator<Item = (usize, usize, &Option<String>, &Vec<Prefix>)> {
        let limits = document.limits.iter().enumerate();
        limits.flat_map(|(index, limit)| {
            let overrides = limit.overrides.iter().enumerate();
            overrides.map(move |(place, terms)| (index, place, &terms.tenant, &terms.sources))
        })
    }
    one.sources == other.sources && one.tenants == other.tenants && whose(one).eq(whose(other))
}

/// Merges statements so that the longest match alone says everything: each entry carries what covers it, the flags of
/// all, the latest end of a block and the nearest tenant.
///
/// Takes time in the order of sorting: 100 000 statements are a matter of milliseconds.
pub fn resolve(statements: impl Iterator<Item = (IpNet, Standing)>) -> BTreeMap<IpNet, SourceEntry> {
    let mut entries: BTreeMap<IpNet, SourceEntry> = BTreeMap::new();
    for (net, standing) in statements {
        let entry = entries.entry(net.trunc()).or_default();
        *entry = union(*entry, of(standing));
    }
    // Networks sort by address, then by length: what covers an entry comes before it, and nothing that does not in
    // between, except what it covers as well.
    let mut covers: Vec<(IpNet, SourceEntry)> = Vec::new();
    for (net, entry) in &mut entries {
        while covers.last().is_some_and(|(cover, _)| !cover.contains(net)) {
            covers.pop();
        }
        if let Some((_, cover)) = covers.last() {
            *entry = union(*entry, *cover);
        }
        covers.push((*net, *entry));
    }
    entries
}

fn of(standing: Standing) -> SourceEntry {
    match standing {
        Standing::Allow => SourceEntry { flags: SourceFlags::ALLOW, ..SourceEntry::default() },
        Standing::Known => SourceEntry { flags: SourceFlags::KNOWN, ..SourceEntry::default() },
        Standing::Tenant(number) => SourceEntry { tenants: [number; GENERATIONS as usize], ..SourceEntry::default() },
        Standing::Class(number) => SourceEntry { classes: [number; GENERATIONS as usize], ..SourceEntry::default() },
        Standing::Block { until } => SourceEntry { blocked_until: until, ..SourceEntry::default() },
    }
}

/// No tenant, or class, under any generation.
const NOBODY: [u16; GENERATIONS as usize] = [NONE; GENERATIONS as usize];

/// What is said of a prefix together with what is said of one that covers it.
fn union(own: SourceEntry, cover: SourceEntry) -> SourceEntry {
    SourceEntry {
        blocked_until: own.blocked_until.max(cover.blocked_until),
        flags: own.flags | cover.flags,
        tenants: if own.tenants == NOBODY { cover.tenants } else { own.tenants },
        classes: if own.classes == NOBODY { cover.classes } else { own.classes },
        padding: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::net::{Ipv4Addr, Ipv6Addr};

    /// Few enough bits that statements meet.
    fn nets() -> impl Strategy<Value = IpNet> {
        let v4 =
            (0u32..64, 0u8..=32).prop_map(|(low, length)| IpNet::new(Ipv4Addr::from(low << 26 | low).into(), length));
        let v6 = (0u128..64, 0u8..=128)
            .prop_map(|(low, length)| IpNet::new(Ipv6Addr::from(low << 122 | low).into(), length));
        prop_oneof![v4, v6].prop_map(|net| net.unwrap().trunc())
    }

    fn standings() -> impl Strategy<Value = Standing> {
        let block = prop_oneof![1u64..100, Just(FOR_EVER)].prop_map(|until| Standing::Block { until });
        prop_oneof![
            Just(Standing::Allow),
            Just(Standing::Known),
            block,
            (1u16..9).prop_map(Standing::Tenant),
            (1u16..9).prop_map(Standing::Class)
        ]
    }

    proptest! {
        #[test]
        fn every_entry_is_the_union_of_what_covers_it(
            statements in prop::collection::vec((nets(), standings()), 0..60),
        ) {
            let entries = resolve(statements.iter().copied());
            for (net, entry) in &entries {
                let mut covering: Vec<_> = statements.iter().filter(|(cover, _)| cover.contains(net)).collect();
                // Of several tenants of one prefix, which a policy never has, the first is the one.
                covering.sort_by_key(|(cover, _)| std::cmp::Reverse(cover.prefix_len()));
                let expected = covering.iter().fold(SourceEntry::default(), |sum, (_, standing)| union(sum, of(*standing)));
                prop_assert_eq!(*entry, expected, "{}", net);
            }
            prop_assert!(statements.iter().all(|(net, _)| entries.contains_key(net)));
        }
    }

    #[test]
    fn an_allow_reaches_into_the_block_below_it_and_not_above() {
        let net = |text: &str| text.parse::<IpNet>().unwrap();
        let statements = [
            (net("10.0.0.0/8"), Standing::Block { until: 7 }),
            (net("10.1.0.0/16"), Standing::Allow),
            (net("10.1.2.3/32"), Standing::Block { until: FOR_EVER }),
            (net("11.0.0.0/8"), Standing::Known),
        ];
        let entries = resolve(statements.into_iter());
        let entry = |text| entries[&net(text)];
        assert_eq!((entry("10.0.0.0/8").flags, entry("10.0.0.0/8").blocked_until), (0, 7));
        assert_eq!(entry("10.1.0.0/16").flags, SourceFlags::ALLOW);
        assert_eq!((entry("10.1.2.3/32").flags, entry("10.1.2.3/32").blocked_until), (SourceFlags::ALLOW, FOR_EVER));
        assert_eq!((entry("11.0.0.0/8").flags, entry("11.0.0.0/8").blocked_until), (SourceFlags::KNOWN, 0));
    }
}
