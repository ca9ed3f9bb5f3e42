//! Laws of merging, whatever the policies are.

use jiff::Timestamp;
use proptest::{prelude::*, sample::Index};

use super::*;
use crate::policy::{
    Document, Limit, Mode,
    arbitrary::{documents, limit, service, tenant},
    check, edit,
    entries::entries,
    salvage,
};

const AT: Timestamp = Timestamp::UNIX_EPOCH;

fn replica(host: u8, kept: &[Vec<u8>]) -> Replica {
    Replica::open(&format!("host-{host}"), [host; 16], kept.to_vec()).unwrap()
}

fn changed(replica: &mut Replica, old: &Document, new: &Document) -> Option<Vec<u8>> {
    replica.change(old, new, "root", "a test", AT).unwrap()
}

/// A replica that has one policy alone.
fn holding(host: u8, policy: &Document) -> Replica {
    let mut replica = replica(host, &[]);
    changed(&mut replica, &Document::default(), policy);
    replica
}

fn all(replica: &Replica) -> Vec<Vec<u8>> {
    replica.missing(&Versions::new()).map(<[u8]>::to_vec).collect()
}

/// What hosts that have the same changes agree in.
fn agreed(replica: &Replica) -> (Standing, Result<Merged, String>, Vec<Conflict>) {
    (replica.standing(), replica.merged().cloned().map_err(Clone::clone), replica.conflicts())
}

fn few() -> ProptestConfig {
    ProptestConfig { cases: 64, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(few())]

    #[test]
    fn changes_come_to_the_same_in_whatever_order_and_however_often_they_come(
        base in documents(),
        edits in prop::collection::vec(documents(), 3),
        order in prop::collection::vec((any::<Index>(), 1..4_usize), 12),
    ) {
        let shared = all(&holding(0, &base));
        let mut changes = shared.clone();
        for (host, edit) in (1..).zip(&edits) {
            changes.extend(changed(&mut replica(host, &shared), &base, edit));
        }
        let (mut one, mut other) = (replica(8, &[]), replica(9, &[]));
        // All at once, and then one by one and several times over, until nothing is missing.
        prop_assert!(one.take_in(changes.clone()).unfit.is_empty());
        for (index, times) in order {
            let some = changes.iter().cycle().skip(index.index(changes.len().max(1))).take(times).cloned();
            other.take_in(some.collect::<Vec<_>>());
        }
        changes.reverse();
        other.take_in(changes.clone());
        prop_assert_eq!(agreed(&one), agreed(&other));
        let twice = other.take_in(changes);
        prop_assert!(twice.changes.is_empty() && twice.unfit.is_empty() && twice.early == 0);
        prop_assert_eq!(agreed(&one), agreed(&other));
        // And so it does for who starts again with what it kept.
        prop_assert_eq!(agreed(&replica(7, &all(&other))), agreed(&one));
    }

    #[test]
    fn merging_one_after_the_other_and_the_others_first_are_the_same(edits in prop::collection::vec(documents(), 3)) {
        let made: Vec<_> = (1..).zip(&edits).map(|(host, edit)| all(&holding(host, edit))).collect();
        let merged = |parts: &[&Vec<Vec<u8>>]| {
            let mut replica = replica(9, &[]);
            for part in parts {
                replica.take_in((*part).clone());
            }
            all(&replica)
        };
        let left = merged(&[&merged(&[&made[0], &made[1]]), &made[2]]);
        let right = merged(&[&made[0], &merged(&[&made[2], &made[1]])]);
        prop_assert_eq!(agreed(&replica(5, &left)), agreed(&replica(6, &right)));
    }

    #[test]
    fn whatever_hosts_say_together_is_a_policy_that_may_be_in_force(edits in prop::collection::vec(documents(), 3)) {
        let mut replica = replica(9, &[]);
        for (host, edit) in (1..).zip(&edits) {
            replica.take_in(all(&holding(host, edit)));
        }
        let merged = replica.merged().unwrap();
        prop_assert!(check(&merged.document).is_ok(), "{:?}", check(&merged.document));
        let held = entries(&merged.document);
        for aside in &merged.set_aside {
            prop_assert!(aside.part.is_some() || !held.contains_key(&aside.entry), "{:?}", aside);
        }
    }

    #[test]
    fn what_one_host_changes_is_what_it_has(before in documents(), after in documents()) {
        // As much of each as is right.
        let [before, after] = [before, after].map(|it| salvage(&entries(&it)).unwrap().0);
        let mut replica = holding(1, &before);
        changed(&mut replica, &before, &after);
        let merged = replica.merged().unwrap().clone();
        prop_assert_eq!(merged.set_aside, vec![]);
        prop_assert_eq!(entries(&merged.document), entries(&after));
        prop_assert_eq!(replica.conflicts(), vec![]);
        prop_assert!(changed(&mut replica, &after, &merged.document).is_none(), "there is nothing left to change");
    }

    #[test]
    fn what_is_removed_stays_so_whatever_others_change_inside_it(name in 0..6u8, kinds in (1..4u8, 1..4u8), first in any::<bool>()) {
        prop_assume!(kinds.0 != kinds.1);
        let made = |kind| {
            let document = edit::set_limit(&Document::default(), limit(name, kind));
            let document = edit::set_service(&document, service(name, kind));
            edit::set_tenant(&document, tenant(name, kind))
        };
        let (base, other) = (made(kinds.0), made(kinds.1));
        let shared = all(&holding(0, &base));
        let (mut removing, mut editing) = (replica(1, &shared), replica(2, &shared));
        let removal = changed(&mut removing, &base, &Document::default());
        let edited = changed(&mut editing, &base, &other);
        if first {
            removing.take_in(edited);
            editing.take_in(removal);
        } else {
            editing.take_in(removal);
            removing.take_in(edited);
        }
        prop_assert_eq!(entries(&removing.merged().unwrap().document), entries(&Document::default()));
        prop_assert_eq!(agreed(&removing), agreed(&editing));
    }

    #[test]
    fn hosts_that_begin_with_the_same_policy_begin_with_the_same_change(policy in documents()) {
        let (mut one, mut other) = (replica(1, &[]), replica(2, &[]));
        prop_assert_eq!(one.seed(&policy).unwrap(), other.seed(&policy).unwrap());
        prop_assert_eq!(agreed(&one), agreed(&other));
    }

    #[test]
    fn what_is_taken_back_has_never_been(before in documents(), after in documents()) {
        let mut replica = holding(1, &before);
        let standing = agreed(&replica);
        if changed(&mut replica, &before, &after).is_some() {
            replica.take_back().unwrap();
        }
        prop_assert_eq!(agreed(&replica), standing);
        changed(&mut replica, &before, &after);
    }
}

