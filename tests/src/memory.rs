//! The memory of a map, as the kernel programs have it.

use anyhow::{Result, ensure};
use aya::maps::MapData;
use std::{
    os::fd::{AsFd as _, AsRawFd as _},
    ptr,
    sync::atomic::AtomicU64,
};

/// The words of an array that can be mapped. They stay mapped.
pub fn words(map: &MapData) -> Result<&'static [AtomicU64]> {
    let (info, own) = (map.info()?, map.fd().as_fd().as_raw_fd());
    let length = info.max_entries() as usize * info.value_size() as usize;
    // SAFETY: nothing is asked to lie at a place of ours, and the result is checked.
    let memory =
        unsafe { libc::mmap(ptr::null_mut(), length, libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED, own, 0) };
    ensure!(memory != libc::MAP_FAILED, "map the words of a map: {}", std::io::Error::last_os_error());
    // SAFETY: so many bytes are mapped, from a page on, and nobody takes them back.
    Ok(unsafe { std::slice::from_raw_parts(memory.cast(), length / size_of::<u64>()) })
}
