//! The laws of leases on up to 128 simulated CPUs, some of which fall silent while they hold one.

use super::*;
use crate::{
    gcra::{Price, ticks},
    table::{Add, Commit, LATE, Look, WAYS, check, commit_among},
};
use proptest::prelude::*;
use shuttle::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::SeqCst},
};
use std::{cell::Cell, format, vec, vec::Vec};

const SECOND: u64 = 1_000_000_000;
const START: u64 = 1_000 * SECOND;
const KEY: u64 = 7;
const HOLDING: Holding = Holding { epoch: 1, limit: 3, tenant: 0 };

/// A bucket with its slot, which is taken.
struct Bucket(Cell<Ticks>);

impl Look for Bucket {
    fn key(&self, way: usize) -> u64 {
        if way == 0 { KEY } else { 0 }
    }
    fn tat(&self, way: usize) -> Ticks {
        if way == 0 { self.0.get() } else { 0 }
    }
}

impl Set for Bucket {
    fn set_key(&self, _: usize, _: u64) {
        unreachable!("the slot is taken");
    }
    fn swap_tat(&self, _: usize, old: Ticks, new: Ticks) -> bool {
        (self.0.get() == old).then(|| self.0.set(new)).is_some()
    }
    fn refund(&self, _: usize, _: Ticks) {
        unreachable!("nobody else is at the bucket");
    }
}

impl Add for Bucket {
    fn add(&self, _: usize, _: Ticks) -> Ticks {
        unreachable!("no race is lost");
    }
}

/// Judges a packet on a CPU that has this lease, as the kernel program does.
fn admit<S: Add>(set: &S, lease: &mut Lease, batch: Ticks, request: &Request) -> bool {
    if lease.holding == HOLDING.word()
        && let Some(next) = lease.after(request.now, request.cost)
    {
        lease.next = next;
        return true;
    }
    let seen = check(set, request);
    if batch > 0
        && HOLDING.may_replace(lease, request.now)
        && let Some((renewed, _)) = renew(set, request, seen, (lease, HOLDING), batch)
    {
        *lease = renewed;
        return true;
    }
    matches!(commit_among(set, request, seen, Some(LATE)), Commit::Charged(_))
}

/// A host of so many CPUs under one limit that they share; and what the packets that it admitted owe by themselves.
struct Host {
    bucket: Bucket,
    leases: Vec<Lease>,
    price: Price,
    depth: Ticks,
    batch: Ticks,
    now: u64,
    owed: Ticks,
    /// Packets that found a lease.
    leased: u64,
}

impl Host {
    fn new(cpus: u32, rate: u64, burst: u64) -> Self {
        let price = Price::of_rate(rate, SECOND, 64).unwrap();
        let depth = price.depth(burst).unwrap();
        let batch = batch(price.cost(1), depth, cpus);
        let (bucket, leases) = (Bucket(Cell::new(0)), vec![Lease::default(); cpus as usize]);
        Self { bucket, leases, price, depth, batch, now: START, owed: 0, leased: 0 }
    }

    fn wait(&mut self, nanos: u64) {
        self.now += nanos;
        self.owed = self.owed.saturating_sub(ticks(nanos));
    }

    /// Has a CPU judge a packet of so many units. Whatever it decides, the law holds.
    fn judge(&mut self, cpu: usize, units: u32) -> bool {
        let cost = self.price.cost(units);
        let request = Request { key: KEY, now: ticks(self.now), cost, depth: self.depth, ways: WAYS };
        let before = self.bucket.0.get();
        let admitted = admit(&self.bucket, &mut self.leases[cpu], self.batch, &request);
        if admitted {
            self.leased += u64::from(self.bucket.0.get() == before);
            self.owed += cost;
            assert!(self.owed <= self.depth, "more than burst + rate x time: {} ticks", self.owed - self.depth);
        }
        admitted
    }

