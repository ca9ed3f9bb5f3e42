//! The kernel programs of the tests themselves, from `tests/ebpf`.

use anyhow::{Context, Result};
use aya::{Ebpf, EbpfLoader, programs::Xdp};
use std::path::Path;

pub use records::{Arrivals, Loss, NEVER, Order, Received, Sent, xorshift};

#[path = "../ebpf/src/traffic.rs"]
mod records;

static OBJECT: &[u8] = aya::include_bytes_aligned!(env!("THROTTLE_TESTS_OBJECT"));

// SAFETY: `#[repr(C)]`, only integers without padding between them, valid for any bytes; so are the next four.
unsafe impl aya::Pod for Order {}
// SAFETY: as above.
unsafe impl aya::Pod for Sent {}
// SAFETY: as above.
unsafe impl aya::Pod for Received {}
// SAFETY: as above.
unsafe impl aya::Pod for Loss {}
// SAFETY: as above.
unsafe impl aya::Pod for Arrivals {}

/// Loads the object with maps of its own; `lru_entries` sizes the LRU baseline's map, which is preallocated.
pub fn load(lru_entries: u32) -> Result<Ebpf> {
    EbpfLoader::new().map_max_entries("LRU", lru_entries).load(OBJECT).context("load the kernel programs of the tests")
}

/// Loads the object with these maps of an agent's, by the directory in which it pins them.
pub fn load_beside(pin_dir: &Path, maps: &[&str]) -> Result<Ebpf> {
    let mut loader = EbpfLoader::new();
    loader.map_max_entries("LRU", 64);
    for map in maps {
        loader.map_pin_path(map, pin_dir.join("maps").join(map));
    }
    loader.load(OBJECT).context("load the kernel programs of the tests with an agent's maps")
}

/// Loads one of its XDP programs into the kernel.
pub fn xdp<'a>(object: &'a mut Ebpf, name: &str) -> Result<&'a mut Xdp> {
    let program = object.program_mut(name).with_context(|| format!("no program {name} in the object"))?;
    let program: &mut Xdp = program.try_into()?;
    program.load().with_context(|| format!("load {name}"))?;
    Ok(program)
}
