//! The entries of sources while one policy follows another: nobody is refused whom either of the two would let through.
//!
//! Pure: the entries before and after come in, those in between go out. In both sets the longest match says everything,
//! and so it does in what comes out.

use ipnet::IpNet;
use throttle_common::records::SourceEntry;

use super::sources::Entries;

/// What an address gets under two sets of entries at once: allowed and known by either, blocked only by both.
pub(super) fn between(old: &Entries, new: &Entries) -> Entries {
    let mut prefixes: Vec<IpNet> = old.keys().chain(new.keys()).copied().collect();
    prefixes.sort_unstable();
    prefixes.dedup();
    let (mut in_old, mut in_new, mut in_both) = (Covers::default(), Covers::default(), Covers::default());
    let mut entries = Entries::new();
    for prefix in prefixes {
        let (before, after) = (old.get(&prefix), new.get(&prefix));
        let entry = lenient(in_old.pass(prefix, before.copied()), in_new.pass(prefix, after.copied()));
        // What is in both sets is written already; of the rest, what its cover says anyway need not be written.
        let written = before.is_some() && after.is_some();
        if in_both.pass(prefix, None) != entry || written {
            in_both.pass(prefix, Some(entry));
            entries.insert(prefix, entry);
        }
    }
    entries
}

fn lenient(one: SourceEntry, other: SourceEntry) -> SourceEntry {
    SourceEntry {
        blocked_until: one.blocked_until.min(other.blocked_until),
        flags: one.flags | other.flags,
        padding: 0,
    }
}

/// The entries of one set that cover the prefix at hand, the widest first.
#[derive(Default)]
struct Covers(Vec<(IpNet, SourceEntry)>);

impl Covers {
    /// Moves on to a prefix, in their order, with its own entry where it has one; gives what is said of it.
    fn pass(&mut self, prefix: IpNet, own: Option<SourceEntry>) -> SourceEntry {
        while self.0.last().is_some_and(|(cover, _)| !cover.contains(&prefix)) {
            self.0.pop();
        }
        self.0.extend(own.map(|entry| (prefix, entry)));
        self.0.last().map_or_else(SourceEntry::default, |(_, entry)| *entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::sources::{FOR_EVER, Standing, resolve};
    use proptest::prelude::*;
    use std::net::{IpAddr, Ipv4Addr};
    use throttle_common::records::SourceFlags;

    fn found(entries: &Entries, address: IpAddr) -> SourceEntry {
        let covers = entries.iter().filter(|(prefix, _)| prefix.contains(&address));
        covers.max_by_key(|(prefix, _)| prefix.prefix_len()).map(|(_, entry)| *entry).unwrap_or_default()
    }

    fn address(low: u32) -> IpAddr {
        Ipv4Addr::from(low << 28).into()
    }

    fn statements() -> impl Strategy<Value = Entries> {
        let standing = prop_oneof![
            Just(Standing::Allow),
            Just(Standing::Known),
            prop_oneof![1u64..9, Just(FOR_EVER)].prop_map(|until| Standing::Block { until }),
        ];
        let prefix = (0u32..16, 0u8..=4).prop_map(|(low, length)| IpNet::new(address(low), length).unwrap().trunc());
        prop::collection::vec((prefix, standing), 0..12).prop_map(|stated| resolve(stated.into_iter()))
    }

    proptest! {
        #[test]
        fn nobody_is_refused_whom_either_set_lets_through(old in statements(), new in statements()) {
            let both = between(&old, &new);
            for low in 0..16 {
                let address = address(low);
                prop_assert_eq!(found(&both, address), lenient(found(&old, address), found(&new, address)));
            }
        }

        #[test]
        fn between_a_set_and_itself_there_is_nothing_to_write(set in statements()) {
            prop_assert_eq!(between(&set, &set), set);
        }
    }

    #[test]
    fn a_list_of_blocks_gives_way_to_another_without_needing_room_for_both() {
        let set = |text: &str| resolve([(text.parse().unwrap(), Standing::Block { until: FOR_EVER })].into_iter());
        assert_eq!(between(&set("10.0.0.0/8"), &set("11.0.0.0/8")), Entries::new());
        let inner = between(&set("10.0.0.0/8"), &set("10.1.0.0/16"));
        let entry = |text: &str| found(&inner, text.parse().unwrap());
        assert_eq!((entry("10.2.0.1").blocked_until, entry("10.1.0.1").blocked_until), (0, FOR_EVER));
        assert_eq!(entry("10.1.0.1").flags & SourceFlags::ALLOW, 0);
    }
}