    /// Offers packets of one unit at this many times the rate for so long, each on the CPU that it is told; gives how many
    /// were admitted, and how many the burst and the rate are.
    fn offer(&mut self, times: u64, nanos: u64, mut cpu: impl FnMut(u64) -> usize) -> (f64, f64) {
        let unit = self.price.cost(1) as f64 / TICKS_PER_NANO as f64;
        let (gap, begin) = (self.price.cost(1) / TICKS_PER_NANO / times, self.now);
        let mut admitted = 0;
        for number in 0.. {
            if self.now >= begin + nanos {
                break;
            }
            admitted += u64::from(self.judge(cpu(number), 1));
            self.wait(gap);
        }
        let full = self.depth as f64 / TICKS_PER_NANO as f64;
        (admitted as f64, (full + nanos as f64) / unit)
    }
}

fn agree((admitted, entitled): (f64, f64), what: &str) {
    assert!(admitted >= 0.99 * entitled && admitted <= entitled + 1.0, "{what}: {admitted} of {entitled}");
}

/// Hosts of some CPUs to many, under a limit with a burst of one second, the least that has whole batches, and the least
/// that has leases at all.
fn hosts() -> impl Iterator<Item = (u32, Host)> {
    let shared = |batch: u64, cpus: u32| batch * PART * u64::from(cpus);
    let bursts = move |cpus| [200_000, shared(10, cpus), shared(FEWEST, cpus)];
    let hosts = move |cpus| bursts(cpus).map(|burst| (cpus, Host::new(cpus, 200_000, burst)));
    [1, 2, 5, 32, 128].into_iter().flat_map(hosts)
}

proptest! {
    #[test]
    fn never_admits_more_than_burst_and_rate(
        cpus in 1u32..=128,
        rate in 100_000u64..5_000_000,
        batch in 1u64..20,
        arrivals in prop::collection::vec(
            (prop_oneof![4 => 0u64..200, 2 => 0u64..60_000, 1 => 0u64..2 * SECOND], any::<u8>(), 1u32..64, 1u16..400),
            1..60,
        ),
    ) {
        let mut host = Host::new(cpus, rate, batch * PART * u64::from(cpus));
        for (gap, cpu, units, packets) in arrivals {
            let cpu = usize::from(cpu) % cpus as usize;
            for _ in 0..packets {
                host.judge(cpu, units);
            }
            host.wait(gap);
        }
    }

    #[test]
    fn nor_where_all_that_is_due_comes_at_once_after_some_silence(
        cpus in 2u32..=128, batch in FEWEST..20, silence in 0u64..100_000, woken in 1usize..128,
    ) {
        let burst = batch * PART * u64::from(cpus);
        let mut host = Host::new(cpus, 1_000_000, burst);
        (0..cpus as usize).for_each(|cpu| assert!(host.judge(cpu, 1)));
        host.wait(silence);
        while host.judge(0, 64) {}
        (1..woken.min(cpus as usize)).for_each(|cpu| while host.judge(cpu, 1) {});
    }

    #[test]
    fn a_lease_is_worth_no_more_than_its_span(
        begin in any::<u64>(), span in 0u64..BATCH, spent in 0u64..BATCH, after in 0u64..2 * BATCH, cost in 1u64..BATCH,
    ) {
        let (next, end) = (begin.wrapping_add(spent.min(span)), begin.wrapping_add(span));
        let (lease, now) = (Lease { next, end, ..Lease::default() }, begin.wrapping_add(after));
        prop_assert_eq!(lease.left(now), span.saturating_sub(after.max(spent.min(span))));
        prop_assert_eq!(lease.after(now, cost).is_some(), cost <= lease.left(now));
    }
}

#[test]
fn all_cpus_together_get_what_they_are_entitled_to() {
    for (cpus, mut host) in hosts() {
        assert!(host.batch > 0, "{cpus} CPUs have no leases");
        let offered = host.offer(3, SECOND, |number| (number % u64::from(cpus)) as usize);
        agree(offered, &format!("{cpus} CPUs"));
    }
}

