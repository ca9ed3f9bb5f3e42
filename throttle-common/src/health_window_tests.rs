use super::*;
use crate::{
    connections::depth,
    gcra::Price,
    words::{Action, Algorithm, Overflow, Per, Unit},
};
use proptest::prelude::*;

const NOW: u64 = 100_000_000_000_000;

fn limit(per: Per, connections: u32) -> Limit {
    Limit {
        price: Price { mantissa: PLACE, shift: 0 },
        depth: depth(connections),
        unit: Unit::Connections as u8,
        action: Action::Drop as u8,
        overflow: Overflow::Aggregate as u8,
        algorithm: Algorithm::Concurrency as u8,
        per: per as u8,
        clock: 1,
        ..Limit::NONE
    }
}

/// What a window leaves of a limit of a service that policy allows 100 connections.
fn left(window: u32, limit: &Limit) -> u64 {
    let window = HealthWindow::new(window, NOW + 1_000_000_000);
    Share::left_by(window, 100, NOW).depth(limit, limit.depth) / PLACE
}

#[test]
fn of_what_all_have_together_the_window_is_left_and_of_what_each_has_the_same_share() {
    assert_eq!(left(20, &limit(Per::Service, 100)), 20);
    assert_eq!(left(20, &limit(Per::Source, 10)), 2);
    assert_eq!(left(20, &limit(Per::Tenant, 50)), 10);
    assert_eq!(left(20, &limit(Per::Source, 3)), 1, "one at least");
    assert_eq!(left(20, &limit(Per::Source, 0)), 0, "but for whom policy allows none");
    assert_eq!(left(100, &limit(Per::Service, 100)), 100);
    assert_eq!(left(500, &limit(Per::Source, 10)), 10, "a window allows nothing that policy does not");
}

#[test]
fn what_is_reserved_is_left_to_those_for_whom_it_is() {
    // Of 100 connections 30 are reserved.
    assert_eq!(left(50, &limit(Per::Service, 70)), 20);
    assert_eq!(left(20, &limit(Per::Service, 70)), 0);
    assert_eq!(left(20, &Limit { guarantee: 1, ..limit(Per::Service, 30) }), 30);
}

#[test]
fn the_hosts_own_limits_know_nothing_of_a_services_window() {
    assert_eq!(left(20, &Limit { clock: HOST_CLOCK, ..limit(Per::Host, 100) }), 100);
}

#[test]
fn a_window_ends_with_its_lease() {
    let window = HealthWindow::new(20, NOW);
    assert!(window.holds(NOW) && window.until() > NOW && window.until() <= NOW + (2 << LEASE_SHIFT));
    assert!(!window.holds(window.until()));
    assert_eq!(Share::left_by(window, 100, window.until()), Share::ALL);
    assert!(!HealthWindow::NONE.holds(0) && !HealthWindow::NONE.holds(u64::MAX));
}

proptest! {
    #[test]
    fn a_word_says_what_it_was_made_of(connections in 0..=MOST, until in 0u64..u64::MAX / 2) {
        let window = HealthWindow::of(HealthWindow::new(connections, until).word());
        prop_assert_eq!(window.connections(), connections);
        prop_assert!(window.holds(until) && !window.holds(until + (2 << LEASE_SHIFT)));
    }

    #[test]
    fn a_smaller_window_never_leaves_more(small in 0u32..200, more in 0u32..200, own in 0u32..300) {
        for per in [Per::Source, Per::Tenant, Per::Service] {
            let limit = limit(per, own);
            prop_assert!(left(small, &limit) <= left(small + more, &limit));
            prop_assert!(left(small, &limit) <= own.into());
        }
    }
}
