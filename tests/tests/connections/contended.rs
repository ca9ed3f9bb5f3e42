//! A bucket that all sources share is changed without a pause by somebody else.

use super::{
    eventually,
    host::{Host, sockets},
};
use anyhow::{Context as _, Result, ensure};
use aya::maps::MapData;
use std::{
    collections::VecDeque,
    sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    thread,
};
use throttle_common::{connections::PLACE, records::maps};
use throttle_tests::{memory, needs_root, wire::FAR_V4};

/// So many connect meanwhile, and so many of them stay open.
const CALLS: u64 = 2_000;
const LAST: usize = 50;
/// Places that somebody else takes and gives back.
const OTHERS: u64 = 1_000;
const SHARED: &str = "concurrent = 10000\nper = \"service\"\naction = \"reject\"";

#[test]
fn nobody_goes_on_without_a_place_because_others_keep_changing_a_shared_bucket() -> Result<()> {
    needs_root!();
    let mut host = Host::new()?;
    let listener = host.listen_deep(FAR_V4)?;
    let to = listener.local_addr()?;
    host.limit(to.port(), &[SHARED])?;
    // One that stays, so that the bucket is never one for anybody to take over.
    let _first = (host.connect(None, to)??, listener.accept()?);
    eventually(&1, || Ok(host.open(0)))?;
    let (bucket, done) = (bucket_with_a_place(&host)?, AtomicBool::new(false));
    let mut last = VecDeque::new();
    thread::scope(|scope| -> Result<()> {
        scope.spawn(|| {
            // Whoever has looked often does not find it as it was.
            while !done.load(SeqCst) {
                (0..OTHERS).for_each(|_| _ = bucket.fetch_add(PLACE, SeqCst));
                bucket.fetch_sub(OTHERS * PLACE, SeqCst);
            }
        });
        let called = (0..CALLS).try_for_each(|_| {
            last.push_back((host.connect(None, to)?.context("there is room")?, listener.accept()?));
            if last.len() > LAST {
                last.pop_front();
            }
            Ok(())
        });
        done.store(true, SeqCst);
        called
    })?;
    let (tally, open) = (host.tally(0)?, 1 + LAST as u64);
    ensure!((tally.admitted.packets, tally.refused.packets) == (1 + CALLS, 0), "{tally:?}");
    eventually(&(open, open), || {
        host.reconcile()?;
        Ok((sockets(&host.wire.far, to.port(), None)?, host.open(0)))
    })
}

/// The bucket in which one place is taken, as the kernel programs have it. It stays mapped.
fn bucket_with_a_place(host: &Host) -> Result<&'static AtomicU64> {
    let map = MapData::from_pin(host.pin_dir().join("maps").join(maps::BUCKETS))?;
    // A slot is a key and a bucket.
    memory::words(&map)?
        .iter()
        .skip(1)
        .step_by(2)
        .find(|bucket| bucket.load(SeqCst) == PLACE)
        .context("no place is taken")
}