#[test]
fn a_source_whose_packets_all_reach_one_cpu_gets_all_of_it() {
    for (cpus, mut host) in hosts() {
        // The others have just taken theirs.
        (0..cpus as usize).for_each(|cpu| assert!(host.judge(cpu, 1)));
        let burst = host.depth / host.price.cost(1);
        let at_once = (0..burst).filter(|_| host.judge(0, 1)).count();
        let burst = burst as f64;
        agree((f64::from(cpus) + at_once as f64, burst), &format!("at once, on one of {cpus} CPUs"));
        let (admitted, entitled) = host.offer(3, SECOND, |_| 0);
        agree((admitted, entitled - burst), &format!("then, on one of {cpus} CPUs"));
    }
}

#[test]
fn what_silent_cpus_hold_comes_back_as_time_passes() {
    for (cpus, mut host) in hosts() {
        agree(host.offer(3, SECOND, |number| (number % u64::from(cpus)) as usize), "before");
        host.wait(host.depth / TICKS_PER_NANO);
        // Nothing is owed any more, whatever is in leases.
        let burst = host.depth as f64 / host.price.cost(1) as f64;
        let at_once = (0..250_000).filter(|_| host.judge(0, 1)).count();
        agree((at_once as f64, burst), &format!("at once, of {cpus} CPUs"));
    }
}

#[test]
fn cpus_that_fall_silent_with_every_lease_cost_less_than_a_hundredth() {
    for (cpus, mut host) in hosts() {
        // One is busy, and the others wake up seldom, for one packet each.
        let seldom = |number: u64| if number.is_multiple_of(200) { number / 200 % u64::from(cpus) } else { 0 };
        agree(host.offer(3, SECOND, |number| seldom(number) as usize), &format!("one and {cpus} others"));
    }
    for (cpus, mut host) in hosts() {
        // One after the other has its turn, and is silent until all others had theirs.
        let turns = |number: u64| (number / 40 % u64::from(cpus)) as usize;
        agree(host.offer(3, SECOND, turns), &format!("{cpus} CPUs by turns"));
    }
}

#[test]
fn most_packets_of_a_busy_cpu_find_a_lease() {
    for (cpus, mut host) in hosts() {
        let burst = host.depth / host.price.cost(1);
        (0..burst / 2).for_each(|_| assert!(host.judge(0, 1), "one of {cpus} CPUs"));
        assert!(host.leased * FEWEST >= burst / 2 * (FEWEST - 1), "{} of {burst} packets", host.leased);
    }
}

#[test]
fn all_that_cpus_hold_is_less_than_a_hundredth_of_the_depth() {
    for cpus in [1, 2, 127, 128, 512] {
        for (packet, depth) in [(256, 1 << 20), (256, 1 << 40), (DEAREST, 1 << 40), (2, 12_345_678)] {
            assert!(u128::from(batch(packet, depth, cpus)) * u128::from(cpus) * 100 < depth.into());
        }
    }
    assert_eq!(batch(256, 1 << 40, 0), 0, "of no CPUs nothing is known");
}

#[test]
fn slow_limits_and_shallow_ones_are_charged_directly() {
    let packets = |rate: u64, burst| {
        let price = Price::of_rate(rate, SECOND, 1).unwrap();
        batch(price.cost(1), price.depth(burst).unwrap(), 2) / price.cost(1)
    };
    assert_eq!([packets(99_999, 99_999), packets(100_000, 100_000), packets(1_000_000, 1_000_000)], [0, 5, 50]);
    // A burst of 1 000 is none that eight batches of four and more would be a small part of.
    assert_eq!([packets(1_000_000, 1_000), packets(1_000_000, 1_024), packets(1_000_000, 2_048)], [0, 4, 8]);
}

#[test]
fn a_packet_takes_what_is_left_and_the_rest_from_the_next_lease() {
    let (now, cost) = (ticks(START), 3_000);
    let bucket = Bucket(Cell::new(now + 50_000));
    let request = Request { key: KEY, now, cost, depth: 1 << 30, ways: WAYS };
    let held = Lease { holding: HOLDING.word(), next: now + 9_000, end: now + 10_000, padding: 0 };
    let (lease, wanted) = renew(&bucket, &request, check(&bucket, &request), (&held, HOLDING), 20_000).unwrap();
    assert_eq!((wanted, lease.next, lease.end), (2_000, now + 52_000, now + 72_000));
    assert_eq!(bucket.0.get(), lease.end);
    // One of another policy is not worth anything.
    let held = Lease { holding: Holding { epoch: 0, ..HOLDING }.word(), ..held };
    let (lease, wanted) = renew(&bucket, &request, check(&bucket, &request), (&held, HOLDING), 20_000).unwrap();
    assert_eq!((wanted, lease.next, lease.end), (cost, now + 75_000, now + 95_000));
}