fn rated(rate: &str) -> Document {
    let text = format!("[[limit]]\nname = \"web\"\nunit = \"packets\"\nrate = \"{rate}\"\nburst = 7\n");
    crate::policy::parse(&text).unwrap()
}

#[test]
fn a_conflict_is_told_by_all_alike_and_settled_once_for_all() {
    let base = rated("1/s");
    let shared = all(&holding(0, &base));
    let (mut one, mut other) = (replica(1, &shared), replica(2, &shared));
    let first = changed(&mut one, &base, &rated("2/s"));
    let second = changed(&mut other, &base, &rated("3/s"));
    one.take_in(second);
    other.take_in(first);
    assert_eq!(agreed(&one), agreed(&other));
    let conflicts = one.conflicts();
    let [Conflict { place, said }] = &conflicts[..] else { panic!("{conflicts:?}") };
    assert_eq!(place, "limit web: rate");
    let mut hosts: Vec<_> = said.iter().map(|it| (it.host.as_str(), it.value.to_string())).collect();
    let in_force = one.merged().unwrap().document.limits[0].allowance();
    assert_eq!(said[0].value, in_force);
    hosts.sort();
    assert_eq!(hosts, [("host-1", "\"2/s\"".to_owned()), ("host-2", "\"3/s\"".to_owned())]);
    assert_eq!(one.resolve("limit web: rate", "host-3", "root", AT).unwrap(), None);
    let settled = one.resolve("limit web: rate", &said[1].host, "root", AT).unwrap().unwrap();
    other.take_in([settled]);
    assert_eq!(agreed(&one), agreed(&other));
    assert_eq!(
        (one.conflicts(), one.merged().unwrap().document.limits[0].allowance()),
        (vec![], said[1].value.as_str().unwrap().to_owned())
    );
}

