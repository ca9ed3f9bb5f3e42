//! A bucket that all sources share is changed without a pause by somebody else.

use super::{
    eventually,
    host::{Host, sockets},
};
use anyhow::{Context as _, Result, ensure};
use aya::maps::MapData;
use std::{
    collections::VecDeque,
    os::fd::{AsFd as _, AsRawFd as _},
    ptr,
    sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    thread,
};
use throttle_common::{connections::PLACE, records::maps};
use throttle_tests::{machine, needs_root, say, wire::FAR_V4};

/// So many are to lose every race.
const LOST: u64 = 20;
/// So many stay open.
const LAST: usize = 50;
/// Places that somebody else takes and gives back.
const OTHERS: u64 = 1_000;
const SHARED: &str = "concurrent = 10000\nper = \"service\"\naction = \"reject\"";

#[test]
fn who_loses_every_race_for_a_shared_bucket_is_not_refused() -> Result<()> {
    needs_root!();
    if machine::takes_turns()? {
        say!(
            "skipped who_loses_every_race_for_a_shared_bucket_is_not_refused: emulated CPUs take turns, and lose no race"
        );
        return Ok(());
    }
    let mut host = Host::new()?;
    let listener = host.listen_deep(FAR_V4)?;
    let to = listener.local_addr()?;
    host.limit(to.port(), &[SHARED])?;
    // One that stays, so that the bucket is never one for anybody to take over.
    let _first = (host.connect(None, to)??, listener.accept()?);
    eventually(&1, || Ok(host.open(0)))?;
    let (bucket, done) = (bucket_with_a_place(&host)?, AtomicBool::new(false));
    let (mut last, mut calls) = (VecDeque::new(), 1);
    thread::scope(|scope| -> Result<()> {
        scope.spawn(|| {
            // Whoever has looked never finds it as it was.
            while !done.load(SeqCst) {
                (0..OTHERS).for_each(|_| _ = bucket.fetch_add(PLACE, SeqCst));
                bucket.fetch_sub(OTHERS * PLACE, SeqCst);
            }
        });
        let called = eventually(&true, || {
            last.push_back((host.connect(None, to)?.context("there is room")?, listener.accept()?));
            calls += 1;
            if last.len() > LAST {
                last.pop_front();
            }
            Ok(last.len() == LAST && host.tally(0)?.admitted.packets + LOST <= calls)
        });
        done.store(true, SeqCst);
        called
    })?;
    let (tally, open) = (host.tally(0)?, 1 + LAST as u64);
    say!("{calls} connections, {} of which had lost no race", tally.admitted.packets);
    ensure!(tally.refused.packets == 0, "{tally:?}");
    eventually(&(open, open), || {
        host.reconcile()?;
        Ok((sockets(&host.wire.far, to.port(), None)?, host.open(0)))
    })
}

/// The bucket in which one place is taken, as the kernel programs have it. It stays mapped.
fn bucket_with_a_place(host: &Host) -> Result<&'static AtomicU64> {
    let map = MapData::from_pin(host.pin_dir().join("maps").join(maps::BUCKETS))?;
    let (info, own) = (map.info()?, map.fd().as_fd().as_raw_fd());
    let length = info.max_entries() as usize * info.value_size() as usize;
    // SAFETY: nothing is asked to lie at a place of ours, and the result is checked.
    let memory =
        unsafe { libc::mmap(ptr::null_mut(), length, libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED, own, 0) };
    ensure!(memory != libc::MAP_FAILED, "map the buckets: {}", std::io::Error::last_os_error());
    // SAFETY: so many bytes are mapped, from a page on, and nobody takes them back.
    let words: &'static [AtomicU64] = unsafe { std::slice::from_raw_parts(memory.cast(), length / size_of::<u64>()) };
    // A slot is a key and a bucket.
    words.iter().skip(1).step_by(2).find(|bucket| bucket.load(SeqCst) == PLACE).context("no place is taken")
}