#[test]
fn where_there_is_no_room_for_a_batch_a_packet_is_charged_by_itself() {
    let now = ticks(START);
    let bucket = Bucket(Cell::new(now + 90_000));
    let request = Request { key: KEY, now, cost: 3_000, depth: 100_000, ways: WAYS };
    let mut lease = Lease::default();
    let admitted = (0..9).filter(|_| admit(&bucket, &mut lease, 20_000, &request)).count();
    assert_eq!((admitted, bucket.0.get(), lease), (3, now + 99_000, Lease::default()));
}

#[test]
fn buckets_that_meet_in_a_place_take_turns() {
    let tenant = |tenant| Holding { tenant, ..HOLDING };
    assert_eq!(tenant(1).slot(2), tenant(1 + SLOTS as u16).slot(2));
    let lease = Lease { holding: tenant(1).word(), next: 1_000, end: 2_000, padding: 0 };
    let may = |holding: Holding, now| holding.may_replace(&lease, now);
    assert!(may(tenant(1), 1_500) && !may(tenant(1 + SLOTS as u16), 1_500));
    assert!(may(tenant(1 + SLOTS as u16), 2_000), "it has lapsed");
    assert!(may(Holding { epoch: 2, ..tenant(9) }, 1_500), "it is of a past policy");
}

/// A bucket that CPUs race for.
struct Contended(AtomicU64);

impl Look for Contended {
    fn key(&self, way: usize) -> u64 {
        if way == 0 { KEY } else { 0 }
    }
    fn tat(&self, way: usize) -> Ticks {
        if way == 0 { self.0.load(SeqCst) } else { 0 }
    }
}

impl Set for Contended {
    fn set_key(&self, _: usize, _: u64) {
        unreachable!("the slot is taken");
    }
    fn swap_tat(&self, _: usize, old: Ticks, new: Ticks) -> bool {
        self.0.compare_exchange(old, new, SeqCst, SeqCst).is_ok()
    }
    fn refund(&self, _: usize, cost: Ticks) {
        self.0.fetch_sub(cost, SeqCst);
    }
}

impl Add for Contended {
    fn add(&self, _: usize, cost: Ticks) -> Ticks {
        self.0.fetch_add(cost, SeqCst)
    }
}

/// Three CPUs judge six packets each of a bucket that holds ten, and take so much ahead; gives how many were admitted.
fn race(batch: Ticks) -> usize {
    let bucket = Arc::new(Contended(AtomicU64::new(ticks(START))));
    let cpus = [(); 3].map(|()| {
        let bucket = bucket.clone();
        shuttle::thread::spawn(move || {
            let mut lease = Lease::default();
            let request = Request { key: KEY, now: ticks(START), cost: 100, depth: 1_000, ways: WAYS };
            (0..6).filter(|_| admit(&*bucket, &mut lease, batch, &request)).count()
        })
    });
    cpus.into_iter().map(|cpu| cpu.join().expect("no CPU panics")).sum()
}

#[test]
fn cpus_that_race_for_leases_share_one_burst() {
    shuttle::check_random(
        || {
            let admitted = race(200);
            // Two may have kept two for packets that did not come.
            assert!((6..=10).contains(&admitted), "{admitted} admitted of a burst of 10");
        },
        5_000,
    );
}

#[test]
fn so_they_do_where_none_is_to_be_had() {
    shuttle::check_random(
        || {
            let admitted = race(0);
            // Two may have been refused because of a charge that was about to be taken back.
            assert!((8..=10).contains(&admitted), "{admitted} admitted of a burst of 10");
        },
        10_000,
    );
}