#[test]
fn entries_made_at_the_same_time_are_a_conflict_only_where_they_differ() {
    let (mut one, other) = (holding(1, &rated("2/s")), holding(2, &rated("2/s")));
    one.take_in(all(&other));
    assert_eq!(one.conflicts(), []);
    one.take_in(all(&holding(3, &rated("9/s"))));
    let conflicts = one.conflicts();
    let [Conflict { place, said }] = &conflicts[..] else { panic!("{conflicts:?}") };
    assert_eq!((place.as_str(), said.len()), ("limit web", 2));
    let (place, host) = (place.clone(), said[1].host.clone());
    let wanted = said[1].value["rate"].clone();
    one.resolve(&place, &host, "root", AT).unwrap().unwrap();
    assert_eq!(
        (one.conflicts(), serde_json::to_value(&one.merged().unwrap().document.limits[0]).unwrap()["rate"].clone()),
        (vec![], wanted)
    );
}

#[test]
fn a_limit_of_a_service_that_somebody_removed_is_set_aside_until_there_is_one_again() {
    let service = "[[service]]\nname = \"web\"\nprotocol = \"tcp\"\nports = [80]\n";
    let base = crate::policy::parse(service).unwrap();
    let shared = all(&holding(0, &base));
    let (mut one, mut other) = (replica(1, &shared), replica(2, &shared));
    let limited = Limit { service: Some("web".to_owned()), ..rated("2/s").limits[0].clone() };
    let limited = edit::set_mode(&edit::set_limit(&base, limited), Mode::Enforce);
    let second = changed(&mut other, &base, &limited);
    one.take_in(second);
    let removal = changed(&mut one, &base, &Document::default());
    // The removal knew of the limit here, and nothing of it there.
    let mut late = replica(3, &shared);
    let elsewhere = changed(&mut late, &base, &Document::default());
    other.take_in(elsewhere);
    other.take_in(removal);
    let merged = other.merged().unwrap().clone();
    assert_eq!((merged.document.limits.len(), merged.document.mode), (0, Mode::Enforce), "the rest is in force");
    let [aside] = &merged.set_aside[..] else { panic!("{:?}", merged.set_aside) };
    assert_eq!((aside.entry.as_str(), aside.part.as_deref()), ("limit web", None));
    assert!(aside.why.contains("there is no service `web`"), "{}", aside.why);
    let again = Document { services: base.services.clone(), ..merged.document.clone() };
    changed(&mut other, &merged.document, &again);
    let mended = other.merged().unwrap();
    assert_eq!((mended.document.limits.len(), &mended.set_aside), (1, &vec![]));
    other.remove("limit web", "root", AT).unwrap().unwrap();
    assert_eq!(other.merged().unwrap().document.limits.len(), 0);
}

#[test]
fn what_is_no_change_is_told_and_the_rest_is_taken() {
    let made = all(&holding(1, &rated("2/s")));
    let mut copied = replica(1, &[]);
    let fork = changed(&mut copied, &Document::default(), &rated("3/s")).unwrap();
    let mut replica = replica(9, &[]);
    let taken = replica.take_in([b"rubbish".to_vec(), made[0].clone(), fork.clone()]);
    assert_eq!((taken.changes.len(), taken.early), (1, 0));
    assert_eq!(taken.unfit, [(b"rubbish".to_vec(), Unfit::Malformed), (fork, Unfit::Forked)]);
}

#[test]
fn what_follows_a_change_that_has_not_come_waits_for_it() {
    let mut one = holding(1, &rated("2/s"));
    changed(&mut one, &rated("2/s"), &rated("3/s"));
    let (made, mut other) = (all(&one), replica(2, &[]));
    let taken = other.take_in([made[1].clone()]);
    assert_eq!((taken.changes.len(), taken.early, other.is_empty()), (0, 1, true));
    other.take_in(made);
    assert_eq!(agreed(&one), agreed(&other));
}
