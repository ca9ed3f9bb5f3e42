//! The kernel programs that throttle is tested with and compared to.
//!
//! `vary`, `enter`, `drop`, `drop_flood`, `parse_clock`, `lru_hash`, `note` and `turn` belong to the benchmark, `generate`,
//! `pass` and `count` to tests with traffic, `dawdle` to those of policies that change, `lose` to those of faults. All share
//! `throttle_common`, so that they see a packet as throttle does.
#![no_std]
#![no_main]

mod baseline;
mod dawdle;
mod frame;
mod generate;
mod handshake;
mod lose;
mod traffic;

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 4] = *b"GPL\0";
