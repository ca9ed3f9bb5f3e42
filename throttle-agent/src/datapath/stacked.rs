//! Interfaces on top of each other: what comes in by one comes on to the other, and where both are throttled it is judged
//! and charged twice.

use super::{Interface, rename::Links};

/// How deep the kernel lets interfaces be stacked (`MAX_NEST_DEV` of include/linux/netdevice.h).
const NESTED: usize = 8;

/// Kinds to which packets of the interface that they sit on come as they are. What a tunnel brings was inside others.
const ON_ONE: [&str; 5] = ["vlan", "macvlan", "macvtap", "ipvlan", "ipvtap"];
/// Kinds to which packets of their members come.
const OVER_MEMBERS: [&str; 3] = ["bond", "bridge", "team"];

/// Two throttled interfaces of which one is on top of the other.
pub(super) struct Overlap {
    /// What is wrong with that.
    pub(super) text: String,
    /// What to do about it.
    pub(super) remedy: String,
}

/// The overlap of an interface that is throttled, or is to be, with another one that is.
pub(super) fn overlap(device: &Interface, all: &[Interface], links: &Links) -> Option<Overlap> {
    let is_throttled = |other: &&Interface| other.index != device.index && links.values().any(|&on| on == other.index);
    all.iter().filter(is_throttled).find_map(|other| {
        let (lower, upper) = if comes_on(device, other, all, NESTED) {
            (device, other)
        } else if comes_on(other, device, all, NESTED) {
            (other, device)
        } else {
            return None;
        };
        let (lower, upper) = (&lower.name, &upper.name);
        Some(Overlap {
            text: format!(
                "{} is throttled too, and what comes in by {lower} comes on to {upper}: both would judge and charge it",
                other.name
            ),
            remedy: format!(
                "throttle one of them, {lower} unless sockets are bound to {upper}: stop the agent, take the other one's \
                 program off (`throttle detach --interface NAME`), and start it without that one"
            ),
        })
    })
}

/// Whether what comes in by one interface comes on to another, through so many between them at most.
fn comes_on(lower: &Interface, upper: &Interface, all: &[Interface], between: usize) -> bool {
    comes_at_once(lower, upper)
        || between > 0 && all.iter().any(|next| comes_at_once(lower, next) && comes_on(next, upper, all, between - 1))
}

fn comes_at_once(lower: &Interface, upper: &Interface) -> bool {
    let Some(kind) = upper.kind.as_deref() else { return false };
    ON_ONE.contains(&kind) && upper.lower == Some(lower.index)
        || OVER_MEMBERS.contains(&kind) && lower.master == Some(upper.index)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(index: u32, kind: &str, lower: Option<u32>, master: Option<u32>) -> Interface {
        let kind = (!kind.is_empty()).then(|| kind.to_owned());
        Interface { index, name: format!("if{index}"), kind, lower, master, ..Interface::default() }
    }

    /// Whether two of these overlap, whichever of them is throttled first.
    fn overlaps(all: &[Interface], pair: [u32; 2]) -> bool {
        let found = [pair, [pair[1], pair[0]]].map(|[first, second]| {
            let device = all.iter().find(|device| device.index == second).unwrap();
            overlap(device, all, &[(format!("if{first}"), first)].into()).is_some()
        });
        assert_eq!(found[0], found[1]);
        found[0]
    }

    #[test]
    fn what_is_on_top_of_another_overlaps_with_it_through_whatever_is_between() {
        let all = [
            device(1, "", None, Some(3)),
            device(2, "", None, Some(3)),
            device(3, "bond", None, None),
            device(4, "vlan", Some(3), Some(5)),
            device(5, "bridge", None, None),
            device(6, "macvlan", Some(5), None),
        ];
        for pair in [[1, 3], [3, 4], [1, 4], [4, 5], [2, 5], [1, 6]] {
            assert!(overlaps(&all, pair), "{pair:?}");
        }
        assert!(!overlaps(&all, [1, 2]), "beside each other");
    }

    #[test]
    fn what_brings_other_packets_does_not() {
        let all = [
            device(1, "veth", Some(2), Some(4)),
            device(2, "veth", Some(1), None),
            device(3, "vxlan", Some(1), None),
            device(4, "vrf", None, None),
            device(5, "vlan", Some(1), None),
        ];
        for pair in [[1, 2], [1, 3], [1, 4], [2, 5], [3, 5]] {
            assert!(!overlaps(&all, pair), "{pair:?}");
        }
        assert!(overlaps(&all, [1, 5]));
        assert!(overlap(&all[0], &all, &[("if1".to_owned(), 1), ("if5".to_owned(), 0)].into()).is_none(), "gone");
    }
}
