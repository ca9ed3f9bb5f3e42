use throttle_common::{gcra, records::name_bytes, windows};

use super::*;

fn region(base: u32, sets: u32) -> Region {
    Region { base, sets, prefix: 32, aggregate: 24, doubled: 0, compartments: 0 }
}

fn limit(name: &str, per_second: u64, base: u32) -> Limit {
    let price = Price::of_rate(per_second, 1_000_000_000, 1).unwrap();
    Limit {
        price,
        depth: price.depth(per_second).unwrap(),
        v4: region(base, 10),
        name: name_bytes(name),
        ..Limit::NONE
    }
}

fn held(number: u16, record: Limit) -> HeldLimit {
    HeldLimit { number, record }
}

fn scale(repriced: &Reprice) -> Scale {
    Scale::between(&repriced.before.terms(), &repriced.limit.terms())
}

#[test]
fn an_unchanged_limit_keeps_its_buckets_as_they_are() {
    let limit = limit("a", 10, 0);
    assert_eq!(plan(&[held(0, limit)], &[(0, limit)]).unwrap(), Plan::default());
}

#[test]
fn a_limit_that_goes_frees_its_region_once() {
    let plan = plan(&[held(3, limit("a", 10, 0))], &[]).unwrap();
    assert_eq!(plan, Plan { freed: vec![region(0, 10)], ..Plan::default() });
}

#[test]
fn a_new_prefix_length_is_a_new_region_elsewhere() {
    let old = limit("a", 10, 0);
    let mut new = limit("a", 10, 20);
    new.v4.prefix = 24;
    assert_eq!(plan(&[held(0, old)], &[(0, new)]).unwrap().freed, [old.v4]);
    new.v4.base = 9;
    assert!(plan(&[held(0, old)], &[(0, new)]).is_err());
}

#[test]
fn another_unit_in_the_same_place_is_another_region() {
    let old = limit("a", 10, 0);
    let new = Limit { unit: 1, ..old };
    assert!(plan(&[held(0, old)], &[(0, new)]).is_err());
}

#[test]
fn what_a_window_has_used_means_nothing_to_another_one_or_to_a_bucket() {
    let windowed = |seconds: u64, base| {
        let window = gcra::ticks(seconds * 1_000_000_000);
        let (price, depth) = windows::price(100, window).unwrap();
        let algorithm = throttle_common::words::Algorithm::FixedWindow as u8;
        Limit { price, depth, window, algorithm, ..limit("a", 10, base) }
    };
    let (minute, bucket) = (windowed(60, 0), limit("a", 10, 0));
    for (old, new) in [(bucket, windowed(60, 20)), (minute, limit("a", 10, 20)), (minute, windowed(61, 20))] {
        assert_eq!(plan(&[held(0, old)], &[(0, new)]).unwrap().freed, [old.v4]);
    }
    assert!(plan(&[held(0, bucket)], &[(0, minute)]).is_err(), "in the same place");
    // Of the same window, another amount: as many are used as before.
    let (price, depth) = windows::price(200, minute.window).unwrap();
    let more = Limit { price, depth, ..minute };
    let repriced = plan(&[held(0, minute)], &[(0, more)]).unwrap().repriced;
    assert_eq!(scale(&repriced[0]).debt(70 * minute.price.cost(1)), 70 * price.cost(1));
}

#[test]
fn second_words_belong_to_the_region() {
    let doubled = Region { doubled: 1, ..region(0, 10) };
    assert!(overlap(&doubled, &region(19, 1)) && !overlap(&doubled, &region(20, 1)));
    let sliding = Limit { v4: doubled, ..limit("a", 10, 0) };
    assert_eq!(unused(&[held(0, sliding)], 30), [(20, 10)]);
}

#[test]
fn a_bucket_goes_on_owing_as_many_units() {
    let (old, new) = (limit("a", 1000, 0), limit("a", 10, 0));
    let plan = plan(&[held(0, old)], &[(0, new)]).unwrap();
    let scale = scale(&plan.repriced[0]);
    assert_eq!(scale.debt(old.price.cost(1) * 5), new.price.cost(1) * 5);
    assert_eq!(scale.debt(0), 0);
}

#[test]
fn what_sources_share_is_expressed_anew_once_whatever_their_families() {
    let shared = |rate| {
        let limit = limit("a", rate, 0);
        Limit { v6: limit.v4, per: throttle_common::words::Per::Host as u8, ..limit }
    };
    assert_eq!(plan(&[held(0, shared(1_000))], &[(0, shared(10))]).unwrap().repriced.len(), 1);
    assert_eq!(plan(&[held(0, shared(1_000))], &[]).unwrap().freed.len(), 1);
}

#[test]
fn a_bucket_never_owes_more_than_it_is_deep() {
    let (old, new) = (limit("a", 1000, 0), limit("a", 10, 0));
    let scale = Scale::between(&old.terms(), &new.terms());
    assert_eq!(scale.debt(old.depth), new.depth);
}

#[test]
fn a_debt_that_the_limit_allows_is_left_alone() {
    let terms = limit("a", 10, 0).terms();
    let scale = Scale::between(&terms, &terms).up_to(1_000);
    assert_eq!([0, 998, 1_000, 1_002].map(|debt| scale.debt(debt)), [0, 998, 1_000, 1_000]);
}

#[test]
fn a_number_with_another_name_starts_counting_anew() {
    let plan = plan(&[held(0, limit("a", 10, 0))], &[(0, limit("b", 10, 20)), (1, limit("a", 10, 0))]).unwrap();
    assert_eq!(plan.renamed, [0, 1]);
}

#[test]
fn what_belongs_to_no_limit_is_unused() {
    let limits = [held(0, limit("a", 10, 5)), held(1, limit("b", 10, 20))];
    assert_eq!(unused(&limits, 40), [(0, 5), (15, 5), (30, 10)]);
    assert_eq!(unused(&[], 40), [(0, 40)]);
    assert_eq!(unused(&[held(0, limit("a", 10, 0))], 10), []);
}

fn compiled(limits: Vec<(u16, Limit)>) -> Compiled {
    Compiled { limits, ..super::super::load::observing() }
}

#[test]
fn refuses_regions_that_meet_or_lie_beyond_the_table() {
    assert!(check(&compiled(vec![(0, limit("a", 10, 0)), (1, limit("b", 10, 10))]), 20).is_ok());
    let meeting = check(&compiled(vec![(0, limit("a", 10, 0)), (1, limit("b", 10, 9))]), 20);
    assert!(meeting.unwrap_err().to_string().contains("also that of limit a"));
    assert!(check(&compiled(vec![(0, limit("a", 10, 11))]), 20).is_err());
}

#[test]
fn refuses_a_scope_with_a_limit_that_does_not_exist() {
    let mut policy = compiled(vec![(0, limit("a", 10, 0))]);
    policy.policy.scope.count = 1;
    policy.policy.scope.limits[0] = 1;
    assert!(check(&policy, 20).is_err());
}
