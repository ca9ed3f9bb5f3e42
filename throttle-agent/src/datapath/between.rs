//! The entries of sources while one policy follows another: nobody is refused whom either of the two would let through.
//!
//! Pure: the entries before and after come in, those in between go out. In both sets the longest match says everything,
//! and so it does in what comes out.

use ipnet::IpNet;
use throttle_common::records::{GENERATIONS, NONE, SourceEntry};

use super::sources::Entries;

/// What an address gets under two sets of entries at once, of which the old one goes with `generation`: allowed and known
/// by either, blocked only by both; its tenant and its class are under each generation those of the set that goes with it.
pub(super) fn between(old: &Entries, new: &Entries, generation: u32) -> Entries {
    let mut prefixes: Vec<IpNet> = old.keys().chain(new.keys()).copied().collect();
    prefixes.sort_unstable();
    prefixes.dedup();
    let (mut in_old, mut in_new, mut in_both) = (Covers::default(), Covers::default(), Covers::default());
    let mut entries = Entries::new();
    for prefix in prefixes {
        let (before, after) = (old.get(&prefix), new.get(&prefix));
        let both = |one, other| lenient(one, other, generation);
        let entry = both(in_old.pass(prefix, before.copied()), in_new.pass(prefix, after.copied()));
        // What is in both sets is written already; of the rest, what its cover says anyway need not be written.
        let written = before.is_some() && after.is_some();
        if in_both.pass(prefix, None) != entry || written {
            in_both.pass(prefix, Some(entry));
            entries.insert(prefix, entry);
        }
    }
    entries
}

fn lenient(old: SourceEntry, new: SourceEntry, generation: u32) -> SourceEntry {
    let next = 1 - generation;
    let mut tenants = [NONE; GENERATIONS as usize];
    tenants[generation as usize] = old.tenant(generation);
    tenants[next as usize] = new.tenant(next);
    let mut classes = [NONE; GENERATIONS as usize];
    classes[generation as usize] = old.class(generation);
    classes[next as usize] = new.class(next);
    let (blocked_until, flags) = (old.blocked_until.min(new.blocked_until), old.flags | new.flags);
    SourceEntry { blocked_until, flags, tenants, classes, padding: 0 }
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
            (1u16..4).prop_map(Standing::Tenant),
            (1u16..4).prop_map(Standing::Class),
        ];
        let prefix = (0u32..16, 0u8..=4).prop_map(|(low, length)| IpNet::new(address(low), length).unwrap().trunc());
        prop::collection::vec((prefix, standing), 0..12).prop_map(|stated| resolve(stated.into_iter()))
    }

    proptest! {
        #[test]
        fn nobody_is_refused_whom_either_set_lets_through_and_each_policy_has_its_own_tenants(
            old in statements(), new in statements(), generation in 0u32..2,
        ) {
            let both = between(&old, &new, generation);
            for low in 0..16 {
                let address = address(low);
                let (before, after) = (found(&old, address), found(&new, address));
                prop_assert_eq!(found(&both, address), lenient(before, after, generation));
                prop_assert_eq!(found(&both, address).tenant(generation), before.tenant(generation));
                prop_assert_eq!(found(&both, address).tenant(1 - generation), after.tenant(0));
                prop_assert_eq!(found(&both, address).class(generation), before.class(generation));
                prop_assert_eq!(found(&both, address).class(1 - generation), after.class(0));
            }
        }

        #[test]
        fn between_a_set_and_itself_there_is_nothing_to_write(set in statements()) {
            prop_assert_eq!(between(&set, &set, 0), set);
        }
    }

    #[test]
    fn a_list_of_blocks_gives_way_to_another_without_needing_room_for_both() {
        let set = |text: &str| resolve([(text.parse().unwrap(), Standing::Block { until: FOR_EVER })].into_iter());
        assert_eq!(between(&set("10.0.0.0/8"), &set("11.0.0.0/8"), 0), Entries::new());
        let inner = between(&set("10.0.0.0/8"), &set("10.1.0.0/16"), 1);
        let entry = |text: &str| found(&inner, text.parse().unwrap());
        assert_eq!((entry("10.2.0.1").blocked_until, entry("10.1.0.1").blocked_until), (0, FOR_EVER));
        assert_eq!(entry("10.1.0.1").flags & SourceFlags::ALLOW, 0);
    }
}
