//! Arrays of the kernel, mapped into our memory.
//!
//! The kernel programs and the agent read and write the same bytes. A map update by system call replaces a whole
//! element and so loses what a packet wrote meanwhile; through the mapping each word is stored, or compared and
//! swapped, on its own.

use std::{
    marker::PhantomData,
    mem::MaybeUninit,
    os::fd::{AsFd, AsRawFd},
    sync::atomic::{AtomicU64, Ordering, Ordering::SeqCst},
};

use anyhow::{Context, Result, ensure};
use aya::{Pod, maps::MapData};
use memmap2::{MmapOptions, MmapRaw};
use throttle_common::{
    gcra::Ticks,
    table::{Look, Set},
};

/// Elements of `T`, each a whole number of 64-bit words.
pub(super) struct MappedArray<T> {
    memory: MmapRaw,
    length: u32,
    element: PhantomData<T>,
}

impl<T: Pod> MappedArray<T> {
    const WORDS: usize = {
        assert!(size_of::<T>().is_multiple_of(8) && align_of::<T>() <= 8);
        size_of::<T>() / 8
    };

    /// Maps an array that was created with `BPF_F_MMAPABLE`. The mapping keeps the map alive.
    pub(super) fn new(map: &MapData) -> Result<Self> {
        let info = map.info()?;
        let name = info.name_as_str().unwrap_or("?").to_owned();
        ensure!(
            info.value_size() as usize == size_of::<T>(),
            "map {name}: its elements have {} bytes, this build knows {}",
            info.value_size(),
            size_of::<T>()
        );
        let length = info.max_entries();
        let memory = MmapOptions::new()
            .len(length as usize * size_of::<T>())
            .map_raw(map.fd().as_fd().as_raw_fd())
            .with_context(|| format!("cannot map the array {name} into memory"))?;
        Ok(Self { memory, length, element: PhantomData })
    }

    /// How many elements there are.
    pub(super) fn len(&self) -> u32 {
        self.length
    }

    /// The words of one element.
    pub(super) fn words(&self, index: u32) -> &[AtomicU64] {
        &self.all()[index as usize * Self::WORDS..][..Self::WORDS]
    }

    /// The words of a run of elements.
    pub(super) fn run(&self, first: u32, count: u32) -> &[AtomicU64] {
        &self.all()[first as usize * Self::WORDS..][..count as usize * Self::WORDS]
    }

    fn all(&self) -> &[AtomicU64] {
        // SAFETY: the mapping starts on a page, holds `length` elements of `WORDS` words, and lives as long as `self`.
        // The kernel changes it at any time, which is what atomics are for.
        unsafe { std::slice::from_raw_parts(self.memory.as_ptr().cast(), self.length as usize * Self::WORDS) }
    }

    /// One element, word by word: of what changes while it is read, old and new words may be mixed.
    pub(super) fn get(&self, index: u32) -> T {
        let mut value = MaybeUninit::<T>::uninit();
        let to = value.as_mut_ptr().cast::<u64>();
        for (place, word) in self.words(index).iter().enumerate() {
            // SAFETY: `T` is `WORDS` words long; it may be aligned to less than a word.
            unsafe { to.add(place).write_unaligned(word.load(Ordering::Relaxed)) };
        }
        // SAFETY: every byte is written, and a `Pod` is valid whatever its bytes.
        unsafe { value.assume_init() }
    }

    /// Stores one element, word by word.
    pub(super) fn set(&self, index: u32, value: &T) {
        let from = (&raw const *value).cast::<u64>();
        for (place, word) in self.words(index).iter().enumerate() {
            // SAFETY: as in `get`; the records have no padding, so every byte is initialised.
            word.store(unsafe { from.add(place).read_unaligned() }, Ordering::Relaxed);
        }
    }
}

/// The bytes of records, which have no padding.
pub(super) fn bytes_of<T: Pod>(records: &[T]) -> &[u8] {
    // SAFETY: the slice's own memory, all of it initialised: a `Pod` of ours asserts that it has no padding.
    unsafe { std::slice::from_raw_parts(records.as_ptr().cast(), size_of_val(records)) }
}

/// The record that the bytes begin with; `None` where they are too few.
pub(super) fn record<T: Pod>(bytes: &[u8]) -> Option<T> {
    let bytes = bytes.get(..size_of::<T>())?;
    // SAFETY: as many bytes as a `T` has, and a `Pod` is valid whatever they are.
    Some(unsafe { bytes.as_ptr().cast::<T>().read_unaligned() })
}

/// A set of the table in mapped memory: of a slot's two words the first is the key.
#[derive(Clone, Copy)]
pub(super) struct MappedSet<'a>(pub(super) &'a [AtomicU64]);

impl<'a> MappedSet<'a> {
    /// The bucket in a slot.
    pub(super) fn bucket(&self, way: usize) -> &'a AtomicU64 {
        &self.0[way * 2 + 1]
    }
}

impl Look for MappedSet<'_> {
    fn key(&self, way: usize) -> u64 {
        self.0[way * 2].load(SeqCst)
    }
    fn tat(&self, way: usize) -> Ticks {
        self.bucket(way).load(SeqCst)
    }
}

impl Set for MappedSet<'_> {
    fn set_key(&self, way: usize, key: u64) {
        self.0[way * 2].store(key, SeqCst);
    }
    fn swap_tat(&self, way: usize, old: Ticks, new: Ticks) -> bool {
        self.bucket(way).compare_exchange(old, new, SeqCst, SeqCst).is_ok()
    }
    fn refund(&self, way: usize, cost: Ticks) {
        self.bucket(way).fetch_sub(cost, SeqCst);
    }
}
